"""Ellipsoids that hold a network's differences, stage by stage: the recursion behind all L2 bounds here.

For a difference ``|x| <= 1`` of inputs, ``s_k`` lies in the ellipsoid ``{Q_k^(1/2) z : |z| <= 1}``, that is
``s s^T <= Q_k``. Let a stage be ``u = W s``, ``s' = A s + B w``, ``|w_i| <= |u_i|`` and ``T`` a diagonal matrix with
``T > S = W Q W^T``. Then

    Q'  =  A (Q + Q W^T (T - S)^(-1) W Q) A^T  +  B T B^T.

Proof. ``w_i^2 <= u_i^2`` gives ``sum_i (u_i^2 - w_i^2) / T_i >= 0``, and with ``s^T Q^(-1) s <= 1``

    s^T (Q^(-1) - W^T T^(-1) W) s  +  w^T T^(-1) w  <=  1.

The matrix in brackets is positive definite because ``T > S`` (its inverse is ``G = Q + Q W^T (T - S)^(-1) W Q`` by
Woodbury's formula), so ``(s, w)`` lies in the ellipsoid of ``diag(G, T)`` and its image ``A s + B w`` in that of
``A G A^T + B T B^T``. (For a chain, ``A = M W`` and ``B = R``, this is ``M (S^(-1) - T^(-1))^(-1) M + R T R``: the
block elimination of the linear matrix inequality of LipSDP with a multiplier ``1 / (2 R_i^2 T_i)`` for each neuron,
Fazlyab et al. 2019, arXiv:1906.04893.) At the end ``|y|^2 <= largest eigenvalue of C Q_K C^T``.

Everything here is plain floating point: it finds good numbers, and leaktight.verify.lipschitz.certificate proves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.centred import Centred, CentredStage

Scales = Callable[[CentredStage, Array], Array]
"""The diagonal of ``T`` for a stage and its ``S``."""


_LEAST = 0.05  # by which every T is larger than sigma, relatively, where the middle of a sector is about zero


class NotContained(Exception):
    """Some ``T`` is not above its ``S``, or a number is out of range: the multipliers prove nothing."""


def start(network: Centred) -> Array:
    """``Q_0``: the ellipsoid of ``first x`` for ``|x| <= 1``."""
    if network.first is None:
        return np.eye(network.size)
    value = network.first.value
    found: Array = value @ value.T
    return found


def reach(stage: CentredStage, before: Array) -> Array:
    """``S = W Q W^T``."""
    found: Array = stage.weight.value @ before @ stage.weight.value.T
    return found


def advance(stage: CentredStage, before: Array, scale: Array, spread: Array | None = None) -> Array:
    """``Q'`` of a stage from ``Q`` and the diagonal of ``T``; `spread` is ``S``, where it is known.

    Raises NotContained: ``T`` is not above ``S``.
    """
    weight, through, feed = stage.weight.value, stage.through.value, stage.feed.value
    gap = np.diag(scale) - (reach(stage, before) if spread is None else spread)
    half = through @ before
    root = np.sqrt(scale)
    try:  # scaled to a diagonal below one
        lower = np.linalg.cholesky(gap / (root[:, None] * root))
    except np.linalg.LinAlgError:
        raise NotContained from None
    spill = np.linalg.solve(lower, (half @ weight.T / root).T)
    thick = feed * root
    found: Array = half @ through.T + spill.T @ spill + thick @ thick.T
    return (found + found.T) / 2


def square_of_bound(network: Centred, last: Array) -> float:
    """The largest eigenvalue of ``C Q_K C^T``: the square of the bound that ``Q_K`` gives.

    Raises NotContained: it is out of range.
    """
    if network.last is None:
        return float(np.linalg.eigvalsh(last)[-1])
    value = network.last.value
    if value.shape[0] > value.shape[1]:  # the same nonzero eigenvalues
        values, vectors = np.linalg.eigh(last)
        root = value @ (vectors * np.sqrt(np.maximum(values, 0)))
        seen = root.T @ root
    else:
        seen = value @ last @ value.T
    if not np.isfinite(seen).all():
        raise NotContained
    return float(np.linalg.eigvalsh(seen)[-1])


@np.errstate(over="ignore", invalid="ignore")  # what is out of range is not contained
def run(network: Centred, scales: Scales | Sequence[Array]) -> tuple[float, list[Array]]:
    """The square of the bound and the scales, for given ones or a rule that makes them on the way.

    Raises NotContained.
    """
    ellipsoid, used = start(network), []
    for at, stage in enumerate(network.stages):
        spread = reach(stage, ellipsoid)
        if not np.isfinite(spread).all():
            raise NotContained
        scale = scales(stage, spread) if callable(scales) else scales[at]
        used.append(scale)
        ellipsoid = advance(stage, ellipsoid, scale, spread)
    if not np.isfinite(ellipsoid).all():
        raise NotContained
    return square_of_bound(network, ellipsoid), used


def closed_form(factor: float = 1.0) -> Scales:
    """The rule of Fast: ``T_i = sigma (1 + factor |m_i| / r_i)``, sigma the largest eigenvalue of ``S``.

    Why: in the direction where ``S`` is largest, a chain's ``Q'`` is ``m^2 T sigma / (T - sigma) + r^2 T``, which is
    least at ``T = sigma (1 + |m| / r)``, with the value ``sigma (|m| + r)^2``: the stage's share in the product of
    norms (``|m| + r`` is the steepest slope). For slopes in [a, 1] this makes ``Q' = sigma g(S / sigma)`` with
    ``g(x) = ((1 - a) + 2 a x) / (2 - (1 - a) x)``, of which ``g(1) = 1``: never above the product of norms. As
    ``dg/da = -2 (1 - x)^2 / (2 - (1 - a) x)^2 <= 0`` and ``sigma g(S / sigma)`` grows with both arguments, the bound
    never grows with ``a``; at ``a = 1`` it is exact. For ``a = 0`` it is ECLipsE-Fast (Xu and Sivaranjani 2024,
    arXiv:2404.14837). Where a state is more than one layer's values, another `factor` may be better.
    """

    def rule(stage: CentredStage, spread: Array) -> Array:
        if not stage.neurons:
            return np.zeros(0)
        largest = max(float(np.linalg.eigvalsh(spread)[-1]), 1e-290)
        return largest * (1 + np.maximum(factor * np.abs(stage.middle) / stage.half, _LEAST))

    return rule
