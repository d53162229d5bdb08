"""What a figure shows, as plain numbers; `plots` draws them, and formats without pictures leave them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Span = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A margin over slopes: proven chords as ``((a0, a1), (value, value))``, and attained ``(slope, value)`` points.

    `proved` and `refuted`: the slopes of each kind; what is left of `slopes` is open. `own`: the network's own slopes,
    if they lie in the range. `small`: without names of axes and lines, to stand among others.
    """

    slopes: Span
    chords: Sequence[tuple[Span, Span]]
    attained: Sequence[Span]
    proved: Sequence[Span]
    refuted: Sequence[Span]
    own: Span | None = None
    small: bool = False


@dataclass(frozen=True)
class Steps:
    """Quantities that are constant on each of a list of intervals: ``name -> [((a0, a1), value), ...]``."""

    across: str
    upwards: str
    lines: Mapping[str, Sequence[tuple[Span, float]]]
    shares: bool = False


@dataclass(frozen=True)
class Histogram:
    """How often values fall where, one colour for each status: ``status -> values``."""

    across: str
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Intervals:
    """Named intervals on one axis."""

    across: str
    rows: Sequence[tuple[str, float, float]]


@dataclass(frozen=True)
class Survival:
    """The share of all inputs whose value is at least so much, as a falling staircase."""

    across: str
    values: Sequence[float]
    total: int


Figure = Curve | Steps | Histogram | Intervals | Survival
