"""A curve with what searches and single inputs say of stretches of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf

from leaktight.verify.leak.closing import Answers, joined
from leaktight.verify.leak.curve import Segment
from leaktight.verify.leak.throughout import Attained


def told(segments: Sequence[Segment], answers: Answers, known: Attained) -> list[Segment]:
    """The segments, cut where answers begin and end, with the best of what was known and of what these say."""
    ends = sorted({end for lo, hi, _ in (*answers.proved, *answers.refuted) for end in (lo, hi)})
    if not ends:
        return list(segments)
    return [_on(piece, answers) for segment in segments for piece in _cut(segment, ends, known)]


def refuted_spans(segments: Sequence[Segment]) -> list[tuple[float, float, float]]:
    """Spans of slopes on which inputs are unsafe throughout, and what these attain at most; those that meet as one."""
    each = [(s.lo, s.hi, s.throughout) for s in segments if s.refuted]
    return [(lo, hi, max(x for a, b, x in each if lo <= a and b <= hi)) for lo, hi in joined(each)]


def _cut(segment: Segment, ends: list[float], known: Attained) -> list[Segment]:
    """The parts of a segment between some slopes."""
    places = [segment.lo, *(a for a in ends if segment.lo < a < segment.hi), segment.hi]
    if len(places) == 2:
        return [segment]
    lower = [segment.chord.at(a) for a in places]
    upper = [segment.upper[0], *(known.get(a, (inf,))[0] for a in places[1:-1]), segment.upper[1]]
    return [
        segment._replace(lo=a, hi=b, lower=(lower[k], lower[k + 1]), upper=(upper[k], upper[k + 1]))
        for k, (a, b) in enumerate(pairwise(places))
    ]


def _on(piece: Segment, answers: Answers) -> Segment:
    """A part of a curve with the best that searches say of all of it."""
    over = [value for lo, hi, value in answers.proved if lo <= piece.lo and piece.hi <= hi]
    under = [value for lo, hi, value in answers.refuted if lo <= piece.lo and piece.hi <= hi]
    if over and not piece.proved:
        piece = piece._replace(lower=(max(over), max(over)))
    return piece._replace(throughout=min([piece.throughout, *under]))
