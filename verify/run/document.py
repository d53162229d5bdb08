"""The document of a run (schema leaktight.run/1), and what its gate says."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leaktight.verify.report.words import counted
from leaktight.verify.run.baseline import Compared
from leaktight.verify.run.runner import Finished, Run
from leaktight.verify.run.suite import Suite
from leaktight.version import __version__

SCHEMA = "leaktight.run/1"
_USUAL = ("refuted", "regression")
_STATUSES = ("proved", "refuted", "unknown", "timeout", "done", "error")
_VERDICTS = ("refuted", "timeout", "unknown")
_SEARCHED = 1 << 24
_OUTPUT = re.compile(rb"\(\s*declare-output\s+([^\s()]+)")


def document(
    suite: Suite, run: Run, *, fail_on: Sequence[str] | None, compared: Compared | None, command_ledger: str
) -> dict[str, Any]:
    """Everything about a run. `fail_on`: what fails its gate; None: the usual, and the exit code says the rest."""
    chosen = fail_on if fail_on is not None else suite.fail_on
    entries = [_entry(one) for one in run.finished]
    counts = Counter(entry["status"] for entry in entries)
    failures = [failure for entry in entries for failure in _failures(entry, chosen if chosen is not None else _USUAL)]
    if compared is not None and (chosen is None or "regression" in chosen):
        failures += compared.failures()
    failed = {failure["job"] for failure in failures}
    for entry in entries:
        entry["passes"] = entry["name"] not in failed
    return {
        "schema": SCHEMA,
        "suite": {"path": shown(suite.path), "sha256": suite.sha256},
        "jobs": entries,
        "counts": {status: counts[status] for status in _STATUSES},
        "gate": {
            "fail_on": list(chosen if chosen is not None else _USUAL),
            "chosen": chosen is not None,
            "passed": not failures and not run.interrupted,
            "failures": failures,
        },
        "baseline": None if compared is None else compared.to_json(),
        "ledger": command_ledger,
        "seconds": round(run.seconds, 6),
        "interrupted": run.interrupted,
        "version": __version__,
    }


def _entry(one: Finished) -> dict[str, Any]:
    job, answer = one.job, one.answer
    requires = [] if answer.document is None else [wanted.judge(answer.document) for wanted in job.requires]
    return {
        "name": job.name,
        "kind": job.kind,
        "tags": list(job.tags),
        "status": answer.status,
        "network": {"path": shown(job.network["path"]), "digest": one.identity},
        "files": {role: shown(path) for role, path in job.files.items()},
        "question": dict(job.question),
        "place": {"path": shown(job.place.path), "line": job.place.line},
        "assertion": _assertion(job.files.get("property")) if answer.status in _VERDICTS else None,
        "requires": requires,
        "error": None if answer.error is None else dict(answer.error),
        "seconds": round(answer.seconds, 6),
        "cached": one.cached,
        "result": None if answer.document is None else dict(answer.document),
    }


def shown(path: str) -> str:
    """A path as others can use it: relative to where the run was started, if it lies below."""
    absolute = os.path.abspath(path)
    inside = os.path.relpath(absolute)
    return absolute if inside.startswith(os.pardir) else Path(inside).as_posix()


def _assertion(path: str | None) -> dict[str, Any] | None:
    """The first assertion about outputs in a VNN-LIB file; None where there is none to be pointed at."""
    if path is None or path.endswith(".gz"):
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_SEARCHED)
    except OSError:
        return None
    names = [re.escape(name) for name in _OUTPUT.findall(text)] or [rb"Y_\d+"]
    output = re.compile(rb"[\s(](" + rb"|".join(names) + rb")[\s()\[]")
    assertions = [match.start() for match in re.finditer(rb"^[^;\n]*\(\s*assert\b", text, re.MULTILINE)]
    for start, end in zip(assertions, [*assertions[1:], len(text)], strict=True):
        if output.search(text, start, end):
            return {"path": shown(path), "line": text.count(b"\n", 0, start) + 1}
    return None


def _failures(entry: Mapping[str, Any], fail_on: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Why a job fails the gate. Where a job requires something, that decides, and not its worst input."""

    def failure(rule: str, message: str, about: str = "") -> dict[str, Any]:
        return {"job": entry["name"], "rule": rule, "message": message, "about": about}

    if entry["error"] is not None:
        yield failure("error", f"{entry['error']['kind']}: {entry['error']['message']}")
    for wanted in entry["requires"]:
        if not wanted["holds"]:
            value = "nothing is proven of it" if wanted["value"] is None else f"it is {_rounded(wanted)}"
            yield failure("requirement", f"{wanted['text']}: {value}", wanted["text"])
    if not entry["requires"] and entry["status"] in fail_on:
        yield failure(entry["status"], _said(entry))


def _rounded(wanted: Mapping[str, Any]) -> str:
    """A value that misses its bound, in as many digits as it takes to see that it does."""
    value = float(wanted["value"])
    bound = wanted["text"].split()[-1]
    return next((text for digits in (6, 9, 12) if (text := f"{value:.{digits}g}") != bound), repr(value))


def _said(entry: Mapping[str, Any]) -> str:
    found = entry["result"]
    if "reason" in found:
        return f"{entry['status']}: {found['reason']}"
    if "inputs" not in found:
        return str(entry["status"])
    wrong = [str(one["index"]) for one in found["inputs"] if one["status"] == entry["status"]]
    more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    return f"{entry['status']}: {len(wrong)} of {len(found['inputs'])} inputs (input {', '.join(wrong[:8])}{more})"


def exit_code(found: Mapping[str, Any]) -> int:
    """What the command line exits with.

    A crash never looks like an answer: 70 where a worker crashed, hung or was killed, 2 where a job could not be used.
    Then 1: the gate failed. Where no gate was chosen: 4 and 3 for jobs without requirements that are open.
    """
    kinds = {entry["error"]["kind"] for entry in found["jobs"] if entry["error"] is not None}
    if found["interrupted"]:
        return 130
    if kinds:
        return 2 if kinds == {"bad input"} else 70
    if not found["gate"]["passed"]:
        return 1
    open_ = {entry["status"] for entry in found["jobs"] if not entry["requires"]}
    if found["gate"]["chosen"]:
        return 0
    return 4 if "timeout" in open_ else 3 if "unknown" in open_ else 0


def summary(found: Mapping[str, Any]) -> str:
    """The run in one line."""
    told = [f"{count} {status}" for status, count in found["counts"].items() if count]
    cached = sum(entry["cached"] for entry in found["jobs"])
    known = f", {cached} of them from the ledger" if cached else ""
    failures = found["gate"]["failures"]
    if found["interrupted"]:
        verdict = "interrupted; --resume goes on from here"
    elif failures:
        first = failures[0]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        verdict = f"the gate FAILED: {first['job']}: {first['message']}{more}"
    else:
        verdict = "the gate passed"
    return f"{counted(len(found['jobs']), 'job')}: {', '.join(told)}{known}; {verdict} ({found['seconds']:.2f} s)"
