"""Documents as test cases and findings, which is how pipelines see results: for JUnit, SARIF and annotations alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from leaktight.verify.report import schemas
from leaktight.verify.report.schemas import Document

RULES: Mapping[str, tuple[str, str]] = {
    "refuted": ("LT001", "A property is refuted: an input in its region has an unsafe output."),
    "unknown": ("LT002", "Neither a proof nor a counterexample was found."),
    "timeout": ("LT003", "The time ended before a proof or a counterexample was found."),
    "error": ("LT004", "A job could not be answered."),
    "requirement": ("LT005", "What the suite requires of an answer does not hold."),
    "regression": ("LT006", "A number got worse than in the baseline, by more than the tolerance."),
}
"""What can be found, with identifiers that never change their meaning."""


@dataclass(frozen=True)
class Finding:
    """Something to look at. `fails`: it fails the gate. `about`: tells findings of one rule and job apart."""

    rule: str
    message: str
    fails: bool
    about: str = ""


@dataclass(frozen=True)
class Case:
    """One job, or one result that was given by itself. `path` and `line`: what in the user's files it is about."""

    name: str
    group: str
    status: str
    seconds: float
    findings: tuple[Finding, ...]
    path: str | None
    line: int | None
    result: Mapping[str, Any] | None


def cases(document: Document) -> list[Case]:
    """The cases of a document: one for each job of a run, and for each result of a bundle."""
    if document["schema"] == schemas.BUNDLE:
        return [case for result in document["results"] for case in cases(result)]
    if document["schema"] == schemas.RUN:
        return list(_jobs(document))
    return [_alone(document)]


def _jobs(document: Document) -> Iterator[Case]:
    failures: dict[str, list[Document]] = {}
    for failure in document["gate"]["failures"]:
        failures.setdefault(failure["job"], []).append(failure)
    for job in document["jobs"]:
        mine = failures.get(job["name"], ())
        found = tuple(Finding(one["rule"], one["message"], True, one.get("about", "")) for one in mine)
        status = job["status"]
        if status in RULES and not job["requires"] and status not in [one.rule for one in found]:
            found = (*found, Finding(status, RULES[status][1], False))
        about = job["assertion"] or job["place"]
        yield Case(
            job["name"],
            job["network"]["path"],
            status,
            job["seconds"],
            found,
            about["path"],
            about["line"],
            job["result"],
        )


def _alone(document: Document) -> Case:
    """A result by itself: refuted fails, and what is open is worth a look."""
    statuses = [document["status"]] if "status" in document else [one["status"] for one in document.get("inputs", ())]
    status = next((word for word in ("refuted", "timeout", "unknown", "proved") if word in statuses), "done")
    about = next((document[role].get("path") for role in ("property", "data") if document.get(role)), None)
    network = document.get("network", {}).get("path") or "the network"
    message = document.get("reason") or RULES.get(status, ("", ""))[1]
    findings = (Finding(status, message, status == "refuted"),) if status in RULES else ()
    kind = document["schema"].removeprefix("leaktight.").partition("/")[0]
    name = " ".join([kind, network, *([about] if about else [])])
    return Case(name, network, status, document.get("seconds") or 0.0, findings, about, None, document)
