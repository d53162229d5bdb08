"""The lines around neurons in quick arithmetic: which ones their intervals allow.

What is computed here proves nothing (see `leaktight.verify.search.relaxed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leaktight.verify.bounds.interval import Interval

QUICK = torch.float32


@dataclass(frozen=True, eq=False)
class Shape:
    """What the neurons of a batch of domains look like, all ``(batch, width)``, measured from the kink.

    On the free side of a neuron (below it where it is convex) lies a line through the kink, of a slope between `least`
    and `most`; on the other side one of slope `chord`, `sink` above the kink. Where a neuron is linear, all slopes are
    the same.
    """

    chord: Tensor
    sink: Tensor
    least: Tensor
    most: Tensor

    def select(self, index: Tensor) -> Shape:
        return Shape(*(x.index_select(0, index) for x in (self.chord, self.sink, self.least, self.most)))

    @cached_property
    def turn(self) -> Tensor:
        """How far the free slopes can turn."""
        return self.most - self.least


class Lines:
    """The parameters of neurons side by side in quick arithmetic, ``(width,)`` each, and the lines that they have."""

    def __init__(self, left: Tensor, right: Tensor, kink: Tensor, value: Tensor) -> None:
        self.exact = (left, right, kink)
        self.left, self.right, self.kink, self.value_at_kink = (p.to(QUICK) for p in (left, right, kink, value))
        self.gap = self.right - self.left
        self.bend = torch.where(self.gap >= 0, 1.0, -1.0)
        self.shifted, self.raised = bool(self.kink.any()), bool(self.value_at_kink.any())
        self.convex = bool((self.bend > 0).all())

    def shape(self, z: Interval) -> Shape:
        """The neurons' lines for intervals ``(batch, width)`` of their inputs."""
        left, right, kink = self.exact
        low, high = (z.lower - kink).to(QUICK), (z.upper - kink).to(QUICK)
        active, inactive = low >= 0, high <= 0
        fixed = active | inactive
        chord = (right * high - left * low) / (high - low).clamp(min=1e-30)
        sink = ((right - chord) * high).masked_fill_(fixed, 0.0)
        chord = torch.where(active, right, torch.where(inactive, left, chord))
        least = torch.where(fixed, chord, torch.minimum(left, right))
        most = torch.where(fixed, chord, torch.maximum(left, right))
        return Shape(*(x.to(QUICK) for x in (chord, sink, least, most)))
