"""One curve of several regions."""

from __future__ import annotations

from math import inf

from leaktight.verify.leak.curve import Segment, lowest
from leaktight.verify.leak.traced import Traced


def joined(regions: list[Traced]) -> tuple[Segment, ...]:
    """One curve of several regions: the smallest of their margins."""
    if len(regions) == 1:
        return tuple(regions[0].segments)
    chords = [segment.chord for traced in regions for segment in traced.segments]
    parts = []
    for chord in lowest(chords):
        over = [s for traced in regions for s in traced.segments if s.lo <= chord.lo and chord.hi <= s.hi]
        known = [
            min((traced.attained[a][0] for traced in regions if a in traced.attained), default=inf)
            for a in (chord.lo, chord.hi)
        ]
        throughout = min((s.throughout for s in over), default=inf)
        parts.append(Segment(chord.lo, chord.hi, (chord.at_lo, chord.at_hi), (known[0], known[1]), throughout))
    return tuple(parts)
