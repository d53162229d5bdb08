"""Where to turn the line that is free to turn at a kink: 0 for the slope to its left, 1 for that to its right."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.ops import Clip, Elementwise, Op, TwoSlope
from leaktight.verify.relax.leaky import is_leaky, rightwards
from leaktight.verify.rounding import underflow


def has_tilt(op: Op) -> bool:
    """Whether a line of this operator can be turned."""
    return isinstance(op, (TwoSlope, Clip))


def default_tilt(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """The turn of the free line that encloses the smaller area: 1 where the interval reaches further right."""
    if isinstance(op, Clip):
        return torch.full_like(lower, 0.5)
    if not isinstance(op, TwoSlope) or is_leaky(op):
        return rightwards(lower, upper)
    return ((upper - op.kink) + (lower - op.kink)).to(lower.dtype).sign_().clamp_(min=0)


def other_tilt(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """A second turn to try: towards the steeper side where the chord has more than half its slope.

    That is `default_tilt` for a ReLU, and what is usual whatever the leak. With a leak it encloses more area, yet some
    bounds come out better.
    """
    tilt = default_tilt(op, lower, upper)
    if not isinstance(op, TwoSlope):
        return tilt
    chord = (op(upper) - op(lower)) / (upper - lower).clamp(min=underflow(lower.dtype))
    right = op.right.abs() >= op.left.abs()
    steep = torch.where(right, op.right, op.left)
    turned = (chord / steep > 0.5) == right  # where both slopes are zero there is nothing to turn
    return torch.where((lower < op.kink) & (upper > op.kink), turned.to(tilt.dtype), tilt)


def parallel_tilt(op: TwoSlope, lower: Tensor, upper: Tensor) -> Tensor:
    """The turn that makes the free line parallel to the chord, which brings the two as close as they can be."""
    chord = (op(upper) - op(lower)) / (upper - lower).clamp(min=underflow(lower.dtype))
    bend = op.right - op.left
    return ((chord - op.left) / torch.where(bend == 0, 1.0, bend)).clamp(0, 1)
