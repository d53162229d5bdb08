"""Affine operators without weights: values that nothing enters, and sums of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.models.ops.affine import Affine, rounded
from leaktight.models.ops.operator import Shape


@dataclass(frozen=True, eq=False)
class Constant(Affine):
    """A value that depends on no input, for example one that a file concatenates to its input."""

    value: Tensor
    error: Tensor | None = None

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.zeros_like(self.value)

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return torch.zeros_like(self.value)

    def spread(self, *inputs: Tensor) -> Tensor | None:
        return self.error

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return ()

    @property
    def bias_value(self) -> Tensor | None:
        return self.value

    @property
    def forward_terms(self) -> int:
        return 0

    @property
    def adjoint_terms(self) -> int:
        return 0

    def to(self: Any, dtype: torch.dtype) -> Any:
        value, error = rounded(self.value, self.error, dtype)
        return replace(self, value=value, error=error)


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """``sum_i sign_i x_i`` of values of equal shape; every sign is +1 or -1."""

    signs: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for sign, x in zip(self.signs[1:], inputs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*inputs)).sum(0)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return tuple(coefficients if sign > 0 else -coefficients for sign in self.signs)

    @property
    def forward_terms(self) -> int:
        return len(self.signs)

    @property
    def adjoint_terms(self) -> int:
        return 0
