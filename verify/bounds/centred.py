"""Lines around an activation as a pass applies them, and what moves them."""

from __future__ import annotations

from dataclasses import dataclass

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

    def select(self, regions: Tensor | slice) -> Centred:
        return Centred(*(x[regions] for x in (self.slope, self.half_slope, self.offset, self.half_offset)))

    @classmethod
    def of(cls, lines: Lines) -> Centred:
        offset = lines.lower_offset / 2 + lines.upper_offset / 2
        reach = 2 * unit(offset.dtype) * (lines.lower_offset.abs() + lines.upper_offset.abs())
        half = lines.lower_offset / 2 - lines.upper_offset / 2 - reach.detach()
        return cls(
            lines.lower_slope / 2 + lines.upper_slope / 2, lines.lower_slope / 2 - lines.upper_slope / 2, offset, half
        )


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

    def added(self, a: Tensor) -> Tensor:
        """What turning adds to the rows ``a l`` or ``a u``: rows below zero take the chord, which stays."""
        return (self.tilt.clamp(0, 1) - self.first) * self.bend * a.relu()


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
