"""Passes over boxes whose last coordinate is the slope: rows on inputs and slope, and how low they come."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import refine_all
from leaktight.verify.bounds.interval import Interval, input_intervals
from leaktight.verify.bounds.rows import Rows
from leaktight.verify.leak.joint import slope_name
from leaktight.verify.leak.parametric import Parametric
from leaktight.verify.rounding import down, trusted_lower, unit
from leaktight.verify.search.box_bounds import Known
from leaktight.verify.search.boxes import Boxes


class SlopePasses:
    """The coordinates of a box are the network's inputs and, last, the slope."""

    def __init__(self, slopes: Slopes, memory: int) -> None:
        self.slopes, self.memory, self.name = slopes, memory, slope_name(slopes.network)

    def opened(self, boxes: Boxes, floor: Known, deadline: float | None) -> Parametric:
        lower, upper = boxes.lower, boxes.upper
        region = Box(lower[:, :-1], upper[:, :-1])
        known = input_intervals(self.slopes.network, region)
        known[self.name] = Interval(lower[:, -1:], upper[:, -1:])
        backward = Parametric(self.slopes, region, known, lower[:, -1], upper[:, -1])
        refine_all(backward, known, self.memory, floor=floor, deadline=deadline)
        return backward

    def rows(self, backward: Backward, starts: list[Rows]) -> tuple[Tensor, Tensor]:
        """With ``a = middle + t``: a pass says ``atom >= row . x + rate t + c``, and how low ``row . x + c`` comes.

        Rows on the slope itself, ``k a = k middle + k t``, are added.
        """
        if not isinstance(backward, Parametric):
            raise InternalError("a box with a slope was opened by another pass")
        walk = backward.walk(*(start for start in starts if start.node != self.name))
        flat = walk.on_inputs() if walk.pending else torch.zeros(1, 1, backward.region.size, dtype=backward.dtype)
        value = walk.conclude()
        rate = torch.as_tensor(walk.rate, dtype=backward.dtype).expand(value.shape)
        off = torch.zeros_like(value)
        for start in starts:
            if start.node == self.name:
                factor = start.coefficients.squeeze(-1)
                level, steep = factor * backward.middle.unsqueeze(1), rate + factor
                off = off + 4 * unit(backward.dtype) * (
                    level.abs() + value.abs() + steep.abs() * backward.half.unsqueeze(1)
                )
                value, rate = value + level, steep
        fall = rate.abs() * backward.half.unsqueeze(1)
        floors = trusted_lower(
            down(value - fall * (1 + 4 * unit(backward.dtype)) - off * (1 + 4 * unit(backward.dtype)))
        )
        return torch.cat([flat.expand(*value.shape, -1), rate.unsqueeze(-1)], -1), floors
