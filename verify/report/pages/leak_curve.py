"""A curve over slopes on a page: in one line, as a picture and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leaktight.verify.digits import rounded_down, rounded_inwards, rounded_up
from leaktight.verify.report import curve as arithmetic
from leaktight.verify.report.curve import gaps, union
from leaktight.verify.report.figures import Curve
from leaktight.verify.report.outline import (
    Picture,
    Table,
    down,
    up,
)
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted

Found = Mapping[str, Any]
CURVE = (
    "The line is proven: at every slope, also between its corners, the smallest margin is not below it; where it is"
    " above 0, the property holds. A circle is a margin that some input attains at that very slope, found by attack:"
    " the smallest margin is not above it. Along the bottom, slopes are proved (full), refuted (crossed) or open."
)


def headline(found: Found) -> str:
    """The answer in a line; where it is not that all is proved, also the widest range of slopes further on that is."""
    proved, refuted = found["proved_up_to"], found["refuted_from"]
    if found["status"] == "proved":
        start, end = found["slopes"]
        return f"Proved for every slope from {rounded_inwards(start, end)}"
    if proved is not None:
        beyond = "undecided beyond" if refuted is None else f"refuted from {rounded_up(refuted)}"
        says = f"Proved up to slope {rounded_down(proved)}, {beyond}"
    else:
        says = "Undecided" if refuted is None else f"Refuted from slope {rounded_up(refuted)}"
    further = [span for span in arithmetic.throughout(found["curve"]) if proved is None or span[0] > proved]
    if further:
        start, end = max(further, key=lambda span: span[1] - span[0])
        says += f"; proved from {rounded_inwards(start, end)}" + (" and elsewhere" if len(further) > 1 else "")
    return says


def spans_of(pairs: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(start, end) for start, end in pairs]


def decided(document: Document, found: Found) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The slopes that the result says are proved, and those it says are refuted.

    Proved are those up to ``proved_up_to`` and those with a positive proven value. Refuted is what is neither proved
    nor open and lies beyond ``refuted_from``; everything else is drawn as open.
    """
    start, end = document["slopes"]
    known = arithmetic.positive(found["curve"])
    if found["proved_up_to"] is not None:
        known = union([*known, (start, found["proved_up_to"])])
    if found["refuted_from"] is None:
        return known, []
    return known, gaps(union([*known, *spans_of(found["open"])]), max(start, found["refuted_from"]), end)


def picture(document: Document, found: Found, title: str | None = None) -> Picture:
    chords = [
        ((part["slopes"][0], part["slopes"][1]), ends)
        for part in found["curve"]
        if (ends := arithmetic.chord(part)) is not None
    ]
    points = arithmetic.attained(found["curve"])
    proved, refuted = decided(document, found)
    start, end = document["slopes"]
    own = document.get("own_slopes")
    inside = own is not None and start <= own[0] <= own[1] <= end
    figure = Curve(
        (start, end), chords, points, proved, refuted, (own[0], own[1]) if own and inside else None, title is not None
    )
    lowest = arithmetic.lowest(found["curve"])
    says = f"{headline({**found, 'slopes': document['slopes']})}. " + (
        "The proven margin has gaps."
        if lowest is None
        else f"The proven margin is nowhere below {rounded_down(lowest)}."
    )
    return Picture(title or "Margin over the slope of the leak", says, figure, "" if title else CURVE)


def segments(curve: Sequence[Found]) -> Table:
    rows = []
    for part in curve:
        lower, upper = part["lower"] or (None, None), part["upper"] or (None, None)
        rows.append((*part["slopes"], *map(down, lower), *map(up, upper)))
    return Table(
        f"The curve in numbers ({counted(len(rows), 'segment')})",
        ("from slope", "to slope", "proven at start", "proven at end", "attained at start", "attained at end"),
        rows,
        folded=True,
    )
