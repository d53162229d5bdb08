"""Certified radii as a function of the slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.leak.curve import equal_parts
from leaktight.verify.leak.margin import margin_lines, sandwiched_margins
from leaktight.verify.leak.plan import Plan

SEGMENTS = 8
_HALVINGS = 10


@dataclass(frozen=True)
class RadiusSegment:
    """At every slope in ``[lo, hi]`` the label is proven to score highest within `radius` of the input.

    radius: None where nothing is proven; 0 is a claim about the input itself.
    """

    lo: float
    hi: float
    radius: float | None

    def to_json(self) -> dict[str, Any]:
        return {"slopes": [self.lo, self.hi], "radius": self.radius}


def radii(
    slopes: Slopes,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    norm: Norm,
    clip: tuple[float, float] | None,
    within: tuple[float, float],
    plan: Plan,
    independent: bool,
) -> list[list[RadiusSegment]]:
    """For each input ``(batch, n)`` proven radii, no larger than `epsilon`, on segments of the slopes; by bisection.

    With `independent`, each neuron has a slope of its own, anywhere between the range's start and the segment's end.
    """
    lo, hi = within
    ends = equal_parts(lo, hi, SEGMENTS)
    count = len(ends) - 1
    who = torch.arange(len(inputs)).repeat_interleave(count)
    first = torch.tensor(ends[:-1] * len(inputs), dtype=torch.float64)
    last = torch.tensor(ends[1:] * len(inputs), dtype=torch.float64)
    unsafe = misclassified(labels, slopes.network.output_size).select(who)

    def proved(size: Tensor) -> Tensor:
        case = Case(ball(inputs[who], size, norm, clip), unsafe)
        if independent:
            return sandwiched_margins(slopes, case, torch.full_like(first, lo), last, plan.effort(False)) > 0
        found = margin_lines(slopes, case, first, last, plan.effort(False))
        return torch.minimum(found.at_lo, found.at_hi) > 0

    whole = torch.full_like(first, epsilon)
    done = proved(whole)
    sure, doubtful = torch.where(done, whole, 0.0), whole
    for _ in range(_HALVINGS):
        if plan.late or bool(done.all()):
            break
        middle = torch.where(done, whole, sure / 2 + doubtful / 2)
        yes = proved(middle) | done
        sure, doubtful = torch.where(yes, middle, sure), torch.where(yes, doubtful, middle)
    table = sure.reshape(len(inputs), count).tolist()
    known = torch.where(done, True, sure > 0).reshape(len(inputs), count).tolist()  # a radius of 0 is a claim as well
    return [
        [RadiusSegment(ends[k], ends[k + 1], row[k] if some[k] else None) for k in range(count)]
        for row, some in zip(table, known, strict=True)
    ]


def larger(one: list[RadiusSegment], other: list[RadiusSegment]) -> list[RadiusSegment]:
    """Of two lists over the same segments the larger radius of each."""
    known = [[-1.0 if part.radius is None else part.radius for part in parts] for parts in (one, other)]
    return [a if x >= y else b for a, b, x, y in zip(one, other, *known, strict=True)]
