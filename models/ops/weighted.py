"""Affine operators with a weight, a bias and an error for each of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from leaktight.models.ops.affine import Affine, rounded
from leaktight.models.ops.operator import Shape

_SMALL_WEIGHT = 2**20


@dataclass(frozen=True, eq=False)
class Weighted(Affine):
    """Shared by the affine operators that have a weight, a bias and an error for each of them."""

    weight: Tensor
    bias: Tensor | None = None
    weight_error: Tensor | None = field(default=None, kw_only=True)
    bias_error: Tensor | None = field(default=None, kw_only=True)

    @abstractmethod
    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        """The linear map with another weight of the same shape."""

    def _bias_shaped(self, bias: Tensor | None) -> Tensor | None:
        return bias

    def linear(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self._apply(self.weight, x)

    @cached_property
    def _kept_sizes(self) -> Tensor:
        return self.weight.abs()

    def magnitude(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self._apply(self.weight.abs() if self.weight.numel() > _SMALL_WEIGHT else self._kept_sizes, x)

    def spread(self, *inputs: Tensor) -> Tensor | None:
        (x,) = inputs
        error = self._bias_shaped(self.bias_error)
        if self.weight_error is None:
            return None if error is None else error
        value = self._apply(self.weight_error, x)
        return value if error is None else value + error

    @property
    def finite(self) -> bool:
        """Whether all parameters, and what is known of their errors, are finite numbers."""
        parameters = (self.weight, self.bias, self.weight_error, self.bias_error)
        return all(bool(x.isfinite().all()) for x in parameters if x is not None)

    @property
    def bias_value(self) -> Tensor | None:
        return self._bias_shaped(self.bias)

    def to(self: Any, dtype: torch.dtype) -> Any:
        if self.weight.dtype == dtype and (self.bias is None or self.bias.dtype == dtype):
            return self
        weight, weight_error = rounded(self.weight, self.weight_error, dtype)
        bias, bias_error = rounded(self.bias, self.bias_error, dtype)
        return replace(self, weight=weight, bias=bias, weight_error=weight_error, bias_error=bias_error)


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """``W x + b`` over the last axis; weight ``(out, in)``, bias ``(out,)``."""

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        return x @ weight.mT

    @cached_property
    def _columns(self) -> Tensor:
        """The weight, kept column by column where it is small: products with many rows are a fifth faster so."""
        return self.weight if self.weight.numel() > _SMALL_WEIGHT else self.weight.mT.contiguous().mT

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return (coefficients @ self._columns,)

    @property
    def forward_terms(self) -> int:
        return self.weight.shape[1] + 1

    @property
    def adjoint_terms(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Scale(Weighted):
    """``w * x + b`` entry by entry; weight and bias broadcast against the value's shape without enlarging it."""

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        return x * weight

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return (coefficients * self.weight,)

    @property
    def forward_terms(self) -> int:
        return 2

    @property
    def adjoint_terms(self) -> int:
        return 1
