"""What searches over segments of slopes are asked, what they may use, and what they answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from torch import Tensor


class Span(NamedTuple):
    """Slopes from `lo` to `hi`."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Stretch:
    """Slopes of one region at which the sign of the margin is open."""

    region: int
    lo: float
    hi: float


@dataclass
class Answers:
    """What searches found of one region.

    proved: spans of slopes, and a bound above zero of the margin at each of them. refuted: spans of slopes, and what
    some input attains at most at each of them, below zero. unsafe: slopes with at least the margin there of an input
    ``(n,)``, below zero.
    """

    proved: list[tuple[float, float, float]] = field(default_factory=list)
    refuted: list[tuple[float, float, float]] = field(default_factory=list)
    unsafe: list[tuple[float, float, Tensor]] = field(default_factory=list)
    domains: int = 0

    def closes(self, lo: float, hi: float) -> bool:
        """Whether all slopes of a segment lie in one span."""
        return any(first <= lo and hi <= last for first, last, _ in (*self.proved, *self.refuted))


def joined(spans: Iterable[tuple[float, float, float]]) -> list[Span]:
    """Spans that meet as one."""
    whole = list[Span]()
    for lo, hi, *_ in sorted(spans):
        if whole and lo <= whole[-1].hi:
            whole[-1] = Span(whole[-1].lo, max(hi, whole[-1].hi))
        else:
            whole.append(Span(lo, hi))
    return whole


@dataclass(frozen=True)
class Limits:
    """domains: how many may be bounded. deadline: of time.monotonic(). memory: in bytes."""

    domains: float = inf
    deadline: float | None = None
    memory: int | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def without(whole: Span, parts: Iterable[Span]) -> list[Span]:
    """What is left of a span where closed parts are taken out, with its ends; of a single slope itself or nothing."""
    inside = sorted(part for part in parts if part.lo <= whole.hi and part.hi >= whole.lo)
    if whole.lo == whole.hi:
        return [] if inside else [whole]
    left, at = list[Span](), whole.lo
    for part in inside:
        if part.lo > at:
            left.append(Span(at, part.lo))
        at = max(at, part.hi)
    return [*left, Span(at, whole.hi)] if at < whole.hi else left
