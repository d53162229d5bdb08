"""The answers about the parts of a property, as one document: pure data, as workers hand it over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from leaktight.verify.digits import rounded_down

Document = Mapping[str, Any]
_LATE = "the time was up before every part was proved or a counterexample was found"


def joined(begun: Document, answers: Sequence[Document], parts: int, seconds: float) -> dict[str, Any]:
    """The verdict on the whole property.

    begun: that on everything but the `parts` parts (`leaktight.verify.divide.divide`). answers: verdicts on parts, as
    many as there are by now. Refuted if one is: its counterexample lies in the property's region. Proved if all are
    there and proved. Else open, by the worst answer; a part without one is a timeout.
    """
    refuted = next((one for one in answers if one["status"] == "refuted"), None)
    complete = len(answers) == parts
    statuses = {one["status"] for one in answers} | (set() if complete else {"timeout"})
    status = next((word for word in ("refuted", "timeout", "unknown") if word in statuses), "proved")
    worst = next((one for one in answers if one["status"] == status), begun)
    lowers = [_least(one) if one["status"] == "proved" else one["margin"]["lower"] for one in answers]
    lower = min([_least(begun), *lowers]) if complete and None not in lowers else None
    uppers = [one["margin"]["upper"] for one in (begun, *answers) if one["margin"]["upper"] is not None]
    if status == "proved" and lower is not None:
        reason = f"the margin is at least {rounded_down(lower)} on the whole region, in {_parts(parts)}"
    else:
        reason = _LATE if status == "timeout" else str(worst["reason"])
    domains = sum(one["statistics"]["domains"] for one in (begun, *answers))
    return {
        **begun,
        "status": status,
        "margin": {"lower": None if lower == inf else lower, "upper": min(uppers, default=None)},
        "counterexample": None if refuted is None else refuted["counterexample"],
        "reason": reason,
        "seconds": round(seconds, 6),
        "statistics": {**begun["statistics"], "domains": domains, "parts": parts},
    }


def _least(proved: Document) -> float:
    """What is proven of all but the parts, or of a part that is proved; infinite, written as null, of no input."""
    lower = proved["margin"]["lower"]
    return inf if lower is None else float(lower)


def _parts(count: int) -> str:
    return "one part" if count == 1 else f"{count} parts"
