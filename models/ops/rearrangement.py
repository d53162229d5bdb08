"""Affine operators that compute nothing: they put entries in other places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from leaktight.models.ops.affine import Affine
from leaktight.models.ops.operator import Shape


class _Rearrangement(Affine):
    """Every output entry is an entry of an input, or zero."""

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return self.linear(*inputs)

    @property
    def forward_terms(self) -> int:
        return 0

    @property
    def adjoint_terms(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Select(_Rearrangement):
    """``y.flat[i] = x.flat[index.flat[i]]``, and zero where the index is -1.

    One operator for every rearrangement with known places: Transpose, Slice, Gather, Split, Pad, nearest Upsample and
    the windows of pooling.
    """

    index: Tensor
    input_shape: Shape

    @cached_property
    def _padded(self) -> bool:
        return bool((self.index < 0).any())

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        flat = x.reshape(*x.shape[: x.dim() - len(self.input_shape)], -1)
        if not self._padded:
            return flat[..., self.index]
        return torch.where(self.index >= 0, flat[..., self.index.clamp(min=0)], 0.0)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        lead = coefficients.shape[: coefficients.dim() - self.index.dim()]
        flat, places = coefficients.reshape(*lead, -1), self.index.reshape(-1)
        if self._padded:
            flat, places = flat[..., places >= 0], places[places >= 0]
        value = flat.new_zeros(*lead, prod(self.input_shape)).index_add(-1, places, flat)
        return (value.reshape(*lead, *self.input_shape),)

    @cached_property
    def adjoint_terms(self) -> int:
        used = self.index[self.index >= 0]
        most = int(torch.bincount(used).max()) if used.numel() else 0
        return most if most > 1 else 0


@dataclass(frozen=True, eq=False)
class Reshape(_Rearrangement):
    """The same entries in another shape."""

    input_shape: Shape
    output_shape: Shape

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x.reshape(*x.shape[: x.dim() - len(self.input_shape)], *self.output_shape)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        lead = coefficients.shape[: coefficients.dim() - len(self.output_shape)]
        return (coefficients.reshape(*lead, *self.input_shape),)


@dataclass(frozen=True, eq=False)
class Concat(_Rearrangement):
    """Values joined along `axis`, counted from the back (negative)."""

    axis: int

    def linear(self, *inputs: Tensor) -> Tensor:
        lead = np.broadcast_shapes(*(x.shape[: self.axis] for x in inputs))
        return torch.cat([x.expand(*lead, *x.shape[self.axis :]) for x in inputs], self.axis)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return tuple(torch.split(coefficients, [shape[self.axis] for shape in shapes], self.axis))
