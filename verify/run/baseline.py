"""Baselines: an earlier run's document, and what got worse since then, by more than a tolerance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.report.compare import numbers_of
from leaktight.verify.report.read import read
from leaktight.verify.run.runner import Finished

Document = Mapping[str, Any]
# Numbers of answers that are better when they are larger, and when they are smaller; others say nothing.
_LARGER = (
    "margin, proven",
    "smallest margin, proven",
    "proved up to",
    "refuted from",
    "radius, proven",
    "clean accuracy",
    "certified accuracy",
    "attacked accuracy",
    "certified accuracy, worst slope",
    "attacked accuracy, worst slope",
)
_SMALLER = ("open slopes", "lipschitz")
_ORDER = ("refuted", "timeout", "unknown", "proved")


@dataclass(frozen=True)
class Compared:
    """What got worse, and what better. missing: jobs of the baseline that this run does not have. counts: how many of
    the baseline's jobs had each status."""

    path: str
    tolerance: float
    regressions: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    improvements: tuple[dict[str, Any], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "tolerance": self.tolerance,
            "regressions": [dict(one) for one in self.regressions],
            "improvements": [dict(one) for one in self.improvements],
            "counts": dict(self.counts),
            "missing": list(self.missing),
            "added": list(self.added),
        }

    def failures(self) -> list[dict[str, Any]]:
        """The regressions as failures of a gate, in words."""
        return [
            {
                "job": one["job"],
                "rule": "regression",
                "message": _told(one),
                "about": f"{one['entry']} {one['number']}",
            }
            for one in self.regressions
        ]


def read_baseline(path: Path) -> Document:
    """The document of an earlier run.

    Raises UsageError: the file is none.
    """
    found = read(path)
    if found["schema"] != "leaktight.run/1":
        raise UsageError(
            f"--baseline: {path} is a {found['schema']}; give what 'leaktight run --report json=FILE' wrote"
        )
    return found


def compare(baseline: Document, path: Path, finished: Sequence[Finished], tolerance: float) -> Compared:
    """What got worse from the baseline to these answers, job by job, by their names.

    A verdict is worse if it comes earlier in refuted, timeout, unknown, proved. A share (accuracy) is worse if it
    fell by more than `tolerance`, another number if it moved the wrong way by more than `tolerance` of what it was, or
    is not there any more.
    """
    old = {entry["name"]: entry for entry in baseline["jobs"]}
    new = {one.job.name: one for one in finished}
    found: list[dict[str, Any]] = []
    better: list[dict[str, Any]] = []
    for name, one in new.items():
        before, after = old.get(name), one.answer.document
        if before is not None and before["result"] is not None and after is not None:
            found += ({"job": name, **worse} for worse in _worse(before["result"], after, tolerance))
            better += ({"job": name, **_turned(one)} for one in _worse(after, before["result"], tolerance))
    missing = tuple(name for name in old if name not in new)
    added = tuple(name for name in new if name not in old)
    counts = Counter(entry["status"] for entry in old.values())
    return Compared(str(path), tolerance, tuple(found), missing, added, tuple(better), dict(counts))


def _turned(move: dict[str, Any]) -> dict[str, Any]:
    """What is worse in the baseline has got better since."""
    return {**move, "before": move["after"], "after": move["before"]}


def _worse(before: Document, after: Document, tolerance: float) -> Iterator[dict[str, Any]]:
    if before["schema"] != after["schema"]:
        return
    (whole, parts), (whole_now, parts_now) = numbers_of(before), numbers_of(after)
    yield from _moved("", whole, whole_now, tolerance)
    for name, (status, values) in parts.items():
        if name not in parts_now:
            continue
        status_now, values_now = parts_now[name]
        if status in _ORDER and status_now in _ORDER and _ORDER.index(status_now) < _ORDER.index(status):
            yield _move(name, "status", status, status_now)
        yield from _moved(name, values, values_now, tolerance)


def _moved(
    entry: str, before: Mapping[str, float | None], after: Mapping[str, float | None], tolerance: float
) -> Iterator[dict[str, Any]]:
    for number, old in before.items():
        if old is None or number not in (*_LARGER, *_SMALLER) or number not in after:
            continue
        new = after[number]
        allowed = tolerance if "accuracy" in number else tolerance * abs(old)
        if number == "refuted from":  # none is better than any
            lost = new is not None and old - new > allowed
        elif number in _LARGER:
            lost = new is None or old - new > allowed
        else:
            lost = new is None or new - old > allowed
        if lost:
            yield _move(entry, number, old, new)


def _move(entry: str, number: str, before: Any, after: Any) -> dict[str, Any]:
    return {"entry": entry, "number": number, "before": before, "after": after}


def _told(one: Mapping[str, Any]) -> str:
    """``input 17: margin, proven fell from 1.2 to 0.8 (by 0.4)``."""
    where = f"{one['entry']}: " if one["entry"] not in ("", "the property") else ""
    before, after = one["before"], one["after"]
    if one["number"] == "status":
        return f"{where}it was {before} and is {after}"
    if after is None:
        return f"{where}{one['number']} was {before:.6g}, and there is none any more"
    way, size = ("rose", after - before) if after > before else ("fell", before - after)
    return f"{where}{one['number']} {way} from {before:.6g} to {after:.6g} (by {size:.6g})"
