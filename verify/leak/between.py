"""Curves from bounds at a few slopes (see `leaktight.verify.leak.grid`): neurons first, then the rows asked about."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval, lower_of_outputs
from leaktight.verify.bounds.memory import batch_chunks, default_memory, keep_freed_memory, passes
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.rows import rows_on_outputs
from leaktight.verify.leak.dips import BentWalk
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.finer import finer
from leaktight.verify.leak.grid import Grid
from leaktight.verify.leak.neurons import over_all, refine_neurons
from leaktight.verify.leak.segments import Lines
from leaktight.verify.leak.single import GridReferences
from leaktight.verify.leak.turns import turned
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
    *,
    between: int = 1,
) -> tuple[Lines, dict[str, Interval]]:
    """Proven lower bounds of linear functions of the outputs over a range of slopes, from passes at a few of them.

    With ``m(x; a) = objectives[b, r] . f(x; a)``, in real arithmetic, for every region ``b``, row ``r``, every ``x`` in
    the region and every slope ``a`` between two neighbours of ``ends[b]``, ``m(x; a)`` is at least the value at ``a``
    of the chord of `at_lo` and `at_hi` there.

    Args: objectives ``(batch or 1, rows, output_size)``. ends ``(batch, pieces + 1)``, rising strictly; neurons are
    bounded at each `every`-th of them, the rows `between` times as often, and in between are pieces of equal width.
    floor: bounds of nodes' values, one row for each
    region, that hold over its whole range of slopes.
    Returns: the lines of all regions' pieces one after the other, ``(batch * pieces, rows)``; `loss` is about what they
    lose against passes in their middles. And bounds of what activations see, over the whole range.
    Raises: as for `leaktight.verify.leak.lines.lines`.
    """
    asked, found, seen = objectives.double().expand(region.batch, -1, -1), list[Lines](), list[dict[str, Interval]]()
    memory = effort.memory or default_memory()
    with torch.no_grad():
        for part in parts_of(slopes, region, ends[:, ::every].shape[1], memory):
            known = None if floor is None else {name: z.select(part) for name, z in floor.items()}
            grid = bounded_grid(slopes, region.select(part), ends[part, ::every], effort, known)
            fine = finer(grid, ends[part, :: every // between])
            found.append(lines_on(fine, asked[part], ends[part], memory)[0])
            seen.append(over_all(grid))
    return together(found), joined(seen)


def enclosures(slopes: Slopes, region: Region, ends: Tensor, effort: Effort) -> dict[str, Interval]:
    """Bounds of what activations see, over the range of slopes ``ends`` ``(batch, 2)`` of each region."""
    with torch.no_grad():
        parts = parts_of(slopes, region, 2, effort.memory or default_memory())
        return joined([over_all(bounded_grid(slopes, region.select(x), ends[x], effort, None)) for x in parts])


def parts_of(slopes: Slopes, region: Region, count: int, memory: int) -> list[slice]:
    """Parts of the regions whose grids of `count` slopes fit in `memory`."""
    return batch_chunks(slopes.network, region.batch, torch.float64, memory // (2 * count))


def bounded_grid(slopes: Slopes, region: Region, at: Tensor, effort: Effort, floor: Known | None) -> Grid:
    """The grid at these slopes ``(batch, slopes)``, with bounds of all neurons."""
    return referred_grid(slopes, region, at, effort, floor)[0]


def referred_grid(
    slopes: Slopes, region: Region, at: Tensor, effort: Effort, floor: Known | None
) -> tuple[Grid, GridReferences | None]:
    """The same, and what passes in float32 refer to. These hold the grid, which so does not hold them: a ring would
    keep all its memory until Python looks for rings.
    """
    keep_freed_memory()
    grid = Grid(slopes, region, at)
    return grid, refine_neurons(grid, effort.memory or default_memory(), floor, effort.deadline)


def together(parts: list[Lines]) -> Lines:
    return Lines(*(torch.cat([getattr(x, name) for x in parts]) for name in ("at_lo", "at_hi", "loss")))


def joined(parts: list[dict[str, Interval]]) -> dict[str, Interval]:
    return {
        name: Interval(torch.cat([x[name].lower for x in parts]), torch.cat([x[name].upper for x in parts]))
        for name in parts[0]
    }


def lines_on(
    grid: Grid, objectives: Tensor, ends: Tensor, memory: int, ahead: Tensor | None = None
) -> tuple[Lines, Tensor]:
    """The lines of rows on all pieces between `ends`: the better of intervals and of turned passes.

    ahead: about what the rows are on the inputs at the slopes, ``(regions, slopes, rows, n)``, where that is known.
    Besides, about what a row loses by neurons that were not bounded between slopes, ``(regions, rows)``.
    """
    for node in grid.network:
        grid.prepare(node)
    grid.middles()
    many, each_rows = ends.shape[1] - 1, 2 * grid.count
    lines = Lines(*objectives.new_empty(3, len(objectives) * many, objectives.shape[1]))
    sagged = objectives.new_zeros(objectives.shape[:2])

    def bounded(part: tuple[slice, slice]) -> tuple[slice, slice, Lines, Tensor]:
        some, cut = part[0], slice(part[1].start // each_rows, -(-part[1].stop // each_rows))
        theirs = objectives[some, cut]
        where = None if ahead is None else ahead[some, :, cut].flatten(0, 1)
        return some, cut, *_pieces(turned(grid.pick(some), theirs, where), theirs, ends[some])

    rows = [each_rows * objectives.shape[1]] * len(objectives)
    for some, cut, found, lost in each(bounded, list(passes(grid.network, rows, memory // torch.get_num_threads()))):
        sagged[some, cut] = lost
        for name in ("at_lo", "at_hi", "loss"):
            getattr(lines, name)[some.start * many : some.stop * many, cut] = getattr(found, name)
    return not_below_intervals(grid, objectives, lines), sagged


def not_below_intervals(grid: Grid, objectives: Tensor, lines: Lines) -> Lines:
    """The lines, or what intervals give where that is higher: lines may be looser."""
    flat = lower_of_outputs(grid.network, grid.known, objectives.repeat_interleave(grid.count, 0))
    parts = len(lines.at_lo) // (len(objectives) * (grid.count - 1))
    between = torch.maximum(*grid.pairs(flat)).flatten(0, 1).repeat_interleave(parts, 0)
    higher = between > torch.maximum(lines.at_lo, lines.at_hi)
    low, high = (torch.where(higher, between, x) for x in (lines.at_lo, lines.at_hi))
    return Lines(low, high, lines.loss)


def _pieces(grid: Grid, objectives: Tensor, ends: Tensor) -> tuple[Lines, Tensor]:
    """The lines of all pieces of some regions, and what sags; see `lines_on`."""
    still = torch.cat([objectives, torch.zeros_like(objectives)], 1).repeat_interleave(grid.count, 0)
    walk = grid.carry(BentWalk(grid), *rows_on_outputs(grid.network, still))
    lower, dips = walk.bounds()
    return on_pieces(grid.at, lower, dips, ends, walk.sagged.expand(lower.flatten(0, 1).shape))


def on_pieces(at: Tensor, lower: Tensor, dips: Tensor, ends: Tensor, sagging: Tensor) -> tuple[Lines, Tensor]:
    """Lines on all pieces from bounds at the slopes `at` ``(regions, slopes, rows)`` and their dips; what sags at most.

    On a segment the bound is the mixture of both ends' minus ``q dip``. For a negative dip that is concave, so chords
    hold. For a positive one it is convex: on a piece from ``w`` to ``w + d`` its tangent in the middle holds, which at
    both ends of the piece is lower by ``dip d^2 / 4``.
    """
    first, last, u = lower[:, :-1], lower[:, 1:], unit(lower.dtype)
    parts = (ends.shape[1] - 1) // (at.shape[1] - 1)
    start, width = at[:, :-1, None, None], (at[:, 1:] - at[:, :-1])[..., None, None]
    shares = [((x.reshape(len(ends), -1, parts, 1) - start) / width).clamp(0, 1) for x in (ends[:, :-1], ends[:, 1:])]
    dip, rise, found = dips.unsqueeze(2), (last - first).unsqueeze(2), list[Tensor]()
    for share in shares:
        sunk = share * (1 - share) * dip + dip.clamp(min=0) * (shares[1] - shares[0] + 8 * u) ** 2 / 4
        off = 64 * u * (first.abs() + last.abs() + dips.abs()).unsqueeze(2)
        found.append(trusted_lower(down(first.unsqueeze(2) + share * rise - sunk - off)).flatten(1, 2).flatten(0, 1))
    sagged = sagging.reshape(lower.shape)
    sagged = torch.maximum(sagged[:, :-1], sagged[:, 1:])
    loss = (_loss(lower, dips) + sagged).unsqueeze(2).expand(-1, -1, parts, -1).flatten(1, 2).flatten(0, 1)
    return Lines(found[0], found[1], loss), sagged.amax(1)


def _loss(lower: Tensor, dips: Tensor) -> Tensor:
    """About by how much passes in the middles of the segments would be higher: dips, without what bounds curve."""
    if lower.shape[1] < 3:
        return dips.clamp(min=0) / 4
    curved = lower[:, 2:] - 2 * lower[:, 1:-1] + lower[:, :-2]
    around = torch.cat([curved[:, :1], (curved[:, 1:] + curved[:, :-1]) / 2, curved[:, -1:]], 1)
    return (dips / 4 - around / 8).clamp(min=0).nan_to_num(torch.inf)
