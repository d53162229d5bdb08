"""Nonlinear operators: functions of each entry by itself, and the maximum of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from leaktight.models.ops.operator import Op


class Elementwise(Op):
    """A nonlinear function of each entry by itself. Its parameters stay in float64 whatever the network is in."""


@dataclass(frozen=True, eq=False)
class Leaky:
    """Where a `TwoSlope` comes from: a Leaky ReLU of this slope, perhaps scaled and shifted on either side.

    In the entries `flipped` (boolean) the leaky side is the right one. The leaky side is `slope` times the other. Both
    broadcast against the value's shape. Provenance, not meaning: the activation is what its own parameters say.
    """

    slope: Tensor
    flipped: Tensor


@dataclass(frozen=True, eq=False)
class TwoSlope(Elementwise):
    """``value + right * (x - kink)`` where ``x >= kink`` and ``value + left * (x - kink)`` elsewhere.

    Every parameter is finite and broadcasts against the value's shape. The Leaky ReLU with slope ``s`` is
    ``left = s, right = 1, kink = value = 0`` (see `leaky_relu`); ReLU is ``s = 0`` and the absolute value ``s = -1``.
    """

    left: Tensor
    right: Tensor
    kink: Tensor
    value: Tensor
    precision: float = 0.0  # each true parameter lies within this relative distance of the stored one
    leak: Leaky | None = field(default=None, compare=False)  # None: not made from a Leaky ReLU

    def __post_init__(self) -> None:
        for name in ("left", "right", "kink", "value"):
            if not torch.isfinite(getattr(self, name)).all():
                raise ValueError(f"TwoSlope.{name} must be finite")

    def __call__(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self._leak is not None:
            if abs(self._leak) <= torch.finfo(x.dtype).max:
                return F.leaky_relu(x, self._leak)
            return torch.where(x >= 0, x, x * self.left.to(x.dtype))  # a slope that float32 does not hold is infinite
        left, right, kink, value = (p.to(x.dtype) for p in (self.left, self.right, self.kink, self.value))
        shifted = x - kink
        # one of the two is zero, so their sum is exact; choosing between them takes longer
        return value + (right * shifted.clamp(min=0) + left * shifted.clamp(max=0))

    @cached_property
    def _leak(self) -> float | None:
        """The slope of a plain Leaky ReLU with one for all entries."""
        others = torch.cat([p.flatten() for p in (self.kink, self.value, self.right - 1)])
        plain = self.left.numel() == 1 and not self.left.requires_grad and not bool(others.any())
        return float(self.left) if plain else None


def leaky_relu(slope: Tensor | float) -> TwoSlope:
    """``x`` where ``x >= 0``, ``slope * x`` elsewhere; any finite slope, scalar or broadcastable (one per channel)."""
    left = torch.as_tensor(slope, dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return TwoSlope(left, one, zero, zero, leak=Leaky(left, torch.zeros((), dtype=torch.bool)))


@dataclass(frozen=True, eq=False)
class Clip(Elementwise):
    """``min(max(x, lower), upper)`` with finite ``lower <= upper`` (a one-sided clip is a `TwoSlope`)."""

    lower: float
    upper: float

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs[0])


@dataclass(frozen=True, eq=False)
class Tanh(Elementwise):
    """The hyperbolic tangent."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return torch.tanh(inputs[0])


@dataclass(frozen=True, eq=False)
class Maximum(Op):
    """The largest entry along the last axis, which disappears. Max pooling is a `Select` of windows, then this."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].amax(-1)
