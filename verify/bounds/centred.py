"""Lines around an activation as a pass applies them, and what moves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
            return cls(slope, half_slope, half, -half)
        offset = lines.lower_offset / 2 + lines.upper_offset / 2
        reach = 2 * unit(offset.dtype) * (lines.lower_offset.abs() + lines.upper_offset.abs())
        half = lines.lower_offset / 2 - lines.upper_offset / 2 - reach.detach()
        return cls(slope, half_slope, offset, half)


@dataclass(frozen=True)
class Ray:
    """The free line below a Leaky ReLU, turned about the origin for each row by itself.

    A tilt ``t`` adds ``(t - first) bend`` to the slope of the line without a turn, whose tilt is `first`; `bend` is
    zero where no line is free. tilt ``(batch, 1 or rows, *shape)``, the others ``(batch, 1, *shape)``.
    """

    tilt: Tensor
    first: Tensor
    bend: Tensor

    def select(self, regions: Tensor | slice) -> Ray:
        return Ray(*(x[regions] for x in (self.tilt, self.first, self.bend)))

    def add_to(self, rows: Tensor, a: Tensor) -> Tensor:
        """The rows ``a l`` or ``a u`` with the line turned: coefficients below zero take the chord, which stays.

        Turns are made in the dtype of the tilt, where they round within [-1, 1].
        """
        turn = self.tilt.clamp(0, 1) - self.first.to(self.tilt.dtype)
        return rows.addcmul_(turn.to(rows.dtype) * self.bend, a.relu())


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
