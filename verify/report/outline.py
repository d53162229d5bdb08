"""A report before it has a format: sections of words, facts, tables and pictures. Every format draws the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from leaktight.verify.digits import rounded_down, rounded_up, short
from leaktight.verify.report.figures import Figure
from leaktight.verify.report.words import NOTHING, clean, percent


@dataclass(frozen=True)
class Verdict:
    """A status word; formats may colour it, and never by colour alone."""

    word: str


@dataclass(frozen=True)
class Share:
    """A number in [0, 1] that people read as a percentage."""

    value: float


@dataclass(frozen=True)
class Down:
    """A number that something is proven to reach: what is shown is never more."""

    value: float


@dataclass(frozen=True)
class Up:
    """A number that something is proven not to exceed: what is shown is never less."""

    value: float


@dataclass(frozen=True)
class Span:
    """An interval. `outward`: it is proven to contain something, and so does what is shown."""

    lower: float
    upper: float
    outward: bool = False


@dataclass(frozen=True)
class Code:
    """A path, digest, command or name, to be shown letter by letter."""

    text: str


Cell = str | int | float | None | Verdict | Share | Down | Up | Span | Code


def shown(cell: Cell) -> str:
    """What any format writes for a cell, before its own escaping: one line without control characters."""
    match cell:
        case None:
            return NOTHING
        case Verdict(word):
            return clean(word)
        case Share(value):
            return percent(value)
        case Down(value):
            return rounded_down(value)
        case Up(value):
            return rounded_up(value)
        case Span(lower, upper, outward=True):
            return f"{rounded_down(lower)} to {rounded_up(upper)}"
        case Span(lower, upper):
            return short(lower) if lower == upper else f"{short(lower)} to {short(upper)}"
        case Code(text):
            return clean(text)
        case float():
            return short(cell)
        case int():
            return str(cell)
        case _:
            return clean(cell)


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values; pairs whose value is None are left out."""

    pairs: Sequence[tuple[str, Cell]]

    @property
    def known(self) -> list[tuple[str, Cell]]:
        return [(name, value) for name, value in self.pairs if value is not None]


@dataclass(frozen=True)
class Table:
    """Rows under a caption.

    `folded`: a format may hide it behind its caption. `searchable`: a format may offer sorting and filtering. `summed`:
    the last row is what the others amount to.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    searchable: bool = False
    summed: bool = False

    @property
    def wordy(self) -> list[bool]:
        """For each column, whether it holds words; the others hold numbers. The first row that knows decides."""
        return [
            next((isinstance(row[place], (str, Verdict, Code)) for row in self.rows if row[place] is not None), False)
            for place in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Picture:
    """A figure, with the title and the description that someone who does not see it needs.

    `caption`: how to read it, for those who see it.
    """

    title: str
    description: str
    figure: Figure
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, with one caption for all."""

    pictures: Sequence[Picture]
    caption: str


Block = Prose | Facts | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """One number that the reader came for, with what it is and what it says."""

    label: str
    value: Cell
    says: str = ""


class Tone(str, Enum):
    """How a page's headline is meant; the words say it too."""

    PROVED = "proved"
    REFUTED = "refuted"
    OPEN = "open"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Page:
    """One result: what kind it is, its answer in a headline, one sentence about it, its numbers, its sections."""

    kind: str
    headline: str
    tone: Tone
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def tone(status: str) -> Tone:
    """The tone of a status."""
    return {"proved": Tone.PROVED, "refuted": Tone.REFUTED}.get(status, Tone.OPEN)


def down(value: float | None) -> Down | None:
    """A proven lower bound as a cell."""
    return None if value is None else Down(value)


def up(value: float | None) -> Up | None:
    """A proven or attained upper bound as a cell."""
    return None if value is None else Up(value)
