"""Operator norms of dense matrices, rounded upwards."""

from __future__ import annotations

from math import inf, isfinite, nextafter, sqrt

import numpy as np
import torch

from leaktight.models.enclosure import Enclosure
from leaktight.specs.region import Norm
from leaktight.verify.clock import left, tick
from leaktight.verify.lipschitz.positive import is_positive_semidefinite
from leaktight.verify.rounding import gamma

_SPEED = 1e10  # operations of matrix products in a second, on one core


def operator_norm(matrix: Enclosure | None, norm: Norm) -> float:
    """At least the norm of every matrix in the enclosure, from `norm` to `norm`; None is the identity."""
    if matrix is None:
        return 1.0
    if norm is Norm.L2:
        return spectral(matrix)
    return largest_sum(matrix, 1 if norm is Norm.LINF else 0)


def largest_sum(matrix: Enclosure, axis: int) -> float:
    """At least the largest sum of absolute entries of a row (`axis` 1, the L-infinity norm) or column (0, L1)."""
    size = np.abs(matrix.value) + matrix.error
    if not size.any():
        return 0.0
    return up(float(size.sum(axis).max()) * (1 + gamma(size.shape[axis] + 1, torch.float64)))


def spectral(matrix: Enclosure) -> float:
    """At least the largest singular value of every matrix in the enclosure, within about 1e-11 where the error allows.

    ``|W| <= s`` if ``s^2 - W W^T`` is positive semidefinite, which is proven; ``s`` itself may come from anywhere.
    Where no proof succeeds, or a time limit leaves too little for one, ``|W|^2 <= |W|_1 |W|_inf`` is a bound.
    """
    tick()
    if not (matrix.value.any() or matrix.error.any()):
        return 0.0
    crude = up(sqrt(largest_sum(matrix, 0)) * sqrt(largest_sum(matrix, 1)) * (1 + 2.0**-50))
    if not isfinite(crude) or _seconds(*matrix.value.shape) > left():
        return crude
    power = -int(np.frexp(crude)[1])
    scaled = matrix.map(lambda x: np.ldexp(x, power))
    if not _exact(matrix, scaled, power):
        return crude
    wide = scaled if scaled.value.shape[0] <= scaled.value.shape[1] else scaled.map(lambda x: x.T)
    gram = wide @ wide.map(lambda x: x.T)
    largest = float(np.linalg.eigvalsh(gram.value)[-1])
    for slack in (1e-15 * len(gram.value), 1e-13 * len(gram.value), 1e-10, 1e-7, 1e-4, 1e-2):
        square = largest * (1 + slack)
        if is_positive_semidefinite(Enclosure(square * np.eye(len(gram.value)) - gram.value, _off(gram, square))):
            return min(crude, float(np.ldexp(up(sqrt(square)), -power)))
    return crude


def _seconds(rows: int, columns: int) -> float:
    """About what `spectral` takes: the products of an enclosure, eigenvalues, factors."""
    short, long = sorted((rows, columns))
    return (6.0 * short**2 * long + 12.0 * short**3) / _SPEED


def _exact(matrix: Enclosure, scaled: Enclosure, power: int) -> bool:
    """Whether scaling by a power of two lost nothing to underflow."""
    back = scaled.map(lambda x: np.ldexp(x, -power))
    return bool((back.value == matrix.value).all() and (back.error == matrix.error).all())


def _off(gram: Enclosure, square: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The error of ``square - gram``: that of the product, and the subtraction's on the diagonal."""
    error = gram.error.copy()
    np.fill_diagonal(error, np.diagonal(error) + 2.0**-52 * (square + np.diagonal(gram.value)))
    return error


def up(value: float) -> float:
    """The next larger number."""
    return nextafter(value, inf)


def times(a: float, b: float) -> float:
    """At least the product of two numbers that are not negative; zero where one is."""
    return 0.0 if a == 0 or b == 0 else up(a * b)


def plus(a: float, b: float) -> float:
    """At least the sum of two numbers that are not negative."""
    return a or b if a == 0 or b == 0 else up(a + b)
