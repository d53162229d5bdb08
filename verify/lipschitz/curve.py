"""The constant as a function of the leak: a proven bound for every slope in a range, from one solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np

from leaktight.models.enclosure import Array
from leaktight.models.ops import TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz.bound import Segment
from leaktight.verify.lipschitz.centred import Centred, centred
from leaktight.verify.lipschitz.certificate import certified, repaired
from leaktight.verify.lipschitz.fast import closed_form, transferred
from leaktight.verify.lipschitz.jacobian import jacobian_bound
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.lipschitz.liplt import OutOfTime, liplt
from leaktight.verify.lipschitz.methods import Question
from leaktight.verify.lipschitz.mixture import mixed
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


def curve(
    moving: Slopes,
    lo: float,
    hi: float,
    question: Question,
    *,
    ends: Sequence[float] | None = None,
    independent: bool = False,
) -> list[Segment]:
    """Segments that cover ``[lo, hi]``, each with a bound for all its slopes.

    moving: the activations whose slope it is; question: about their network, with its norm and deadline. independent:
    at ``a`` each neuron has a slope of its own, anywhere in ``[lo, a]``. ends: of the segments, rising from `lo` to
    `hi`; by default 16 of equal width.

    In L2 one solve finds multipliers for the widest sectors, those of the whole range; on each segment they are
    transferred to its sectors (leaktight.verify.lipschitz.fast.transferred) and proven there. In the other norms each
    segment is bounded anew. A segment's sectors lie in the whole range's, so the range's own bound holds too.

    Where slopes are in [0, 1] the least sector of a segment is the one at its upper end, and the bound is nonincreasing
    in the slope: larger leaks make the set of possible slopes ``[a, 1]`` smaller. At slope 1 it is the norm of the
    linear map that is left, and in between the mixture of both ends holds (leaktight.verify.lipschitz.mixture).
    """
    span = Range(moving, question.layers)
    whole = span.between(lo, hi)
    bounded = _of_segments(whole, question)
    ends = _equal(lo, hi) if ends is None else ends
    falls = not independent and lo >= 0 and hi <= 1 and _plain(moving)
    linear = _linear(span, question) if falls and lo < 1 and _all(moving, question.layers) else inf
    found = []
    for a, b in pairwise(ends):
        upper = bounded.everywhere
        if not question.late:
            upper = min(upper, bounded.over(span.between(lo if independent else a, b)))
        if linear < inf:
            upper = min(upper, mixed(bounded.everywhere, linear, lo, a, len(whole.stages)))
        found.append(Segment(a, b, upper))
    return _falling(found) if falls else found


def _equal(lo: float, hi: float) -> list[float]:
    ends: list[float] = np.linspace(lo, hi, SEGMENTS + 1).tolist() if lo < hi else [lo, hi]
    return [lo, *ends[1:-1], hi]


@dataclass(frozen=True, eq=False)
class _Segments:
    """How segments are bounded: `everywhere` holds on the whole range, `over` finds one for some stages."""

    everywhere: float
    over: Callable[[Layers], float]


def _of_segments(whole: Layers, question: Question) -> _Segments:
    if question.norm is not Norm.L2:
        return _Segments(_entrywise(whole, question), lambda part: _entrywise(part, question))
    middle, multipliers, everywhere = _solved(whole, question)

    def over(part: Layers) -> float:
        ready = centred(part)
        return inf if multipliers is None else _proven(ready, transferred(middle, multipliers, ready))

    return _Segments(everywhere, over)


def _entrywise(part: Layers, question: Question) -> float:
    """In L-infinity or L1."""
    found = product(part, question.norm)
    with suppress(OutOfTime):
        found = min(found, liplt(centred(part), question.norm, deadline=question.deadline))
    return found if question.late else min(found, jacobian_bound(part, question.norm))


def _solved(whole: Layers, question: Question) -> tuple[Centred, list[Array] | None, float]:
    """The whole range, multipliers for it, and the bound that they prove there."""
    asked = replace(question)
    asked.__dict__["layers"] = whole
    if not asked.solvable:
        return asked.centred, None, product(question.layers, question.norm)
    multipliers = asked.optimal
    proven = repaired(asked.centred, multipliers, asked.closed_form.each, asked.closed_form.square)
    return asked.centred, multipliers, min(proven, asked.fast)


def _proven(part: Centred, multipliers: list[Array]) -> float:
    """What the multipliers prove, or else the closed form's of this part."""
    found = certified(part, multipliers)
    if found < inf or not part.neurons:
        return found
    own = closed_form(part)
    return repaired(part, own.each, own.each, own.square) if 0 < own.square < inf else inf


def _linear(span: Range, question: Question) -> float:
    """At least the norm of the linear map that is left at slope 1."""
    part = centred(span.between(1.0, 1.0))
    if question.norm is Norm.L2:
        return certified(part, [np.zeros(0)] * len(part.stages))
    try:
        return liplt(part, question.norm, deadline=question.deadline)
    except OutOfTime:
        return inf


def _all(moving: Slopes, stages: Layers) -> bool:
    """Whether every stage is one of the activations that move."""
    return {stage.name for stage in stages.stages} <= set(moving.nodes)


def _plain(moving: Slopes) -> bool:
    """Whether all activations whose slope moves are plain Leaky ReLUs: their sector at slope ``a`` is [a, 1]."""
    ops = [moving.network.by_name[name].op for name in moving.nodes]
    return all(
        isinstance(op, TwoSlope)
        and op.leak is not None
        and op.precision == 0
        and bool((op.right == 1).all())
        and bool((op.leak.slope == op.leak.slope.flatten()[0]).all())
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
