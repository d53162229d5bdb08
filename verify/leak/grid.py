"""Bounds at several slopes of a range, and how far they dip between two neighbours; the mathematics of it.

Let ``a_0 < a_1`` be neighbouring slopes and ``a = (1 - w) a_0 + w a_1``, ``q = w (1 - w)``, which is at most 1/4. At
both slopes a backward pass (`leaktight.verify.bounds.backward`) replaces activations ``f`` by lines: where it has the
coefficient ``p_i`` it uses ``p_i f_i(z) >= r_i z + e_i``. In between, the mixed coefficients ``(1 - w) p_0 + w p_1``
with the mixed lines are a pass as well, which needs no product of matrices: whatever is mixed linearly (affine nodes,
offsets, error terms; minima over the region are concave) gives the mixture of both bounds. Activations do not:

    p f_a(z)  =  (1 - w) p_0 f_0(z) + w p_1 f_1(z)  -  q (p_1 - p_0) (a_1 - a_0) g(z),

since ``f_a`` moves with the rate ``g(z)`` (``min(z, 0)`` for a plain Leaky ReLU); and the line at ``a_i`` holds on the
interval ``[l_i, u_i]`` known there, while in between ``z`` lies in the mixture of both, widened by dips ``q t``. Let
``h_i = p_i f_i(z) - r_i z - e_i``, which is piecewise linear with one kink at 0 and nonnegative at ``l_i``, 0, ``u_i``
(an interval on one side of 0 is widened to 0, where its line is exact). To the right of 0 the mixture of ``h_0`` and
``h_1`` is linear, and at the mixture of ``u_0`` and ``u_1`` it is at least ``-q (u_1 - u_0) (s_1 - s_0)``, with ``s_i``
the slope of ``h_i`` there. Only chords cut the graph elsewhere: rays through the kink never do. So with ``c_i`` the
chords' slopes, ``v_i = right - c_i`` and ``p_i`` of the sign that asks for chords, ``s_i = p_i v_i``, and

    |s_1 - s_0|  <=  |p_1 - p_0| max v  +  |p_0 + p_1| / 2  |v_1 - v_0|,

or, where only one of ``p_0, p_1`` asks for a chord, the first term alone. The dip ``t`` adds ``t |s|``. On the left of
0 it is the same with ``c_i - left``. All of it counts ``q`` times: a bound is

    (1 - w) b_0 + w b_1  -  q dip,

exactly what CROWN gives at the slopes of the grid, and in between lower by what is quadratic in their distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval, input_intervals
from leaktight.verify.leak.bands import Bands, KinkBands, bands_of
from leaktight.verify.leak.charges import Charges, charges_of
from leaktight.verify.leak.intervals import departure
from leaktight.verify.leak.segments import OverSegments, Rowed
from leaktight.verify.rounding import unit

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Tracked:
    """Bounds of a node's value at every slope of the grid, and their dips in between.

    lower, upper: ``(regions * slopes, *shape)``; below, above: ``(regions * (slopes - 1), *shape)``, nonnegative. At a
    slope between two neighbours the value is at least the mixture of both lower bounds minus ``q below``.
    """

    lower: Tensor
    upper: Tensor
    below: Tensor
    above: Tensor


class Grid(OverSegments):
    """Backward passes at all slopes ``at`` ``(regions, slopes)`` of a grid for each region, rising.

    Its batch holds the slopes of each region one after the other. `known` bounds values for all slopes from the
    neighbour on the left to the neighbour on the right, so that error terms hold between them; `tracked` what is known
    at the very slopes, which lines are made for.
    """

    def __init__(self, slopes: Slopes, region: Region, at: Tensor) -> None:
        regions, count = at.shape
        flat = region.select(torch.arange(regions).repeat_interleave(count))
        left = torch.cat([at[:, :1], at[:, :-1]], 1).flatten()
        right = torch.cat([at[:, 1:], at[:, -1:]], 1).flatten()
        known = input_intervals(slopes.network, flat)
        super().__init__(slopes, flat, known, left, right, at.flatten())
        self.values = known  # the same mapping, to be filled
        self.at, self.count = at, count
        self.tracked: dict[str, Tracked] = {}
        self.charged: dict[str, Charges] = {}
        self.banded: dict[str, Bands | KinkBands] = {}
        self.departed: dict[str, Interval] = {}
        self.halfway: dict[str, Rowed] = {}
        self.hulled: dict[str, tuple[Interval, Tracked | None, Interval]] = {}
        self.sunk: dict[str, Interval] = {}  # dips of the grid that this one is finer than, at the slopes

    def pick(self, regions: Tensor | slice) -> Self:
        """The grid of some regions alone."""
        flat: Tensor | slice
        if isinstance(regions, slice):
            flat = slice(regions.start * self.count, regions.stop * self.count)
        else:
            flat = (regions.unsqueeze(1) * self.count + torch.arange(self.count)).flatten()
        between = self.between(regions)
        other = self.select(flat)
        other.at, other.banded, other.hulled = self.at[regions], {}, {}
        other.halfway = {name: rowed.select(flat) for name, rowed in self.halfway.items()}
        other.departed = {name: z.select(between) for name, z in self.departed.items()}
        other.sunk = {name: z.select(flat) for name, z in self.sunk.items()}
        other.tracked = {
            name: Tracked(x.lower[flat], x.upper[flat], x.below[between], x.above[between])
            for name, x in self.tracked.items()
        }
        other.charged = {
            name: Charges(x.change[between], x.beyond[between], x.bend[between], x.ends[flat], x.signed[flat])
            for name, x in self.charged.items()
        }
        return other

    def between(self, regions: Tensor | slice) -> Tensor | slice:
        """The places of some regions' segments."""
        parts = self.count - 1
        if isinstance(regions, slice):
            return slice(regions.start * parts, regions.stop * parts)
        return (regions.unsqueeze(1) * parts + torch.arange(parts)).flatten()

    def prepare(self, last: Node) -> None:
        super().prepare(last)
        for name in self.tracked_activations(last):
            self.charges(self.network.by_name[name])

    def tracked_activations(self, last: Node) -> list[str]:
        """The activations in front of a node that carry dips."""
        names = list[str]()
        for node in self.network:
            if node.name == last.name:
                break
            if self.carries(node):
                names.append(node.name)
        return names

    def carries(self, node: Node) -> bool:
        """Whether an activation moves, or its lines are made for the slopes of the grid alone."""
        return node.name in self.operators or (isinstance(node.op, TwoSlope) and self.kink_at_zero(node))

    def ahead_of(self, node: Node) -> Interval:
        """At the slopes of the grid alone, for activations with a kink at 0; else for all between the neighbours."""
        found = self.tracked.get(node.inputs[0])
        if found is None or not self.kink_at_zero(node):
            return super().ahead_of(node)
        return Interval(found.lower, found.upper)

    def kink_at_zero(self, node: Node) -> bool:
        """Whether an activation has two slopes that meet at 0, with the value 0."""
        op = node.op
        return isinstance(op, TwoSlope) and not bool(op.kink.any()) and not bool(op.value.any())

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What belongs to either end of each segment, of ``(regions * slopes, ...)``: ``(regions, segments, ...)``."""
        whole = x.reshape(-1, self.count, *x.shape[1:])
        return whole[:, :-1], whole[:, 1:]

    def hulls(self, name: str) -> Interval:
        """Bounds of a node's value on every segment, ``(regions * (slopes - 1), *shape)``."""
        made = self.known[name], self.tracked.get(name)
        found = self.hulled.get(name)
        if found is None or found[0] is not made[0] or found[1] is not made[1]:
            found = self.hulled[name] = *made, self._hulls(name)
        return found[2]

    def _hulls(self, name: str) -> Interval:
        known = self.known[name]
        first, last = self.pairs(known.lower), self.pairs(known.upper)
        lower, upper = torch.maximum(*first), torch.minimum(*last)  # either end's bounds hold on the segment
        if (own := self.tracked.get(name)) is not None:
            deep = [x * (1 + 8 * unit(self.dtype)) / 4 for x in (own.below, own.above)]
            low, high = torch.minimum(*self.pairs(own.lower)), torch.maximum(*self.pairs(own.upper))
            lower = torch.maximum(lower, low - deep[0].reshape(low.shape) - 4 * unit(self.dtype) * low.abs())
            upper = torch.minimum(upper, high + deep[1].reshape(high.shape) + 4 * unit(self.dtype) * high.abs())
        return Interval(lower.flatten(0, 1), upper.flatten(0, 1))

    @property
    def widths(self) -> Tensor:
        """At least the segments' widths, ``(regions * (slopes - 1),)``."""
        return (self.at[:, 1:] - self.at[:, :-1]).flatten() * (1 + 4 * unit(self.dtype))

    def middles(self) -> Mapping[str, Rowed]:
        """The moving activations in the middle of each segment, at the slopes on their left."""
        if not self.halfway:
            there = self.slopes.at(self.along((self.at[:, 1:] / 2 + self.at[:, :-1] / 2).flatten()))
            self.halfway = {name: Rowed.of(there.by_name[name]) for name in self.operators}
        return self.halfway

    def departure(self, node: Node) -> Interval:
        """By how much a moving activation's value moves per unit of slope, on every segment."""
        found = self.departed.get(node.name)
        if found is None:
            found = self.departed[node.name] = self._departure(node)
        return found

    def _departure(self, node: Node) -> Interval:
        return departure(self.slopes, node.name, {node.inputs[0]: self.hulls(node.inputs[0])})

    def along(self, x: Tensor) -> Tensor:
        """What belongs to segments, at the slopes on their left; the last slope repeats the last segment's."""
        whole = x.reshape(-1, self.count - 1, *x.shape[1:])
        return torch.cat([whole, whole[:, -1:]], 1).flatten(0, 1)

    def bands(self, node: Node) -> Bands | KinkBands:
        """Parallel lines around an activation on each segment, and around the rate at which it moves."""
        found = self.banded.get(node.name)
        if found is None:
            found = self.banded[node.name] = bands_of(self, node)
        return found

    def charges(self, node: Node) -> Charges:
        """What an activation adds to the dips of rows."""
        found = self.charged.get(node.name)
        if found is None:
            found = self.charged[node.name] = charges_of(self, node)
        return found

    def apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of segments ``(regions * segments, *shape)``: at each slope that on its left, and that on its right."""
        whole = x.reshape(-1, self.count - 1, *x.shape[1:])
        none = torch.zeros_like(whole[:, :1])
        return torch.cat([none, whole], 1).flatten(0, 1), torch.cat([whole, none], 1).flatten(0, 1)
