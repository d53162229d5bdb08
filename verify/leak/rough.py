"""Rough lines of all rows: passes in float32 at the few slopes at which neurons were bounded, lines not turned.

Good enough to tell which rows may be the smallest margin, at a fraction of the cost of `between.lines_on`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.verify.bounds.memory import passes
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.references import SINGLE
from leaktight.verify.bounds.rows import dot, rows_on_outputs
from leaktight.verify.leak.between import not_below_intervals, on_pieces
from leaktight.verify.leak.sagging import sagging
from leaktight.verify.leak.segments import Lines
from leaktight.verify.leak.single import DipPass, GridReferences


class RoughPass(DipPass):
    """A pass that adds up about what rows lose by neurons' bounds between slopes, no part of the bounds."""

    sagged: Tensor = torch.zeros(())

    def elementwise(self, node: Node, a: Tensor, size: Tensor) -> None:
        sags = sagging(self.grid, node).flatten(2).to(SINGLE)
        sags = sags.expand(len(self.grid.known[node.name].lower), -1, -1)[self.regions]
        self.sagged = self.sagged + dot(size, sags).double()
        super().elementwise(node, a, size)


@dataclass(frozen=True)
class Rough:
    """lines, sagged: as from `leaktight.verify.leak.between.lines_on`.

    rows: what the rows are on the inputs at the grid's slopes, ``(regions, slopes, rows, n)`` in float32.
    """

    lines: Lines
    sagged: Tensor
    rows: Tensor

    def ahead(self, at: Tensor, fine: Tensor, regions: Tensor, index: Tensor) -> Tensor:
        """About what rows `index` ``(k, rows)`` of some regions are at more slopes ``fine`` ``(k, slopes)``.

        at: the grid's slopes in these regions, of which `fine` lie between the first and the last.
        """
        place = index[:, None, :, None].expand(-1, self.rows.shape[1], -1, self.rows.shape[3])
        rows = self.rows[regions].gather(2, place)
        segment = (torch.searchsorted(at.contiguous(), fine.contiguous()) - 1).clamp(0, at.shape[1] - 2)
        low, high = at.gather(1, segment), at.gather(1, segment + 1)
        share = ((fine - low) / (high - low)).to(SINGLE)[..., None, None]
        each = torch.arange(len(regions)).unsqueeze(1)
        return torch.lerp(rows[each, segment], rows[each, segment + 1], share).double()


def rough_lines(references: GridReferences, objectives: Tensor, ends: Tensor, memory: int) -> Rough:
    """Lines of rows ``(regions, rows, output_size)`` on all pieces between the first and the last slope of a grid."""
    grid = references.grid
    for port in grid.network.outputs:
        references.prepare(grid.network.by_name[port.name])

    def bounded(part: tuple[slice, slice]) -> tuple[slice, slice, Lines, Tensor, Tensor]:
        some, cut = part[0], slice(part[1].start // grid.count, -(-part[1].stop // grid.count))
        walk = RoughPass(references, torch.arange(some.start, some.stop))
        lower = walk.bound(rows_on_outputs(grid.network, objectives[some, cut].repeat_interleave(grid.count, 0)))
        shaped = lower.reshape(-1, grid.count, lower.shape[1])
        dips = walk.dips.expand(len(shaped), grid.count - 1, -1)
        found, lost = on_pieces(grid.at[some], shaped, dips, ends[some], walk.sagged.expand(lower.shape))
        return some, cut, found, lost, walk.rows.expand(*lower.shape, -1).reshape(*shaped.shape, -1)

    many, (regions, count) = ends.shape[1] - 1, objectives.shape[:2]
    lines, sagged = Lines(*objectives.new_empty(3, regions * many, count)), objectives.new_zeros(regions, count)
    rows = torch.empty(regions, grid.count, count, grid.region.size, dtype=SINGLE)
    parts = list(passes(grid.network, [grid.count * count] * regions, memory // torch.get_num_threads(), SINGLE))
    for some, cut, found, lost, on_inputs in each(bounded, parts):
        sagged[some, cut], rows[some, :, cut] = lost, on_inputs
        for name in ("at_lo", "at_hi", "loss"):
            getattr(lines, name)[some.start * many : some.stop * many, cut] = getattr(found, name)
    return Rough(not_below_intervals(grid, objectives, lines), sagged, rows)
