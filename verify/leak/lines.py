"""Lower bounds of linear functions of the outputs over segments of slopes: neurons first, then the rows asked about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import Refine, refine_all
from leaktight.verify.bounds.interval import Interval, input_intervals, lower_of_outputs
from leaktight.verify.bounds.memory import batch_chunks, default_memory, keep_freed_memory, passes
from leaktight.verify.bounds.optimise import ascend, default_tilts
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.rows import Rows, Units, rows_on_outputs
from leaktight.verify.leak.effort import PLAIN, Effort, Floor
from leaktight.verify.leak.parametric import Parametric
from leaktight.verify.leak.sandwich import Sandwich
from leaktight.verify.leak.segments import Lines, OverSegments

# Step sizes of the ascent where lines are optimised: for the rows asked for, and for those behind them.
LAST = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)
BEHIND = (0.5, 0.25)


def lines(
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    lo: Tensor,
    hi: Tensor,
    effort: Effort = PLAIN,
    floor: Floor | None = None,
) -> Lines:
    """Proven lower bounds of linear functions of the outputs, as lines in the slope.

    With ``m(x; a) = objectives[b, r] . f(x; a)``, in real arithmetic, for every region ``b``, row ``r``, every ``x`` in
    the region and every slope ``a`` in ``[lo[b], hi[b]]``, ``m(x; a)`` is at least the value at ``a`` of the chord from
    ``(lo[b], at_lo[b, r])`` to ``(hi[b], at_hi[b, r])``.

    Args: objectives ``(batch or 1, rows, output_size)``. lo, hi ``(batch,)``, any finite slopes, ``lo <= hi``. floor:
    what is known already.
    Returns: minus infinity where nothing can be said.
    Raises: MissingRule: an operator has no rule. UsageError: float64 does not hold a slope.
    """
    return _in_parts(_lines, slopes, region, objectives, lo, hi, effort, floor)


def sandwiched(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, effort: Effort = PLAIN
) -> Tensor:
    """Proven lower bounds ``(batch, rows)`` that hold whatever slope in ``[lo[b], hi[b]]`` each single neuron has.

    Arguments and errors as for `lines`.
    """
    return _in_parts(_sandwiched, slopes, region, objectives, lo, hi, effort, None).at_lo


Known = Mapping[str, Interval] | None
Part = Callable[[Slopes, Region, Tensor, Tensor, Tensor, Effort, Known], Lines]


def _in_parts(
    bound: Part,
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    lo: Tensor,
    hi: Tensor,
    effort: Effort,
    floor: Floor | None,
) -> Lines:
    keep_freed_memory()
    effort = effort if effort.memory else replace(effort, memory=default_memory())
    asked = objectives.double().expand(region.batch, -1, -1)
    found = []
    with torch.no_grad():
        for part in batch_chunks(slopes.network, region.batch, torch.float64, effort.memory or 0):
            known = None if floor is None else floor.select(part)
            found.append(bound(slopes, region.select(part), asked[part], lo[part], hi[part], effort, known))
    return Lines(*(torch.cat([getattr(x, name) for x in found]) for name in ("at_lo", "at_hi", "loss")))


def _lines(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, effort: Effort, floor: Known
) -> Lines:
    backward = refined(Parametric, slopes, region, lo, hi, effort, floor)
    best = _last_pass(backward, objectives, effort)
    boxes = lower_of_outputs(backward.network, backward.known, objectives)  # lines may be looser than intervals
    flat = boxes > torch.maximum(best.at_lo, best.at_hi)
    return Lines(torch.where(flat, boxes, best.at_lo), torch.where(flat, boxes, best.at_hi), best.loss)


def _sandwiched(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, effort: Effort, floor: Known
) -> Lines:
    plain = replace(effort, optimise=False)
    backward = refined(Sandwich, slopes, region, lo, hi, plain, floor)
    found = _last_pass(backward, objectives, plain).at_lo
    best = torch.maximum(found, lower_of_outputs(backward.network, backward.known, objectives))
    return Lines(best, best, torch.zeros_like(best))


Kind = TypeVar("Kind", bound=OverSegments)


def refined(
    kind: type[Kind], slopes: Slopes, region: Region, lo: Tensor, hi: Tensor, effort: Effort, floor: Known
) -> Kind:
    """A backward pass with bounds of every neuron over the segments; behind turned lines where the effort says so."""
    known = input_intervals(slopes.network, region)
    backward = kind(slopes, region, known, lo, hi)
    memory = effort.memory or default_memory()
    refine_all(backward, known, memory, floor=floor, deadline=effort.deadline)
    if effort.optimise and not effort.late:
        tight = input_intervals(slopes.network, region)
        backward = kind(slopes, region, tight, lo, hi)
        refine_all(backward, tight, memory, floor=known, refine=_turning(effort), deadline=effort.deadline)
    return backward


def _turning(effort: Effort) -> Refine:
    def refine(backward: Backward, units: Units) -> Tensor:
        tilts = default_tilts(backward.network, backward.known, units.index.shape[1], before=units.node)
        in_time = lambda best: torch.full_like(best, not effort.late, dtype=torch.bool)  # noqa: E731
        return ascend(lambda: backward.turned(tilts).lower(units), tilts, BEHIND, in_time)

    return refine


def _last_pass(backward: OverSegments, objectives: Tensor, effort: Effort) -> Lines:
    """The rows' lines; best ones by their height in the middle where lines are turned."""
    for node in backward.network:
        backward.prepare(node)
    memory = (effort.memory or default_memory()) // torch.get_num_threads()
    parts = list(passes(backward.network, [objectives.shape[1]] * len(objectives), memory))

    def ends(part: tuple[slice, slice]) -> Lines:
        some, starts = backward.select(part[0]), rows_on_outputs(backward.network, objectives[part])
        return _turned(some, starts, effort) if effort.optimise else some.ends(*starts)

    whole = Lines(*objectives.new_empty(3, *objectives.shape[:2]))
    for (regions, rows), found in zip(parts, each(ends, parts), strict=True):
        for name in ("at_lo", "at_hi", "loss"):
            getattr(whole, name)[regions, rows] = getattr(found, name)
    return whole


def _turned(backward: OverSegments, starts: list[Rows], effort: Effort) -> Lines:
    tilts = default_tilts(backward.network, backward.known, starts[0].coefficients.shape[1])
    best: Lines | None = None

    def height() -> Tensor:
        nonlocal best
        found = backward.turned(tilts).ends(*starts)
        middle = found.at_lo / 2 + found.at_hi / 2
        kept = Lines(found.at_lo.detach(), found.at_hi.detach(), found.loss)
        best = kept if best is None else best.where_higher(kept)
        return middle

    ascend(height, tilts, LAST, lambda x: torch.full_like(x, not effort.late, dtype=torch.bool))
    if best is None:
        raise InternalError("lines were turned and none was kept")
    return best
