"""Fast: the closed form's multipliers, for chains and for states that are more than one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz import ellipsoid
from leaktight.verify.lipschitz.centred import Centred, CentredStage

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Tried where the closed form is none: a state is more than the values behind one layer's neurons with a width."""


@dataclass(frozen=True)
class Multipliers:
    """Multipliers for every neuron, stage by stage, and the square of the bound that they give; not proven yet."""

    square: float
    each: tuple[Array, ...]


def closed_form(network: Centred) -> Multipliers:
    """The multipliers of leaktight.verify.lipschitz.ellipsoid.closed_form, with the best of a few factors.

    For a chain the factor 1 is the closed form; a state that keeps more than the last layer's values (a residual block)
    often wants another.
    """
    best = Multipliers(inf, ())
    for factor in (1.0,) if is_chain(network) else FACTORS:
        try:
            square, scales = ellipsoid.run(network, ellipsoid.closed_form(factor))
        except ellipsoid.NotContained:
            continue
        if square < best.square:
            best = Multipliers(square, tuple(square / scale for scale in scales))
    return best


def is_chain(network: Centred) -> bool:
    """Whether every state has the size of the layer in front of it, as in a chain of layers."""
    return all(stage.through.value.shape[0] == len(stage.half) for stage in network.stages)


def transferred(before: Centred, multipliers: Sequence[Array], after: Centred) -> list[Array]:
    """Multipliers for the same network with other sectors, mostly inside of the ones that they were made for.

    With ``r`` half the sector's width, ``lam r' / r``. Why: for slopes in [a, 1] the inequality of a neuron is
    ``q_a = (v - a u)(u - v) >= 0``, and ``q_a = (1 - a) q_0 - a (u - v)^2``; so with the multiplier of ``q_0`` divided
    by ``1 - a`` the matrix at ``a`` is the matrix at 0 plus ``a / (1 - a) sum lam (u - v)^2``, which is positive: what
    is feasible at 0 is feasible at ``a``, with a bound that is no larger, convex and falling in ``a / (1 - a)``. In
    terms of ``w``, ``q_a = r^2 (u^2 - w^2)``, ``r = (1 - a) / 2``, so ``lam`` (of ``u^2 - w^2``) is multiplied by
    ``(r' / r)^2`` and divided by ``r' / r``. The certificate that follows depends on none of this.
    """
    return [_rescaled(old, lam, new) for old, lam, new in zip(before.stages, multipliers, after.stages, strict=True)]


def _rescaled(old: CentredStage, lam: Array, new: CentredStage) -> Array:
    """One that was stable before has no multiplier to start from; it gets a middling one."""
    size = int(max(old.loose.max(initial=-1), new.loose.max(initial=-1))) + 1
    per_width = np.full(size, float(np.median(lam / old.half)) if len(lam) else 1.0)
    per_width[old.loose] = lam / old.half
    found: Array = per_width[new.loose] * new.half
    return found
