"""Certified radii by complete answers: the largest proven radius and the smallest refuted one close in on each other.

Steps share what they find: a proof at one radius holds at every smaller one, and a counterexample at some distance
refutes every radius from there on, which is usually far below the radius that was asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nextafter

import torch
from torch import Tensor

from leaktight.specs.region import Norm
from leaktight.specs.region.support import euclidean
from leaktight.verify.verdict import Counterexample, Status, Verdict

Ask = Callable[[float], Verdict]
_ORDER = {Norm.LINF: torch.inf, Norm.L1: 1.0}


@dataclass(frozen=True)
class Radius:
    """The label wins strictly within `proven`, and loses somewhere within `refuted` (None: nobody knows)."""

    proven: float
    refuted: float | None


def distance(norm: Norm, centre: Tensor, example: Counterexample) -> float:
    """How far a counterexample is from the centre ``(n,)``, rounded up."""
    move = torch.from_numpy(example.point) - centre.cpu()
    length = euclidean(move) if norm is Norm.L2 else torch.linalg.vector_norm(move, ord=_ORDER[norm])
    return nextafter(float(length) * (1 + 1e-12 + len(move) * 2.0**-51), inf) if bool(move.any()) else 0.0


def close_in(
    ask: Ask, known: Radius, largest: float, tolerance: float, measure: Callable[[Counterexample], float]
) -> Radius:
    """Bisects between what is proven and what is refuted, up to `largest`, until they are `tolerance` apart.

    `ask` answers whether the label wins within a radius; an answer that is neither ends it. `measure`: a
    counterexample's distance.
    """
    proven, refuted = known.proven, known.refuted
    high = largest if refuted is None else min(largest, refuted)
    while high - proven > tolerance:
        middle = (proven + high) / 2
        answer = ask(middle)
        if answer.status is Status.PROVED:
            proven = middle
        elif answer.counterexample is not None:
            refuted = high = min(middle, measure(answer.counterexample))
        else:
            break
    return Radius(proven, refuted)
