"""The page of a Lipschitz constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leaktight.verify.digits import rounded_down, rounded_up
from leaktight.verify.report.figures import Steps
from leaktight.verify.report.outline import (
    Block,
    Cell,
    Page,
    Picture,
    Section,
    Share,
    Span,
    Table,
    Tile,
    Tone,
    down,
    up,
)
from leaktight.verify.report.pages import parts
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import norm

_ABOUT = (
    "For all inputs x and y, |f(x) - f(y)| is at most the upper bound times |x - y|, and for some two inputs it is at"
    " least the lower bound times |x - y|. The truth lies between the two."
)


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.lipschitz/1."""
    upper = document["upper"]
    where = (
        "everywhere"
        if document["scope"] == "global"
        else f"within {rounded_down(document.get('radius', 0.0))} of an input"
    )
    proven = "nothing was proven" if upper is None else f"at most {rounded_up(upper)}"
    sections = [Section("Methods", [_methods(document)]), *_curve(document)]
    return Page(
        "Lipschitz",
        f"The Lipschitz constant is {proven} {where} ({norm(document['norm'])})",
        Tone.NEUTRAL,
        _ABOUT + (" The time ended before the best method was done." if document["timed_out"] else ""),
        [
            Tile("upper bound", up(upper), "proven"),
            Tile("lower bound", down(document["lower"]), "attained"),
            Tile("gap", None if document.get("gap") is None else Share(document["gap"])),
            *_floor(document),
            Tile("method", document["method"]),
        ],
        [*sections, parts.guarantee(document), parts.origin(document)],
    )


def _floor(document: Document) -> list[Tile]:
    """What no bound from sectors can be below."""
    floor = document.get("pattern")
    return [] if floor is None else [Tile("worst pattern", down(floor), "no bound from slopes alone is below")]


def _methods(document: Document) -> Table:
    """Each bound beside how far it is above what is attained, and above the worst pattern of slopes."""
    floors = {"above attained": document["lower"], "above the worst pattern": document.get("pattern")}
    known = {name: floor for name, floor in floors.items() if floor}
    rows: list[tuple[Cell, ...]] = [
        (name, up(value), *(None if value is None else Share(max(0.0, value / floor - 1)) for floor in known.values()))
        for name, value in document["bounds"].items()
    ]
    return Table("What each method proved", ("method", "upper bound", *known), rows)


def _curve(document: Document) -> list[Section]:
    """The constant over slopes, where it was asked for."""
    found = document.get("curve")
    return [Section("The leak", over_slopes(found))] if found else []


def over_slopes(found: Sequence[Mapping[str, Any]]) -> list[Block]:
    """A picture and a table of proven constants on segments of slopes."""
    known = [(tuple(part["slopes"]), part["upper"]) for part in found if part["upper"] is not None]
    says = "The proven constant on each segment of slopes; it holds for every slope of the segment."
    rows = [(Span(*part["slopes"]), up(part["upper"])) for part in found]
    blocks: list[Block] = [Table("Bounds for every slope of a segment", ("slopes", "upper bound"), rows)]
    if known:
        figure = Steps("slope", "Lipschitz constant", {"proven upper bound": known})
        blocks.insert(0, Picture("The constant over slopes", says, figure))
    return blocks
