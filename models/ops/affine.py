"""Affine operators: linear maps of all inputs together plus a bias, with parameters known up to an error."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from leaktight.models.ops.operator import Op, Shape


class Affine(Op):
    """``sum_i W_i x_i + b``, with parameters known up to a spread: the true ``W`` lies within ``W ± E``.

    `forward_terms` and `adjoint_terms` count the products that are summed for one entry of ``W x`` and of ``W^T a``
    (an upper bound; the bias counts as one): the ``k`` of the rounding factor ``gamma_k``. Zero says that nothing is
    rounded, because entries are only moved.
    """

    @abstractmethod
    def linear(self, *inputs: Tensor) -> Tensor:
        """``W x`` without the bias."""

    @abstractmethod
    def magnitude(self, *inputs: Tensor) -> Tensor:
        """``|W| x``, for ``x >= 0``."""

    @abstractmethod
    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """``W_i^T a`` for every input, given ``a`` as ``(..., *output shape)`` and the input shapes."""

    def spread(self, *inputs: Tensor) -> Tensor | None:
        """``E x + e``, for ``x >= 0``: how far the value may be off because of uncertain parameters; None for zero."""
        return None

    @property
    def bias_value(self) -> Tensor | None:
        """``b``, broadcastable to the output shape; None for zero."""
        return None

    @property
    @abstractmethod
    def forward_terms(self) -> int: ...

    @property
    @abstractmethod
    def adjoint_terms(self) -> int: ...

    def __call__(self, *inputs: Tensor) -> Tensor:
        value = self.linear(*inputs)
        return value if self.bias_value is None else value + self.bias_value


def rounded(value: Tensor | None, error: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """`value` in `dtype`, with a bound on its distance to the truth; None stands for zero."""
    if value is None:
        return None, None
    nearest = value.to(dtype)
    off = (nearest.double() - value.double()).abs()  # exact: both are within a factor two, or the result is tiny
    if error is not None:
        off = (off + error.double()) * (1 + 2**-50)
    if not off.any():
        return nearest, None
    outward = off.to(dtype)
    return nearest, torch.where(
        outward.double() < off, torch.nextafter(outward, outward.new_tensor(torch.inf)), outward
    )
