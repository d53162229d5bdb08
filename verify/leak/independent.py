"""Curves for slopes that differ from neuron to neuron: each is anywhere in ``[lo, a]``.

The smallest margin over all of them only falls as ``a`` grows. So what is proven at ``a`` holds for every smaller one,
and on a segment the value at its end is a bound. Any one slope for all neurons is one of the possibilities: what inputs
attain with it bounds the margin from above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak.attack import along
from leaktight.verify.leak.attained import Lowest
from leaktight.verify.leak.curve import Segment, equal_parts
from leaktight.verify.leak.margin import sandwiched_margins
from leaktight.verify.leak.plan import LIGHT, Plan
from leaktight.verify.leak.traced import Traced

_SEGMENTS = 16
_HALVINGS = 6


def trace_independent(slopes: Slopes, case: Case, lo: float, hi: float, plan: Plan) -> list[Traced]:
    """For each region a curve of the smallest margin over it and over all slopes of single neurons in ``[lo, a]``."""
    parts = equal_parts(lo, hi, _SEGMENTS)
    ends = [list(parts) for _ in range(case.region.batch)]
    known: list[dict[float, float]] = [{} for _ in ends]
    interrupted = False
    try:
        for _ in range(1 + _HALVINGS):
            _bound(slopes, case, lo, ends, known, plan)
            if plan.late or not _halve_crossings(ends, known):
                break
    except KeyboardInterrupt:
        interrupted = True
    grid = torch.tensor(parts, dtype=torch.float64).expand(case.region.batch, -1)
    found: Lowest | None = None
    try:
        found = along(slopes, case, grid, **LIGHT, seed=plan.seed, deadline=plan.deadline)
    except KeyboardInterrupt:
        interrupted = True
    traced = []
    for region, own in enumerate(known):
        attained = dict[float, tuple[float, Tensor]]()
        if found is not None:
            attained = {a: (float(found.upper[region, k]), found.points[region, k]) for k, a in enumerate(parts)}
        traced.append(Traced(_segments(ends[region], own, attained), attained, len(own), interrupted))
    return traced


def _bound(
    slopes: Slopes, case: Case, lo: float, ends: list[list[float]], known: list[dict[float, float]], plan: Plan
) -> None:
    new = [(region, a) for region, own in enumerate(ends) for a in own if a not in known[region]]
    if not new:
        return
    owner, at = torch.tensor([region for region, _ in new]), torch.tensor([a for _, a in new], dtype=torch.float64)
    part = Case(case.region.select(owner), case.unsafe.select(owner))
    found = sandwiched_margins(slopes, part, torch.full_like(at, lo), at, plan.effort(False))
    for (region, a), value in zip(new, found.tolist(), strict=True):
        known[region][a] = value


def _halve_crossings(ends: list[list[float]], known: list[dict[float, float]]) -> bool:
    """Puts an end in the middle of every segment on which the proven value falls to zero; whether there is one."""
    some = False
    for own, values in zip(ends, known, strict=True):
        last = next((k for k, a in enumerate(own) if values[a] <= 0), None)
        middle = None if not last else own[last - 1] / 2 + own[last] / 2
        if last and middle is not None and own[last - 1] < middle < own[last]:
            own.insert(last, middle)
            some = True
    return some


def _segments(
    ends: list[float], known: dict[float, float], attained: dict[float, tuple[float, Tensor]]
) -> list[Segment]:
    segments, uppers = list[Segment](), list[float]()
    for a in ends:  # the best of all slopes up to a
        uppers.append(min((upper for slope, (upper, _) in attained.items() if slope <= a), default=torch.inf))
    floor = [known.get(a, -torch.inf) for a in ends]
    for k in reversed(range(len(ends) - 1)):  # a bound at a larger end holds at every smaller one
        floor[k] = max(floor[k], floor[k + 1])
    for k in range(len(ends) - 1):
        upper = (uppers[k], uppers[k + 1])
        value = floor[k + 1]
        # the start of a segment has been refuted where some slope up to it was
        segments.append(Segment(ends[k], ends[k + 1], (value, value), upper, upper[0]))
    return segments
