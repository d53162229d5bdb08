"""Curves from bounds at a few slopes (see `leaktight.verify.leak.grid`): neurons first, then the rows asked about."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Affine
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.backward import Units, rows_on_outputs
from leaktight.verify.bounds.crown import already_tight, undecided
from leaktight.verify.bounds.interval import Interval, lower_of_outputs
from leaktight.verify.bounds.memory import batch_chunks, default_memory, keep_freed_memory, passes
from leaktight.verify.bounds.optimise import other_turn
from leaktight.verify.bounds.parallel import each
from leaktight.verify.leak.dips import BentWalk, DipWalk
from leaktight.verify.leak.grid import Grid, Tracked
from leaktight.verify.leak.parametric import Effort
from leaktight.verify.leak.segments import Lines
from leaktight.verify.rounding import down, trusted_lower, unit

Known = Mapping[str, Interval]


def curves(
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    ends: Tensor,
    every: int,
    effort: Effort,
    floor: Known | None = None,
) -> tuple[Lines, dict[str, Interval]]:
    """Proven lower bounds of linear functions of the outputs over a range of slopes, from passes at a few of them.

    With ``m(x; a) = objectives[b, r] . f(x; a)``, in real arithmetic, for every region ``b``, row ``r``, every ``x`` in
    the region and every slope ``a`` between two neighbours of ``ends[b]``, ``m(x; a)`` is at least the value at ``a``
    of the chord of `at_lo` and `at_hi` there.

    Args: objectives ``(batch or 1, rows, output_size)``. ends ``(batch, pieces + 1)``, rising strictly; passes are at
    each `every`-th of them, and in between pieces of equal width. floor: bounds of nodes' values, one row for each
    region, that hold over its whole range of slopes.
    Returns: the lines of all regions' pieces one after the other, ``(batch * pieces, rows)``; `loss` is about what they
    lose against passes in their middles. And bounds of what activations see, over the whole range.
    Raises: as for `leaktight.verify.leak.parametric.lines`.
    """
    asked, found, seen = objectives.double().expand(region.batch, -1, -1), list[Lines](), list[dict[str, Interval]]()
    memory = effort.memory or default_memory()
    with torch.no_grad():
        for part, grid in _grids(slopes, region, ends[:, ::every], effort, floor):
            found.append(_last_pass(grid, asked[part], ends[part], memory))
            seen.append(_over_all(grid))
    return Lines(*(torch.cat([getattr(x, name) for x in found]) for name in ("at_lo", "at_hi", "loss"))), _joined(seen)


def enclosures(slopes: Slopes, region: Region, ends: Tensor, effort: Effort) -> dict[str, Interval]:
    """Bounds of what activations see, over the range of slopes ``ends`` ``(batch, 2)`` of each region."""
    with torch.no_grad():
        return _joined([_over_all(grid) for _, grid in _grids(slopes, region, ends, effort, None)])


def _grids(
    slopes: Slopes, region: Region, at: Tensor, effort: Effort, floor: Known | None
) -> Iterator[tuple[slice, Grid]]:
    """Grids of parts of the regions, with bounds of all neurons."""
    keep_freed_memory()
    memory = effort.memory or default_memory()
    for part in batch_chunks(slopes.network, region.batch, torch.float64, memory // (2 * at.shape[1])):
        known = None if floor is None else {name: z.select(part) for name, z in floor.items()}
        grid = Grid(slopes, region.select(part), at[part])
        _refine_all(grid, memory, known, effort.deadline)
        yield part, grid


def _joined(parts: list[dict[str, Interval]]) -> dict[str, Interval]:
    return {
        name: Interval(torch.cat([x[name].lower for x in parts]), torch.cat([x[name].upper for x in parts]))
        for name in parts[0]
    }


# ---- neurons ----


def _refine_all(grid: Grid, memory: int, floor: Known | None, deadline: float | None) -> None:
    """Fills in bounds of all nodes, from the inputs on: what activations are not linear on is bounded by passes."""
    network, count = grid.network, grid.count
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
                _refine(grid, node, wanted, memory, deadline)


def _anywhere(grid: Grid, node: Node) -> Tensor:
    """Which entries are undecided at some slope, ``(regions, size)``."""
    return undecided(grid.network, node, grid.values[node.name]).reshape(-1, grid.count, node.size).any(1)


def _refine(grid: Grid, node: Node, wanted: Tensor, memory: int, deadline: float | None) -> None:
    """Bounds each wanted entry's nearer end, and the other one where that does not decide it at all slopes."""
    grid.prepare(node)
    before, shape = grid.values[node.name], (len(wanted), grid.count, node.size)
    middle = (before.lower / 2 + before.upper / 2).reshape(shape)[:, grid.count // 2]
    near = (middle >= 0).to(grid.dtype).mul_(2).sub_(1)
    ends = [x.reshape(shape).clone() for x in (before.lower, before.upper)]
    dips = [ends[0].new_zeros(len(wanted), grid.count - 1, node.size) for _ in ends]
    for side in (near, -near):
        if deadline is not None and time.monotonic() > deadline:
            return
        _one_side(grid, node, wanted, side, ends, dips, memory)
        _tighten(grid, node, before, ends, dips)
        wanted = wanted & _anywhere(grid, node)
        if not bool(wanted.any()):
            break
    _track(grid, node, wanted, before, ends, dips)


def _one_side(
    grid: Grid, node: Node, wanted: Tensor, side: Tensor, ends: list[Tensor], dips: list[Tensor], memory: int
) -> None:
    """Puts lower ends (where `side` is 1), upper ends (-1) and dips of the wanted entries in their places."""
    counts = wanted.sum(1)
    order = counts.argsort(stable=True, descending=True)
    rows = [grid.count * n for n in counts[order].tolist()]

    def bounded(part: tuple[slice, slice]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        some = order[part[0]]
        most = int(counts[some].amax())
        cut = slice(part[1].start // grid.count, -(-part[1].stop // grid.count))
        index = wanted[some].to(torch.uint8).topk(most, dim=1).indices[:, cut]
        sign = side[some].gather(1, index)
        whole = grid.pick(some)
        units = Units(node.name, *(x.repeat_interleave(grid.count, 0) for x in (index, sign)))
        walk = whole.carry(DipWalk(whole), units)
        found = walk.conclude().reshape(len(some), grid.count, -1)
        return some, index, sign, found, walk.dips.expand(len(some), grid.count - 1, found.shape[-1])

    for some, index, sign, found, deep in each(
        bounded, list(passes(grid.network, rows, memory // torch.get_num_threads()))
    ):
        real = wanted[some].gather(1, index)
        for k, (way, bound) in enumerate(((1, found), (-1, -found))):
            mine = (real & (sign == way)).unsqueeze(1)
            place, segment = index.unsqueeze(1).expand(found.shape), index.unsqueeze(1).expand(deep.shape)
            kept = torch.where(mine, bound, ends[k][some].gather(2, place))
            ends[k][some] = ends[k][some].scatter(2, place, kept)
            kept = torch.where(mine, deep, dips[k][some].gather(2, segment))
            dips[k][some] = dips[k][some].scatter(2, segment, kept)


def _tighten(grid: Grid, node: Node, before: Interval, ends: list[Tensor], dips: list[Tensor]) -> None:
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


def _track(grid: Grid, node: Node, open: Tensor, before: Interval, ends: list[Tensor], dips: list[Tensor]) -> None:
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


def _over_all(grid: Grid) -> dict[str, Interval]:
    """Bounds of what activations see over the whole range of slopes."""
    network = grid.network
    wanted = {name for node in network if not isinstance(node.op, Affine) for name in node.inputs}
    found = {}
    for name in wanted:
        z = grid.values[name]
        low, high = (x.reshape(-1, grid.count, *x.shape[1:]) for x in (z.lower, z.upper))
        found[name] = Interval(low.amin(1), high.amax(1))
    return found


# ---- the rows that are asked about ----


def _last_pass(grid: Grid, objectives: Tensor, ends: Tensor, memory: int) -> Lines:
    """The better of two turns of the lines, and of intervals."""
    for node in grid.network:
        grid.prepare(node)
    many, each_rows = ends.shape[1] - 1, 2 * grid.count
    lines = Lines(*objectives.new_empty(3, len(objectives) * many, objectives.shape[1]))
    tilts, differs = other_turn(grid)
    turned = grid.turned(tilts)

    def bounded(part: tuple[slice, slice]) -> tuple[slice, slice, Lines]:
        some, cut = part[0], slice(part[1].start // each_rows, -(-part[1].stop // each_rows))
        found = _pieces(grid.pick(some), objectives[some, cut], ends[some])
        if bool(differs.any()):
            found = found.where_higher(_pieces(turned.pick(some), objectives[some, cut], ends[some]))
        return slice(some.start * many, some.stop * many), cut, found

    rows = [each_rows * objectives.shape[1]] * len(objectives)
    for some, cut, found in each(bounded, list(passes(grid.network, rows, memory // torch.get_num_threads()))):
        for name in ("at_lo", "at_hi", "loss"):
            getattr(lines, name)[some, cut] = getattr(found, name)
    flat = lower_of_outputs(grid.network, grid.values, objectives.repeat_interleave(grid.count, 0))
    parts = many // (grid.count - 1)
    between = torch.maximum(*grid.pairs(flat)).flatten(0, 1).repeat_interleave(parts, 0)
    higher = between > torch.maximum(lines.at_lo, lines.at_hi)  # lines may be looser than intervals
    return Lines(torch.where(higher, between, lines.at_lo), torch.where(higher, between, lines.at_hi), lines.loss)


def _pieces(grid: Grid, objectives: Tensor, ends: Tensor) -> Lines:
    """The lines of all pieces of some regions.

    On a segment the bound is the mixture of both ends' minus ``q dip``. For a negative dip that is concave, so chords
    hold. For a positive one it is convex: on a piece from ``w`` to ``w + d`` its tangent in the middle holds, which at
    both ends of the piece is lower by ``dip d^2 / 4``.
    """
    still = torch.cat([objectives, torch.zeros_like(objectives)], 1).repeat_interleave(grid.count, 0)
    walk = grid.carry(BentWalk(grid), *rows_on_outputs(grid.network, still))
    lower, dips = walk.bounds()
    first, last, u = lower[:, :-1], lower[:, 1:], unit(grid.dtype)
    parts = (ends.shape[1] - 1) // (grid.count - 1)
    start, width = grid.at[:, :-1, None, None], (grid.at[:, 1:] - grid.at[:, :-1])[..., None, None]
    shares = [((x.reshape(len(ends), -1, parts, 1) - start) / width).clamp(0, 1) for x in (ends[:, :-1], ends[:, 1:])]
    dip, rise, found = dips.unsqueeze(2), (last - first).unsqueeze(2), list[Tensor]()
    for share in shares:
        sunk = share * (1 - share) * dip + dip.clamp(min=0) * (shares[1] - shares[0] + 8 * u) ** 2 / 4
        off = 64 * u * (first.abs() + last.abs() + dips.abs()).unsqueeze(2)
        found.append(trusted_lower(down(first.unsqueeze(2) + share * rise - sunk - off)).flatten(1, 2).flatten(0, 1))
    loss = _loss(lower, dips).unsqueeze(2).expand(-1, -1, parts, -1).flatten(1, 2).flatten(0, 1)
    return Lines(found[0], found[1], loss)


def _loss(lower: Tensor, dips: Tensor) -> Tensor:
    """About by how much passes in the middles of the segments would be higher: dips, without what bounds curve."""
    if lower.shape[1] < 3:
        return dips.clamp(min=0) / 4
    curved = lower[:, 2:] - 2 * lower[:, 1:-1] + lower[:, :-2]
    around = torch.cat([curved[:, :1], (curved[:, 1:] + curved[:, :-1]) / 2, curved[:, -1:]], 1)
    return (dips / 4 - around / 8).clamp(min=0).nan_to_num(torch.inf)
