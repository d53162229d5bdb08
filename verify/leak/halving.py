"""Which domains to halve, and how: by the slope, or where inputs are few by the box."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.specs.region import Box, Region
from leaktight.verify.leak.curve import Chord
from leaktight.verify.leak.domains import Domains, ends_of
from leaktight.verify.leak.plan import Plan

FEW_INPUTS = 8  # up to so many, boxes are halved too
_NARROW = 2.0**-12  # segments are not halved below this part of the range


@dataclass(frozen=True)
class Halving:
    """What may be halved of some regions over a range of slopes of some width; `boxes`: of boxes too."""

    region: Region
    width: float
    plan: Plan
    boxes: bool

    @classmethod
    def of(cls, region: Region, width: float, plan: Plan) -> Halving:
        return cls(region, width, plan, plan.boxes and isinstance(region, Box) and region.size <= FEW_INPUTS)

    def worth(self, domains: Domains, gaps: Tensor, doubt: Tensor) -> Tensor:
        """Where a gap, or a sign in `doubt`, is likely to be closed by a part that counts."""
        tolerance = self.plan.tolerance
        wanted = (gaps > tolerance) | (doubt & (gaps > tolerance / 16))
        decisive = doubt & (2 * domains.hope > -domains.least)
        enough = torch.where(decisive, tolerance / 16, torch.maximum(gaps / 8, gaps.new_tensor(tolerance / 2)))
        promising = (domains.hope > enough) & self._can_narrow(domains)
        if self.boxes:
            promising |= self._can_shrink(domains)
        room = torch.bincount(domains.owner, minlength=self.region.batch) < self.plan.most
        return wanted & promising & room[domains.owner]

    def by_slope(self, domains: Domains, gaps: Tensor) -> Tensor:
        """Whether to halve the segment rather than the box: where its width costs more than half of the gap."""
        narrow = self._can_narrow(domains)
        if not self.boxes:
            return narrow
        return narrow & ((domains.hope > gaps / 2) | ~self._can_shrink(domains))

    def _can_narrow(self, domains: Domains) -> Tensor:
        middle = domains.lo / 2 + domains.hi / 2  # of neighbouring floats it is one of them
        return (domains.hi - domains.lo > _NARROW * self.width) & (domains.lo < middle) & (middle < domains.hi)

    def _can_shrink(self, domains: Domains) -> Tensor:
        sides = (domains.region.upper - domains.region.lower).amax(1)
        return sides > 1e-6 * (self.region.upper - self.region.lower).amax(1)[domains.owner]

    def halved(self, parents: Domains, by_slope: Tensor, middle: Tensor) -> Domains:
        """Both halves of every domain, the first ones first, with what is proven of their parents."""
        chords = [Chord(*ends) for ends in zip(*(x.tolist() for x in ends_of(parents)), strict=True)]
        between = torch.tensor([c.at(a) for c, a in zip(chords, middle.tolist(), strict=True)], dtype=torch.float64)
        first = replace(
            parents, hi=torch.where(by_slope, middle, parents.hi), at_hi=torch.where(by_slope, between, parents.at_hi)
        )
        last = replace(
            parents, lo=torch.where(by_slope, middle, parents.lo), at_lo=torch.where(by_slope, between, parents.at_lo)
        )
        if self.boxes:
            lower, upper = parents.region.lower, parents.region.upper
            longest = torch.nn.functional.one_hot((upper - lower).argmax(1), lower.shape[1]).bool()
            cut = longest & ~by_slope.unsqueeze(1)
            half = lower / 2 + upper / 2
            first = replace(first, region=Box(lower, torch.where(cut, half, upper)))
            last = replace(last, region=Box(torch.where(cut, half, lower), upper))
        return first.joined(last)
