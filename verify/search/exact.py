"""Whether concrete outputs are unsafe, decided in exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np

from leaktight.specs.unsafe import Unsafe


def lies_in_unsafe_set(unsafe: Unsafe, outputs: np.ndarray[Any, Any]) -> bool:
    """Whether the float64 outputs ``(m,)`` satisfy all conditions of some disjunct, for a batch of one.

    Bounds that were rounded count as `Unsafe.inner_bounds`, on the side of safety. A condition that refers to a NaN or
    infinite output does not hold: a float comparison with NaN is false, and an overflow says nothing about the network.
    """
    values = [float(v) for v in outputs]
    for disjunct in range(unsafe.disjuncts):
        atoms = (unsafe.disjunct == disjunct).nonzero().flatten().tolist()
        if all(_holds(unsafe, atom, values) for atom in atoms):
            return True
    return False


def _holds(unsafe: Unsafe, atom: int, values: list[float]) -> bool:
    terms = [(w, values[i]) for i, w in enumerate(unsafe.weights[0, atom].tolist()) if w]
    if not all(isfinite(value) for _, value in terms):
        return False
    total = sum((Fraction(w) * Fraction(value) for w, value in terms), Fraction(0))
    bounds = unsafe.bounds if unsafe.inner_bounds is None else unsafe.inner_bounds
    bound = Fraction(float(bounds[0, atom]))
    return total < bound if bool(unsafe.strict[atom]) else total <= bound
