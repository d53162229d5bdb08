"""The first lines of a curve: passes at few slopes for all regions, at more for those where that loses too much.

Neurons are bounded at few slopes, the rows that are asked about at more (`leaktight.verify.leak.finer`). In later
stages only the rows that may be the smallest margin are bounded: a conjunction whose proven line lies above what the
margin is at the region's centre is none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.quick import quick
from leaktight.verify.bounds.references import centre
from leaktight.verify.leak.between import bounded_grid, joined, lines_on, parts_of, referred_grid, together
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.finer import finer
from leaktight.verify.leak.grid import Grid
from leaktight.verify.leak.margin import MarginLines, combined
from leaktight.verify.leak.neurons import over_all
from leaktight.verify.leak.rough import Rough, rough_lines
from leaktight.verify.leak.segments import Lines
from leaktight.verify.rounding import down

PIECES = 32  # lines to begin with
_GROUPS = (2, 4)  # regions with at most so many rows that matter are bounded together
_ENOUGH = 1.0  # what may be lost before the next stage, in tolerances


@dataclass(frozen=True)
class Stage:
    """Neurons are bounded at each `every`-th end of the pieces, the rows that are asked about `between` times as often.

    most: it is left out where so much, in tolerances, is lost by neurons that are not bounded in between.
    """

    every: int
    between: int
    most: float = inf


STAGES = (
    Stage(PIECES, 1),
    Stage(PIECES, 4, 0.5),
    Stage(PIECES // 4, 2),
    Stage(PIECES // 4, 4, 1.0),
    Stage(PIECES // 8, 2),
)


def first_margins(
    slopes: Slopes, case: Case, ends: Tensor, tolerance: float, effort: Effort, stages: Sequence[Stage] = STAGES
) -> tuple[MarginLines, dict[str, Interval]]:
    """Lines below ``M(a)`` on the pieces between ``ends`` ``(pieces + 1,)``, one region's after the other's.

    Besides, bounds of what activations see over the whole range. `loss` is about what the lines lose against
    certificates at single slopes; where that is below `tolerance`, nothing more is done.
    """
    lines, known = list[Lines](), list[dict[str, Interval]]()
    with quick(slopes.network):
        for part in parts_of(slopes, case.region, len(ends), effort.memory or default_memory()):
            some = _Staged(slopes, Case(case.region.select(part), case.unsafe.select(part)), ends, effort, stages)
            some.advance(tolerance)
            lines.append(some.lines)
            known.append(some.known)
    # joining copies: what is returned may meet gradients
    return margins_of(case, together(lines), len(ends) - 1), joined(known)


class _Staged:
    """The lines of some regions, stage after stage."""

    def __init__(self, slopes: Slopes, case: Case, ends: Tensor, effort: Effort, stages: Sequence[Stage]) -> None:
        self.stages, self.pieces = stages, len(ends) - 1
        self.apart = max(1, self.pieces // 4)  # pieces between slopes at which rows are compared
        self.slopes, self.case, self.ends, self.effort = slopes, case, ends, effort
        self.memory = effort.memory or default_memory()
        self.at = ends.expand(case.region.batch, -1)
        self.weights = case.unsafe.weights.double().expand(case.region.batch, -1, -1)
        self.grid, references = referred_grid(slopes, case.region, self.at[:, :: stages[0].every], effort, None)
        self.bounded = [(stages[0].every, torch.arange(case.region.batch), self.grid)]
        self.known = over_all(self.grid)
        self.first: Rough | None = None
        if len(stages) > 1 and references is not None:
            self.first = rough_lines(references, self.weights, self.at, self.memory)
            self.lines, self.sagged = self.first.lines, self.first.sagged
        else:
            self.lines, self.sagged = lines_on(self.grid, self.weights, self.at, self.memory)
        self.rough = torch.full((case.region.batch,), self.first is not None)

    def advance(self, tolerance: float) -> None:
        """Goes through the stages while that is worth it."""
        for stage in self.stages[1:]:
            lost = margins_of(self.case, self.lines, self.pieces).loss.reshape(-1, self.pieces).amax(1)
            open = self.rough | (lost > _ENOUGH * tolerance)
            if not bool(open.any()) or self.effort.late:
                return
            regions = open.nonzero().flatten()
            matter = self._that_matter(regions)
            kept = (self.sagged[regions] * matter).amax(1) <= stage.most * tolerance
            if bool(kept.any()):
                self._stage(stage, regions[kept], matter[kept])
                self.rough[regions[kept]] = False

    def _stage(self, stage: Stage, regions: Tensor, matter: Tensor) -> None:
        """Bounds the rows that matter; regions that have about as many go together."""
        at, rough, known_at = self.at[regions], self.first, self.grid.at[regions]
        grid = self._bounded_before(stage, regions) or self._bounded_anew(stage, regions)
        counts = matter.sum(1)
        sizes = [0, *_GROUPS, matter.shape[1]]
        for few, many in pairwise(sizes):
            own = ((counts > few) & (counts <= many)).nonzero().flatten()
            if len(own):
                index = matter[own].to(torch.uint8).topk(int(counts[own].amax()), dim=1).indices
                fine = finer(grid.pick(own), at[own, :: stage.every // stage.between])
                ahead = None if rough is None else rough.ahead(known_at[own], fine.at, regions[own], index)
                self._bound(fine, regions[own], index, ahead)

    def _bounded_before(self, stage: Stage, regions: Tensor) -> Grid | None:
        """The grid of some regions with neurons bounded at the stage's slopes, if an earlier stage made it."""
        for every, of, grid in self.bounded:
            place = torch.searchsorted(of, regions).clamp(max=len(of) - 1)
            if every == stage.every and bool((of[place] == regions).all()):
                return grid.pick(place)
        return None

    def _bounded_anew(self, stage: Stage, regions: Tensor) -> Grid:
        """The grid of some regions with neurons bounded at more slopes."""
        at = self.at[regions, :: stage.every]
        floor = {name: z.select(regions) for name, z in self.known.items()}
        grid = bounded_grid(self.slopes, self.case.region.select(regions), at, self.effort, floor)
        for name, z in over_all(grid).items():
            known = self.known[name].select(regions).meet(z)
            self.known[name].lower[regions], self.known[name].upper[regions] = known.lower, known.upper
        self.bounded.append((stage.every, regions, grid))
        return grid

    def _bound(self, grid: Grid, regions: Tensor, index: Tensor, ahead: Tensor | None) -> None:
        """Bounds these rows ``(regions, k)``, and keeps the better lines; the others' losses do not matter."""
        rows = self.weights[regions]
        rows = rows.gather(1, index.unsqueeze(2).expand(-1, -1, rows.shape[2]))
        found, sagged = lines_on(grid, rows, self.at[regions], self.memory, ahead)
        _put(found, index.repeat_interleave(self.pieces, 0), self.lines, self._places(regions))
        self.sagged[regions] = torch.zeros_like(self.sagged[regions]).scatter(1, index, sagged)

    def _that_matter(self, regions: Tensor) -> Tensor:
        """The rows that may be the smallest margin somewhere, ``(regions, rows)``; at least one of each region."""
        unsafe = self.case.unsafe.select(regions)
        lower = self.lines.at_lo[self._places(regions)].reshape(len(regions), self.pieces, -1)
        low = lower[:, :: self.apart] - unsafe.bounds.unsqueeze(1)
        worst = low.new_full((*low.shape[:2], unsafe.disjuncts), -torch.inf)
        worst = worst.scatter_reduce(-1, unsafe.disjunct.expand(low.shape), low, "amax")
        above = worst >= self.at_centres[regions].unsqueeze(2)
        matter = ~above.all(1)[:, unsafe.disjunct]
        matter[:, 0] |= ~matter.any(1)
        return matter

    @cached_property
    def at_centres(self) -> Tensor:
        """The margins at the regions' centres at a few slopes, ``(regions, slopes)``; about so much is attained."""
        at = self.ends[: -1 : self.apart]
        many = torch.arange(self.case.region.batch).repeat_interleave(len(at))
        values = self.slopes.at(at.repeat(self.case.region.batch)).flat(centre(self.case.region)[many])
        return self.case.unsafe.select(many).margin(values).reshape(-1, len(at))

    def _places(self, regions: Tensor) -> Tensor:
        return (regions.unsqueeze(1) * self.pieces + torch.arange(self.pieces)).flatten()


def margins_of(case: Case, lines: Lines, pieces: int) -> MarginLines:
    """The margins' lines from those of their atoms, on all pieces of all regions."""
    unsafe = case.unsafe.select(torch.arange(case.region.batch).repeat_interleave(pieces))
    low, high = (down(x - unsafe.bounds) for x in (lines.at_lo, lines.at_hi))
    return combined(unsafe, Lines(low, high, lines.loss))


def _put(found: Lines, rows: Tensor, lines: Lines, places: Tensor) -> None:
    """Puts the higher ones of lines ``(regions * pieces, k)`` of these rows in their places."""
    old = Lines(*(x[places].gather(1, rows) for x in (lines.at_lo, lines.at_hi, lines.loss)))
    best = old.where_higher(found)
    for whole, some in ((lines.at_lo, best.at_lo), (lines.at_hi, best.at_hi)):
        whole[places] = whole[places].scatter(1, rows, some)
    lines.loss[places] = torch.zeros_like(lines.loss[places]).scatter(1, rows, found.loss)
