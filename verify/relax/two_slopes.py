"""Two slopes, one on either side of a kink: every Leaky ReLU, with any slopes, also per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.ops import TwoSlope
from leaktight.verify.relax import leaky
from leaktight.verify.relax.lines import TINY, Lines, U, offsets
from leaktight.verify.relax.tilts import default_tilt
from leaktight.verify.rounding import down, up


def _value_and_error(op: TwoSlope, x: Tensor) -> tuple[Tensor, Tensor]:
    """``f(x)`` and a bound on its error: three roundings and the parameters' own uncertainty."""
    reach = torch.maximum(op.left.abs(), op.right.abs()) * (x.abs() + 2 * op.kink.abs())
    exact = ((op.kink == 0) & (op.value == 0)).expand(x.shape)
    slope = torch.where(x >= op.kink, op.right, op.left)
    plain = exact & ((slope == 0) | (slope.abs() == 1))
    error = (8 * U + 4 * op.precision) * (op.value.abs() + reach) + 4 * TINY
    return op(x), torch.where(plain & (op.precision == 0), 0.0, error)


def image(op: TwoSlope, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    if leaky.is_leaky(op):
        return leaky.image(op, lower, upper)
    middle = torch.minimum(torch.maximum(op.kink.expand(lower.shape), lower), upper)
    ends = [_value_and_error(op, x) for x in (lower, upper, middle)]
    low = torch.stack([value - error for value, error in ends]).amin(0)
    high = torch.stack([value + error for value, error in ends]).amax(0)
    rounded = torch.stack([error for _, error in ends]).amax(0) > 0
    return torch.where(rounded, down(low), low), torch.where(rounded, up(high), high)


def envelope(op: TwoSlope, lower: Tensor, upper: Tensor, tilt: Tensor | None, dtype: torch.dtype) -> Lines:
    left, right = op.left, op.right
    if leaky.is_leaky(op) and dtype == torch.float64:
        lines = leaky.envelope(op, lower, upper)
        return lines if tilt is None else turned(op, lines, lower, upper, tilt)
    if tilt is not None and through_origin(op, dtype):
        return turned(op, envelope(op, lower, upper, None, dtype), lower, upper, tilt)
    at_lower, at_upper = op(lower), op(upper)
    steep, flat = torch.maximum(left, right), torch.minimum(left, right)
    chord = ((at_upper - at_lower) / (upper - lower).clamp(min=TINY)).clamp(min=flat, max=steep)
    if tilt is None:
        tilt = default_tilt(op, lower, upper)
    ray = left + tilt.double() * (right - left)
    convex = right >= left
    low, high = torch.where(convex, ray, chord), torch.where(convex, chord, ray)
    for side, slope in ((lower >= op.kink, right), (upper <= op.kink, left)):
        low, high = torch.where(side, slope, low), torch.where(side, slope, high)
    middle = torch.minimum(torch.maximum(op.kink.expand(lower.shape), lower), upper)
    return offsets(low, high, [(x, *_value_and_error(op, x)) for x in (lower, upper, middle)], dtype)


def through_origin(op: TwoSlope, dtype: torch.dtype) -> bool:
    """Whether every line through the origin with a slope between the two, in `dtype`, is exactly on one side."""
    plain = op.precision == 0 and not bool(op.kink.any()) and not bool(op.value.any())
    return plain and bool((op.left.to(dtype) == op.left).all()) and bool((op.right.to(dtype) == op.right).all())


def turned(op: TwoSlope, lines: Lines, lower: Tensor, upper: Tensor, tilt: Tensor) -> Lines:
    """The lines with the free one replaced by the ray through the kink at the origin that `tilt` says.

    A ray needs no offset: ``f(x) - d x`` is ``(right - d) x`` to the right of zero and ``(left - d) x`` to its left,
    which have the same sign for ``d`` between the slopes. The clamp keeps a rounded ``d`` there.
    """
    dtype = lines.lower_slope.dtype
    left, right = op.left.to(dtype), op.right.to(dtype)
    ray = (left + tilt.to(dtype) * (right - left)).clamp(torch.minimum(left, right), torch.maximum(left, right))
    free = (lower < 0) & (upper > 0)
    below, above = free & (right >= left), free & (right < left)
    low_slope, low_offset, high_slope, high_offset = (
        lines.lower_slope,
        lines.lower_offset,
        lines.upper_slope,
        lines.upper_offset,
    )
    if bool(below.any()):
        low_slope, low_offset = torch.where(below, ray, low_slope), low_offset.masked_fill(below, 0.0)
    if bool(above.any()):
        high_slope, high_offset = torch.where(above, ray, high_slope), high_offset.masked_fill(above, 0.0)
    return Lines(low_slope, low_offset, high_slope, high_offset)
