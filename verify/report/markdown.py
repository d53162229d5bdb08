"""Markdown as GitHub reads it. Pictures are left out: their numbers stand in the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from leaktight.verify.report.outline import Block, Cell, Code, Facts, Page, Picture, Prose, Table, Verdict, shown
from leaktight.verify.report.pages import pages
from leaktight.verify.report.schemas import Document
from leaktight.version import __version__

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&]|:(?=//))")
_SIGNS = {"proved": "✅", "refuted": "❌", "unknown": "❔", "timeout": "⏱"}


def render(document: Document) -> str:
    """The document as GitHub-flavoured Markdown that ends with a newline."""
    found = pages(document)
    blocks = [block for page in found for block in _page(page)]
    return "\n\n".join([*blocks, f"leaktight {__version__}"]) + "\n"


def _page(page: Page) -> Iterator[str]:
    yield f"# {_plain(page.headline)}"
    yield f"{_plain(page.kind)}. {_plain(page.lead)}"
    yield _table(["", "", ""], [(tile.label, tile.value, tile.says) for tile in page.tiles], [True, False, True])
    for section in page.sections:
        blocks = [text for text in map(_block, section.blocks) if text]
        yield from [f"## {_plain(section.title)}", *blocks] if blocks else []


def _block(block: Block) -> str:
    match block:
        case Prose(text):
            return _plain(text)
        case Facts():
            return "\n".join(f"- {_plain(name)}: {_cell(value)}" for name, value in block.known)
        case Table() if block.rows:
            return f"{_plain(block.caption)}:\n\n" + _table(block.columns, block.rows, block.wordy)
        case Picture(description=description):
            return _plain(description)
        case _:
            return ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], wordy: Sequence[bool]) -> str:
    lines = [[_plain(column) for column in columns], ["---" if words else "---:" for words in wordy]]
    lines += [[_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = shown(cell)
    if isinstance(cell, Verdict):
        sign = _SIGNS.get(text)
        return f"{sign} {_plain(text)}" if sign else _plain(text)
    return _code(text) if isinstance(cell, Code) and text else _plain(text)


def _plain(text: str) -> str:
    """Text in which nothing is markup, neither of Markdown nor of HTML."""
    return _SPECIAL.sub(r"\\\1", shown(text))


def _code(text: str) -> str:
    """Text letter by letter. Code spans know no escapes, and end tables' cells at a bar: those go in plain."""
    return _plain(text) if re.search(r"[`|\\]", text) or text != text.strip() else f"`{text}`"
