"""Largest eigenvalues of many matrices: proven for the few that Gram iteration leaves, roundings included.

For a Hermitian matrix ``A``, ``largest(A) <= root of largest(A^2)`` and ``largest(A) <= |A|_F``; squaring brings the
second closer, to the factor ``n^(1 / 2^(t+1))`` after ``t`` steps (Delattre et al. 2023, arXiv:2305.16173), and soon
tells which matrices cannot hold the largest value. Power iteration, in contrast, bounds from below and never certifies.
"""

from __future__ import annotations

from math import inf, isfinite

import torch
from torch import Tensor

from leaktight.verify.clock import tick
from leaktight.verify.lipschitz.hermitian import are_positive, length
from leaktight.verify.rounding import gamma, unit

_APART = 1e-9  # relatively, at which bounds from above and below are close enough
_FEW = 4  # matrices whose eigenvalues cost less than more squares
_SLACKS = (1e-13, 1e-12, 1e-11, 1e-10, 1e-9)


def largest_eigenvalue(matrices: Tensor, error: Tensor) -> float:
    """At least the largest eigenvalue of every Hermitian matrix within `error` ``(batch,)`` of one of `matrices`.

    Proof. Let ``B_0`` be the stored Hermitian part, ``B_(t+1)`` the stored square of ``B_t s_t`` (``s_t`` a power of
    two: exact), whose error is at most ``e_t = gamma |B_t s_t|_F^2`` in the Frobenius norm, and so in the spectral
    norm. The spectral norm of a Hermitian matrix is the root of its square's, so ``|B_t| <= (|B_(t+1)| + e_t)^(1/2) /
    s_t``, and ``|B_T| <= |B_T|_F`` ends it. Matrices that cannot hold the largest value are left out on the way, with
    the bounds that they have by then; ``|B_t|_F / n^(1/2)`` says from below how large that value is about. Of few that
    are left, a number is proven to be above them.
    """
    root, power = matrices.shape[-1] ** 0.5, 1.0
    now = (matrices + matrices.mH) / 2
    slack = error + 2.0**-51 * length(now)
    best, dropped = float((length(now) + slack).amax() * (1 + 2.0**-50)), 0.0
    if not isfinite(best):
        return inf
    rounded = gamma(2 * matrices.shape[-1] + 4, torch.float64) + 2.0**-50
    chain: list[tuple[Tensor, Tensor]] = []
    left = torch.arange(len(matrices))
    while root ** (1 / power) > 1 + _APART:
        tick()
        if len(left) <= _FEW:
            return min(best, max(dropped, _above(matrices[left], error[left])))
        scale = torch.pow(2.0, -torch.floor(torch.log2(length(now))))
        scaled = now * scale.reshape(-1, 1, 1)
        chain.append((scale, rounded * length(scaled).square() + 1e-290))
        now = scaled @ scaled
        now, power = (now + now.mH) / 2, 2 * power
        above, below = (_back(length(now) / part, chain) for part in (1.0, root))
        above = (above + slack) * (1 + 2.0**-50)
        keep = above >= below.amax()
        dropped = max(dropped, float(above[~keep].amax())) if not bool(keep.all()) else dropped
        best = min(best, max(dropped, float(above[keep].amax())))
        left, now, slack, chain = left[keep], now[keep], slack[keep], [(s[keep], e[keep]) for s, e in chain]
    return best


def _above(matrices: Tensor, error: Tensor) -> float:
    """At least the largest eigenvalue of the few matrices; infinite where nothing is proven."""
    largest = float((torch.linalg.eigvalsh(matrices)[:, -1] + error).amax())
    for slack in _SLACKS:
        found = largest * (1 + slack)
        rest = -matrices
        rest.diagonal(dim1=-2, dim2=-1).add_(found - error.unsqueeze(-1))
        if are_positive(rest, 8 * unit(torch.float64) * (length(matrices) + found + error)):
            return found
    return inf


def _back(last: Tensor, chain: list[tuple[Tensor, Tensor]]) -> Tensor:
    """From a bound of the last square to one of the first matrix, step by step, rounded upwards."""
    found = last
    for scale, off in reversed(chain):
        found = (found + off).sqrt() / scale * (1 + 2.0**-50)
    return found
