"""Neurons split within boxes: what halving alone leaves open, a few decisions of neurons often settle.

In a small box most neurons are linear. A quick ascent turns the lines of the others and mixes the atoms of each
conjunction (`leaktight.verify.search.ascent`), for a small part of what bounding the box cost; then the box is split at
neurons for a few rounds, as long as few domains are left of it. A box that wants more is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.search.ascent import Schedule
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import Search
from leaktight.verify.search.questions import standing_questions

ROUNDS = 3  # of splits
MOST = 4  # domains of one box and disjunct that may be left after a round,
GAIN = 0.25  # and what part of the way to zero it has to have come in that round
FIRST = Schedule(10)
_PARTS = 4  # in which a round of `Search` is done


@dataclass(frozen=True, eq=False)
class Within:
    """What became of some boxes.

    worst ``(boxes, disjuncts)``: proven lower bounds of each disjunct's largest atom, minus infinity where nothing was
    asked. settled: a proven bound on all parts that were proved. domains: how many were bounded. points ``(k, n)`` and
    at ``(k,)``: inputs that came out low, and their boxes.
    """

    worst: Tensor
    settled: float
    domains: int
    points: Tensor
    at: Tensor


def split_within(
    network: Network,
    case: Case,
    known: Mapping[str, Interval],
    lower: Tensor,
    standing: Tensor,
    *,
    memory: int,
    late: Callable[[], bool],
    rounds: int = ROUNDS,
    most: int = MOST,
    gain: float = GAIN,
) -> Within:
    """Splits neurons in the regions (boxes) of a case.

    known: intervals of all nodes over them. lower ``(boxes, disjuncts)``: proven lower bounds of each disjunct's
    largest atom; standing ``(boxes, disjuncts)``: what to rule out. What becomes of a box depends on that box alone.
    """
    questions = standing_questions(case, standing)
    bounding = Bounding(network, case.region, known, questions)
    search = Search(bounding, late, memory, first=FIRST)
    left = _Left(search, lower[questions.region, questions.disjunct])
    points, owners = [], []
    for _ in range(rounds):
        left.give_up(most, gain)
        if not len(search.waiting) or not len(bounding.columns) or late():
            break
        search.size = max(search.size, -(-len(search.waiting) // _PARTS))  # every domain has its turn in every round
        best = search.round()
        if best is None:
            break
        points.append(best.point)
        owners.append(best.owner)
    left.give_up(0, 1.0)
    worst = torch.full(standing.shape, -torch.inf, dtype=torch.float64)
    worst[questions.region, questions.disjunct] = left.floors.clamp(max=search.settled)
    return Within(
        worst,
        search.settled,
        search.domains,
        torch.stack(points) if points else case.region.lower.new_zeros(0, case.region.size),
        questions.region[torch.tensor(owners, dtype=torch.long)],
    )


class _Left:
    """What is left of the questions. `floors`: the lowest bounds of the domains of those that were given up."""

    def __init__(self, search: Search, lower: Tensor) -> None:
        self.search, self.lower = search, lower
        self.floors = torch.full_like(lower, torch.inf)

    def give_up(self, most: int, gain: float) -> None:
        """Takes out the questions of which more than `most` domains are left, or some that cannot be split, and those
        that have not come this part of the way to zero since the last time."""
        search = self.search
        waiting, stuck = (pool.read(torch.arange(len(pool))) for pool in (search.waiting, search.stuck))
        owner = waiting.owner.long()
        bound = torch.full_like(self.lower, torch.inf).scatter_reduce_(0, owner, waiting.bound, "amin")
        over = (torch.bincount(owner, minlength=len(bound)) > most) | (bound < (1 - gain) * self.lower)
        over[stuck.owner.long()] = True
        gone = over[owner].nonzero().flatten()
        self.lower = bound
        self.floors.scatter_reduce_(0, owner[gone], waiting.bound[gone], "amin")
        self.floors.scatter_reduce_(0, stuck.owner.long(), stuck.bound, "amin")
        search.waiting.remove(gone)
