"""Optimised slopes (alpha-CROWN, Xu et al. 2021, arXiv:2011.13824).

Wherever a kink leaves a line free to turn, any turn gives a proof; ascent looks for the turns that give the best one,
for every row by itself. Every value that is kept was computed with all error terms, so a poor search loosens it and
never breaks it.

The ascent is by signs: a bound is concave in no useful sense in its turns, but its gradient's sign says for each line
whether to turn up or down, and steps of halving size settle it. A few steps suffice, which is what makes it affordable
to turn the lines behind every intermediate bound too, row by row (`turned_bounds`). Where signs go to and fro between
kinks, Adam (leaktight.verify.adam) goes on; a step of it costs half as much again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.region import Ball, Region
from leaktight.verify import adam, relax
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import passes
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.question import Question
from leaktight.verify.bounds.rows import Units

Tilts = dict[str, Tensor]
_TURN = 0.7
# Step sizes, stage after stage: for the many rows behind the intermediate bounds, and for the few that are asked for.
_COARSE, _FINE = tuple(0.5 * 0.78**k for k in range(14)), tuple(0.2 * 0.9**k for k in range(24))
SCHEDULES: tuple[tuple[Sequence[float], Sequence[float]], ...] = (
    ((), _COARSE),
    ((0.5, 0.3, 0.2, 0.1), _COARSE),
    (tuple(0.5 * 0.72**k for k in range(8)), _FINE),
)


def default_tilts(network: Network, known: Mapping[str, Interval], rows: int, before: str | None = None) -> Tilts:
    """The default turn of every line that is free, once for each row: ``(batch, rows, *shape)`` by activation.

    Only activations in front of the node named `before`, where one is named.
    """
    tilts = {}
    for node in network:
        if node.name == before:
            break
        if relax.has_tilt(node.op) and node.inputs[0] in known:
            z = known[node.inputs[0]]
            if not bool(relax.is_linear_on(node.op, z.lower, z.upper).all()):  # type: ignore[arg-type]
                first = relax.default_tilt(node.op, z.lower, z.upper).unsqueeze(1)  # type: ignore[arg-type]
                tilts[node.name] = first.expand(-1, rows, *node.shape).contiguous()
    return tilts


def other_turn(backward: Backward) -> tuple[Tilts, Tensor]:
    """A second turn of the free lines, one for all rows ``(batch, 1, *shape)``, and the regions that it is another for
    ``(batch,)``: the same lines twice say nothing new.
    """
    tilts, differs = {}, torch.zeros(backward.region.batch, dtype=torch.bool)
    for node in backward.network:
        if relax.has_tilt(node.op) and node.inputs[0] in backward.known:
            z, op = backward.ahead_of(node), backward.operator(node)
            lower, upper = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
            free = ~relax.is_linear_on(op, lower, upper)
            if bool(free.any()):
                tilts[node.name] = relax.other_tilt(op, lower, upper)
                changed = (tilts[node.name] != relax.default_tilt(op, lower, upper)) & free
                differs |= changed.flatten(1).any(1)
    return tilts, differs


def turned_to(question: Question, known: Mapping[str, Interval], slopes: Tensor) -> Tilts:
    """Tilts for every row ``(batch, rows, *shape)``, from the rows on the inputs ``(batch, rows, n)`` of a first pass.

    A row's bound is the value of lines at one point of the region. There a free line is best when it touches the
    activation on the point's own side of the kink: lines that touch it on the other side are turned half-way, one
    large step of the ascent that `ascend` makes. Empty where no line is free.
    """
    first = default_tilts(question.network, known, 1)
    if not first:
        return {}
    batch, rows = question.objectives.shape[:2]
    network = question.network.single  # any tilt is sound
    points = minimiser(question.region, slopes.expand(batch, rows, -1)).flatten(0, 1).to(torch.float32)
    asked = {network.by_name[name].inputs[0] for name in first}
    last = next(node.name for node in reversed(network.nodes) if node.name in asked)
    values = network.values(*points.split([port.size for port in network.inputs], -1), last=last)
    tilts = {}
    for name, tilt in first.items():
        node = question.network.by_name[name]
        z = values[node.inputs[0]].reshape(batch, rows, *node.shape)
        kink = node.op.kink if isinstance(node.op, TwoSlope) else torch.zeros(())
        tilts[name] = towards(tilt, z, kink)
    return tilts


def towards(tilt: Tensor, z: Tensor, kink: Tensor) -> Tensor:
    """Turns of lines, the larger part of the way to the side of the kink that ``z`` ``(batch, rows, *shape)`` is on."""
    right = (z - kink.to(z.dtype)).sign_().clamp_(min=0)  # a comparison takes longer
    return torch.lerp(tilt.to(z.dtype).expand_as(z), right, _TURN)


def minimiser(region: Region, slopes: Tensor) -> Tensor:
    """About where each linear function ``(batch, rows, n)`` is least in its region."""
    if isinstance(region, Ball):
        away = slopes.double()
        away = away / torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp(min=1e-300)
        step = region.centre.unsqueeze(1) - region.radius.reshape(-1, 1, 1) * away
        return torch.maximum(torch.minimum(step, region.upper.unsqueeze(1)), region.lower.unsqueeze(1))
    ends = (x.to(slopes.dtype).unsqueeze(1) for x in (region.lower + region.upper, region.lower - region.upper))
    middle, reach = (x / 2 for x in ends)
    return torch.addcmul(middle, reach, slopes.sign())


def ascend(
    value: Callable[[], Tensor],
    tilts: Tilts,
    steps: Sequence[float],
    wanted: Callable[[Tensor], Tensor],
    *,
    by_signs: bool = True,
) -> Tensor:
    """The best of `value` ``(batch, rows)`` seen while `tilts` are turned, in place, to raise it.

    `wanted` says of the best so far which rows are worth raising further; none ends the ascent. By Adam if not
    `by_signs`.
    """
    best, moments = None, [] if by_signs else [adam.moments(tilt) for tilt in tilts.values()]
    for step, size in enumerate(steps):
        for tilt in tilts.values():
            tilt.requires_grad_(True)
        with torch.enable_grad():
            found = value()
            best = found.detach() if best is None else torch.maximum(best, found.detach())
            rows = wanted(best) & torch.isfinite(found)
            if not found.requires_grad or not bool(rows.any()):  # no line that can turn lies on the way to an input
                return best
            slopes = torch.autograd.grad(found[rows].sum(), list(tilts.values()), allow_unused=True)
        for k, (tilt, slope) in enumerate(zip(tilts.values(), slopes, strict=True)):
            tilt.requires_grad_(False)
            if slope is not None and by_signs:
                tilt.add_(slope.sign_(), alpha=size).clamp_(0, 1)
            elif slope is not None:
                tilt.add_(adam.direction(moments[k], slope), alpha=adam.warmed(size, step)).clamp_(0, 1)
    last = value()
    return last if best is None else torch.maximum(best, last)


def turn_last(
    question: Question, known: Mapping[str, Interval], steps: Sequence[float], *, by_signs: bool = True
) -> Tensor:
    """Lower bounds ``(batch, rows)`` of the question's rows, by turning the lines of the last pass alone.

    Ends early when every row is above the target, or when the deadline has passed.
    """
    rows, layers = question.objectives.shape[1], sum(relax.has_tilt(node.op) for node in question.network)
    found = torch.empty(question.objectives.shape[:2], dtype=question.objectives.dtype)
    room = question.memory // (1 + layers) // torch.get_num_threads()
    parts = list(passes(question.network, [rows] * len(found), room))

    def turned(part: tuple[slice, slice]) -> Tensor:
        theirs = {name: z.select(part[0]) for name, z in known.items()}
        return _turned(question.select(part[0]).rows(part[1]), theirs, steps, by_signs)

    for (regions, some), best in zip(parts, each(turned, parts), strict=True):
        found[regions, some] = best
    return found


def _turned(question: Question, known: Mapping[str, Interval], steps: Sequence[float], by_signs: bool) -> Tensor:
    tilts = default_tilts(question.network, known, question.objectives.shape[1])
    plain, starts = Backward(question.network, question.region, known), question.starts()
    hope = _Hope(question, len(steps))
    return ascend(lambda: plain.turned(tilts).lower(*starts), tilts, steps, hope.left, by_signs=by_signs)


class _Hope:
    """Which rows are still worth raising: open ones that have not slowed down far below their target.

    Steps shrink by a fixed factor, so what is left to gain is about what all the remaining steps add up to, at the rate
    of the last one. Rows that would need more than several times that are given up.
    """

    def __init__(self, question: Question, steps: int) -> None:
        self.question, self.steps, self.seen = question, steps, list[Tensor]()

    def left(self, best: Tensor) -> Tensor:
        self.seen.append(best)
        worth = self.question.still_open(best)
        if self.question.late:
            return torch.zeros_like(worth)
        if self.question.target is None or len(self.seen) < self.steps // 3:
            return worth
        gain = (best - self.seen[-3]) / 2
        return worth & (best + 1.5 * self.steps * gain > self.question.target)


def turned_bounds(question: Question, known: Mapping[str, Interval], steps: Sequence[float]) -> dict[str, Interval]:
    """Intermediate bounds within `known`, by turning the lines behind each neuron's bounds."""

    def refine(backward: Backward, units: Units) -> Tensor:
        tilts = default_tilts(question.network, backward.known, units.index.shape[1], before=units.node)
        in_time = lambda best: torch.full_like(best, not question.late, dtype=torch.bool)  # noqa: E731
        return ascend(lambda: backward.turned(tilts).lower(units), tilts, steps, in_time)

    return intermediate_bounds(
        question.network, question.region, question.memory, floor=known, refine=refine, deadline=question.deadline
    )
