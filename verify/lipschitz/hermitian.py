"""Hermitian matrices, one for each frequency, proven positive semidefinite; and symbols of kernels with their errors.

Only this is used of the arithmetic: products of matrices are sums of products in some order (a complex product of
length ``n`` is two real ones of length ``2 n``). Errors are bounded in the Frobenius norm, of which ``|X Y| <= |X|
|Y|`` and which is never below the spectral norm.
"""

from __future__ import annotations

from math import pi, prod

import numpy as np
import torch
from torch import Tensor

from leaktight.models.enclosure import Enclosure
from leaktight.verify.rounding import gamma, underflow, unit

_U = unit(torch.float64)
_TINY = underflow(torch.float64)


def length(matrices: Tensor) -> Tensor:
    """At least the Frobenius norm of each matrix ``(..., n, m)``."""
    parts = torch.view_as_real(matrices) if matrices.is_complex() else matrices.unsqueeze(-1)
    size = parts.square().sum((-3, -2, -1)).sqrt()
    return size * (1 + gamma(2 * matrices.shape[-1] * matrices.shape[-2] + 8, torch.float64)) + 1e-150


def are_positive(matrices: Tensor, error: Tensor) -> bool:
    """Whether every Hermitian matrix within `error` ``(batch,)`` (spectral norm) of one of `matrices` is proven
    positive semidefinite. False proves nothing.

    With ``L`` any matrices, ``H = L L^H + c + (H - c - L L^H)``; the bracket's norm is computed, and what rounding adds
    to it bounded. ``c`` at least as large as both and `error` together gives ``H >= 0``.
    """
    size = matrices.shape[-1]
    even = (matrices + matrices.mH) / 2  # one rounding; its diagonal is real
    trace = even.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    if not bool(torch.isfinite(trace).all() and (trace > 0).all() and torch.isfinite(error).all()):
        return False
    off = error + 4 * _U * length(even)
    shift = 1.5 * (off + gamma(2 * size + 2, torch.float64) * trace)
    moved = even.clone()
    moved.diagonal(dim1=-2, dim2=-1).sub_(shift.unsqueeze(-1))
    lower, failed = torch.linalg.cholesky_ex(moved)
    if bool((failed != 0).any()):
        return False
    residual = length(moved - lower @ lower.mH) * (1 + 8 * _U)
    rounded = gamma(2 * size + 2, torch.float64) * length(lower).square() + 4 * _U * size * shift
    total = (off + residual + rounded + 4 * size * size * _TINY) * (1 + 16 * _U)
    return bool(torch.isfinite(total).all() and (total <= shift).all())


def symbols(kernel: Enclosure, dilation: tuple[int, ...], points: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``F(w) = sum_t K[t] exp(i w d t)`` at all frequencies ``w = 2 pi j / N``, by direct sums, axis by axis.

    kernel ``(out, in, *taps)``. Returns ``(*points, out, in)`` and a bound ``(out, in)`` of the absolute error of each
    entry, at all frequencies and for every kernel in the enclosure. A factor ``exp(i w d t)`` is off by less than 32 u:
    its angle is reduced as an integer, so that rounding moves it by less than 19 u, and a cosine and a sine of it by 2
    u each. (The phase of the padding is missing: it cancels in ``F Q F^H``.)
    """
    axes, taps = len(points), kernel.value.shape[2:]
    found = torch.from_numpy(np.ascontiguousarray(kernel.value)).to(torch.complex128)
    for axis in range(axes):
        place = torch.arange(points[axis])[:, None] * torch.arange(taps[axis])[None, :] * dilation[axis]
        angle = (2 * pi) * ((place % points[axis]).double() / points[axis])
        turn = torch.polar(torch.ones_like(angle), angle)
        found = torch.tensordot(found, turn, dims=([2], [1]))  # the first of the taps left; frequencies go to the end
    found = found.movedim((0, 1), (-2, -1)).contiguous()
    size, given = (np.abs(x).sum(tuple(range(2, 2 + axes))) for x in (kernel.value, kernel.error))
    own = gamma(sum(2 * k + 72 for k in taps), torch.float64) * size
    error = (own + given) * (1 + gamma(prod(taps), torch.float64) + 8 * _U) + prod(taps) * 1e-290
    return found, torch.from_numpy(error)
