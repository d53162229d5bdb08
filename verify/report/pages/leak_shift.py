"""How far the smallest margin moves with the slope, level by level, on a page."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf, nextafter

from leaktight.verify.digits import short
from leaktight.verify.report.outline import (
    Block,
    Cell,
    Prose,
    Section,
    Span,
    Table,
    down,
    up,
)
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted


def shift_of(document: Document) -> list[Section]:
    shift = document["shift"]
    if shift is None:
        return []
    start, end = document["slopes"]
    span = Fraction(end) - Fraction(start)
    rows: list[tuple[Cell, ...]] = []
    formula, local, lines = (shift.get(key) for key in ("closed_form", "local", "parametric"))
    if formula is not None:
        rate = formula["rate"]
        rows.append(("closed formula", Span(-rate, rate, outward=True), _change((-rate, rate), span)))
    if local is not None:
        rows.append(("local derivative", _proven(local["rate"]), _change(local["rate"], span)))
    if lines:
        rows.append(("parametric lines", None, _proven(lines[-1]["change"])))
    together = shift["change"]
    rows.append(("all together", None, None if together is None else _proven(together)))
    blocks: list[Block] = [
        Prose(
            f"How far the smallest margin can be, at slope {short(end)}, from what it is at slope {short(start)}. Each"
            " bound is proven by itself; their intersection is the result."
        ),
        Table(
            "Bounds on the change of the smallest margin", ("bound", "per unit of slope", "change"), rows, summed=True
        ),
    ]
    if lines:
        blocks.append(
            Table(
                f"Parametric bounds of {counted(len(lines), 'segment')}",
                ("from slope", "to slope", "change at least", "change at most"),
                [(*part["slopes"], down(part["change"][0]), up(part["change"][1])) for part in lines],
                folded=True,
            )
        )
    return [Section("The shift", blocks)]


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _proven(ends: Sequence[float]) -> Span:
    return Span(ends[0], ends[1], outward=True)


def _change(rate: Sequence[float], width: Fraction) -> Span:
    """Rate times width, rounded outwards."""
    low, high = (Fraction(end) * width for end in rate)
    lower, upper = _nearest(low), _nearest(high)
    return _proven(
        (lower if lower <= low else nextafter(lower, -inf), upper if upper >= high else nextafter(upper, inf))
    )
