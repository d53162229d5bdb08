"""Certified radii that follow a slope: a margin that moves slowly, over a Lipschitz constant that does not grow.

At the input ``x`` let ``m_j(a)`` be the margin of the label over class j at the slope ``a``, and ``L_j(a)`` a Lipschitz
constant of that margin as a function of the input. The label scores strictly highest on the ball of radius

    R(a)  =  min_j  m_j(a) / L_j(a)      (or any smaller one),

since on it ``m_j`` moves by less than itself. At one input the margin obeys ``m_j(a) >= m_j(lo) + (a - lo) rate_j``
with the signed local rate of leaktight.verify.leak.local (its terms are products of secants, of weights, and of how far
an activation reaches below zero: for plain Leaky ReLUs at most ``Lip_k |u_k^-|`` for each activation, which is the
closed form). And ``L_j`` is the proven curve of leaktight.verify.lipschitz.curve, which falls for slopes in [0, 1].
So, from what is known at ``lo`` alone: ``R(a) >= (m(lo) - (a - lo) sum_k Lip_k |u_k^-|) / L(lo)``.

``L_j`` is the margin's own curve, or the whole network's times ``|e_label - e_j|`` in the dual norm: sqrt 2 in L2, 2 in
L-infinity and 1 in L1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nextafter, sqrt

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm, ball
from leaktight.verify.bounds.interval import outputs, propagate
from leaktight.verify.leak import local
from leaktight.verify.leak.constant import Constant, Margins
from leaktight.verify.leak.radius import RadiusSegment, larger
from leaktight.verify.lipschitz.bound import Segment
from leaktight.verify.rounding import down

_APART = {Norm.L2: nextafter(sqrt(2), inf), Norm.LINF: 2.0, Norm.L1: 1.0}


def follow(
    moving: Slopes,
    inputs: Tensor,
    labels: Tensor,
    largest: float,
    constant: Constant | None,
    radii: list[list[RadiusSegment]],
) -> list[list[RadiusSegment]]:
    """The radii, larger where the constant proves more on the same segments."""
    if constant is None or moving.network.output_size < 2:
        return radii
    first = constant.segments[0].lo
    known = transferred(moving, inputs, labels, first, largest, of_margins(constant))
    return [larger(one, other) for one, other in zip(radii, known, strict=True)]


def of_margins(constant: Constant) -> Margins:
    """Margins' own curves where they are known; else they move by at most ``|e_label - e_j|`` times the outputs."""
    if constant.margins is not None:
        return constant.margins
    factor = _APART[constant.norm]
    found = [Segment(part.lo, part.hi, nextafter(part.upper * factor, inf)) for part in constant.segments]

    def of_any(_label: int, _other: int) -> Sequence[Segment]:
        return found

    return of_any


def transferred(
    moving: Slopes, inputs: Tensor, labels: Tensor, lo: float, largest: float, constants: Margins
) -> list[list[RadiusSegment]]:
    """For each input ``(batch, n)`` proven radii, no larger than `largest`, on the constants' segments of slopes.

    lo: where the slopes begin. The ball is not cut with anything. A radius is None where no margin is positive.
    """
    classes = moving.network.output_size
    if not len(inputs):
        return []
    label = labels.reshape(-1).tolist()
    others = [[j for j in range(classes) if j != own] for own in label]
    each = [[constants(own, j) for j in rest] for own, rest in zip(label, others, strict=True)]
    spans = [(part.lo, part.hi) for part in each[0][0]] if classes > 1 else []
    found: list[list[RadiusSegment]] = [[] for _ in label]
    rows = _rows(label, others, classes)
    for place, (a, b) in enumerate(spans):
        margins = _margins(moving, inputs, rows, lo, a, b)
        for i, own in enumerate(margins.tolist()):
            ratios = [_quotient(m, curve[place].upper) for m, curve in zip(own, each[i], strict=True)]
            radius = min(ratios)
            found[i].append(RadiusSegment(a, b, None if radius < 0 else min(radius, largest)))
    return found


def _rows(label: Sequence[int], others: Sequence[Sequence[int]], classes: int) -> Tensor:
    """``e_label - e_j`` for all other classes, ``(batch, classes - 1, classes)``."""
    unit = torch.eye(classes, dtype=torch.float64)
    return torch.stack([unit[own] - unit[list(rest)] for own, rest in zip(label, others, strict=True)])


def _margins(moving: Slopes, inputs: Tensor, rows: Tensor, lo: float, a: float, b: float) -> Tensor:
    """Lower bounds ``(batch, classes - 1)`` of the margins at the inputs, for all slopes in ``[a, b]``."""
    point = ball(inputs, 0.0, Norm.LINF)
    start, end = (inputs.new_full((len(inputs),), slope) for slope in (lo, b))
    at_lo = outputs(moving.network, propagate(moving.at(lo), point))
    own, other = rows.clamp(min=0).argmax(2), rows.argmin(2)
    margins = down(at_lo.lower.gather(1, own) - at_lo.upper.gather(1, other))
    low, _ = local.rates(moving, point, rows, start, end)
    nearest, farthest = nextafter(max(a - lo, 0.0), -inf), nextafter(b - lo, inf)  # a - lo is rounded
    moved = torch.where(low < 0, down(low * farthest), down(low * max(nearest, 0.0)))
    return down(margins + torch.where(low == 0, 0.0, moved))


def _quotient(margin: float, constant: float) -> float:
    """A radius whose product with the constant is below the margin; negative where there is none."""
    if not margin > 0:
        return -1.0
    if constant == 0:
        return inf
    return max(0.0, margin / constant * (1 - 2.0**-50)) if constant < inf else 0.0
