"""Complete answers for small networks: neurons are split until linear programs decide every domain.

HiGHS is asked for two things, and believed in none. The tree is our own: each domain's linear program yields
multipliers, whose bound is recomputed with all rounding (leaktight.verify.bounds.linear_program), and a point, which is
replayed; a domain that stays open is split at a neuron, and one with no neuron left is exact. Where the tree grows, the
whole question is asked once as a mixed-integer program, and the point that comes back is replayed too. A margin that
touches zero within rounding is answered by unknown, whatever the solver says.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import Case
from leaktight.specs.region import Region
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.linear_program import Linearised, check_polyhedron
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.piecewise import two_slopes_only
from leaktight.verify.bounds.splits import domain_bounds, undecided_entries
from leaktight.verify.device import CPU
from leaktight.verify.search.guided import LEAST, PATIENCE, claimed_unsafe
from leaktight.verify.search.leaf import Decision, decide
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample, Status

_BATCH = 16  # domains that are split together
_SURE = 1e-9  # a relative gap between what is proven and what is attained that no split closes
_ALONE = 40  # domains that are tried before the mixed-integer program is asked where to look


@dataclass(frozen=True, eq=False)
class _Domain:
    """Sides ``(size,)`` by activation, bounds that hold there, and what is decided of it."""

    splits: Mapping[str, Tensor]
    known: Mapping[str, Interval]
    decision: Decision


def complete(
    network: Network,
    case: Case,
    replay: Replay,
    *,
    deadline: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Searched:
    """Proves or refutes a case of boxes or L1 balls on a piecewise linear network.

    Ends when every domain is proved, a counterexample is confirmed by replay, `deadline` (of time.monotonic) is over,
    as many domains wait as `memory` bytes hold, or what is left is within rounding of zero.
    Raises: UnsupportedOperator: a node is not piecewise linear. UsageError: a region is an L2 ball.
    """
    with CPU.at_work():
        network, case = CPU.of((network, case))
        plain = two_slopes_only(network.to(torch.float64))
        asked = [case.question(i, k) for i in range(case.region.batch) for k in range(case.unsafe.disjuncts)]
        total = Searched(torch.inf, True, None, torch.inf, 0)
        for number, one in enumerate(asked, 1):
            search = _Search(plain, one, replay, deadline, memory or default_memory(), seed, say)
            total = total.joined(search.run())
            if (total.found is not None or total.interrupted) and number < len(asked):
                return replace(total, lower=-torch.inf, proved=False)
        return total


def check_exact(network: Network, region: Region) -> None:
    """Refuses by name what `complete` cannot decide, before any work.

    Raises: UnsupportedOperator: a node is not piecewise linear. UsageError: the region is an L2 ball.
    """
    two_slopes_only(network)
    check_polyhedron(region)


def _touches(decision: Decision) -> bool:
    """Whether an input attains what is proven, so that no split gains anything."""
    return decision.attained < torch.inf and decision.attained - decision.lower <= _SURE * (1 + abs(decision.lower))


class _Search:
    """The tree of one region and one disjunct; least proven domains are split first."""

    def __init__(
        self,
        network: Network,
        case: Case,
        replay: Replay,
        deadline: float | None,
        memory: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.network, self.case, self.replay = network, case, replay
        self.deadline, self.memory, self.seed, self.say = deadline, memory, seed, say
        self.most = max(1, memory // (32 * sum(node.size for node in network)))
        self.waiting: list[tuple[float, int, _Domain]] = []
        self.number = itertools.count()
        self.settled = self.stuck = self.attained = torch.inf
        self.active = [-torch.inf]  # bounds that hold on domains of which not every part has been judged
        self.found: Counterexample | None = None
        self.domains = 0

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def run(self) -> Searched:
        interrupted = False
        try:
            self._work()
        except KeyboardInterrupt:  # what is proven stands
            interrupted = True
        open_ = min([*self.active, *(lower for lower, *_ in self.waiting)], default=torch.inf)
        lower = min(self.settled, self.stuck, open_)
        proved = not self.waiting and not self.active and self.stuck == torch.inf and self.found is None
        return Searched(lower, proved, self.found, self.attained, self.domains, interrupted=interrupted)

    def _work(self) -> None:
        known = intermediate_bounds(self.network, self.case.region, self.memory, deadline=self.deadline)
        self.linear = Linearised(self.network, self.case.region, known)
        self._judge_all([({}, known, -torch.inf)])
        asked = False
        while self.waiting and len(self.waiting) < self.most and self.found is None and not self.late:
            self.say(f"splitting neurons: {self.domains} domains decided, {len(self.waiting)} wait")
            taken = [heapq.heappop(self.waiting) for _ in range(min(_BATCH, len(self.waiting)))]
            self.active = [lower for lower, *_ in taken]
            bounds = [lower for lower, *_ in taken for _ in range(2)]
            halves = self._halves([domain for *_, domain in taken])
            self._judge_all([(*half, bound) for half, bound in zip(halves, bounds, strict=True)])
            if not asked and self.domains >= _ALONE and self.waiting and not (self.found or self.late):
                asked = True
                self._ask_for_a_point(known)

    def _judge_all(self, domains: list[tuple[Mapping[str, Tensor], Mapping[str, Interval], float]]) -> None:
        """Decides the domains, which are all that is left of the active ones; unless it ends early."""
        for splits, known, bound in domains:
            if self.found is not None or self.late:
                return
            self._judge(splits, known, bound)
        self.active = []

    def _ask_for_a_point(self, known: Mapping[str, Interval]) -> None:
        """Replays the point where the mixed-integer program finds the margin least."""
        seconds = PATIENCE if self.deadline is None else (self.deadline - time.monotonic()) / 4
        if seconds < LEAST:
            return
        self.say("looking for the least margin with a mixed-integer program")
        point = claimed_unsafe(self.linear, known, self.case.unsafe, seconds=seconds, seed=self.seed)
        if point is None:
            return
        self.found = confirm(self.network, self.case, point, self.replay)
        self.attained = self.attained if self.found is None else min(self.attained, self.found.margin)

    def _judge(self, splits: Mapping[str, Tensor], known: Mapping[str, Interval], bound: float) -> None:
        """Decides one domain, over which `bound` is proven already; what stays open waits."""
        self.domains += 1
        decision = decide(
            self.network, self.case, splits, known=known, linear=self.linear, replay=self.replay, deadline=self.deadline
        )
        decision = replace(decision, lower=max(bound, decision.lower))
        self.attained = min(self.attained, decision.attained)
        if decision.found is not None:
            self.found, self.stuck = decision.found, min(self.stuck, decision.lower)
        elif decision.status is Status.PROVED:
            self.settled = min(self.settled, decision.lower)
        elif decision.exact or _touches(decision):
            self.stuck = min(self.stuck, decision.lower)
        else:
            heapq.heappush(self.waiting, (decision.lower, next(self.number), _Domain(splits, known, decision)))

    def _halves(self, domains: list[_Domain]) -> list[tuple[Mapping[str, Tensor], Mapping[str, Interval]]]:
        """Both sides of one neuron of each domain, with bounds that are narrowed all together."""
        halves = [(self._split(domain, side), domain.known) for domain in domains for side in (1, -1)]
        names = [node.name for node in self.network if isinstance(node.op, TwoSlope)]
        sizes = {name: self.network.by_name[name].size for name in names}
        unsplit = {name: torch.zeros(size, dtype=torch.int8) for name, size in sizes.items()}
        sides = {name: torch.stack([splits.get(name, unsplit[name]) for splits, _ in halves]) for name in names}
        known = {
            node.name: Interval(
                torch.cat([bounds[node.name].lower for _, bounds in halves]),
                torch.cat([bounds[node.name].upper for _, bounds in halves]),
            )
            for node in self.network
        }
        region = self.case.region.select(torch.zeros(len(halves), dtype=torch.int64))
        narrow = domain_bounds(self.network, region, known, sides, self.memory, self.deadline)
        each = [slice(i, i + 1) for i in range(len(halves))]
        return [
            (splits, {name: z.select(at) for name, z in narrow.items()})
            for (splits, _), at in zip(halves, each, strict=True)
        ]

    def _split(self, domain: _Domain, side: int) -> Mapping[str, Tensor]:
        name, entry = self._choice(domain)
        sides = domain.splits.get(name)
        sides = torch.zeros(self.network.by_name[name].size, dtype=torch.int8) if sides is None else sides.clone()
        sides[entry] = side
        return {**domain.splits, name: sides}

    def _choice(self, domain: _Domain) -> tuple[str, int]:
        """The undecided neuron whose distance from its graph, at the program's point, moves the margin most."""
        batched = {name: side.unsqueeze(0) for name, side in domain.splits.items()}
        best = (-1.0, "", 0)
        for name, open_ in undecided_entries(self.network, domain.known, batched).items():
            if bool(open_.any()):
                score = self._scores(domain, name).masked_fill(~open_[0], -1.0)
                at = int(score.argmax())
                best = max(best, (float(score[at]), name, at))
        return best[1], best[2]

    def _scores(self, domain: _Domain, name: str) -> Tensor:
        node, values = self.network.by_name[name], domain.decision.values
        z = domain.known[node.inputs[0]]
        width = (z.upper - z.lower).reshape(-1)
        tie = 1e-9 * (width / (1 + width)).nan_to_num(0.0)
        if values is None or domain.decision.influence is None:
            return tie
        there = values[node.inputs[0]].reshape(1, *node.shape)
        off = (node.op(there).reshape(-1) - values[name]).abs()
        return off * domain.decision.influence[name].abs() + tie
