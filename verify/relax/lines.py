"""Two lines around a graph, and why they enclose it.

A line's slope ``d`` is a free choice, so it may be rounded in any way. Its offset is the largest (smallest) value of
``f(x) - d x`` on the interval, which a piecewise linear ``f`` takes at an end or at a kink, and a smooth one at an end
or where ``f' = d``. Evaluating there, plus the evaluation's own error, is a bound whatever ``d`` is. Chords and
tangents only make it a good one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leaktight.specs.region import toward
from leaktight.verify.rounding import underflow, unit

U = unit(torch.float64)
TINY = underflow(torch.float64)


@dataclass(frozen=True)
class Lines:
    """``lower_slope z + lower_offset <= f(z) <= upper_slope z + upper_offset`` on the interval it was made for.

    through_origin: the lower offsets are all zero.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    through_origin: bool = field(default=False, kw_only=True)

    def select(self, regions: Tensor | slice) -> Lines:
        """The lines at these places of the batch."""
        whole = (self.lower_slope, self.lower_offset, self.upper_slope, self.upper_offset)
        return Lines(*(x[regions] for x in whole), through_origin=self.through_origin)


def offsets(
    low_slope: Tensor, high_slope: Tensor, points: list[tuple[Tensor, Tensor, Tensor]], dtype: torch.dtype
) -> Lines:
    """Lines with these slopes around a graph known at `points`, each ``(place, value, error of the value)``.

    Between the points the graph minus a line must have no extremum (see the module's docstring).
    """
    low_slope, high_slope = low_slope.to(dtype), high_slope.to(dtype)
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    for place, value, error in points:
        for slope, found, sign in ((low_slope.double(), lows, -1.0), (high_slope.double(), highs, 1.0)):
            product = slope * place
            tiny = 4 * TINY * ((slope != 0) & (place != 0)).double()  # also where the product underflows to zero
            slack = error + 4 * U * (value.abs() + product.abs()) + tiny
            found.append(value - product + sign * slack)
    low, high = lows[0], highs[0]
    for a, b in zip(lows[1:], highs[1:], strict=True):
        low, high = torch.minimum(low, a), torch.maximum(high, b)
    return Lines(low_slope, toward(low, dtype, -torch.inf), high_slope, toward(high, dtype, torch.inf))
