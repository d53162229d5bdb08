"""Matrices proven positive semidefinite, whatever floating-point arithmetic did.

No property of an algorithm is used but that matrix products are sums of products in some order
(leaktight.verify.rounding): a factor ``R``, wherever it comes from, is judged by its residual.
"""

from __future__ import annotations

import numpy as np
import torch

from leaktight.models.enclosure import Array, Enclosure
from leaktight.verify.rounding import gamma, underflow, unit

_U = unit(torch.float64)
_TINY = underflow(torch.float64)


def is_positive_semidefinite(matrix: Enclosure) -> bool:
    """Whether every symmetric matrix in the enclosure is proven positive semidefinite; False proves nothing.

    Let ``A`` be one of them, ``D`` a diagonal matrix of powers of two, ``B`` the stored ``D A D`` (scaling is exact)
    and ``R`` any upper triangular matrix. Then ``D A D = R^T R + c 1 + E`` with

        |E|  <=  |B - c 1 - fl(R^T R)|  +  gamma_n |R|^T |R|  +  D error D  +  roundings,

    entry by entry. A symmetric matrix is at least ``-|E|_inf`` (its largest absolute row sum), and ``R^T R >= 0``; so
    ``c >= |E|_inf`` gives ``D A D >= 0``, which is ``A >= 0``. ``R`` is the Cholesky factor of ``B - c 1``, and ``c`` a
    guess of ``|E|_inf`` (S. M. Rump, Verification of positive definiteness, BIT 46, 2006, has the error of Cholesky's
    algorithm in its place).
    """
    scaled = _scaled(matrix)
    if scaled is None:
        return False
    value, error = scaled
    size = len(value)
    outer = float(error.sum(1).max()) * (1 + gamma(size, torch.float64))
    guess = 1.5 * (outer + size**0.5 * 4 * (size + 8) * _U)
    return any(shift < 0.5 and _factors(value, outer, shift) for shift in (guess, 8 * guess))


def _scaled(matrix: Enclosure) -> tuple[Array, Array] | None:
    """The symmetric part and its error, with powers of two on both sides that bring the diagonal near one.

    None: an entry of the diagonal is not positive, or numbers are out of range.
    """
    diagonal = np.diagonal(matrix.value)
    if not (np.isfinite(matrix.value).all() and np.isfinite(matrix.error).all() and bool((diagonal > 0).all())):
        return None
    power = -(np.frexp(diagonal)[1] // 2)
    value, error = (np.ldexp(np.ldexp(x, power[:, None]), power[None, :]) for x in (matrix.value, matrix.error))
    both = np.abs(value) + np.abs(value.T)  # halves of sums: one rounding; scaling may underflow
    error = (error + error.T) * (0.5 * (1 + 8 * _U)) + 2 * _U * both + 4 * _TINY
    return (value + value.T) / 2, error


def _factors(value: Array, outer: float, shift: float) -> bool:
    """Whether the factor of ``value - shift`` proves it; `outer`: row sums of the error at most."""
    size = len(value)
    shifted = value.copy()
    np.fill_diagonal(shifted, np.diagonal(value) - shift)  # one rounding of a number below 4
    try:
        lower = np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    residual = np.abs(shifted - lower @ lower.T)
    product = np.abs(lower) @ (np.abs(lower).T @ np.ones(size))
    factor = gamma(size, torch.float64)
    total = residual.sum(1) * (1 + 2 * factor) + 2 * factor * product + 8 * _U + size * _TINY
    return bool(np.isfinite(total).all()) and (float(total.max()) + outer) * (1 + 8 * _U) <= shift
