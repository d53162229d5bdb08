"""The constant as a function of the leak: a proven bound for every slope in a range, from one solve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np

from leaktight.models.enclosure import Array
from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.verify.lipschitz.bound import Segment
from leaktight.verify.lipschitz.centred import Centred, centred
from leaktight.verify.lipschitz.certificate import certified, repaired
from leaktight.verify.lipschitz.fast import closed_form, transferred
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.lipschitz.methods import Question
from leaktight.verify.lipschitz.product import product
from leaktight.verify.lipschitz.sectors import Sector, sector

SEGMENTS = 16


@dataclass(frozen=True, eq=False)
class Range:
    """A network whose Leaky ReLUs have one slope, anywhere in ``[lo, hi]``."""

    slopes: Slopes
    layers: Layers

    def between(self, lo: float, hi: float) -> Layers:
        """The network's stages with every neuron's slope anywhere between those that it has at the two ends.

        A neuron's slopes are linear in the leak, so for a leak in between its sector lies in the hull of the two.
        """
        ends = [self.slopes.at(a) for a in (lo, hi)]
        stages = (
            replace(stage, sector=_hull(*(sector(network.by_name[stage.name]) for network in ends)))
            for stage in self.layers.stages
        )
        return replace(self.layers, stages=tuple(stages))


def _hull(a: Sector, b: Sector) -> Sector:
    return Sector(np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def curve(network: Network, lo: float, hi: float, question: Question, *, segments: int = SEGMENTS) -> list[Segment]:
    """Segments that cover ``[lo, hi]``, each with a bound for all its slopes.

    One solve finds multipliers for the widest sectors, those of the whole range; on each segment they are transferred
    to its sectors (leaktight.verify.lipschitz.fast.transferred) and proven there. A segment's sectors lie in the whole
    range's, so the range's own bound holds too.

    Where slopes are in [0, 1] the least sector of a segment is the one at its upper end, and the bound is nonincreasing
    in the slope: larger leaks make the set of possible slopes ``[a, 1]`` smaller. At slope 1 it is the norm of the
    linear map that is left.
    """
    span = Range(Slopes.of(network), question.layers)
    whole = centred(span.between(lo, hi))
    multipliers, everywhere = _solved(whole, question)
    ends = np.linspace(lo, hi, segments + 1).tolist() if lo < hi else [lo, hi]
    ends[0], ends[-1] = lo, hi
    found = []
    for a, b in pairwise(ends):
        upper = everywhere
        if multipliers is not None and not question.late:
            part = centred(span.between(a, b))
            upper = min(upper, _proven(part, transferred(whole, multipliers, part)))
        found.append(Segment(a, b, upper))
    return _falling(found) if lo >= 0 and hi <= 1 and _plain(network) else found


def _solved(whole: Centred, question: Question) -> tuple[list[Array] | None, float]:
    """Multipliers for the whole range, and the bound that they prove there."""
    asked = replace(question)
    asked.__dict__["centred"] = whole
    if not asked.solvable:
        return None, product(question.layers, question.norm)
    multipliers = asked.optimal
    proven = repaired(whole, multipliers, asked.closed_form.each, asked.closed_form.square)
    return multipliers, min(proven, asked.fast)


def _proven(part: Centred, multipliers: list[Array]) -> float:
    """What the multipliers prove, or else the closed form's of this part."""
    found = certified(part, multipliers)
    if found < inf or not part.neurons:
        return found
    own = closed_form(part)
    return repaired(part, own.each, own.each, own.square) if 0 < own.square < inf else inf


def _plain(network: Network) -> bool:
    """Whether all activations whose slope moves are plain Leaky ReLUs: their sector at slope ``a`` is [a, 1]."""
    ops = [network.by_name[name].op for name in Slopes.of(network).nodes]
    return all(
        isinstance(op, TwoSlope)
        and op.leak is not None
        and op.precision == 0
        and bool((op.right == 1).all())
        and not bool(op.leak.flipped.any())
        for op in ops
    )


def _falling(segments: list[Segment]) -> list[Segment]:
    """Where larger slopes have smaller sectors, what is proven at a slope holds for all larger ones."""
    found, least = [], inf
    for segment in segments:
        least = min(least, segment.upper)
        found.append(replace(segment, upper=least))
    return found
