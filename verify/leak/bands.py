"""Parallel lines around activations on the segments of a grid, and around the rates at which they move.

A row's curvature on a segment is made of what activations add, ``k g(z) + B f_a(z)``; these lines say what that is, up
to an error. See `leaktight.verify.leak.dips`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Elementwise, TwoSlope
from leaktight.verify.bounds.centred import Centred
from leaktight.verify.bounds.rows import dot, dots
from leaktight.verify.leak.pairs import Band
from leaktight.verify.rounding import underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.leak.grid import Grid


@dataclass(frozen=True)
class Curved:
    """``k g(z) + B f_a(z)`` is ``rows . z + turn``, up to `lost` and to what roundings are charged, `noise`."""

    rows: Tensor
    turn: Tensor
    lost: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Strip:
    """Parallel lines around an activation, ``|f(z) - slope z - offset| <= error``, all ``(batch, 1, *shape)``."""

    slope: Tensor
    offset: Tensor
    error: Tensor

    @classmethod
    def around(cls, op: Elementwise, lower: Tensor, upper: Tensor) -> Strip:
        """For any activation."""
        band = Band(op, lower, upper)
        return cls(band.slope, band.offset, band.error)

    @classmethod
    def around_kink(cls, lower: Tensor, upper: Tensor) -> Strip:
        """For ``min(z, 0)``: below a line of slope ``c`` in [0, 1] through the origin it is furthest at an end.

        ``c`` is rounded, which moves the line; what it is off at the ends is worked out for the line there is.
        """
        low, high = lower.clamp(max=0), upper.clamp(min=0)
        slope = low.neg().div_((high - low).clamp_(min=underflow(lower.dtype)))
        most = torch.maximum((slope - 1).mul_(low), slope * high)  # how far it is below, at the ends
        offset = most.mul_(-0.5)
        return cls(slope, offset, offset.abs().mul_(1 + 8 * unit(lower.dtype)).add_(4 * underflow(lower.dtype)))


@dataclass(frozen=True)
class Bands:
    """An activation at the middle of each segment and the rate at which it moves, between lines of their own.

    fastest: the largest size of the rate. noise: what sizes of both kinds of coefficients charge for roundings,
    ``(regions * slopes, 2, *shape)``. See `Grid.along`.
    """

    own: Strip
    rate: Strip | None
    fastest: Tensor
    noise: Tensor

    @classmethod
    def of(cls, grid: Grid, node: Node) -> Bands:
        ends = _ends(grid, node)
        if node.name not in grid.operators:
            own = Strip.around(grid.operator(node), *ends)
            return cls(own, None, torch.zeros(()), _noise(grid, node, own).unsqueeze(1))
        moved, rate = _moving(grid, node)
        own, turning = Strip.around(moved, *ends), Strip.around(rate, *ends)
        noise = torch.stack([_noise(grid, node, own), _noise(grid, node, turning)], 1)
        return cls(own, turning, grid.along(grid.departure(node).magnitude).unsqueeze(1), noise)

    def curved(self, bends: Tensor, change: Tensor, width: Tensor) -> Curved:
        """For curvatures ``B`` and changes of coefficients ``(batch, rows, *shape)``; ``k`` is ``change width``."""
        u, bent = unit(bends.dtype), bends.abs()
        blur = (self.own.error + (width / 2) * self.fastest) * (1 + 16 * u)
        lost, noise = dots(bent, torch.cat([blur, self.noise[:, :1]], 1)).unbind(-1)
        turn, rows = dot(bends, self.own.offset), bends * self.own.slope
        if self.rate is not None:
            fast = change * width
            blur = (self.rate.error + 8 * u * self.fastest) * (1 + 16 * u)
            turn, rows = turn + dot(fast, self.rate.offset), rows.addcmul_(fast, self.rate.slope)
            more, louder = dots(fast.abs_(), torch.cat([blur, self.noise[:, 1:]], 1)).unbind(-1)
            lost, noise = lost + more, noise + louder
        return Curved(rows, turn, lost, noise)


@dataclass(frozen=True)
class KinkBands:
    """An activation with a kink at 0, ``f(z) = right z + (left - right) min(z, 0)``, and its rate, which is like it.

    So ``k g + B f = (k right' + B right) z + C min(z, 0)`` with one ``C = k (left' - right') + B (left - right)`` for
    both, and one strip. Roundings, and what the sides are known up to, count ``2 (precision + 16 u) |z|`` for each unit
    of ``W = |B| (|left| + |right|) + |k| (|left'| + |right'|)``: a few units in ``k``, in ``C``, and in the rows, whose
    slope is in [0, 1].

    kink: the strip. own, rate: the sides at the segment's middle, and how fast they move. blur: what ``|B|`` counts
    since ``f`` moves within the segment; noise: what ``W`` counts.
    """

    kink: Strip
    own: TwoSlope
    rate: TwoSlope | None
    blur: Tensor
    noise: Tensor

    @classmethod
    def of(cls, grid: Grid, node: Node, op: TwoSlope) -> KinkBands:
        u, strip = unit(grid.dtype), Strip.around_kink(*_ends(grid, node))
        rate, blur = None, torch.zeros(())
        if node.name in grid.operators:
            op, rate = _moving(grid, node)
            half = grid.widths.reshape(-1, *[1] * len(node.shape)) / 2
            blur = grid.along(grid.departure(node).magnitude * (half * (1 + 16 * u))).unsqueeze(1)
        one = strip.slope.new_ones([1] * strip.slope.dim())
        noise = grid.handing(node, Centred(one, 0 * one, strip.offset, 0 * one))
        precision = max(op.precision, 0.0 if rate is None else rate.precision)
        size = grid.known[node.inputs[0]].largest.reshape(-1, *[1] * len(node.shape))
        return cls(strip, op, rate, blur, (noise + (2 * precision + 32 * u) * size).unsqueeze(1))

    def curved(self, bends: Tensor, change: Tensor, width: Tensor) -> Curved:
        """As `Bands.curved`."""
        kinked, rows, weight = bends * (self.own.left - self.own.right), bends * self.own.right, bends.abs()
        lost = dot(weight, self.blur) if self.rate is not None else 0.0
        weight = weight * _sides(self.own)
        if self.rate is not None:
            fast = change * width
            kinked = kinked.addcmul_(fast, self.rate.left - self.rate.right)
            rows = rows.addcmul_(fast, self.rate.right)
            weight = weight.addcmul_(fast.abs_(), _sides(self.rate))
        rows = rows.addcmul_(kinked, self.kink.slope)
        turn = dot(kinked, self.kink.offset)
        return Curved(rows, turn, lost + dot(kinked.abs_(), self.kink.error), dot(weight, self.noise))


def bands_of(grid: Grid, node: Node) -> Bands | KinkBands:
    """Those of an activation, for all regions of the grid."""
    op = grid.operator(node)
    return (
        KinkBands.of(grid, node, op) if isinstance(op, TwoSlope) and grid.kink_at_zero(node) else Bands.of(grid, node)
    )


def _sides(op: TwoSlope) -> Tensor:
    return op.left.abs() + op.right.abs()


def _ends(grid: Grid, node: Node) -> tuple[Tensor, Tensor]:
    """Bounds of an activation's input on each segment, at the slopes on their left, with an axis for rows."""
    hull = grid.hulls(node.inputs[0])
    return grid.along(hull.lower).unsqueeze(1), grid.along(hull.upper).unsqueeze(1)


def _moving(grid: Grid, node: Node) -> tuple[TwoSlope, TwoSlope]:
    """A moving activation in the middle of each segment, and the rate at which it moves."""
    moved = grid.middles()[node.name].op
    left, right = grid.slopes.rate(node.name)
    precision = max(grid.slopes.rate_precision(node.name), moved.precision)
    return moved, TwoSlope(left, right, moved.kink, torch.zeros_like(left), precision)


def _noise(grid: Grid, node: Node, strip: Strip) -> Tensor:
    """What the rounding of coefficients that this strip hands on may be off, for each unit of their size."""
    zero = torch.zeros_like(strip.slope)
    return grid.handing(node, Centred(strip.slope, zero, strip.offset, zero))
