"""What one input attains at every slope of a segment, and on which segments that refutes."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.interval import outputs
from leaktight.verify.leak.attack import search
from leaktight.verify.leak.attained import around_points, atoms_above, attained
from leaktight.verify.leak.curve import Segment
from leaktight.verify.leak.intervals import over_range
from leaktight.verify.leak.lines import lines
from leaktight.verify.rounding import trusted_upper, up

_TRIED = 5  # slopes at which more unsafe inputs are looked for
_PARTS = 10  # how often the way to the next one is halved
Attained = dict[float, tuple[float, Tensor]]


def highest(slopes: Slopes, case: Case, points: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Upper bounds ``(k,)`` of the margin at the inputs ``(k, n)`` for every slope in ``[lo[k], hi[k]]``.

    For a case with one region. So no smallest margin over the region is above it at any of these slopes. Infinite where
    a point is not surely inside. Computed by intervals over the slopes, and by lines in the slope above the conditions.
    """
    many = torch.zeros(len(points), dtype=torch.int64)
    region = case.region.select(many)
    with torch.no_grad():
        inside = region.contains(points)
        where = around_points(region, torch.maximum(torch.minimum(points, region.upper), region.lower))
        y = outputs(slopes.network, over_range(slopes, where, lo, hi))
        asked = Case(region, case.unsafe.select(many))
        atoms = torch.minimum(atoms_above(asked, y), _above(slopes, asked.unsafe, where, lo, hi))
        found = trusted_upper(asked.unsafe.combine(atoms))
    return torch.where(inside, found, torch.inf)


def around(
    slopes: Slopes, case: Case, x: Tensor, a: float, lo: float, hi: float, **effort: Any
) -> tuple[list[tuple[float, float, Tensor]], list[tuple[float, float, float]]]:
    """Where inputs are unsafe within ``[lo, hi]``, given that the input `x` ``(n,)`` is at the slope `a` in it.

    For a case with one region. Searches from `x` at some more slopes (`effort`: as for `leaktight.verify.leak.attack`),
    and asks of each unsafe input how far it stays so.
    Returns: slopes with at least the margin there of an input, below zero, and that input; spans of slopes with at
    least what some input attains at each of them, below zero.
    """
    grid = sorted({a, *(min(max(lo + k / (_TRIED - 1) * (hi - lo), lo), hi) for k in range(_TRIED))})
    at, many = torch.tensor(grid, dtype=torch.float64), torch.zeros(len(grid), dtype=torch.int64)
    asked = Case(case.region.select(many), case.unsafe.select(many))
    tried = search(slopes, asked, at, at, starts=x.expand(1, len(grid), -1), **effort)
    unsafe = [(b, float(u), p) for b, u, p in zip(grid, tried.upper, tried.points, strict=True) if float(u) < 0]
    if not any(b == a for b, *_ in unsafe):
        unsafe.append((a, float(attained(slopes, case, x.unsqueeze(0), torch.tensor([a]).double())), x))
    return unsafe, _spans(slopes, case, unsafe, grid)


def _spans(
    slopes: Slopes, case: Case, unsafe: list[tuple[float, float, Tensor]], grid: list[float]
) -> list[tuple[float, float, float]]:
    """How far unsafe inputs stay so, towards the slopes next to theirs."""
    asked = []
    for b, _, p in unsafe:
        k = grid.index(b)
        for end in {grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]} - {b}:
            asked += [(min(b, b + (end - b) * 2.0**-j), max(b, b + (end - b) * 2.0**-j), p) for j in range(_PARTS)]
    if not asked:
        return []
    ends = torch.tensor([(first, last) for first, last, _ in asked], dtype=torch.float64)
    most = highest(slopes, case, torch.stack([p for *_, p in asked]), *ends.unbind(1)).tolist()
    found = []
    for first in range(0, len(asked), _PARTS):
        far = next((k for k in range(first, first + _PARTS) if most[k] < 0), None)
        if far is not None:
            found.append((asked[far][0], asked[far][1], most[far]))
    return found


def _above(slopes: Slopes, unsafe: Unsafe, where: Box, lo: Tensor, hi: Tensor) -> Tensor:
    """At least ``c . y - d`` of every atom on the whole segment, ``(k, atoms)``: the higher end of a line above it."""
    bounds = unsafe.bounds if unsafe.inner_bounds is None else unsafe.inner_bounds
    found = lines(slopes, where, -unsafe.weights, lo, hi)
    return up(torch.maximum(-found.at_lo, -found.at_hi) - bounds)


def settled(
    slopes: Slopes, case: Case, segments: list[Segment], known: Attained, most: int, deadline: float | None
) -> list[Segment]:
    """The segments of one region, with what the best inputs at their ends attain on all of them.

    Open ones that an input refutes at an end are halved, up to `most` times, while that refutes more of them.
    """
    done, work = list[Segment](), list(segments)
    for halving in range(most + 1):
        with_points = [s for s in work if s.lo in known and s.hi in known]
        done += [s for s in work if s.lo not in known or s.hi not in known]
        if not with_points:
            break
        work = _told(slopes, case, with_points, known)
        late = deadline is not None and time.monotonic() > deadline
        worth = [s for s in work if not s.proved and not s.refuted and min(s.upper) < 0 and _divisible(s)]
        done += [s for s in work if s not in worth]
        if not worth or halving == most or late:
            done += worth
            break
        work = _halves(slopes, case, worth, known)
    return sorted(done, key=lambda s: (s.lo, s.hi))


def _divisible(s: Segment) -> bool:
    return s.lo < s.lo / 2 + s.hi / 2 < s.hi


def _told(slopes: Slopes, case: Case, segments: list[Segment], known: Attained) -> list[Segment]:
    points = torch.stack([known[a][1] for s in segments for a in (s.lo, s.hi)])
    spans = torch.tensor([[s.lo, s.hi] for s in segments for _ in range(2)], dtype=torch.float64)
    found = highest(slopes, case, points, *spans.unbind(1)).reshape(-1, 2).amin(1)
    return [s._replace(throughout=float(x)) for s, x in zip(segments, found, strict=True)]


def _halves(slopes: Slopes, case: Case, segments: list[Segment], known: Attained) -> list[Segment]:
    """Both halves of each segment; in the middle the better of the inputs at its ends."""
    middles = [s.lo / 2 + s.hi / 2 for s in segments]
    many = torch.zeros(2 * len(segments), dtype=torch.int64)
    points = torch.stack([known[a][1] for s in segments for a in (s.lo, s.hi)])
    at = torch.tensor([a for a in middles for _ in range(2)], dtype=torch.float64)
    uppers = attained(slopes, Case(case.region.select(many), case.unsafe.select(many)), points, at).reshape(-1, 2)
    found = []
    for k, (s, a) in enumerate(zip(segments, middles, strict=True)):
        better = int(uppers[k].argmin())
        if a not in known or float(uppers[k, better]) < known[a][0]:
            known[a] = float(uppers[k, better]), points[2 * k + better]
        low, high = s.chord.at(a), known[a][0]
        found.append(s._replace(hi=a, lower=(s.lower[0], low), upper=(s.upper[0], high)))
        found.append(s._replace(lo=a, lower=(low, s.lower[1]), upper=(high, s.upper[1])))
    return found
