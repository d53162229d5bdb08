"""Parallel lines around activations on the segments of a grid, and around the rates at which they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Elementwise, TwoSlope
from leaktight.verify.bounds.centred import Centred
from leaktight.verify.leak.pairs import Band
from leaktight.verify.rounding import underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.leak.grid import Grid


@dataclass(frozen=True)
class Strip:
    """Parallel lines around an activation, ``|f(z) - slope z - offset| <= error``, all ``(batch, 1, *shape)``."""

    slope: Tensor
    offset: Tensor
    error: Tensor

    @classmethod
    def around(cls, op: TwoSlope, lower: Tensor, upper: Tensor) -> Strip:
        """For a kink at 0 with value 0: whatever the slope, ``f(z) - slope z`` is extreme at an end or at 0."""
        left, right, u = op.left, op.right, unit(lower.dtype)
        low, high = lower.clamp(max=0), upper.clamp(min=0)
        slope = (right * high - left * low) / (high - low).clamp(min=underflow(lower.dtype))
        slope = torch.where(lower >= 0, right, torch.where(upper <= 0, left, slope))
        ends = torch.where(upper > 0, (right - slope) * high, 0.0), torch.where(lower < 0, (left - slope) * low, 0.0)
        most, least = torch.maximum(*ends).clamp(min=0), torch.minimum(*ends).clamp(max=0)
        steep = torch.maximum(left.abs(), right.abs()) + slope.abs()
        off = (16 * u + 2 * op.precision) * steep * torch.maximum(-low, high) + 4 * underflow(lower.dtype)
        return cls(slope, most / 2 + least / 2, most / 2 - least / 2 + off)

    @classmethod
    def banded(cls, op: Elementwise, lower: Tensor, upper: Tensor) -> Strip:
        """For any activation."""
        band = Band(op, lower, upper)
        return cls(band.slope, band.offset, band.error)


@dataclass(frozen=True)
class Bands:
    """An activation at the middle of each segment and the rate at which it moves, between parallel lines.

    fastest: the largest size of the rate. noise: what sizes of both kinds of coefficients charge for roundings,
    ``(regions * slopes, 2, *shape)``. See `Grid.along`.
    """

    own: Strip
    rate: Strip | None
    fastest: Tensor
    noise: Tensor


def bands_of(grid: Grid, node: Node) -> Bands:
    """Those of an activation, for all regions of the grid."""
    hull = grid.hulls(node.inputs[0])
    ends = grid.along(hull.lower).unsqueeze(1), grid.along(hull.upper).unsqueeze(1)
    if node.name not in grid.operators:
        op = grid.operator(node)
        own = Strip.around(op, *ends) if isinstance(op, TwoSlope) and grid.kink_at_zero(node) else None
        own = Strip.banded(op, *ends) if own is None else own
        return Bands(own, None, torch.zeros(()), _noise(grid, node, own).unsqueeze(1))
    moved = grid.middles()[node.name].op
    left, right = grid.slopes.rate(node.name)
    precision = max(grid.slopes.rate_precision(node.name), moved.precision)
    rate = TwoSlope(left, right, moved.kink, torch.zeros_like(left), precision)
    around = Strip.around if grid.kink_at_zero(node) else Strip.banded
    own, turning = around(moved, *ends), around(rate, *ends)
    fastest = grid.along(grid.departure(node).magnitude).unsqueeze(1)
    noise = torch.stack([_noise(grid, node, own), _noise(grid, node, turning)], 1)
    return Bands(own, turning, fastest, noise)


def _noise(grid: Grid, node: Node, strip: Strip) -> Tensor:
    """What the rounding of coefficients that this strip hands on may be off, for each unit of their size."""
    zero = torch.zeros_like(strip.slope)
    return grid.handing(node, Centred(strip.slope, zero, strip.offset, zero))
