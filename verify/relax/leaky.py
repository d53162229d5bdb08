"""The plain Leaky ReLU, a special case that is worth being fast."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.ops import Op, TwoSlope
from leaktight.verify.lasting import lasting
from leaktight.verify.relax.lines import TINY, Lines, U

_LEAST = 2.0**-900  # a slope whose units in the last place are numbers, too
_KEPT: MutableMapping[TwoSlope, Leaky | None] = WeakKeyDictionary()


def is_leaky(op: Op) -> TypeGuard[TwoSlope]:
    """Whether it is a plain Leaky ReLU with slopes in [0, 1], exactly, and none so small that it has fewer digits."""
    if not isinstance(op, TwoSlope):
        return False
    if op not in _KEPT:
        plain = op.precision == 0 and not any(bool(x) for x in (op.kink.any(), op.value.any(), (op.right != 1).any()))
        fits = (op.left == 0) | (op.left >= _LEAST) & (op.left <= 1)
        with lasting():
            _KEPT[op] = Leaky.of(op.left) if plain and bool(fits.all()) else None
    return _KEPT[op] is not None


def kept_of(op: TwoSlope) -> Leaky:
    found = _KEPT[op] if is_leaky(op) else None
    if found is None:
        raise InternalError("the activation is no plain Leaky ReLU")
    return found


@dataclass(frozen=True)
class Leaky:
    """What is kept of a plain Leaky ReLU: its slope rounded up and down, and where images and lines are exact.

    inexact: a unit of underflow, zero for the slopes 0 and 1. linear: how far an interval may reach to both sides of
    the kink without a bend, which is any distance for the slope 1.
    """

    high: Tensor
    low: Tensor
    inexact: Tensor
    linear: Tensor

    @classmethod
    def of(cls, slope: Tensor) -> Leaky:
        """Eight units make up for three roundings: of the slope itself, and of two products."""
        straight = slope == 1
        return cls(
            (slope * (1 + 8 * U)).clamp(max=1),
            torch.where(straight, 1.0, slope * (1 - 8 * U)),
            torch.where((slope == 0) | straight, 0.0, torch.full_like(slope, TINY)),
            torch.where(straight, torch.inf, torch.zeros_like(slope)),
        )


def image(op: TwoSlope, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """``max(x, slope x)`` at both ends, rounded outwards by moving the slope; exact to the right, and for 0 and 1.

    What underflows is less than ``|x|`` too, so nothing is added at zero.
    """
    kept = kept_of(op)
    return (
        torch.maximum(lower, lower * kept.high - torch.minimum(-lower.clamp(max=0), kept.inexact)),
        torch.maximum(upper, upper * kept.low + torch.minimum(-upper.clamp(max=0), kept.inexact)),
    )


def rightwards(lower: Tensor, upper: Tensor) -> Tensor:
    """1 where the interval reaches further to the right of zero than to its left, else 0."""
    return (upper + lower).sign_().clamp_(min=0)  # a comparison takes longer


def envelope(op: TwoSlope, lower: Tensor, upper: Tensor) -> Lines:
    """The lines around ``max(x, slope x)``, without a tilt.

    With the interval's parts left and right of the kink, ``low <= 0 <= high``, the chord turns from the slope to 1 as
    the right part's share of the interval grows; on one side of the kink `lerp` gives the activation's own slope
    exactly, and the offset is zero. Else the offset is that of the end where it is larger, for the chord as it was
    rounded: a difference and a product round once each. What underflows there is less than either part.

    Below the ray that encloses the smaller area, exactly through the kink; on one side that is the activation itself.
    """
    slope, one = op.left, op.right
    low, high = lower.clamp(max=0), upper.clamp(min=0)
    chord = torch.lerp(slope, one, high / (high - low).clamp_(min=TINY))
    offset = torch.maximum((slope - chord).mul_(low), (one - chord).mul_(high))
    offset = torch.add(offset * (1 + 8 * U), torch.minimum(-low, high).clamp_(max=4 * TINY))
    ray = torch.lerp(slope, one, rightwards(lower, upper))
    return Lines(ray, torch.zeros_like(offset), chord, offset, through_origin=True)
