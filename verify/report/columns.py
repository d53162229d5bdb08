"""Facts and tables on a terminal, drawn by rich; what they hold cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from leaktight.verify.report.words import NOTHING, clean, short

_COLOURS = {"proved": "green", "refuted": "red", "unknown": "yellow", "timeout": "yellow", "yes": "green", "no": "red"}


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values in two columns; values that are None are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            grid.add_row(Text(clean(name), style="bold"), _text(value))
    return grid


def table(*columns: str, rows: Iterable[Iterable[object]], left: int = 1) -> Table:
    """A table whose first `left` columns hold words and whose other columns hold numbers."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        grid.add_column(clean(column), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def status(word: str) -> Text:
    """A status word in its colour."""
    return Text(clean(word), style=_COLOURS.get(word, ""))


def _text(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text(NOTHING)
    return Text(short(value) if isinstance(value, float) else clean(str(value)))
