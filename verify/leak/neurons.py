"""Bounds of neurons at the slopes of a grid, and their dips in between (see `leaktight.verify.leak.grid`)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Affine
from leaktight.verify.bounds.crown import already_tight, undecided
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import passes
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.rows import Units
from leaktight.verify.leak.dips import DipWalk
from leaktight.verify.leak.grid import Grid, Tracked
from leaktight.verify.leak.single import DipPass, GridReferences
from leaktight.verify.rounding import unit

Known = Mapping[str, Interval]
_WASTE = 1.25  # rows that may be bounded for one that is wanted


def refine_neurons(grid: Grid, memory: int, floor: Known | None, deadline: float | None) -> GridReferences | None:
    """Fills in bounds of all nodes, from the inputs on: what activations are not linear on is bounded by passes.

    Returns what passes in float32 refer to, where they did it: they serve for rows on the outputs, too.
    """
    network, count = grid.network, grid.count
    single = GridReferences(grid) if DipPass.fits(grid) else None
    for node in network:
        if node.name not in grid.values:
            z = grid.step(node)
            if floor is not None and node.name in floor:
                wide = floor[node.name]
                z = z.meet(Interval(*(x.repeat_interleave(count, 0) for x in (wide.lower, wide.upper))))
            grid.values[node.name] = z
        if not already_tight(network, grid.region, node):
            wanted = _anywhere(grid, node)
            if bool(wanted.any()):
                _refine(grid, single, node, wanted, memory, deadline)
    return single


def _anywhere(grid: Grid, node: Node) -> Tensor:
    """Which entries are undecided at some slope, ``(regions, size)``."""
    return undecided(grid.network, node, grid.values[node.name]).reshape(-1, grid.count, node.size).any(1)


def _refine(
    grid: Grid, single: GridReferences | None, node: Node, wanted: Tensor, memory: int, deadline: float | None
) -> None:
    """Bounds each wanted entry's nearer end, and the other one where that does not decide it at all slopes."""
    (single or grid).prepare(node)
    before, shape = grid.values[node.name], (len(wanted), grid.count, node.size)
    middle = (before.lower / 2 + before.upper / 2).reshape(shape)[:, grid.count // 2]
    near = (middle >= 0).to(grid.dtype).mul_(2).sub_(1)
    ends = [x.reshape(shape).clone() for x in (before.lower, before.upper)]
    dips = [ends[0].new_zeros(len(wanted), grid.count - 1, node.size) for _ in ends]
    for side in (near, -near):
        if deadline is not None and time.monotonic() > deadline:
            return
        _one_side(grid, single, node, wanted, side, ends, dips, memory)
        tighten(grid, node, before, ends, dips)
        wanted = wanted & _anywhere(grid, node)
        if not bool(wanted.any()):
            break
    track(grid, node, wanted, before, ends, dips)


def _one_side(
    grid: Grid,
    single: GridReferences | None,
    node: Node,
    wanted: Tensor,
    side: Tensor,
    ends: list[Tensor],
    dips: list[Tensor],
    memory: int,
) -> None:
    """Puts lower ends (where `side` is 1), upper ends (-1) and dips of the wanted entries in their places."""
    counts, total = wanted.sum(1), wanted.shape[1]
    counts = torch.where(total <= _WASTE * counts, total, counts)  # nearly all entries are all of them
    order = counts.argsort(stable=True, descending=True)
    rows = [grid.count * n for n in counts[order].tolist()]

    def bounded(part: tuple[slice, slice]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        some = order[part[0]]
        cut = slice(part[1].start // grid.count, -(-part[1].stop // grid.count))
        index, span = _entries(wanted[some], int(counts[some].amax()), cut)
        sign = side[some].gather(1, index)
        units = Units(node.name, *(x.repeat_interleave(grid.count, 0) for x in (index, sign)), span=span)
        found, deep = _passed(grid, single, some, units)
        shape = (len(some), grid.count, index.shape[1])
        return some, index, sign, found.reshape(shape), deep.expand(shape[0], shape[1] - 1, shape[2])

    dtype = torch.float32 if single is not None else grid.dtype
    for some, index, sign, found, deep in each(
        bounded, list(passes(grid.network, rows, memory // torch.get_num_threads(), dtype))
    ):
        real = wanted[some].gather(1, index)
        for k, (way, bound) in enumerate(((1, found), (-1, -found))):
            mine = (real & (sign == way)).unsqueeze(1)
            place, segment = index.unsqueeze(1).expand(found.shape), index.unsqueeze(1).expand(deep.shape)
            kept = torch.where(mine, bound, ends[k][some].gather(2, place))
            ends[k][some] = ends[k][some].scatter(2, place, kept)
            kept = torch.where(mine, deep, dips[k][some].gather(2, segment))
            dips[k][some] = dips[k][some].scatter(2, segment, kept)


def _entries(wanted: Tensor, most: int, cut: slice) -> tuple[Tensor, slice | None]:
    """A slice of the wanted entries, filled up to as many in all regions; all entries need no list."""
    if most == wanted.shape[1]:
        return torch.arange(most)[cut].expand(len(wanted), -1), cut
    return wanted.to(torch.uint8).topk(most, dim=1).indices[:, cut], None


def _passed(grid: Grid, single: GridReferences | None, some: Tensor, units: Units) -> tuple[Tensor, Tensor]:
    """Lower bounds ``(regions * slopes, rows)`` of entries in some regions, and their dips."""
    if single is not None:
        fast = DipPass(single, some)
        return fast.bound([units]), fast.dips
    whole = grid.pick(some)
    walk = whole.carry(DipWalk(whole), units)
    return walk.conclude(), walk.dips


def tighten(grid: Grid, node: Node, before: Interval, ends: list[Tensor], dips: list[Tensor]) -> None:
    """What is known of the node between the neighbours of each slope."""
    u = unit(grid.dtype)
    found = []
    for end, dip, way in zip(ends, dips, (1, -1), strict=True):
        first, last = end[:, :-1] * way, end[:, 1:] * way
        least = torch.minimum(first, last)
        least = least - dip * ((1 + 8 * u) / 4) - 4 * u * least.abs()
        both = torch.minimum(torch.cat([least[:, :1], least], 1), torch.cat([least, least[:, -1:]], 1))
        found.append(torch.where(both.isnan(), -torch.inf, both).reshape(before.lower.shape) * way)
    grid.values[node.name] = before.meet(Interval(*found))


def track(grid: Grid, node: Node, open: Tensor, before: Interval, ends: list[Tensor], dips: list[Tensor]) -> None:
    """Keeps the bounds at the slopes of entries that are undecided; of the others, and where they are better, those
    that hold everywhere."""
    known, shape = grid.values[node.name], ends[0].shape
    kept = []
    for end, dip, way, old, now in (
        (ends[0], dips[0], 1, before.lower, known.lower),
        (ends[1], dips[1], -1, before.upper, known.upper),
    ):
        better = (way * end).sum(1) >= (way * old.reshape(shape)).sum(1)
        mine = (open & better & dip.isfinite().all(1) & end.isfinite().all(1)).unsqueeze(1)
        value = torch.where(mine, end, now.reshape(shape))
        deep = torch.where(mine, dip, 0.0)
        kept.append((value.reshape(known.lower.shape), deep.reshape(-1, *node.shape)))
    (lower, below), (upper, above) = kept
    grid.tracked[node.name] = Tracked(lower, upper, below, above)


def over_all(grid: Grid) -> dict[str, Interval]:
    """Bounds of what activations see over the whole range of slopes."""
    network = grid.network
    wanted = {name for node in network if not isinstance(node.op, Affine) for name in node.inputs}
    found = {}
    for name in wanted:
        z = grid.values[name]
        low, high = (x.reshape(-1, grid.count, *x.shape[1:]) for x in (z.lower, z.upper))
        found[name] = Interval(low.amin(1), high.amax(1))
    return found
