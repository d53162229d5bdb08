"""Documents by the outline of their page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from leaktight.verify.report import outline
from leaktight.verify.report.columns import Grid, facts, status
from leaktight.verify.report.outline import shown
from leaktight.verify.report.pages import pages
from leaktight.verify.report.schemas import Document

_FOLDED = 16  # rows of a table that other formats hide behind its caption


def outlined(document: Document) -> RenderableType:
    """Kinds without a drawing of their own: the sections that every format has, without their pictures."""
    return Group(*(part for page in pages(document) for part in _page(page)))


def _page(page: outline.Page) -> Iterator[RenderableType]:
    yield Text(shown(page.headline), style="bold")
    yield Text(shown(page.lead))
    yield Text()
    yield facts([(tile.label, _said(tile)) for tile in page.tiles])
    for section in page.sections:
        parts = [part for block in section.blocks for part in _block(block)]
        yield from [Text(), Text(shown(section.title), style="bold"), *parts] if parts else []


def _block(block: outline.Block) -> Iterator[RenderableType]:
    match block:
        case outline.Prose(text) | outline.Picture(description=text):
            yield Text(shown(text))
        case outline.Facts():
            yield facts((name, _cell(value)) for name, value in block.known)
        case outline.Table(caption, columns, rows) if rows:
            yield Text(shown(caption) + ":")
            some = _spread(rows) if block.folded else rows
            yield Grid(columns, [[_cell(cell) for cell in row] for row in some], block.wordy)
            if len(some) < len(rows):
                yield Text(f"... {len(some)} of {len(rows)}, from the first to the last; --format json has all")


def _spread(rows: Sequence[Sequence[outline.Cell]]) -> list[Sequence[outline.Cell]]:
    """Some of many rows, evenly from the first to the last: what changes along a table is seen on one screen."""
    step = (len(rows) - 1) / (_FOLDED - 1)
    return list(rows) if step <= 1 else [rows[round(place * step)] for place in range(_FOLDED)]


def _said(tile: outline.Tile) -> str | None:
    if tile.value is None:
        return None
    return shown(tile.value) + (f" ({tile.says})" if tile.says else "")


def _cell(cell: outline.Cell) -> Text:
    return status(cell.word) if isinstance(cell, outline.Verdict) else Text(shown(cell))
