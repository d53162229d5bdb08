"""What a quick pass hands on: what it met on its way to the inputs, and back; and the steps that all passes share."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from leaktight.specs.region import Box, Region
from leaktight.verify.search.descent import lowest_point


@dataclass(eq=False)
class Pass:
    """What one pass met: `value` ``(batch,)``, and by neuron coefficients, 1 where the free line was taken, and the
    slopes and offsets of the lines taken, all ``(batch, width)``.

    `ends`: the coefficients at the network's inputs ``(batch, n)``; `point`: where they are smallest.
    """

    value: Tensor
    ends: Tensor
    point: Tensor
    coefficients: Tensor
    free: Tensor
    slopes: Tensor
    offsets: Tensor

    def select(self, index: Tensor) -> Pass:
        """The pass of some of the domains."""
        return Pass(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Replayed:
    """A pass, and what its lines make of its point: the neurons' inputs ``(batch, width)``, measured from the kink, and
    the network's outputs ``(batch, outputs)``."""

    path: Pass
    inputs: Tensor
    outputs: Tensor

    def select(self, index: Tensor) -> Replayed:
        """The same of some of the domains."""
        return Replayed(self.path.select(index), *(x.index_select(0, index) for x in (self.inputs, self.outputs)))


@dataclass(frozen=True)
class Cuts:
    """One more decision for each row: column and slope ``(batch, rows, 1)``, the neuron and how steep it then is."""

    column: Tensor
    slope: Tensor


def plus(pending: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Adds rows to those that wait at a node."""
    pending[name] = pending[name] + rows if name in pending else rows


def cut_here(cuts: Cuts, part: slice, a: Tensor, offset: Tensor, below: Tensor) -> tuple[Tensor, Tensor | float]:
    """The coefficients `below` with the neurons exact at which rows are cut, and what offsets were too many.

    Above the first activation with a cut all rows are the same, and have an axis of length one.
    """
    here = (cuts.column >= part.start) & (cuts.column < part.stop)
    if not bool(here.any()):
        return below, 0.0
    lead = (*cuts.column.shape[:2], -1)
    a, offset, below = (x.expand(lead) for x in (a, offset, below))
    at = (cuts.column - part.start).clamp(0, part.stop - part.start - 1)
    size = a.gather(-1, at)
    below = below.scatter(-1, at, torch.where(here, size * cuts.slope, below.gather(-1, at)))
    return below, (size * offset.gather(-1, at) * here).squeeze(-1)


def corner(region: Region, coefficients: Tensor) -> Tensor:
    """A point of each region where ``a . x`` is lowest, for `coefficients` ``(batch, n)`` or ``(batch, rows, n)``."""
    if isinstance(region, Box):
        middle, radius = region.lower / 2 + region.upper / 2, (region.upper - region.lower) / 2
        if coefficients.dim() == 3:
            middle, radius = middle.unsqueeze(1), radius.unsqueeze(1)
        return torch.addcmul(middle, coefficients.sign(), radius, value=-1)
    if coefficients.dim() == 3:
        return lowest_point(region, coefficients.transpose(0, 1)).transpose(0, 1)
    return lowest_point(region, coefficients.unsqueeze(0))[0]
