"""Parts of regions with segments of slopes, what is proven there and what halving may gain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.specs.region import Box, Region
from leaktight.verify.leak.margin import MarginLines

_TENSORS = ("owner", "lo", "hi", "at_lo", "at_hi", "hope")


@dataclass(frozen=True)
class Domains:
    """Parts of regions with segments of slopes, what is proven there and what halving may gain; along one axis."""

    owner: Tensor
    region: Region
    lo: Tensor
    hi: Tensor
    at_lo: Tensor
    at_hi: Tensor
    hope: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def select(self, index: Tensor) -> Domains:
        return self._each(lambda x: x[index], self.region.select(index))

    def _each(self, change: Callable[[Tensor], Tensor], region: Region) -> Domains:
        return replace(self, region=region, **{name: change(getattr(self, name)) for name in _TENSORS})

    def joined(self, other: Domains) -> Domains:
        both = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in _TENSORS}
        return replace(self, region=together(self.region, other.region), **both)

    @property
    def least(self) -> Tensor:
        return torch.minimum(self.at_lo, self.at_hi)

    def better(self, found: MarginLines) -> Domains:
        """With the better of what was proven before and of `found`: of two chords the one with the higher lower end."""
        new = torch.minimum(found.at_lo, found.at_hi) >= self.least
        return replace(
            self, at_lo=torch.where(new, found.at_lo, self.at_lo), at_hi=torch.where(new, found.at_hi, self.at_hi)
        )


def whole(region: Region, ends: Tensor) -> Domains:
    """Every region with every segment between neighbours of some slopes; nothing is proven yet."""
    if isinstance(region, Box):
        region = Box(region.lower, region.upper)
    owner = torch.arange(region.batch).repeat_interleave(len(ends) - 1)
    nothing = torch.full((len(owner),), -torch.inf, dtype=torch.float64)
    first, last = ends[:-1].repeat(region.batch), ends[1:].repeat(region.batch)
    return Domains(owner, region.select(owner), first, last, nothing, nothing.clone(), -nothing)


def together(first: Region, second: Region) -> Region:
    parts = ("lower", "upper") if isinstance(first, Box) else ("centre", "radius", "lower", "upper")
    both = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in parts}
    return replace(first, **both)  # type: ignore[type-var]


def ends_of(domains: Domains) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return domains.lo, domains.hi, domains.at_lo, domains.at_hi
