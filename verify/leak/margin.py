"""From lines of a property's conditions to lines of its margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.leak.effort import Effort, Floor
from leaktight.verify.leak.lines import lines, sandwiched
from leaktight.verify.leak.segments import Lines
from leaktight.verify.rounding import down


@dataclass(frozen=True)
class MarginLines:
    """Proven lower bounds of a margin at both ends of each segment ``(batch,)``; the chord holds in between.

    `loss`: by how much a shorter segment would raise them, as far as the last pass knows.
    """

    at_lo: Tensor
    at_hi: Tensor
    loss: Tensor

    def at_least(self, bound: Tensor) -> MarginLines:
        """Where both ends are below a bound of the whole segment, that bound."""
        low = torch.maximum(self.at_lo, self.at_hi) < bound
        return MarginLines(torch.where(low, bound, self.at_lo), torch.where(low, bound, self.at_hi), self.loss)


def margin_lines(
    slopes: Slopes, case: Case, lo: Tensor, hi: Tensor, effort: Effort, floor: Floor | None = None
) -> MarginLines:
    """Lines below ``M(a)``, the smallest margin over each region, on the segment ``[lo[b], hi[b]]`` of slopes."""
    unsafe = case.unsafe
    found = lines(slopes, case.region, unsafe.weights, lo, hi, effort, floor)
    moved = Lines(down(found.at_lo - unsafe.bounds), down(found.at_hi - unsafe.bounds), found.loss)
    margins = combined(unsafe, moved)
    point = _at_one_slope(slopes, case, lo, hi, effort)
    return margins if point is None else margins.at_least(point)


def sandwiched_margins(slopes: Slopes, case: Case, lo: Tensor, hi: Tensor, effort: Effort) -> Tensor:
    """Lower bounds ``(batch,)`` of the margin, whatever slope in ``[lo[b], hi[b]]`` each neuron has."""
    unsafe = case.unsafe
    found = unsafe.combine(down(sandwiched(slopes, case.region, unsafe.weights, lo, hi, effort) - unsafe.bounds))
    point = _at_one_slope(slopes, case, lo, hi, effort)
    return found if point is None else torch.maximum(found, point)


def _at_one_slope(slopes: Slopes, case: Case, lo: Tensor, hi: Tensor, effort: Effort) -> Tensor | None:
    """Where there is a single slope, the certificates ``(batch,)`` of the network that has it."""
    if not len(lo) or not bool((lo == lo[0]).all() and (hi == lo[0]).all()):
        return None
    engine = "alpha-crown" if effort.optimise else "crown"
    network, unsafe = slopes.at(float(lo[0])), case.unsafe
    limits = {"memory": effort.memory, "deadline": effort.deadline}
    found = lower_bounds(network, case.region, unsafe.weights, engine=engine, **limits)  # type: ignore[arg-type]
    return unsafe.combine(down(found - unsafe.bounds))


def combined(unsafe: Unsafe, atoms: Lines) -> MarginLines:
    """Lines below ``min_i max_j`` of lines.

    The minimum of lines is concave, so the chord of its ends lies below it. The maximum is not: of each disjunct one
    line is taken, the one whose lower end is highest (of equal ones, the highest in the middle).
    """
    batch = atoms.at_lo.shape[0]
    if not unsafe.disjuncts:
        nothing = atoms.at_lo.new_full((batch,), torch.inf)
        return MarginLines(nothing, nothing, torch.zeros_like(nothing))
    least = torch.minimum(atoms.at_lo, atoms.at_hi)
    middle = atoms.at_lo / 2 + atoms.at_hi / 2
    low, high, loss = list[Tensor](), list[Tensor](), list[Tensor]()
    for disjunct in range(unsafe.disjuncts):
        own = (unsafe.disjunct == disjunct).nonzero().flatten()
        rank = least[:, own] + 1e-9 * middle[:, own].nan_to_num(0.0, 0.0, 0.0)
        pick = own[rank.argmax(1)].unsqueeze(1)
        for ends, kept in ((atoms.at_lo, low), (atoms.at_hi, high), (atoms.loss, loss)):
            kept.append(ends.gather(1, pick).squeeze(1))
    return MarginLines(torch.stack(low).amin(0), torch.stack(high).amin(0), torch.stack(loss).amax(0))
