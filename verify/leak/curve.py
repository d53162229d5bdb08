"""Curves: a margin bounded from below by chords, and from above by what inputs attain, over a range of slopes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf, isfinite, nextafter
from typing import NamedTuple


class Chord(NamedTuple):  # thousands are made for a curve, and a dataclass takes three times as long; so below
    """``M(a) >=`` the chord from ``(lo, at_lo)`` to ``(hi, at_hi)``, for every slope ``a`` in ``[lo, hi]``."""

    lo: float
    hi: float
    at_lo: float
    at_hi: float

    def at(self, a: float) -> float:
        """At most the chord's value at a slope of its range; exact at its ends."""
        if a == self.lo:
            return self.at_lo
        if a == self.hi:
            return self.at_hi
        width, rise = self.hi - self.lo, self.at_hi - self.at_lo
        if not (isfinite(width) and isfinite(rise)):  # an unknown end, or an overflow
            return -inf
        share = (a - self.lo) / width  # three roundings, of numbers below 1
        value = self.at_lo + share * rise
        return value - 1e-15 * (abs(self.at_lo) + abs(self.at_hi)) - 1e-300


class Segment(NamedTuple):
    """One segment of a curve: proven lower bounds at its ends (the chord holds), attained upper bounds at its ends.

    `throughout`: no margin at a slope of the segment is above it (infinite: unknown).
    """

    lo: float
    hi: float
    lower: tuple[float, float]
    upper: tuple[float, float] = (inf, inf)
    throughout: float = inf

    @property
    def chord(self) -> Chord:
        return Chord(self.lo, self.hi, *self.lower)

    @property
    def proved(self) -> bool:
        return min(self.lower) > 0

    @property
    def refuted(self) -> bool:
        """Whether some input is unsafe at every slope of the segment."""
        return self.throughout < 0


def equal_parts(lo: float, hi: float, count: int) -> list[float]:
    """The ends of so many equal segments of ``[lo, hi]``, rising strictly; of fewer where floats are too few for them.

    Of a range of width zero the result is ``[lo, hi]``.
    """
    inner = {min(max(lo + k / count * (hi - lo), lo), hi) for k in range(1, count)}
    return [lo, *sorted(inner - {lo, hi}), hi]


def lowest(chords: Sequence[Chord]) -> list[Chord]:
    """Chords below all the given ones, which together cover a range: a curve of the smallest of what they bound.

    Between neighbouring ends of all chords each is a line; their minimum is concave there, so its chord holds. Chords
    that follow each other are such a curve themselves.
    """
    rising = sorted(chords)
    if all(left.lo < left.hi == right.lo < right.hi for left, right in pairwise(rising)):
        return rising
    ends = sorted({end for chord in chords for end in (chord.lo, chord.hi)})
    spans = [(ends[0], ends[0])] if len(ends) == 1 else list(pairwise(ends))
    at_lo, at_hi = [inf] * len(spans), [inf] * len(spans)
    for chord in chords:
        first = bisect_left(ends, chord.lo)
        for place in range(first, max(bisect_left(ends, chord.hi), first + 1)):
            lo, hi = spans[place]
            at_lo[place] = min(at_lo[place], chord.at(lo))
            at_hi[place] = min(at_hi[place], chord.at(hi))
    return [Chord(lo, hi, low, high) for (lo, hi), low, high in zip(spans, at_lo, at_hi, strict=True)]


def proved_up_to(segments: Sequence[Segment]) -> float | None:
    """The largest slope such that at it, and at every slope of the range below it, the margin is proven positive."""
    reached: float | None = None
    for segment in segments:
        if not segment.lower[0] > 0:
            return reached
        if not segment.lower[1] > 0:
            return _crossing(segment.chord)
        reached = segment.hi
    return reached


def _crossing(chord: Chord) -> float:
    """A slope up to which a chord that starts above zero is above zero, as far as it reaches up to rounding."""
    if not isfinite(chord.at_hi):
        return chord.lo
    a = chord.lo + (chord.hi - chord.lo) * (chord.at_lo / (chord.at_lo - chord.at_hi))
    step = max(abs(a) * 1e-15, 1e-300)
    while a > chord.lo and not chord.at(a) > 0:
        a, step = max(chord.lo, nextafter(a - step, -inf)), 2 * step
    return a


def undecided(segments: Iterable[Segment]) -> list[list[float]]:
    """The slopes that are neither proved nor refuted, as intervals in rising order."""
    found: list[list[float]] = []
    for segment in segments:
        if segment.proved or segment.refuted:
            continue
        lo, hi = segment.lo, segment.hi
        if segment.lower[0] > 0:
            lo = _crossing(segment.chord)
        elif segment.lower[1] > 0:
            mirrored = Chord(-segment.hi, -segment.lo, segment.lower[1], segment.lower[0])
            hi = -_crossing(mirrored)
        if found and found[-1][1] >= lo:
            found[-1][1] = hi
        else:
            found.append([lo, hi])
    return found
