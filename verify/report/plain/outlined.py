"""Documents by the outline of their page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from leaktight.verify.report import outline
from leaktight.verify.report.columns import Grid, facts, status
from leaktight.verify.report.outline import shown
from leaktight.verify.report.pages import pages
from leaktight.verify.report.schemas import Document

_FOLDED = 40  # rows of a table that other formats hide behind its caption


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
            some = rows[:_FOLDED] if block.folded else rows
            yield Grid(columns, [[_cell(cell) for cell in row] for row in some], block.wordy)
            if more := len(rows) - len(some):
                yield Text(f"... and {more} more, which --format json has")


def _said(tile: outline.Tile) -> str | None:
    if tile.value is None:
        return None
    return shown(tile.value) + (f" ({tile.says})" if tile.says else "")


def _cell(cell: outline.Cell) -> Text:
    return status(cell.word) if isinstance(cell, outline.Verdict) else Text(shown(cell))
