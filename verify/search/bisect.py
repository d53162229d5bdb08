"""Branch and bound on the input: boxes are halved until each is proved or one holds a counterexample.

It decides what bounds alone cannot where inputs are few: halving a box about halves the slack of its bounds, and a box
is halved where the margin moves most. Many boxes are bounded in one batch, the least proven first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.search.objective import Objective, values
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample

FEW_INPUTS = 12  # up to so many, halving inputs is worth trying without being asked for
MOST = 1_000_000  # boxes that wait at once
_BATCH = 1024
_WHOLE_SPLITS = 4  # a box is cut into at most 2^4 parts at once, while there are few
_SAMPLES = 2
_MEMORY = 256 << 20
_NARROW = 1e-7  # of the region

Bound = Callable[[Case], Tensor]
Proves = Callable[[Case, Tensor], Tensor]


@dataclass(frozen=True)
class Bisected:
    """How far bisection came. `lower`: a proven bound of the margin over the whole case. `proved`: no box is left."""

    lower: float
    proved: bool
    found: Counterexample | None
    attained: float
    boxes: int


@dataclass(frozen=True)
class _Boxes:
    """Boxes that wait: of which region of the case, and the margin's proven lower bound on each."""

    owner: Tensor
    lower: Tensor
    upper: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def select(self, index: Tensor) -> _Boxes:
        return _Boxes(self.owner[index], self.lower[index], self.upper[index], self.bound[index])

    def joined(self, other: _Boxes) -> _Boxes:
        pairs = zip(_fields(self), _fields(other), strict=True)
        return _Boxes(*(torch.cat(pair) for pair in pairs))

    def case(self, whole: Case) -> Case:
        return Case(Box(self.lower, self.upper), whole.unsafe.select(self.owner))


def _fields(boxes: _Boxes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return boxes.owner, boxes.lower, boxes.upper, boxes.bound


def bisect(
    network: Network,
    case: Case,
    bound: Bound,
    proves: Proves,
    replay: Replay,
    late: Callable[[], bool],
    *,
    most: int = MOST,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Bisected:
    """Proves or refutes a case whose regions are boxes.

    `bound` gives proven lower bounds ``(batch, atoms)`` of a case's atoms, `proves` says which regions they rule out.
    Ends when every box is proved, a counterexample is confirmed by replay, `late` says so, `most` boxes wait, or one of
    them is a mere point. Every point of a region lies in a box that is proved or waits, so `lower` holds whatever ended
    it.
    """
    region = case.region
    if not isinstance(region, Box):
        raise ValueError("only boxes can be halved")
    count = region.batch
    waiting = _Boxes(torch.arange(count), region.lower, region.upper, torch.full((count,), -torch.inf).double())
    settled, attained, boxes = torch.inf, torch.inf, 0
    generator = torch.Generator().manual_seed(seed)
    while len(waiting) and len(waiting) < most and not late():
        say(f"halving boxes: {boxes} bounded, {len(waiting)} wait")
        order = waiting.bound.argsort(stable=True)
        if _is_narrow(waiting, int(order[0]), region):
            break
        some, waiting = waiting.select(order[:_BATCH]), waiting.select(order[_BATCH:])
        parts = some if boxes == 0 else _cut(network, case, some, generator)
        example, least = _tried(network, case, parts, replay)
        attained = min(attained, least)
        if example is not None:
            held = min(settled, float(parts.bound.amin()), float(waiting.bound.amin()) if len(waiting) else torch.inf)
            return Bisected(held, False, example, min(attained, example.margin), boxes)
        asked = parts.case(case)
        atoms = bound(asked)
        boxes += len(parts)
        done = proves(asked, atoms)
        parts = replace(parts, bound=torch.maximum(parts.bound, asked.unsafe.combine(atoms)))
        if bool(done.any()):
            settled = min(settled, float(parts.bound[done].amin()))
        waiting = parts.select((~done).nonzero().flatten()).joined(waiting)
    lower = min(settled, float(waiting.bound.amin()) if len(waiting) else torch.inf)
    return Bisected(lower, not len(waiting), None, attained, boxes)


def _is_narrow(boxes: _Boxes, worst: int, region: Box) -> bool:
    """Whether the least proven box is next to a point: then the margin touches zero there, and no halving will do."""
    owner = int(boxes.owner[worst])
    first = float((region.upper[owner] - region.lower[owner]).amax())
    return float((boxes.upper[worst] - boxes.lower[worst]).amax()) < _NARROW * first


def _cut(network: Network, case: Case, boxes: _Boxes, generator: torch.Generator) -> _Boxes:
    """Both halves of every box, or while there are few, halves of halves."""
    for _ in range(_WHOLE_SPLITS):
        side = _steepest(network, case, boxes, generator)
        middle = boxes.lower / 2 + boxes.upper / 2
        cut = torch.nn.functional.one_hot(side, boxes.lower.shape[1]).bool()
        first = replace(boxes, upper=torch.where(cut, middle, boxes.upper))
        last = replace(boxes, lower=torch.where(cut, middle, boxes.lower))
        boxes = first.joined(last)
        if len(boxes) >= _BATCH // 4:
            break
    return boxes


def _steepest(network: Network, case: Case, boxes: _Boxes, generator: torch.Generator) -> Tensor:
    """For each box the input whose move from wall to wall changes the margin most, by derivatives at a few points."""
    width = boxes.upper - boxes.lower
    share = torch.rand(_SAMPLES, *width.shape, generator=generator, dtype=torch.float64)
    points = torch.cat([(boxes.lower / 2 + boxes.upper / 2).unsqueeze(0), boxes.lower + share * width])
    objective = Objective(network, case.unsafe.select(boxes.owner), 1 << 16)
    losses = objective.losses(objective.atoms(points))
    _, _, gradient = objective.gradient(points, losses.argmin(-1), torch.zeros_like(losses[..., 0], dtype=torch.bool))
    steep = gradient.abs().mean(0)
    # a flat margin says nothing of what the bounds depend on: there the width counts
    steep = steep + 0.02 * steep.amax(1, keepdim=True) + 1e-30
    return (steep * width).argmax(1)


def _tried(network: Network, case: Case, boxes: _Boxes, replay: Replay) -> tuple[Counterexample | None, float]:
    """The lowest margin at the boxes' centres and at corners that derivatives there point at; confirmed if unsafe."""
    room = max(1, _MEMORY // (8 * values(network)))
    part = boxes.case(case)
    objective = Objective(network, part.unsafe, room)
    centre = (boxes.lower / 2 + boxes.upper / 2).unsqueeze(0)
    losses = objective.losses(objective.atoms(centre))
    _, _, gradient = objective.gradient(centre, losses.argmin(-1), torch.zeros_like(losses[..., 0], dtype=torch.bool))
    corner = torch.where(gradient > 0, boxes.lower, boxes.upper)
    points = torch.cat([centre, corner])
    margins = objective.margins(points)
    least = float(margins.amin())
    if least > 0:
        return None, least
    at, box = divmod(int(margins.argmin()), len(boxes))
    owner = slice(int(boxes.owner[box]), int(boxes.owner[box]) + 1)
    one = Case(case.region.select(owner), case.unsafe.select(owner))
    return confirm(network, one, points[at, box].unsqueeze(0), replay), least
