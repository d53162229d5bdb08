"""What every region is: a batch of compact convex sets of inputs, enclosed by two walls in every coordinate."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from leaktight.errors import PropertyError


class Region(ABC):
    """A batch of compact convex sets of inputs."""

    lower: Tensor
    upper: Tensor

    @property
    def batch(self) -> int:
        return self.lower.shape[0]

    @property
    def size(self) -> int:
        return self.lower.shape[1]

    @property
    @abstractmethod
    def magnitude(self) -> Tensor:
        """``(batch, n)``: the unit in which the rounding errors of `minimum` are measured; see there."""

    @abstractmethod
    def minimum(self, coefficients: Tensor) -> Tensor:
        """A lower bound of ``a . x`` over the region up to rounding, ``(batch, rows)`` for ``(batch, rows, n)``.

        It is the minimum itself, up to rounding. In real arithmetic it is a bound after subtracting
        ``gamma_(n+8) |a| . magnitude`` and ``n`` units of underflow (leaktight.verify.rounding): each class shows why.
        """

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Whether each of ``(batch, n)`` points lies in its region. Never true of a point outside.

        For boxes exact. A ball may leave out points whose distance from the sphere is within rounding (a relative
        ``n`` units in the last place, plus one of the centre).
        """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A near point for each of ``(..., batch, n)``, which `contains` accepts; differentiable almost everywhere."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """One point of each region, ``(batch, n)``."""

    @abstractmethod
    def select(self, index: Tensor | slice) -> Region:
        """The regions at `index` of the batch."""

    @abstractmethod
    def permuted(self, order: Tensor) -> Region:
        """The region whose entry ``i`` is this one's entry ``order[i]``."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Region:
        """A region in `dtype` that encloses this one."""


def toward(x: Tensor, dtype: torch.dtype, direction: float) -> Tensor:
    """`x` in `dtype`, rounded towards `direction` (an infinity) wherever it is not exact; differentiable as `x` is."""
    if dtype == x.dtype:
        return x
    near = x.to(dtype)
    wrong = near.to(x.dtype) > x if direction < 0 else near.to(x.dtype) < x
    beyond = torch.nextafter(near.detach(), near.new_tensor(direction))
    step = torch.where(torch.isfinite(near), near + (beyond - near.detach()), beyond)  # one unit: exact, where finite
    return torch.where(wrong, step, near)


def check_walls(lower: Tensor, upper: Tensor) -> None:
    """Raises PropertyError: a bound is not finite, or a lower bound is above its upper bound."""
    if lower.dim() != 2 or lower.shape != upper.shape:
        raise ValueError(f"a region needs two (batch, n) tensors; got {tuple(lower.shape)}, {tuple(upper.shape)}")
    width = upper - lower
    if bool(((width >= 0) & (width < torch.inf)).all()):  # so both are finite, and in order
        return
    for name, wall in (("lower", lower), ("upper", upper)):
        if not torch.isfinite(wall).all():
            row, at = (~torch.isfinite(wall)).nonzero()[0].tolist()
            raise PropertyError(
                f"the input region is not bounded: the {name} bound of input entry {at} is "
                f"{float(wall[row, at])}; give a finite bound for every input"
            )
    if (lower > upper).any():
        row, at = (lower > upper).nonzero()[0].tolist()
        raise PropertyError(
            f"the input region is empty: input entry {at} has lower bound {float(lower[row, at])!r} "
            f"above its upper bound {float(upper[row, at])!r}; give a lower bound below the upper one"
        )


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in [0, 1), the same ones in every dtype and on every device."""
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=generator.device).to(like)
