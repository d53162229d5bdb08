"""Proofs of L2 bounds: quadratic forms that never grow from stage to stage, each proven by one positive matrix.

A certificate of ``|y| <= L |x|`` is a symmetric ``P_k`` for every state and a multiplier ``lam >= 0`` for every neuron:

    L^2 |x|^2  >=  s_0^T P_0 s_0,      s_(k-1)^T P_(k-1) s_(k-1)  >=  s_k^T P_k s_k,      s_K^T P_K s_K  >=  |y|^2.

The one in the middle holds for ``s_k = A s + B w``, ``u = W s``, ``|w_i| <= |u_i|`` if

    H  =  [[P_(k-1) - W^T lam W, 0], [0, lam]]  -  [A B]^T P_k [A B]

is positive semidefinite: its form is the difference of both sides less ``sum lam_i (u_i^2 - w_i^2)``, which is not
negative. Nothing else is asked of the numbers: who found them, and how well, decides how small ``L`` is, and never
whether it is true. They are taken as they stand; errors are those of the network's matrices and of the products in
``H``. The forms are found from the last to the first: the least ``P_(k-1)`` for a ``P_k`` is what one step of
leaktight.verify.lipschitz.ellipsoid makes of it in the transposed network, with ``T = lam``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np

from leaktight.errors import InternalError
from leaktight.models.enclosure import Array, Enclosure, exactly
from leaktight.verify.lipschitz import ellipsoid
from leaktight.verify.lipschitz.centred import Centred, CentredStage
from leaktight.verify.lipschitz.norms import spectral
from leaktight.verify.lipschitz.positive import is_positive_semidefinite

_SLACKS = tuple(10.0**k for k in range(-13, -2))
"""How much a form is enlarged, relatively, so that rounding does not matter; the first that is enough is taken."""

_LITTLE = 1e-8  # above what the multipliers allow, relatively: another proof would not be much better


def certified(network: Centred, multipliers: Sequence[Array]) -> float:
    """A proven Lipschitz constant in L2, from multipliers ``lam`` for each stage.

    Infinite where nothing is proven: no forms belong to these multipliers, or roundings are too large.
    """
    if len(multipliers) != len(network.stages):
        raise InternalError(f"{len(network.stages)} stages need as many multipliers; got {len(multipliers)}")
    form, at = _last(network), 0
    for stage, lam in zip(reversed(network.stages), reversed(multipliers), strict=True):
        if form is None or not bool((np.isfinite(lam) & (lam > 0)).all()):
            return inf
        form, at = _before(stage, form, lam, at)
    return inf if form is None else _first(network, form)


def repaired(network: Centred, multipliers: Sequence[Array], inside: Sequence[Array], square: float) -> float:
    """`certified`, and where that proves nothing, the same of multipliers moved towards the closed form's.

    The multipliers may be a solver's, which are feasible up to its tolerance. `inside` are feasible with the bound
    ``square ** 0.5``. The feasible ``(L^2, lam)`` are a convex set (the matrix inequality is linear in them), and half
    as large again, every closed form is in its interior: a mixture far enough towards it is in the set.
    """
    for share in (0.0, *(10.0**k for k in range(-9, 1))):
        mixed = [(1 - share) * a + share * 1.5 * b for a, b in zip(multipliers, inside, strict=True)]
        found = certified(network, mixed)
        if not found <= _allowed(network, mixed, square) * (1 + _LITTLE):
            found = min(found, _backwards(network, mixed, square))
        if found < inf:
            return found
    return inf


def _allowed(network: Centred, multipliers: Sequence[Array], square: float) -> float:
    """About the bound that the multipliers give; 0 where that is not known."""
    if not all(bool((lam > 0).all()) for lam in multipliers):
        return 0.0
    try:
        return sqrt(max(ellipsoid.run(network, [square / lam for lam in multipliers])[0], 0.0))
    except ellipsoid.NotContained:
        return 0.0


def _backwards(network: Centred, multipliers: Sequence[Array], square: float) -> float:
    """`certified` of the transposed network, whose multipliers are ``square / lam``.

    For fixed slopes the network's difference is a matrix times ``x``, and the transposed network's the transposed
    matrix, which has the same norm; so a constant of the one is a constant of the other. Where a bound is close to what
    the multipliers allow, rounding may leave room in one direction only.
    """
    turned = [square / lam if bool((lam > 0).all()) else lam for lam in reversed(multipliers)]
    return certified(network.transposed, turned)


def _last(network: Centred) -> Array | None:
    """``P_K`` with ``s^T P_K s >= |y|^2``."""
    if network.last is None:
        return np.eye(_outputs(network))
    square = _turned(network.last) @ network.last
    return _enlarged((square.value + square.value.T) / 2, -square, 0)[0]


def _outputs(network: Centred) -> int:
    return len(network.stages[-1].through.value) if network.stages else network.size


def _before(stage: CentredStage, form: Array, lam: Array, at: int) -> tuple[Array | None, int]:
    """``P_(k-1)`` for ``P_k``, as small as is proven, and how far down the slacks it was found."""
    try:
        least = ellipsoid.advance(stage.transposed, form, lam)
    except ellipsoid.NotContained:
        return None, at
    weight, both = stage.weight, _beside(stage.through, stage.feed)
    drained = _turned(weight) @ (exactly(lam[:, None]) * weight)
    image = _turned(both) @ (exactly(form) @ both)
    return _enlarged(least, _diagonal(-drained, exactly(lam)) + -image, at)


def _enlarged(least: Array, rest: Enclosure, at: int) -> tuple[Array | None, int]:
    """``P`` a little above `least` with ``diag(P, 0) + rest`` proven positive; None: none is found."""
    diagonal, size = np.diagonal(least), len(least)
    floor = max(float(diagonal.max(initial=0.0)), 1e-290) * 2.0**-52
    for place in range(max(at - 1, 0), len(_SLACKS)):
        form = least * (1 + _SLACKS[place]) + np.diag(_SLACKS[place] * diagonal + floor)
        held = np.zeros_like(rest.value)
        held[:size, :size] = form
        if is_positive_semidefinite(exactly(held) + rest):
            return form, place
    return None, at


def _first(network: Centred, form: Array) -> float:
    """``L`` with ``L^2 |x|^2 >= s_0^T P_0 s_0``.

    With ``G^T G >= P_0``: ``s_0^T P_0 s_0 <= |G first x|^2``, so ``L = |G first|`` will do. ``G`` is a Cholesky factor.
    """
    for slack in _SLACKS:
        raised = form * (1 + slack) + np.diag(slack * np.diagonal(form))
        try:
            root = exactly(np.linalg.cholesky(raised).T)
        except np.linalg.LinAlgError:
            continue
        if is_positive_semidefinite(_turned(root) @ root + -exactly(form)):
            return spectral(root if network.first is None else root @ network.first)
    return inf


def _turned(matrix: Enclosure) -> Enclosure:
    return matrix.map(lambda x: x.T)


def _beside(left: Enclosure, right: Enclosure) -> Enclosure:
    return Enclosure(np.hstack([left.value, right.value]), np.hstack([left.error, right.error]))


def _diagonal(block: Enclosure, rest: Enclosure) -> Enclosure:
    """The block diagonal matrix of a matrix and a vector."""

    def joined(a: Array, b: Array) -> Array:
        zero = np.zeros((len(a), len(b)))
        return np.block([[a, zero], [zero.T, np.diag(b)]])

    return Enclosure(joined(block.value, rest.value), joined(block.error, rest.error))
