"""L2: lower bounds that are lines in the slope, each on a segment of slopes.

On a segment ``a = middle + t``, ``|t| <= half``, an activation's value is ``phi_a(z) = phi_middle(z) + t g(z)``, where
``g(z)`` is ``min(z, 0)`` (times a rate, where scales were folded in), known to lie within ``centre ± radius`` over the
region and the segment. So ``phi_a(z)`` is within ``half radius`` of ``phi_middle(z) + t centre``: a backward pass at
the middle carries one more number per row, the sum of ``A . centre`` over all chosen activations, and gives

    m(x; a)  >=  value + rate (a - middle)        for every x of the region and every a of the segment.

Where neurons are bounded on the way, the line's smaller end counts. All error terms are those of the backward pass
(`leaktight.verify.bounds.backward.Drift`). Segments are rows of a batch: region ``b`` of a batch has the segment
``[lo[b], hi[b]]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Node
from leaktight.models.ops import Elementwise, TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify import relax
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.centred import Drift
from leaktight.verify.bounds.crown import Refine, refine_all
from leaktight.verify.bounds.interval import Interval, input_intervals, lower_of_outputs
from leaktight.verify.bounds.memory import batch_chunks, default_memory, keep_freed_memory, passes
from leaktight.verify.bounds.optimise import ascend, default_tilts
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.rows import Rows, Units, rows_on_outputs
from leaktight.verify.leak.intervals import departure
from leaktight.verify.leak.pairs import Band, PairWalk, pairs_pass
from leaktight.verify.leak.segments import Lines, OverSegments, Rowed
from leaktight.verify.rounding import down, trusted_lower, unit, up

if TYPE_CHECKING:
    from typing_extensions import Self

# Step sizes of the ascent where lines are optimised: for the rows asked for, and for those behind them.
LAST = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)
BEHIND = (0.5, 0.25)


class Parametric(OverSegments):
    """One unknown slope for all chosen activations: bounds are lines in it."""

    def __init__(self, slopes: Slopes, region: Region, known: dict[str, Interval], lo: Tensor, hi: Tensor) -> None:
        super().__init__(slopes, region, known, lo, hi)
        self.middle = middle = lo / 2 + hi / 2
        self.ways = torch.stack([lo - middle, hi - middle], -1)  # to both ends, off by one rounding each
        self.half = up(self.ways.abs().amax(-1)) * (hi > lo)
        self.drifts: dict[str, Drift] = {}

    def select(self, regions: Tensor | slice) -> Self:
        other = super().select(regions)
        other.middle, other.ways, other.half = self.middle[regions], self.ways[regions], self.half[regions]
        other.drifts = {name: drift.select(regions) for name, drift in self.drifts.items()}
        return other

    def narrowed(self, regions: Tensor, known: Mapping[str, Interval], tilts: Mapping[str, Tensor]) -> Self:
        other = super().narrowed(regions, known, tilts)
        other.middle, other.ways, other.half = self.middle[regions], self.ways[regions], self.half[regions]
        other.drifts = {}
        return other

    def drift(self, node: Node) -> Drift | None:
        if node.name not in self.operators:
            return None
        if node.name not in self.drifts:
            moved = self.departure(node)
            centre = moved.lower / 2 + moved.upper / 2
            radius = torch.maximum(moved.upper - centre, centre - moved.lower)
            half = self.half.reshape(-1, *[1] * len(node.shape))
            self.drifts[node.name] = Drift(centre, up(radius * half) * (half > 0), half)
        return self.drifts[node.name]

    def departure(self, node: Node) -> Interval:
        """By how much the value of a chosen activation moves per unit of slope, ``(batch, *shape)``."""
        return departure(self.slopes, node.name, self.known)

    def bands(self, node: Node) -> tuple[Band, Band | None]:
        """Parallel lines around an activation at the middle, and around how it moves (None: it does not)."""
        z = self.known[node.inputs[0]]
        ends = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
        own = Band(self.operator(node), *ends)
        if node.name not in self.operators:
            return own, None
        op = self.operators[node.name].op
        left, right = self.slopes.rate(node.name)
        precision = max(self.slopes.rate_precision(node.name), op.precision)
        return own, Band(TwoSlope(left, right, op.kink, torch.zeros_like(left), precision), *ends)

    def plain_handed_on(self, node: Node) -> Tensor:
        """`handed_on` without a charge for the drift."""
        return self.handing(node, self.centred(node))

    def lower(self, *starts: Rows | Units) -> Tensor:
        """Lower bounds ``(batch, rows)`` over the whole segment: the smaller end of each line."""
        if self._in_pairs(starts):
            return torch.minimum(*self._pairs(starts)[:2])
        walk = self.walk(*starts)
        value = walk.conclude()
        fall = torch.as_tensor(walk.rate).abs() * self.half.unsqueeze(1)
        return trusted_lower(down(value - fall * (1 + 4 * unit(self.dtype))))

    def _in_pairs(self, starts: Sequence[Rows | Units]) -> TypeGuard[Sequence[Rows]]:
        return pairs_pass(self.network) and all(isinstance(start, Rows) for start in starts)

    def _pairs(self, starts: Sequence[Rows]) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds at both ends, and what they lose by the segment's width."""
        still = [Rows(s.node, torch.cat([s.coefficients, torch.zeros_like(s.coefficients)], 1)) for s in starts]
        walk = self.carry(PairWalk(self), *still)
        low, high = walk.at_ends()
        return low, high, walk.lost

    def ends(self, *starts: Rows | Units) -> Lines:
        """The lines of these rows."""
        if self._in_pairs(starts):
            low, high, lost = self._pairs(starts)
            return Lines(low, high, lost.detach().expand(low.shape))
        walk = self.walk(*starts)
        value = walk.conclude()
        rate = torch.as_tensor(walk.rate, dtype=self.dtype).expand(value.shape)
        at_ends = []
        for way in self.ways.unbind(-1):
            rise = rate * way.unsqueeze(1)
            at_ends.append(trusted_lower(down(value + rise - rise.abs() * (4 * unit(self.dtype)))))
        return Lines(at_ends[0], at_ends[1], torch.as_tensor(walk.spent, dtype=self.dtype).expand(value.shape))


class Sandwich(OverSegments):
    """Every neuron has a slope of its own, anywhere in the segment: bounds hold for all of them at once.

    An activation lies between the lower and the upper one of its values at the segment's ends; either is an activation
    with two slopes again.
    """

    def envelope(self, op: Elementwise, node: Node, lower: Tensor, upper: Tensor) -> relax.Lines:
        if node.name not in self.operators:
            return super().envelope(op, node, lower, upper)
        first, last = (Rowed.of(net.by_name[node.name]).op for net in (self.first, self.last))
        low, high = (
            replace(first, left=one(first.left, last.left), right=other(first.right, last.right), precision=precision)
            for one, other in ((torch.maximum, torch.minimum), (torch.minimum, torch.maximum))
            for precision in (max(first.precision, last.precision),)
        )
        below, above = relax.envelope(low, lower, upper), relax.envelope(high, lower, upper)
        return relax.Lines(below.lower_slope, below.lower_offset, above.upper_slope, above.upper_offset)

    def turned(self, tilts: Mapping[str, Tensor]) -> Self:
        raise InternalError("lines around a range of activations cannot be turned as those around one of them")


@dataclass(frozen=True)
class Effort:
    """What bounding may use: `optimise` turns the lines of relaxations; deadline of time.monotonic()."""

    optimise: bool = False
    memory: int | None = None
    deadline: float | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline


@dataclass(frozen=True)
class Floor:
    """Bounds that are known already, of nodes in front of activations over larger regions and ranges of slopes.

    Neurons that they show stable need no bounds of their own any more. `owner` ``(batch,)``: which row of `known` holds
    for each region that is asked about.
    """

    known: Mapping[str, Interval]
    owner: Tensor

    def select(self, part: slice) -> Mapping[str, Interval]:
        return {name: interval.select(self.owner[part]) for name, interval in self.known.items()}


def lines(
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    lo: Tensor,
    hi: Tensor,
    effort: Effort = Effort(),
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
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, effort: Effort = Effort()
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
