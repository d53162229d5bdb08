"""Parameters known up to an error: arithmetic that keeps a rigorous bound on what rounding took away.

An `Enclosure` stands for every array that differs from `value` by at most `error`, entry by entry. The operations
return an enclosure of all true results, in the sense of real arithmetic. What float64 computes exactly gets error 0,
because the residuals come from error-free transformations (Ogita, Rump & Oishi 2005, doi:10.1137/030601818).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]

ROUNDOFF = 2.0**-53
_LEAST = 5e-324  # the smallest positive number: what underflow can take away
_quiet = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True, eq=False)
class Enclosure:
    """All arrays within `error` of `value`; both are float64 of one shape, and ``error >= 0``.

    What overflows has an infinite or undefined error, or value: it encloses everything, and is not `finite`.
    """

    value: Array
    error: Array

    @_quiet
    def __add__(self, other: Enclosure) -> Enclosure:
        a, b = self.value, other.value
        total = a + b
        back = total - a
        residual = (a - (total - back)) + (b - back)  # exact (Knuth's TwoSum)
        return Enclosure(total, _outward(self.error + other.error + np.abs(residual)))

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.value, self.error)

    def __sub__(self, other: Enclosure) -> Enclosure:
        return self + (-other)

    @_quiet
    def __mul__(self, other: Enclosure) -> Enclosure:
        a, b = self.value, other.value
        product = a * b
        crossed = np.abs(a) * other.error + (np.abs(b) + other.error) * self.error
        lost = _LEAST * ((self.error > 0) & (b != 0) | (other.error > 0))
        return Enclosure(product, _outward(crossed + lost + _product_residual(a, b, product)))

    @_quiet
    def __truediv__(self, other: Enclosure) -> Enclosure:
        """The quotient. Raises ZeroDivisionError where the divisor may be zero."""
        a, b = self.value, other.value
        if not (np.abs(b) > other.error).all():
            raise ZeroDivisionError("a divisor may be zero")
        quotient = a / b
        back = quotient * b
        remainder = np.abs(a - back) + _product_residual(quotient, b, back)
        own = _outward(np.where(remainder > 0, remainder / np.abs(b) + _LEAST, 0.0))
        size = np.abs(quotient) + own
        carried = (self.error + size * other.error + _LEAST) / (np.abs(b) - other.error) + _LEAST
        inexact = (self.error > 0) | ((size > 0) & (other.error > 0))
        return Enclosure(quotient, _outward(own + np.where(inexact, carried * (1 + 2.0**-50), 0.0)))

    @_quiet
    def sqrt(self) -> Enclosure:
        """The square root. Raises ValueError where the argument may be zero or negative."""
        if not (self.value > self.error).all():
            raise ValueError("the argument of a square root may be negative or zero")
        root = np.sqrt(self.value)
        back = root * root
        residual = np.abs(self.value - back) + _product_residual(root, root, back)
        return Enclosure(root, _outward((residual + self.error) / root))

    @_quiet
    def __matmul__(self, other: Enclosure) -> Enclosure:
        """``self @ other`` for a matrix ``(m, k)`` and a matrix or vector with ``k`` rows; summed in any order."""
        terms = self.value.shape[-1]
        value = self.value @ other.value
        left, right = np.abs(self.value), np.abs(other.value)
        size = left @ right
        carried = np.zeros_like(size)
        if not other.exact:
            carried = carried + left @ other.error
        if not self.exact:
            carried = carried + self.error @ (right + other.error)
        present = size > 0
        if not present.all():  # nothing to add up, or only what underflows
            present = (left + self.error > 0).astype(np.float64) @ (right + other.error > 0).astype(np.float64) > 0
        own = np.where(present, (terms + 2) * (ROUNDOFF * size + 4 * _LEAST), 0.0)
        return Enclosure(value, _outward((own + carried) * (1 + 4 * (terms + 2) * ROUNDOFF)))

    def map(self, move: Callable[[Array], Array]) -> Enclosure:
        """The entries rearranged by `move`, which computes nothing."""
        return Enclosure(move(self.value), move(self.error))

    @property
    def exact(self) -> bool:
        return not self.error.any()

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value).all() and np.isfinite(self.error).all())

    @property
    def tensor(self) -> Tensor:
        """`value` as a float64 tensor."""
        return torch.from_numpy(_owned(self.value))

    @property
    def error_tensor(self) -> Tensor | None:
        """`error` as a float64 tensor; None where everything is exact."""
        return None if self.exact else torch.from_numpy(_owned(self.error))


def exactly(value: ArrayLike) -> Enclosure:
    """An array whose numbers are meant as they stand."""
    array = np.asarray(value, dtype=np.float64)
    return Enclosure(array, np.zeros_like(array))


def enclosed(value: Tensor, error: Tensor | None = None) -> Enclosure:
    """A stored parameter and its error tensor (None for zero) as an enclosure."""
    array = value.double().numpy()
    if error is None:
        return exactly(array)
    return Enclosure(array, np.broadcast_to(error.double().numpy(), array.shape))


def _owned(array: ArrayLike) -> NDArray[Any]:
    """A writable array in row order, as tensors need it; arithmetic on arrays without axes yields scalars."""
    array = np.asarray(array, np.float64)
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")


def _outward(error: Array) -> Array:
    """`error`, computed with a handful of roundings, made an upper bound of what was meant."""
    grown: Array = np.where(error > 0, error * (1 + 2.0**-40) + 64 * _LEAST, error)
    return grown


def _product_residual(a: Array, b: Array, product: Array) -> Array:
    """At least ``|a * b - product|``, and zero where `product` is exact (Dekker's TwoProduct)."""
    with np.errstate(all="ignore"):
        a_high, b_high = _high(a), _high(b)
        a_low, b_low = a - a_high, b - b_high
        residual = np.abs(((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)
        size = np.abs(product)
        exact_split = (np.abs(a) < 2.0**900) & (np.abs(b) < 2.0**900) & (size > 2.0**-900)
        coarse = np.where((a == 0) | (b == 0), 0.0, size * 2.0**-52 + _LEAST)
    found: Array = np.where(exact_split, residual, coarse)
    return found


def _high(a: Array) -> Array:
    scaled = a * 134217729.0  # 2^27 + 1
    high: Array = scaled - (scaled - a)
    return high
