"""Facts and tables on a terminal, drawn by rich; what they hold cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from leaktight.verify.digits import short
from leaktight.verify.report.words import NOTHING, clean

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


@dataclass(frozen=True)
class Grid:
    """A table as wide as it needs to be: no number is ever broken over two lines, and thousands of rows are quick.

    `wordy`: for each column, whether it is aligned at the left. Heads are broken at blanks where the table is too wide
    otherwise.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    wordy: Sequence[bool]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max((row[place].cell_len for row in self.rows), default=0) for place in range(len(self.columns))]
        named = [(clean(column), width) for column, width in zip(self.columns, widths, strict=True)]
        fits = sum(max(width, cell_len(head)) + 2 for head, width in named) - 2 <= options.max_width
        heads = [[head] if fits else _broken(head, width) for head, width in named]
        widths = [max([width, *map(cell_len, head)]) for width, head in zip(widths, heads, strict=True)]
        height = max(map(len, heads))
        bold = console.get_style("bold")
        for line in range(height):
            words = [head[line - height + len(head)] if line >= height - len(head) else "" for head in heads]
            yield from self._line(words, [bold] * len(words), widths)
        for row in self.rows:
            styles = [console.get_style(cell.style) if cell.style else None for cell in row]
            yield from self._line([cell.plain for cell in row], styles, widths)

    def _line(self, texts: Sequence[str], styles: Sequence[Style | None], widths: Sequence[int]) -> Iterator[Segment]:
        for text, style, width, wordy in zip(texts, styles, widths, self.wordy, strict=True):
            room = " " * (width - cell_len(text))
            yield Segment(text + room if wordy else room + text, style)
            yield Segment("  ")
        yield Segment.line()


def table(*columns: str, rows: Iterable[Iterable[object]], left: int = 1) -> Grid:
    """A table whose first `left` columns hold words and whose other columns hold numbers."""
    wordy = [place < left for place in range(len(columns))]
    return Grid(columns, [[_text(cell) for cell in row] for row in rows], wordy)


def _broken(head: str, width: int) -> list[str]:
    """The words of a head in as few lines of `width` as they fit in; a longer word has a line of its own."""
    lines = [""]
    for word in head.split():
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and cell_len(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def status(word: str) -> Text:
    """A status word in its colour."""
    return Text(clean(word), style=_COLOURS.get(word, ""))


def _text(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text(NOTHING)
    return Text(short(value) if isinstance(value, float) else clean(str(value)))
