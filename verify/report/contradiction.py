"""Documents that deny themselves: a page of one would show something as proved that its file denies."""

from __future__ import annotations

from leaktight.verify.report.schemas import BOUNDS, BUNDLE, LEAK, LIPSCHITZ, RUN, VERDICT, Document
from leaktight.verify.report.words import places


def contradiction(document: Document) -> str | None:
    """Claims that cannot all hold; a page with them would show something as proved that its file denies."""
    if document["schema"] == BUNDLE:
        return next(filter(None, map(contradiction, document["results"])), None)
    if document["schema"] == RUN:
        return next(filter(None, map(_denied, document["jobs"])), None)
    if document["schema"] == VERDICT and document["status"] == "proved" and document["counterexample"] is not None:
        return "its status is proved, and it has a counterexample"
    if document["schema"] == BOUNDS:
        return next((f"lower and upper of {name!r} differ in shape" for name in _lopsided(document)), None)
    if document["schema"] == LIPSCHITZ:
        upper, lower = document["upper"], document["lower"]
        crossed = upper is not None and lower is not None and lower > upper
        return f"lower is {lower}, above upper, {upper}" if crossed else None
    if document["schema"] != LEAK:
        return None
    start, end = document["slopes"]
    for found in document.get("inputs", [document]):
        for part in found["curve"]:
            if not start <= part["slopes"][0] <= part["slopes"][1] <= end:
                return f"a segment of its curve is {part['slopes']}, and its slopes are {document['slopes']}"
        proved, refuted = found["proved_up_to"], found["refuted_from"]
        if refuted is not None and proved is not None and refuted <= proved:
            return f"proved_up_to is {proved}, and refuted_from {refuted}"
        if found["status"] == "proved" and (refuted is not None or found["open"]):
            return "its status is proved, and some slopes are refuted or open"
    return None


def _denied(job: Document) -> str | None:
    """What a job of a run says that its result denies."""
    if job["result"] is None:
        return None if job["error"] is not None else f"job {job['name']!r} has neither a result nor an error"
    if job["error"] is not None or job["result"].get("status", job["status"]) != job["status"]:
        return f"job {job['name']!r} is {job['status']}, and its result is not"
    if job["status"] == "proved" and any(one["status"] != "proved" for one in job["result"].get("inputs", ())):
        return f"job {job['name']!r} is proved, and some of its inputs are not"
    return contradiction(job["result"])


def _lopsided(document: Document) -> list[str]:
    """The outputs whose lower and upper bounds do not go together."""
    return [
        name
        for name, ends in document["outputs"].items()
        if [place for place, _ in places(ends["lower"], "")] != [place for place, _ in places(ends["upper"], "")]
    ]
