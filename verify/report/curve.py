"""Arithmetic of proven curves: what a list of segments says about a range of slopes.

A segment has ``slopes [a0, a1]``, ``lower`` with the proven values at both ends, whose chord bounds the margin from
below at every slope between them, and ``upper`` with values that some input attains at the ends. Either may be null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Segment = Mapping[str, Any]
Span = tuple[float, float]


def chord(segment: Segment) -> Span | None:
    """The proven values at the segment's two ends, if both are known: one alone bounds nothing between them."""
    ends = segment["lower"]
    return None if ends is None or None in ends else (float(ends[0]), float(ends[1]))


def attained(curve: Sequence[Segment]) -> list[Span]:
    """Slopes and the values attained there, in ascending order, each slope once with its least value."""
    least: dict[float, float] = {}
    for segment in curve:
        for slope, value in zip(segment["slopes"], segment["upper"] or (), strict=False):
            if value is not None:
                least[slope] = min(value, least.get(slope, value))
    return sorted(least.items())


def lowest(curve: Sequence[Segment]) -> float | None:
    """The least proven value on the whole range; None if some part of it has none."""
    known = [ends for segment in curve if (ends := chord(segment)) is not None]
    return min((value for ends in known for value in ends), default=None) if len(known) == len(curve) else None


def positive(curve: Sequence[Segment]) -> list[Span]:
    """The slopes at which the proven value is above 0, as maximal intervals."""
    found = []
    for segment in curve:
        (start, end), ends = segment["slopes"], chord(segment)
        if ends is None or max(ends) <= 0:
            continue
        if min(ends) <= 0:
            root = start + (end - start) * (ends[0] / (ends[0] - ends[1]))
            start, end = (start, root) if ends[0] > 0 else (root, end)
        found.append((start, end))
    return union(found)


def throughout(curve: Sequence[Segment]) -> list[Span]:
    """The segments with proven values above 0 at both ends, so in between, as maximal intervals: nothing is rounded."""
    known = ((segment["slopes"], chord(segment)) for segment in curve)
    return union([(start, end) for (start, end), ends in known if ends is not None and min(ends) > 0])


def union(spans: Sequence[Span]) -> list[Span]:
    """The same slopes as maximal intervals in ascending order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def gaps(spans: Sequence[Span], start: float, end: float) -> list[Span]:
    """What is left of ``[start, end]`` without the intervals, which are maximal and ascending."""
    ends = [start, *(min(max(place, start), end) for span in spans for place in span), end]
    return [(low, high) for low, high in zip(ends[::2], ends[1::2], strict=True) if high > low]


def width(spans: Sequence[Span]) -> float:
    """How much of the axis the intervals cover together."""
    return sum(end - start for start, end in union(spans))
