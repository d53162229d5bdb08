"""The page of output bounds."""

from __future__ import annotations

from leaktight.verify.report.figures import Intervals
from leaktight.verify.report.outline import Block, Code, Page, Picture, Section, Table, Tile, Tone, down, up
from leaktight.verify.report.pages import parts
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted, places

_DRAWN = 40


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.bounds/1."""
    rows = [
        (place, low, high)
        for name, ends in document["outputs"].items()
        for (place, low), (_, high) in zip(places(ends["lower"], name), places(ends["upper"], name), strict=True)
    ]
    known = [(place, low, high) for place, low, high in rows if low is not None and high is not None]
    widest = max((high - low for _, low, high in known), default=None)
    blocks: list[Block] = []
    if 0 < len(known) <= _DRAWN:
        says = f"The intervals that contain {counted(len(known), 'output')}; the table has their numbers."
        blocks.append(Picture("Bounds of the outputs", says, Intervals("output", known)))
    blocks.append(
        Table(
            f"Bounds of {counted(len(rows), 'output')}",
            ("output", "lower", "upper"),
            [(Code(place), down(low), up(high)) for place, low, high in rows],
            searchable=len(rows) > _DRAWN,
        )
    )
    return Page(
        "Bounds",
        f"Bounds of {counted(len(rows), 'output')}",
        Tone.NEUTRAL,
        "Whatever input of the region the network is given, its outputs lie between these bounds.",
        [
            Tile("outputs", len(rows)),
            Tile("widest interval", up(widest)),
            Tile("engine", document["engine"]),
        ],
        [Section("Bounds", blocks), parts.guarantee(document), parts.origin(document)],
    )
