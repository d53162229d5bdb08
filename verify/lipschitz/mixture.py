"""The constant at one slope from those at two others, in closed form, in any norm."""

from __future__ import annotations

from fractions import Fraction
from math import inf, isfinite, nextafter

from leaktight.errors import InternalError


def mixed(upper: float, linear: float, lo: float, a: float, stages: int) -> float:
    """At least the constant of a network all of whose slopes are in ``[a, 1]``, ``lo <= a <= 1``, ``0 <= lo < 1``:

        (1 - t^K) B  +  t^K |linear map|,      t = (a - lo) / (1 - lo).

    upper: ``B``, at least the norm of every Jacobian with all slopes in ``[lo, 1]`` (every bound from sectors is one).
    linear: at least the norm of the linear map that is left when all slopes are 1. stages: ``K``, how many activations
    stand in the network, one behind the other.

    Proof. A slope ``d`` in ``[a, 1]`` is ``(1 - t) d' + t`` with ``d'`` in ``[lo, 1]``, because ``(a - t) / (1 - t) =
    lo``. The Jacobian is affine in the slopes of each stage, so it is the sum over subsets ``S`` of stages of ``(1 -
    t)^|S| t^(K - |S|) J_S``, in which stages in ``S`` have the slopes ``d'`` and the others the slope 1. These weights
    add up to one. Every ``|J_S|`` is at most ``B``, as 1 is in ``[lo, 1]`` too; ``J`` of the empty set is the linear
    map. Nothing is asked of the network but that each of its stages is one of these activations.
    """
    if not (0 <= lo < 1 and lo <= a <= 1):
        raise InternalError(f"slopes {lo} <= {a} are not within [0, 1]")
    if not (isfinite(upper) and isfinite(linear)):
        return upper
    share = ((Fraction(a) - Fraction(lo)) / (1 - Fraction(lo))) ** stages
    exact = (1 - share) * Fraction(upper) + share * Fraction(linear)
    nearest = float(exact)
    return min(upper, nearest if nearest >= exact else nextafter(nearest, inf))
