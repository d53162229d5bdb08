"""Margins that inputs attain at slopes: rigorous upper bounds of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.interval import Interval, outputs, propagate
from leaktight.verify.rounding import gamma, trusted_upper, underflow, up


@dataclass(frozen=True, eq=False)
class Lowest:
    """For each region the best input found ``(batch, n)`` and its slope ``(batch,)``, both float64.

    `upper` ``(batch,)``: at least the margin there in real arithmetic, so at least the minimum over the region at that
    slope; infinite where the input is not surely inside the region.
    """

    points: Tensor
    slopes: Tensor
    upper: Tensor

    def better(self, other: Lowest) -> Lowest:
        """Of each region the one with the lower bound."""
        first = self.upper <= other.upper
        return Lowest(
            torch.where(first.unsqueeze(-1), self.points, other.points),
            torch.where(first, self.slopes, other.slopes),
            torch.where(first, self.upper, other.upper),
        )


def attained(slopes: Slopes, case: Case, points: Tensor, at: Tensor) -> Tensor:
    """Upper bounds ``(batch,)`` of the margin at the inputs ``(batch, n)`` and slopes `at` ``(batch,)``.

    For each region ``b``: if ``points[b]`` lies in it, the margin ``m(f(points[b]; at[b]))`` of the exact network is at
    most the result, and so is its minimum over the region. The result is infinite where the point is not surely inside.
    Computed by intervals of width zero; a coordinate whose range holds no float64 is an interval that holds its range.
    """
    region = case.region
    with torch.no_grad():
        points = points.double().nan_to_num(nan=torch.inf)
        inside = region.contains(points)
        where = around_points(region, torch.maximum(torch.minimum(points, region.upper), region.lower))
        y = outputs(slopes.network, propagate(slopes.at(at), where))
        found = trusted_upper(case.unsafe.combine(atoms_above(case, y)))
    return torch.where(inside, found, torch.inf)


def around_points(region: Region, points: Tensor) -> Box:
    """The points as boxes; a coordinate whose range holds no float64 is the interval that holds its range."""
    if isinstance(region, Box) and region.inner_lower is not None and region.inner_upper is not None:
        none = region.inner_lower > region.inner_upper
        return Box(torch.where(none, region.lower, points), torch.where(none, region.upper, points))
    return Box(points, points)


def atoms_above(case: Case, y: Interval) -> Tensor:
    """At least ``c . y - d`` of every atom, ``(batch, atoms)``, with conditions rounded so that fewer are unsafe."""
    unsafe, terms = case.unsafe, y.lower.shape[-1] + 1
    weights, bounds = unsafe.weights, unsafe.bounds if unsafe.inner_bounds is None else unsafe.inner_bounds
    ends = [torch.where(weights == 0, 0.0, weights * end.unsqueeze(1)) for end in (y.lower, y.upper)]
    most = torch.maximum(*ends)
    size = most.abs().sum(-1) + bounds.abs()
    return up(most.sum(-1) - bounds + gamma(terms, y.lower.dtype) * size + terms * underflow(y.lower.dtype))
