"""Branch and bound on inputs and slope together: the slope is one more coordinate of the boxes that are halved.

A parametric pass (`leaktight.verify.leak.slope_passes`) bounds atoms from below by functions that are linear in the
inputs and in the slope. So everything that is done to boxes of inputs (`leaktight.verify.search.bisect`: what is proved
is cut off, the rest halved where that gains most) is done to boxes whose last coordinate is the slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.closing import Stretch
from leaktight.verify.leak.joint import with_slope_input
from leaktight.verify.leak.slope_passes import SlopePasses
from leaktight.verify.rounding import up
from leaktight.verify.search.bisect import Bisection, Confirm
from leaktight.verify.search.box_bounds import Bounder


@dataclass(frozen=True)
class Line:
    """The line ``level + rate a`` over slopes ``a``."""

    level: float = 0.0
    rate: float = 0.0

    @classmethod
    def through(cls, lo: float, hi: float, at_lo: float, at_hi: float) -> Line:
        """About the line with these values at two slopes."""
        rate = (at_hi - at_lo) / (hi - lo) if hi > lo else 0.0
        return cls(at_lo - rate * lo, rate)

    def below(self, a: float) -> float:
        """At most the line's value."""
        rise = self.rate * a
        return self.level + rise - 1e-15 * (abs(self.level) + abs(rise)) - 1e-300


def box_search(
    slopes: Slopes,
    case: Case,
    stretches: Sequence[Stretch],
    lines: Sequence[Line],
    least: float,
    memory: int,
    confirm: Confirm,
    late: Callable[[], bool] = lambda: False,
) -> Bisection:
    """A search for the points of a case's regions and of stretches of slopes at which the margin is not above a line.

    Its boxes have the slope as a last coordinate, and the stretches as owners.
    """
    region = torch.tensor([stretch.region for stretch in stretches])
    part = case.select(region)
    ends = torch.tensor([(s.lo, s.hi) for s in stretches], dtype=torch.float64).split(1, 1)
    lower, upper = (torch.cat(both, 1) for both in zip((part.region.lower, part.region.upper), ends, strict=True))
    levels, rates = torch.tensor([(line.level, line.rate) for line in lines], dtype=torch.float64).split(1, 1)
    many, atoms = len(stretches), part.unsafe.weights.shape[1]
    weights = part.unsafe.weights.double().expand(many, -1, -1)
    bounds = part.unsafe.bounds.double().expand(many, -1)
    unsafe = replace(
        part.unsafe,
        weights=torch.cat([weights, -rates.unsqueeze(1).expand(-1, atoms, -1)], -1),
        bounds=torch.where(levels == 0, bounds, up(bounds + levels)),
        inner_bounds=None,
    )
    wide, network = Case(Box(lower, upper), unsafe), with_slope_input(slopes, handed_on=True)
    bounder = Bounder(network, wide, memory, SlopePasses(slopes, memory))
    return Bisection(network, wide, confirm, least, late, memory, bounder=bounder)


def reached(slopes: Slopes, case: Case, region: int, points: Tensor) -> tuple[float, float, Tensor]:
    """The slope of a point ``(1, n + 1)`` of a search, at least the margin there, and the input ``(n,)``."""
    part = slice(region, region + 1)
    one = case.select(part)
    x, a = one.region.project(points[:, :-1].double()), points[:, -1].double()
    return float(a), float(attained(slopes, one, x, a)), x[0]
