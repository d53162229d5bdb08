"""Forms enlarged by all that rounding may have taken: the steps of the recursion behind bounds in L2, proven.

The recursion takes a form ``Q`` through linear maps ``F``, one for each alias, to the mean ``S`` of ``F Q F^H``, and
through slopes ``m + r e``, ``|e| <= 1``, with multipliers ``T`` to

    Q'  =  m (S + S_l^H G^(-1) S_l) m  +  r T r,      G = T - S_ll  positive definite,                          (1)

where ``l`` are the entries with ``r > 0`` and ``S_l`` their rows (leaktight.verify.lipschitz.spectra says of what ``Q``
is the form). ``S`` grows with ``Q``, and ``Q'`` with ``S``: where all are loose, the bracket is ``T G^(-1) T - T``, and
where some are not, that with their ``T`` infinite. So a matrix that is surely above the true one stands for it, and is
exact from there on. Such a one is what was computed and ``diag(e)``, if ``e`` are the absolute row sums of a Hermitian
error. Likewise what is surely below stands for ``G``.

The inverse. Let ``Y`` be any matrix, ``X = Y^H Y``, and ``|1 - G X| <= h < 1`` in a norm of matrices. Then ``G`` and
``X`` have inverses, ``X`` is positive definite, and ``X^(1/2) G X^(1/2)`` has the eigenvalues of ``G X``, which are no
further than ``h`` from one. It is at least ``1 - h``, and so

    G is positive definite,      G^(-1)  <=  Y^H Y / (1 - h).                                                   (2)

``Y`` is an inverse Cholesky factor, of which nothing is believed. All that is used of the arithmetic is that products
of matrices are sums of products in some order: one with ``n`` columns and rows is off by at most ``gamma_n`` times the
product of the absolute values, and if it is complex, by ``2^(1/2) gamma_2n`` times that, which is below ``gamma_3n``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.rounding import gamma, underflow, unit

Matrices = NDArray[np.float64] | NDArray[np.complex128]
"""``(batch, n, n)``: real or complex, one for each frequency."""

_U = unit(torch.float64)
_TINY = underflow(torch.float64)
_MOST = 0.5  # of h


@np.errstate(over="ignore", invalid="ignore")  # what is out of range is not contained
def spread(symbol: Matrices, error: Array, before: Matrices | None) -> Matrices:
    """At least ``S`` for all maps whose entries are within `error` ``(n, d)`` of `symbol` ``(batch, aliases, n, d)``.

    before: ``Q``, Hermitian, ``(batch, aliases, d, d)``; None is the identity. Returns ``(batch, n, n)``, Hermitian.
    Raises NotContained: numbers are out of range.
    """
    aliases, out, width = symbol.shape[1:]
    found = ((symbol if before is None else symbol @ before) @ _turned(symbol)).sum(1) / aliases
    size, terms = np.abs(symbol), 6 * width + aliases
    known, uncertain = size.sum(-2)[..., None], error.sum(0)[:, None]
    if before is not None:
        form = np.abs(before)
        known, uncertain = form @ known, form @ uncertain
    rows = size @ (gamma(terms, torch.float64) * known + uncertain) + error @ (known + uncertain)
    lost = 8 * width * _TINY * (size.sum((-3, -2, -1)) + aliases * width) * out
    return _raised(found, rows[..., 0].sum(1) / aliases + lost[:, None], terms)


@np.errstate(over="ignore", invalid="ignore")
def grown(middle: Array, half: Array, image: Matrices, scale: Array) -> Matrices:
    """At least ``Q'`` of (1), and little more; image: ``S`` ``(batch, n, n)``; scale: ``T``'s diagonal ``(n,)``.

    Raises NotContained: ``T`` is not above ``S``, or by too little to be seen, or numbers are out of range.
    """
    loose, weight, found = half > 0, np.abs(middle), image
    lost: Array = np.zeros(image.shape[:-1])
    if loose.any():
        rows = image if loose.all() else image[:, loose]
        factor, share = _inverse_factor(_below(scale[loose], rows if loose.all() else rows[:, :, loose]))
        square, lost = _square_of_product(factor, rows, weight)
        found, lost = image + square / share[:, None, None], lost / share[:, None]
    found = middle[:, None] * found * middle
    _diagonal(found)[...] += np.where(loose, half * scale * half, 0.0) * (1 + 8 * _U)
    return _raised(found, weight * lost + 16 * _U * np.abs(found).sum(-1), len(half))


def _below(scale: Array, image: Matrices) -> Matrices:
    """At most ``T - S``, if it is positive definite."""
    gap = -image
    _diagonal(gap)[...] = (scale - _diagonal(image).real) * (1 - 4 * _U)
    return gap


def _inverse_factor(gap: Matrices) -> tuple[Matrices, Array]:
    """``Y`` of (2) for Hermitian ``G``, and at most ``1 - h`` ``(batch,)``, with absolute row sums as the norm."""
    lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(gap))
    if bool((failed != 0).any()):
        raise NotContained
    size = gap.shape[-1]
    one = torch.eye(size, dtype=lower.dtype).expand_as(lower)
    factor: Matrices = torch.linalg.solve_triangular(lower, one, upper=False).numpy()
    inverse = _turned(factor) @ factor
    residual = gap @ inverse
    _diagonal(residual)[...] -= 1
    wide, under = gamma(3 * size, torch.float64), 8 * size * size * _TINY
    size_of_factor = np.abs(factor)
    off = wide * (size_of_factor.swapaxes(-1, -2) @ size_of_factor.sum(-1, keepdims=True)) + under
    sums = np.abs(gap) @ (wide * np.abs(inverse).sum(-1, keepdims=True) + off) + under
    share = 1 - ((np.abs(residual).sum(-1) + sums[..., 0]).max(-1) * (1 + wide) + 4 * _U)
    if not (share >= 1 - _MOST).all():  # nor where something is not a number
        raise NotContained
    return factor, share * (1 - 4 * _U)


def _square_of_product(factor: Matrices, rows: Matrices, weight: Array) -> tuple[Matrices, Array]:
    """``Z^H Z`` of ``Z = Y S_l``, and at least what its error's absolute values make of the vector `weight`.

    With ``E = gamma |Y| |S_l|`` that is ``gamma |Z|^T |Z| + |Z|^T E + E^T |Z| + E^T E``, and what underflows.
    """
    side = factor @ rows
    size, size_of_factor, size_of_rows, one = np.abs(side), np.abs(factor), np.abs(rows), weight[:, None]
    wide, under = gamma(3 * side.shape[1], torch.float64), 8 * side.shape[1] * _TINY
    seen = size @ one
    off = wide * (size_of_factor @ (size_of_rows @ one)) + under * weight.sum()
    both = seen + off
    back = wide * (size_of_rows.swapaxes(-1, -2) @ (size_of_factor.swapaxes(-1, -2) @ both))
    lost = size.swapaxes(-1, -2) @ (wide * seen + off) + back + under * (weight.sum() + both.sum(-2, keepdims=True))
    square = _turned(side) @ side
    return square, lost[..., 0] * (1 + gamma(3 * len(weight), torch.float64))


def _raised(matrices: Matrices, rows: Array, terms: int) -> Matrices:
    """Hermitian parts, with as much more on their diagonals as `rows` says, sums of `terms` terms, rounded upwards."""
    found: Matrices = (matrices + _turned(matrices)) / 2
    raised = _diagonal(found).real + rows * (1 + gamma(terms + 16, torch.float64))
    if not np.isfinite(raised).all():
        raise NotContained
    _diagonal(found)[...] = raised + 4 * _U * np.abs(raised) + _TINY
    return found


def _diagonal(matrices: Matrices) -> Matrices:
    """The diagonals ``(batch, n)``, to be written to as well."""
    found: Matrices = np.einsum("...ii->...i", matrices)
    return found


def _turned(matrices: Matrices) -> Matrices:
    return (matrices.conj() if np.iscomplexobj(matrices) else matrices).swapaxes(-1, -2)
