"""Lines around an activation as a pass applies them, and what moves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from leaktight.verify.relax import Lines
from leaktight.verify.rounding import unit


@dataclass(frozen=True)
class Centred:
    """Lines in the form that a pass applies: ``slope ± half_slope``, ``offset ± half_offset`` (plus: the lower line).

    Halving and adding rounds; `Backward.handed_on` charges for the slopes. The offsets are moved outwards instead.
    """

    slope: Tensor
    half_slope: Tensor
    offset: Tensor
    half_offset: Tensor
    roundings: ClassVar[int] = 8

    @cached_property
    def steep(self) -> Tensor:
        """At least the slopes' sizes, ``(batch, rows, *shape)``."""
        return self.slope.abs().add_(self.half_slope.abs())

    @cached_property
    def reach(self) -> Tensor:
        """At least the offsets' sizes, ``(batch, rows, *shape)``."""
        return self.offset.abs().add_(self.half_offset.abs())

    def select(self, regions: Tensor | slice) -> Centred:
        return Centred(*(x[regions] for x in (self.slope, self.half_slope, self.offset, self.half_offset)))

    @classmethod
    def of(cls, lines: Lines) -> Centred:
        slope = (lines.lower_slope + lines.upper_slope).mul_(0.5)
        half_slope = (lines.lower_slope - lines.upper_slope).mul_(0.5)
        if lines.through_origin:
            half = lines.upper_offset * 0.5
            found = cls(slope, half_slope, half, -half)
            # slopes of a plain Leaky ReLU are not negative; both are exactly what halving and adding was made from
            found.__dict__["steep"] = torch.maximum(lines.lower_slope, lines.upper_slope)
            found.__dict__["reach"] = lines.upper_offset
            return found
        offset = lines.lower_offset / 2 + lines.upper_offset / 2
        reach = 2 * unit(offset.dtype) * (lines.lower_offset.abs() + lines.upper_offset.abs())
        half = lines.lower_offset / 2 - lines.upper_offset / 2 - reach.detach()
        return cls(slope, half_slope, offset, half)


@dataclass(frozen=True)
class Fan:
    """All lines below a Leaky ReLU that touch it at the origin, and the chord above, all ``(batch, 1, *shape)``.

    The line with tilt ``t`` has the slope ``chord + gap + t bend``; `bend` is zero where no line is free. With
    coefficients ``a``, of which ``p`` are the positive parts, rows become ``a chord + p (gap + t bend)``, and their
    constant ``(a - p) offset``: those below zero take the chord.
    """

    chord: Tensor
    offset: Tensor
    gap: Tensor
    bend: Tensor
    roundings: ClassVar[int] = 16  # five in the sum of slopes (of sizes up to one), four in the rows; as in `Centred`

    @property
    def steep(self) -> Tensor:
        """At least the slopes' sizes: those of a plain Leaky ReLU are at most one."""
        return torch.ones_like(self.chord)

    @property
    def reach(self) -> Tensor:
        """At least the offset's size, twice: once for each of two sums."""
        return 2 * self.offset

    def select(self, regions: Tensor | slice) -> Fan:
        return Fan(*(x[regions] for x in (self.chord, self.offset, self.gap, self.bend)))

    @classmethod
    def of(cls, lines: Lines, first: Tensor, bend: Tensor) -> Fan:
        """Of the lines without a turn, the lower of which has the tilt `first`, zero or one."""
        gap = lines.lower_slope - lines.upper_slope
        return cls(lines.upper_slope, lines.upper_offset, gap.addcmul_(first, bend, value=-1), bend)

    def turned(self, a: Tensor, positive: Tensor, tilt: Tensor) -> Tensor:
        """The rows ``(batch, rows, *shape)`` for tilts ``(batch, 1 or rows, *shape)``."""
        steeper = torch.addcmul(self.gap, tilt.clamp(0, 1).to(a.dtype), self.bend)
        return (positive * steeper).addcmul_(a, self.chord)


@dataclass(frozen=True)
class Drift:
    """An activation's value moves with a parameter ``t``, ``|t| <= half``: by ``t centre``, up to `reach`.

    centre, reach ``(batch, *shape)``; half ``(batch, 1, ..)``.
    """

    centre: Tensor
    reach: Tensor
    half: Tensor

    def select(self, regions: Tensor | slice) -> Drift:
        return Drift(self.centre[regions], self.reach[regions], self.half[regions])
