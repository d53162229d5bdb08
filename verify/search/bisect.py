"""Branch and bound on the input: boxes are clipped and halved until each is proved or one holds a counterexample.

It decides what bounds alone cannot where inputs are few: halving a box about halves the slack of its bounds. The linear
functions that the bounds are minima of say where in a box unsafe points can lie; the rest is cut off before the box is
halved (`leaktight.verify.search.clip`). Many boxes are bounded in one batch, the least proven first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.bounds.parallel import undivided
from leaktight.verify.search.activations import splittable
from leaktight.verify.search.box_bounds import Bounder, BoxBounds
from leaktight.verify.search.boxes import Boxes, Queue
from leaktight.verify.search.clip import LinearRows, clip, floors_on
from leaktight.verify.search.mixed import split_within
from leaktight.verify.search.objective import Objective, values
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.sides import Sides
from leaktight.verify.verdict import Counterexample

FEW_INPUTS = 12  # up to so many, halving inputs is worth more than splitting neurons
MOST = 1_000_000  # boxes that wait at once
_BATCH = 512
_MEMORY = 256 << 20
_NARROW = 1e-7  # of the region
_TARGET = 1e-3  # what is cut off is proved to this part of the margin that some input attains,
_LEAST_TARGET = 1e-30  # and always above zero
_AT_FIRST = 4  # times that whole regions are halved at once: passes over few boxes cost as much as over many

Confirm = Callable[[int, Tensor], "Counterexample | None"]
Attack = Callable[[int], tuple[Counterexample | None, float]]
PATIENCE = (512, 16384)  # boxes until an attack is worth its time: a quick one, a thorough one


def bisect(
    network: Network,
    case: Case,
    confirm: Confirm,
    *,
    bounder: Bounder | None = None,
    attained: float = torch.inf,
    deadline: float | None = None,
    late: Callable[[], bool] = lambda: False,
    memory: int = _MEMORY,
    most: int = MOST,
    batch: int = _BATCH,
    attack: Attack | None = None,
    patience: tuple[int, ...] = PATIENCE,
    begin: Boxes | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Searched:
    """Proves or refutes a case whose regions are boxes.

    `confirm` makes a counterexample of a region's number and a point ``(1, n)`` that the network's own value says is
    unsafe, if it is one; `attained` is the lowest margin that is known of some input. `bounder`: what bounds boxes, by
    default backward passes of the network. Ends when every box is proved, a counterexample is confirmed, `late` says
    so, Ctrl-C is pressed, or the least proven box is a mere point. `attack` is called with 0, 1, ... when as many boxes
    and domains within boxes were bounded as `patience` says. Every point of a region is cut off and proved, or lies in
    a box that is proved or waits, so `lower` holds whatever ended it. What is done to a box depends on that box alone,
    so neither `batch` nor threads change a proof, but for the last places of single precision, in which multipliers are
    sought. `begin`: boxes within the regions to begin with, for a search over these alone.
    """
    if not isinstance(case.region, Box):
        raise ValueError("only boxes can be halved")
    search = Bisection(network, case, confirm, attained, late, memory, most, batch, begin, bounder)
    proven, attacks = -torch.inf, 0
    try:
        while search.waiting and search.found is None and not late() and not search.stuck:
            proven = search.lower
            say(f"halving boxes: {search.boxes} bounded, {search.waiting} wait")
            search.advance(deadline)
            tired = attacks < len(patience) and search.boxes >= patience[attacks]
            if attack is not None and tired and search.waiting and search.found is None:
                search.found, least = attack(attacks)
                search.attained, attacks = min(search.attained, least), attacks + 1
    except KeyboardInterrupt:
        return Searched(proven, False, search.found, search.attained, search.boxes, interrupted=True)
    return search.outcome()


class Bisection:
    """The state between rounds: what waits, what is settled, what was found."""

    def __init__(
        self,
        network: Network,
        case: Case,
        confirm: Confirm,
        attained: float,
        late: Callable[[], bool],
        memory: int,
        most: int = MOST,
        batch: int = _BATCH,
        begin: Boxes | None = None,
        bounder: Bounder | None = None,
    ) -> None:
        self.network, self.case, self.confirm, self.batch = network, case, confirm, batch
        self.late, self.memory, self.splits = late, memory, splittable(network)
        self.attained, self.settled, self.boxes = attained, torch.inf, 0
        self.found: Counterexample | None = None
        self.target = max(_LEAST_TARGET, _TARGET * attained if attained < torch.inf else 0.0)
        alike = torch.ones(case.unsafe.disjuncts, dtype=torch.int8)
        each = case.unsafe.strict.to(torch.int8)
        self.strict = alike.scatter_reduce(0, case.unsafe.disjunct, each, "amin").bool()  # disjuncts of strict atoms
        self.bounder = bounder or Bounder(network, case, memory)
        whole = Boxes.whole(case, self.bounder.signs) if begin is None else begin
        self.queue = Queue(case.unsafe, min(most, memory // (2 * whole.bytes_each)))  # half of the memory: to wait in
        self.fresh = [whole.select(slice(i, i + batch)) for i in range(0, len(whole), batch)]
        self.stuck = False
        self.room = max(1, _MEMORY // (8 * values(network)))  # points to evaluate at once
        self.sides = Sides(network, case, self.room)

    @property
    def lower(self) -> float:
        """The proven bound of the margin between rounds, when every box is settled or waits."""
        return -torch.inf if self.fresh else min(self.settled, self.queue.lower)

    @property
    def waiting(self) -> int:
        return len(self.queue) + sum(len(boxes) for boxes in self.fresh)

    def outcome(self) -> Searched:
        proved = not self.waiting and self.found is None
        best = self.attained if self.found is None else min(self.attained, self.found.margin)
        return Searched(self.lower, proved, self.found, best, self.boxes)

    @undivided()
    def advance(self, deadline: float | None, *, easiest: bool = False) -> None:
        """One round: some of the boxes are bounded, and what is left of them waits, in halves. The least proven ones
        (`easiest`: the most) come first. Wherever a round is broken off, its boxes are still among the open ones."""
        first = bool(self.fresh)
        boxes = self.fresh[-1] if first else self.queue.pop(self.batch, easiest=easiest)
        left, settled = self._treated(boxes, deadline, halvings=_AT_FIRST if first else 1)
        self.settled = min(self.settled, settled)
        self.queue.push(left, self.batch)
        if first:
            self.fresh.pop()
        else:
            self.queue.finish()

    def open_boxes(self) -> Boxes:
        """All boxes that are not settled; some of them twice where a round was broken off."""
        parts = [*self.fresh, *self.queue]
        return Boxes.joined(parts) if parts else Boxes.whole(self.case, self.bounder.signs).select(slice(0, 0))

    def restart(self, boxes: Boxes) -> None:
        """Goes on with these boxes alone, after whatever was found."""
        queue = Queue(self.case.unsafe, self.queue.most)
        queue.push(boxes, self.batch)
        self.queue, self.fresh, self.found, self.stuck = queue, [], None, False

    def _treated(self, boxes: Boxes, deadline: float | None, halvings: int = 1) -> tuple[Boxes, float]:
        """What is left of the boxes, in parts, and the proven margin on everything else of them."""
        found = self.bounder(boxes, self._standing(boxes), deadline)
        self.boxes += len(boxes)
        boxes = replace(boxes, atoms=torch.maximum(boxes.atoms, found.atoms), signs=found.signs)
        boxes, index, settled = self._without_proved(boxes)
        found = found.select(index)
        if not len(boxes):
            return boxes, settled
        self._try(boxes, self._corner(boxes, found))
        if self.found is not None:
            return boxes, settled
        if self.splits:
            boxes, found, mixed = self._split(boxes, found)
            settled = min(settled, mixed)
            if not len(boxes) or self.found is not None:
                return boxes, settled
        boxes, found, cut = self._clipped(boxes, found)
        settled = min(settled, cut)
        if not len(boxes):
            return boxes, settled
        if self._narrow(boxes):
            self.stuck = True
            return boxes, settled
        for _ in range(halvings):
            if len(boxes):
                boxes, found, cut = self._halved(boxes, found)
                settled = min(settled, cut)
        return boxes, settled

    def _standing(self, boxes: Boxes) -> Tensor:
        """Which disjuncts no proven bound rules out yet, ``(batch, disjuncts)``."""
        largest = torch.where(self.strict, boxes.worst >= 0, boxes.worst > 0)
        return ~(largest | self.case.unsafe.ruled_out(boxes.atoms))

    def _without_proved(self, boxes: Boxes) -> tuple[Boxes, Tensor, float]:
        """The boxes that are open, their places, and the proven margin of the others."""
        done = ~self._standing(boxes).any(1)
        index = (~done).nonzero().flatten()
        margins = boxes.margins(self.case.unsafe)[done]
        return boxes.select(index), index, float(margins.amin()) if len(margins) else torch.inf

    def _clipped(self, boxes: Boxes, found: BoxBounds) -> tuple[Boxes, BoxBounds, float]:
        """The boxes without what their rows prove, the rows on what is left, and the proven margin of what is cut."""
        standing, cut = self._standing(boxes), torch.inf
        conjunction = self.case.unsafe.disjunct
        rows, kept = list(found.rows), torch.ones(len(boxes), dtype=torch.bool)
        lower, upper = boxes.lower, boxes.upper
        for k, own in enumerate(rows):
            if k:
                own = LinearRows(own.slopes, floors_on(own, boxes.lower, boxes.upper, lower, upper))
            lower, upper, empty = clip(lower, upper, own, conjunction, standing, self.target)
            kept &= ~empty
        rows = [LinearRows(r.slopes, floors_on(r, boxes.lower, boxes.upper, lower, upper)) for r in rows]
        moved = ~kept | (lower != boxes.lower).any(1) | (upper != boxes.upper).any(1)
        if bool(moved.any()):
            cut = min(self.target, self._ruled_out(boxes, standing, moved))
        index = kept.nonzero().flatten()
        atoms = torch.stack([boxes.atoms, *(r.floors for r in rows)]).amax(0)
        boxes = replace(boxes, lower=lower, upper=upper, atoms=atoms).select(index)
        left = BoxBounds(atoms[index], found.signs[index], tuple(r.select(index) for r in rows), {})
        return boxes, left, cut

    def _ruled_out(self, boxes: Boxes, standing: Tensor, moved: Tensor) -> float:
        """The proven margin of the disjuncts that do not stand any more, over the boxes that were `moved`."""
        return float(boxes.largest(self.case.unsafe).masked_fill(standing, torch.inf)[moved].amin())

    def _halved(self, boxes: Boxes, found: BoxBounds) -> tuple[Boxes, BoxBounds, float]:
        """The halves of every box without what the rows prove, with the rows, and the proven margin of the rest."""
        side = self.sides(boxes)
        parts, settled = list[tuple[Boxes, BoxBounds]](), torch.inf
        for half in boxes.halves(side):
            rows = tuple(
                LinearRows(r.slopes, floors_on(r, boxes.lower, boxes.upper, half.lower, half.upper)) for r in found.rows
            )
            atoms = torch.stack([half.atoms, *(r.floors for r in rows)]).amax(0)
            half, index, proven = self._without_proved(replace(half, atoms=atoms))
            left = BoxBounds(half.atoms, half.signs, tuple(r.select(index) for r in rows), {})
            half, left, cut = self._clipped(half, left)
            settled = min(settled, proven, cut)
            parts.append((half, left))
        return Boxes.joined([half for half, _ in parts]), BoxBounds.joined([left for _, left in parts]), settled

    def _telling(self, boxes: Boxes, found: BoxBounds) -> Tensor:
        """For each box the slopes ``(batch, n)`` of the best atom of its worst disjunct."""
        unsafe, plain = self.case.unsafe, found.rows[0]
        best = torch.full((len(boxes), unsafe.disjuncts), -torch.inf, dtype=torch.float64)
        best = best.scatter_reduce(1, unsafe.disjunct.expand(plain.floors.shape), boxes.atoms, "amax")
        worst = best.argmin(1, keepdim=True)
        atom = plain.floors.masked_fill(unsafe.disjunct != worst, -torch.inf).argmax(1)
        return plain.slopes[torch.arange(len(boxes)), atom]

    def _narrow(self, boxes: Boxes) -> bool:
        """Whether the least proven box is next to a point: the margin touches zero there, and no halving will do."""
        worst = int(boxes.margins(self.case.unsafe).argmin())
        owner = int(boxes.owner[worst])
        first = float((self.case.region.upper[owner] - self.case.region.lower[owner]).amax())
        return float((boxes.upper[worst] - boxes.lower[worst]).amax()) < _NARROW * first

    def _split(self, boxes: Boxes, found: BoxBounds) -> tuple[Boxes, BoxBounds, float]:
        """What splitting neurons leaves of the boxes, and the proven margin of what it settles."""
        asked = self._standing(boxes)
        lower = boxes.largest(self.case.unsafe)
        within = split_within(
            self.network, boxes.case(self.case), found.known, lower, asked, memory=self.memory, late=self.late
        )
        self.boxes += within.domains
        if len(within.at):
            self._try(boxes.select(within.at), within.points.double())
        boxes, index, settled = self._without_proved(replace(boxes, worst=torch.maximum(boxes.worst, within.worst)))
        return boxes, found.select(index), min(settled, within.settled)

    def _corner(self, boxes: Boxes, found: BoxBounds) -> Tensor:
        """The corner of each box where its most telling row is lowest, ``(batch, n)``."""
        return torch.where(self._telling(boxes, found) > 0, boxes.lower, boxes.upper)

    def _try(self, boxes: Boxes, points: Tensor) -> None:
        """Evaluates a point ``(batch, n)`` of each box; confirms the worst if it is unsafe."""
        points = torch.minimum(torch.maximum(points, boxes.lower), boxes.upper)
        margins = Objective(self.network, boxes.case(self.case).unsafe, self.room).margins(points.unsqueeze(0))[0]
        box = int(margins.argmin())
        self.attained = min(self.attained, float(margins[box]))
        if float(margins[box]) <= 0:
            self.found = self.confirm(int(boxes.owner[box]), points[box].unsqueeze(0))
