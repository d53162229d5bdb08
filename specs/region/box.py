"""Boxes: an interval for every coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leaktight.specs.region.region import Region, check_walls, toward, uniform


@dataclass(frozen=True, eq=False)
class Box(Region):
    """``lower <= x <= upper`` in every coordinate; tensors ``(batch, n)``.

    `inner_lower` and `inner_upper` (by default the same) are the tightest float64 box inside the one that was meant; in
    a coordinate that holds no float64 at all, ``inner_lower > inner_upper``.
    """

    lower: Tensor
    upper: Tensor
    inner_lower: Tensor | None = None
    inner_upper: Tensor | None = None

    def __post_init__(self) -> None:
        check_walls(self.lower, self.upper)

    @property
    def inside(self) -> tuple[Tensor, Tensor]:
        """The tightest box in this dtype inside the one that was meant.

        A coordinate that holds no float64 (the constant 0.1) has its neighbours as walls: else nothing would be inside.
        """
        if self.inner_lower is None or self.inner_upper is None:
            return self.lower, self.upper
        none = self.inner_lower > self.inner_upper
        return torch.where(none, self.lower, self.inner_lower), torch.where(none, self.upper, self.inner_upper)

    @property
    def magnitude(self) -> Tensor:
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def minimum(self, coefficients: Tensor) -> Tensor:
        # a . centre - |a| . radius: two roundings in the radius, n in each sum, one at the end, all within
        # |a| . (|centre| + radius), which is |a| . magnitude; whatever the centre was rounded to, the box is around it
        centre, radius = self._around
        shift = coefficients @ centre.unsqueeze(1).mT
        return (shift - coefficients.abs() @ radius.unsqueeze(1).mT).squeeze(-1)

    @cached_property
    def _around(self) -> tuple[Tensor, Tensor]:
        centre = self.lower / 2 + self.upper / 2
        return centre, torch.maximum(self.upper - centre, centre - self.lower)

    def contains(self, x: Tensor) -> Tensor:
        low, high = self.inside
        return ((x >= low) & (x <= high)).all(-1)

    def project(self, x: Tensor) -> Tensor:
        low, high = self.inside
        return torch.maximum(torch.minimum(x, high), low)

    def sample(self, generator: torch.Generator) -> Tensor:
        share = uniform(self.lower, generator)
        return self.project(self.lower + share * (self.upper - self.lower))

    def select(self, index: Tensor | slice) -> Box:
        inner = (None if b is None else b[index] for b in (self.inner_lower, self.inner_upper))
        return Box(self.lower[index], self.upper[index], *inner)

    def permuted(self, order: Tensor) -> Box:
        inner = (None if b is None else b[:, order] for b in (self.inner_lower, self.inner_upper))
        return Box(self.lower[:, order], self.upper[:, order], *inner)

    def to(self, dtype: torch.dtype) -> Box:
        if dtype == self.lower.dtype:
            return self
        return Box(toward(self.lower, dtype, -torch.inf), toward(self.upper, dtype, torch.inf))
