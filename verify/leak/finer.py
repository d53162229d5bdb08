"""Grids with more slopes between those at which neurons were bounded.

Bounds of neurons are most of the work, and move slowly with the slope; the rows that are asked about are few. So their
passes are at more slopes, with lines for the intervals that are known there: between two slopes of the grid, whose
bounds are ``l_0, l_1`` with the dip ``t``, the value is at least

    l(w)  =  (1 - w) l_0 + w l_1 - w (1 - w) t.

That is convex in ``w``, with the second derivative ``2 t``. So between two slopes of the finer grid it is the mixture
of its two values there minus ``q t d^2``, with ``d`` their distance in ``w``: a dip again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.verify.bounds.interval import Interval
from leaktight.verify.leak.grid import Grid
from leaktight.verify.leak.neurons import tighten, track
from leaktight.verify.rounding import underflow, unit


def finer(grid: Grid, at: Tensor) -> Grid:
    """A grid at the slopes ``at`` ``(regions, slopes)``, between neighbouring slopes of `grid` as many as between any.

    The slopes of `grid` are among them. What is known of its nodes is taken over; nothing is bounded anew.
    """
    if at.shape[1] == grid.count:
        return grid
    parts, last = (at.shape[1] - 1) // (grid.count - 1), grid.count - 2
    place = torch.arange(at.shape[1])
    before, behind = ((place - 1).clamp(min=0) // parts).clamp(max=last), (place // parts).clamp(max=last)
    fine = Grid(grid.slopes, grid.region.select(torch.arange(0, grid.region.batch, grid.count)), at)
    everywhere = torch.ones((), dtype=torch.bool)
    for node in fine.network:
        if node.name in fine.values:
            continue
        spans = _by_regions(grid, grid.hulls(node.name))
        z = Interval(
            torch.minimum(spans.lower[:, before], spans.lower[:, behind]).flatten(0, 1),
            torch.maximum(spans.upper[:, before], spans.upper[:, behind]).flatten(0, 1),
        )
        fine.values[node.name] = z
        if node.name in grid.tracked:
            (low, below), (high, above) = _mixed(grid, node.name, at, behind)
            ends, dips = [low, -high], [below, above]
            tighten(fine, node, z, ends, dips)
            track(fine, node, everywhere, z, ends, dips)
            fine.sunk[node.name] = Interval(*(x[:, behind].flatten(0, 1) for x in _dips(grid, node.name)))
    return fine


def _by_regions(grid: Grid, spans: Interval) -> Interval:
    shape = (-1, grid.count - 1, *spans.lower.shape[1:])
    return Interval(spans.lower.reshape(shape), spans.upper.reshape(shape))


def _dips(grid: Grid, name: str) -> tuple[Tensor, Tensor]:
    own = grid.tracked[name]
    below, above = (x.reshape(-1, grid.count - 1, *x.shape[1:]) for x in (own.below, own.above))
    return below, above


def _mixed(grid: Grid, name: str, at: Tensor, segment: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Lower bounds of a node's value, and of its negative, at the slopes ``(regions, slopes, size)``, and their dips.

    A share ``w`` is off by a few roundings, each of which moves ``l(w)`` by at most ``|l_0| + |l_1| + t``.
    """
    own, u = grid.tracked[name], unit(grid.dtype)
    start, stop = grid.at[:, segment], grid.at[:, segment + 1]
    w = ((at - start) / (stop - start)).clamp(0, 1).unsqueeze(-1)
    steps = (w[:, 1:] - w[:, :-1]) % 1.0  # from the last slope of a segment to the first of the next it falls to 0
    steps = torch.where(steps == 0, 1.0, steps) + 8 * u
    found = []
    for end, dips, way in ((own.lower, own.below, 1), (own.upper, own.above, -1)):
        whole = (way * end).reshape(-1, grid.count, end[0].numel())
        deep = dips.reshape(-1, grid.count - 1, whole.shape[-1])
        first, last, dip = whole[:, segment], whole[:, segment + 1], deep[:, segment]
        value = (1 - w) * first + w * last - w * (1 - w) * dip
        off = 32 * u * (first.abs() + last.abs() + dip) + 4 * underflow(grid.dtype)
        between = deep[:, segment[:-1]] * steps**2 * (1 + 8 * u) + underflow(grid.dtype)
        found.append((value - off, between))
    return found
