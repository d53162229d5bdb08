"""Product: two independent regions, the inputs of the second one behind those of the first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.specs.region.region import Region


@dataclass(frozen=True, eq=False)
class Product(Region):
    """All ``(x, y)`` with ``x`` in `first` and ``y`` in `second`, two batches of equally many regions."""

    first: Region
    second: Region

    def __post_init__(self) -> None:
        if self.first.batch != self.second.batch:
            raise ValueError(f"a product needs equally many regions; got {self.first.batch} and {self.second.batch}")
        for end in ("lower", "upper"):
            object.__setattr__(self, end, torch.cat([getattr(self.first, end), getattr(self.second, end)], -1))

    @property
    def magnitude(self) -> Tensor:
        return torch.cat([self.first.magnitude, self.second.magnitude], -1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The entries ``(..., n)`` of either region."""
        first, second = x.split([self.first.size, self.second.size], -1)
        return first, second

    def minimum(self, coefficients: Tensor) -> Tensor:
        # each part keeps its own promise, with fewer terms than both have together; adding them rounds once more
        first, second = self.split(coefficients)
        return self.first.minimum(first) + self.second.minimum(second)

    def contains(self, x: Tensor) -> Tensor:
        first, second = self.split(x)
        return self.first.contains(first) & self.second.contains(second)

    def project(self, x: Tensor) -> Tensor:
        first, second = self.split(x)
        return torch.cat([self.first.project(first), self.second.project(second)], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.cat([self.first.sample(generator), self.second.sample(generator)], -1)

    def select(self, index: Tensor | slice) -> Product:
        return Product(self.first.select(index), self.second.select(index))

    def permuted(self, order: Tensor) -> Region:
        raise ValueError("the entries of a product of regions stay in their order; permute its parts")

    def to(self, dtype: torch.dtype) -> Product:
        return Product(self.first.to(dtype), self.second.to(dtype))
