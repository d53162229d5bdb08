"""What activations add to the dips of a grid's rows; the mathematics is in `leaktight.verify.leak.grid`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import TwoSlope
from leaktight.verify.rounding import gamma, underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.leak.grid import Grid


@dataclass(frozen=True)
class Charges:
    """What an activation adds to the dips of rows with coefficients ``p_i`` in front of it, as vectors.

    For each segment ``|p_1 - p_0| . change + (p_1 - p_0) . bend`` and, of both ends, ``|p_i| . size - p_i . signed``.
    change, beyond, bend: ``(regions * (slopes - 1), 1, *shape)``, `beyond` the part of `change` that is not about the
    moving activation. ends: ``(regions * slopes, 3, *shape)``, for the coefficients' sizes: what they add to the
    segment on their left, on their right, and to both. signed: likewise, two of them.
    """

    change: Tensor
    beyond: Tensor
    bend: Tensor
    ends: Tensor
    signed: Tensor


def charges_of(grid: Grid, node: Node) -> Charges:
    """Those of an activation, for all regions of the grid."""
    u, tiny = unit(grid.dtype), underflow(grid.dtype)
    z = grid.hulls(node.inputs[0])
    change = beyond = bend = torch.zeros_like(z.lower)
    if node.name in grid.operators:
        moved, width = grid.departure(node), grid.widths.reshape(-1, *[1] * len(node.shape))
        bend = (moved.lower / 2 + moved.upper / 2) * width
        reach = torch.maximum(moved.upper - bend / width, bend / width - moved.lower) * width
        change = reach * (1 + 32 * u) + (gamma(node.size, grid.dtype) + 32 * u) * moved.magnitude * width
    each = torch.zeros_like(grid.known[node.inputs[0]].lower)
    left, right, noise = each, each, each
    signed = torch.stack([each, each], 1)
    if grid.kink_at_zero(node) and node.inputs[0] in grid.tracked:
        beyond, sizes, sign, noise = _extended(grid, node)
        change = change + beyond
        # both ends of a segment add to it: the right neighbour as its left part
        left, right = grid.apart(sizes)
        signed = torch.stack(grid.apart(sizes * sign), 1)
    slack = 1 + 4 * gamma(node.size, grid.dtype) + 32 * u
    ends = torch.stack([left * slack, right * slack, noise * (1 + 8 * u)], 1) + tiny
    change, beyond = ((x * (1 + 8 * u) + tiny).unsqueeze(1) for x in (change, beyond))
    return Charges(change, beyond, bend.unsqueeze(1), ends, signed)


def _extended(grid: Grid, node: Node) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What lines cost beyond the intervals they are made for; see `leaktight.verify.leak.grid`.

    Returns: what ``|p_1 - p_0|`` counts; what of each end the coefficients that ask for chords count, and their
    sign (0: coefficients of both signs); what coefficients of any sign count for rounding, at every slope.
    """
    own, op = grid.tracked[node.inputs[0]], grid.operator(node)
    if not isinstance(op, TwoSlope):
        raise TypeError(f"node {node.name!r} has no kink")
    flat = (len(own.lower), *node.shape)
    sides = [side.squeeze(1) if side.dim() > len(node.shape) else side for side in (op.left, op.right)]
    left, right = (side.expand(flat) for side in sides)
    lines = grid.plain(node)
    bent = right - left
    chord = torch.where(bent >= 0, lines.upper_slope.squeeze(1), lines.lower_slope.squeeze(1))
    low, high = own.lower.clamp(max=0), own.upper.clamp(min=0)
    parts = []
    for edge, rise, dip in ((high, right - chord, own.above), (low, chord - left, own.below)):
        first, last = (x.flatten(0, 1) for x in grid.pairs(rise.abs()))
        apart = [x.flatten(0, 1) for x in grid.pairs(edge)]
        step = (apart[1] - apart[0]).abs()
        steep = torch.maximum(first, last)
        parts.append((steep * step + steep * dip / 2, (last - first).abs() * step + steep * dip))
    change, size = (torch.maximum(*both) for both in zip(*parts, strict=True))
    convex, concave = ((_both(grid, bent >= 0)), (_both(grid, bent <= 0)))
    sign = convex.to(grid.dtype) - concave.to(grid.dtype)
    # the sign of the coefficients that ask for a chord: negative where convex
    mixed = ~(convex | concave)
    reach = left.abs() + right.abs() + chord.abs()
    if bool(mixed.any()):
        step = torch.stack([(b - a).abs().flatten(0, 1) for a, b in map(grid.pairs, (low, high))]).amax(0)
        whole = torch.maximum(*grid.pairs(reach)).flatten(0, 1) * (step + torch.maximum(own.below, own.above))
        change, size = torch.where(mixed, 0.0, change), torch.where(mixed, 4 * whole, size)
    least, most = torch.minimum(*grid.pairs(own.lower)), torch.maximum(*grid.pairs(own.upper))
    straddles = (least.flatten(0, 1) < own.below) & (most.flatten(0, 1) > -own.above)
    change, size = (torch.where(straddles, x, 0.0) for x in (change, size))
    wide = torch.maximum(grid.known[node.inputs[0]].magnitude, torch.maximum(low.abs(), high.abs()))
    deep = torch.maximum(*grid.apart(torch.maximum(own.below, own.above)))
    noise = (64 * unit(grid.dtype) + 4 * op.precision) * reach * (2 * wide + deep)
    # (|p| - sign p) / 2 are the coefficients that ask for chords; both ends count half each
    return change, size / 4, sign, noise


def _both(grid: Grid, x: Tensor) -> Tensor:
    first, last = grid.pairs(x)
    return (first & last).flatten(0, 1)
