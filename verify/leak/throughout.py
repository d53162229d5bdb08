"""What one input attains at every slope of a segment."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.bounds.interval import outputs
from leaktight.verify.leak.attack import around_points, atoms_above
from leaktight.verify.leak.intervals import over_range
from leaktight.verify.rounding import trusted_upper


def highest(slopes: Slopes, case: Case, points: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Upper bounds ``(k,)`` of the margin at the inputs ``(k, n)`` for every slope in ``[lo[k], hi[k]]``.

    For a case with one region. So no smallest margin over the region is above it at any of these slopes. Infinite where
    a point is not surely inside. Computed by intervals over the slopes.
    """
    many = torch.zeros(len(points), dtype=torch.int64)
    region = case.region.select(many)
    with torch.no_grad():
        inside = region.contains(points)
        where = around_points(region, torch.maximum(torch.minimum(points, region.upper), region.lower))
        y = outputs(slopes.network, over_range(slopes, where, lo, hi))
        asked = Case(region, case.unsafe.select(many))
        found = trusted_upper(asked.unsafe.combine(atoms_above(asked, y)))
    return torch.where(inside, found, torch.inf)
