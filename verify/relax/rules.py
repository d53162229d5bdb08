"""The rule of each operator, asked for by its type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.ops import Clip, Elementwise, Op, Sigmoid, Tanh, TwoSlope
from leaktight.specs.region import toward
from leaktight.verify.relax import clip, leaky, smooth, two_slopes
from leaktight.verify.relax.lines import Lines

Image = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
Envelope = Callable[[Any, Tensor, Tensor, "Tensor | None", torch.dtype], Lines]
_RULES: dict[type[Op], tuple[Image, Envelope]] = {
    TwoSlope: (two_slopes.image, two_slopes.envelope),
    Clip: (clip.image, clip.envelope),
    Sigmoid: (smooth.image, smooth.envelope),
    Tanh: (smooth.image, smooth.envelope),
}


def image(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of ``op(z)`` for ``lower <= z <= upper``, in the dtype of `lower`."""
    if type(op) not in _RULES:
        raise MissingRule(f"interval bounds have no rule for {type(op).__name__}")
    low, high = _RULES[type(op)][0](op, lower.double(), upper.double())
    return toward(low, lower.dtype, -torch.inf), toward(high, lower.dtype, torch.inf)


def envelope(op: Elementwise, lower: Tensor, upper: Tensor, tilt: Tensor | None = None) -> Lines:
    """Lines around ``op`` on ``[lower, upper]``, in the dtype of `lower`.

    `tilt` in [0, 1], broadcast against the interval ends, turns the line that is free to turn (at a kink, between the
    slopes to its left and right); without it, the line that encloses the smaller area is taken.
    """
    if type(op) not in _RULES:
        raise MissingRule(f"linear bounds have no rule for {type(op).__name__}")
    return _RULES[type(op)][1](op, lower.double(), upper.double(), tilt, lower.dtype)


def turn(op: Elementwise, lines: Lines, lower: Tensor, upper: Tensor, tilt: Tensor) -> Lines:
    """`envelope` with a tilt, from the `lines` that it gave without one; cheap for a plain Leaky ReLU."""
    if isinstance(op, TwoSlope) and two_slopes.through_origin(op, lower.dtype):
        return two_slopes.turned(op, lines, lower, upper, tilt)
    return envelope(op, lower, upper, tilt)


def is_linear_on(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """Where the operator is affine on the interval, so that better interval ends would not help."""
    if isinstance(op, TwoSlope):
        if leaky.is_leaky(op):
            return torch.minimum(-lower, upper) <= leaky.kept_of(op).linear
        kink = op.kink.double() * (
            1 + op.precision * torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, *[1] * lower.dim())
        )
        one_side = (lower.double() >= kink.amax(0)) | (upper.double() <= kink.amin(0))
        return one_side | (op.left == op.right).expand(lower.shape)
    if isinstance(op, Clip):
        return (upper <= op.lower) | (lower >= op.upper) | ((lower >= op.lower) & (upper <= op.upper))
    return lower == upper
