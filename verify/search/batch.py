"""Domains unpacked for the ascent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.search.lines import Shape


@dataclass(eq=False)
class Batch:
    """The variables of some domains, and what they act on.

    region: that of each domain, or the one of all. ray ``(batch, width)``, multiplier ``(batch, depth)`` and mix
    ``(batch, atoms)`` are variables; column and sign ``(batch, depth)`` the decisions' places among the neurons that
    quick passes keep, and their sides. within ``(batch, neurons)``: what is known to be left of the intervals of the
    neurons that may be split, where that is more than the decisions themselves say.
    """

    owner: Tensor
    shape: Shape
    region: Region
    ray: Tensor
    multiplier: Tensor
    column: Tensor
    sign: Tensor
    mix: Tensor
    within: Interval | None = None

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def void(self) -> Tensor:
        """Which domains are known to hold no input ``(batch,)``."""
        if self.within is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return (self.within.lower > self.within.upper).any(1)

    def select(self, index: Tensor) -> Batch:
        """The domains at `index`, with the variables' present values."""
        some = (self.ray, self.multiplier, self.column, self.sign, self.mix)
        ray, multiplier, column, sign, mix = (x.index_select(0, index) for x in some)
        region = self.region if self.region.batch == 1 else self.region.select(index)
        within = None if self.within is None else self.within.select(index)
        shape = self.shape.select(index)
        return Batch(self.owner[index], shape, region, ray, multiplier, column, sign, mix, within)

    @property
    def pull(self) -> Tensor:
        """What the multipliers add to the coefficients of the neurons' inputs, ``(batch, width)``."""
        whole = torch.zeros_like(self.ray)
        return whole.scatter_add_(1, self.column, -self.sign * self.multiplier) if self.sign.shape[1] else whole
