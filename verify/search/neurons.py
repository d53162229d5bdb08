"""Branch and bound over neurons: domains are split at a neuron's kink until each is proved or one is refuted.

It decides what bounds leave open where inputs are many. On either side of its kink a neuron is linear; what the
decision is worth elsewhere, its multiplier says (see `multipliers`). Many domains go through the same passes at once,
those with the lowest bounds first. What becomes of a domain depends on itself alone, so that the number of threads does
not change what a finished search proves (nor does the size of batches, but for the last places of single precision).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.specs.property import Case
from leaktight.verify.bounds.parallel import each
from leaktight.verify.device import on_processor
from leaktight.verify.search.ascent import Schedule, ascend
from leaktight.verify.search.batch import Batch
from leaktight.verify.search.choice import look_ahead
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.search.splits import Domains, Pool, joined
from leaktight.verify.verdict import Counterexample

FIRST = Schedule(40, rate=0.3, decay=0.95)
EACH = Schedule(10)
Leaf = Callable[[Case, Mapping[str, Tensor]], "tuple[float, Counterexample | None]"]
"""Decides the inputs of a single region for which neurons lie on given sides (`Bounding.decisions`): a proven lower
bound of the margin over them, and a confirmed counterexample to the case, if there is one."""
LAST = Schedule(150, decay=0.97)  # where no neuron is left to split
CANDIDATES = 8
_PARTS = 4  # of a round, so that threads have something to share
_PART_BYTES = 16 << 20
_MOST_THERE = 16384  # domains of a part on a GPU, which has no such caches
_LIVE_TENSORS = 8
_GENERATIONS = 4


@dataclass(frozen=True)
class _Split:
    """What became of some domains: children that are left, domains that cannot be split, bounds of what is proved.

    `point` and `owner`: where in the relaxation of which question the network itself came out lowest, at `margin`.
    """

    left: Domains
    stuck: Domains
    settled: Tensor
    bounded: int
    point: Tensor
    owner: int
    margin: float


class Search:
    """Carries a search on, round by round. `lower` is a proven bound of the margin over all questions at any time.

    memory: what domains and passes may take, in bytes. late: whether the time is up. size: how many domains to split in
    one batch. begin: the domains to begin with, for a search over a part of the questions only; each question's whole
    region by default. first: how these are bounded.
    """

    def __init__(
        self,
        bounding: Bounding,
        late: Callable[[], bool],
        memory: int,
        size: int | None = None,
        begin: Domains | None = None,
        *,
        first: Schedule = FIRST,
    ) -> None:
        self.bounding, self.late, self.memory = bounding, late, memory
        self.size = size or fitting(bounding, memory)
        self.domains, self.settled = 0, torch.inf
        roots = bounding.first() if begin is None else begin
        self.waiting, self.stuck = Pool(roots.select(slice(0, 0))), Pool(roots.select(slice(0, 0)))
        self.lower = -torch.inf
        self._start(roots, first)

    def _start(self, first: Domains, schedule: Schedule) -> None:
        bounded, _ = self._bounded(first, schedule)
        closed = self._closed(bounded)
        self.domains += len(first)
        self._book(bounded.select((~closed).nonzero().flatten()), bounded.bound[closed])

    def _book(self, left: Domains, settled: Tensor) -> None:
        self.waiting.add(left)
        self.settled = min(self.settled, float(settled.amin()) if len(settled) else torch.inf)
        self.lower = min(self.settled, self.waiting.least, self.stuck.least)

    @property
    def full(self) -> bool:
        """Whether the domains that wait take what memory they may."""
        return self.waiting.bytes + self.stuck.bytes > self.memory // 2

    def round(self) -> _Split | None:
        """Splits the worst domains; when memory runs short, those that are nearest to a proof.

        Returns where a counterexample is likeliest; None: the time was up before anything was done.
        """
        short = self.waiting.bytes > self.memory // 4
        places = self.waiting.worst(_PARTS * self.size, easiest=short)
        taken = self.waiting.read(places)
        parts = [taken.select(slice(i, i + self.size)) for i in range(0, len(taken), self.size)]
        answers = []
        for answer in each(self._split, parts):
            if answer is None:
                return None
            answers.append(answer)
        self.waiting.remove(places)
        self.domains += sum(answer.bounded for answer in answers)
        for answer in answers:
            self.stuck.add(answer.stuck)
        self._book(joined([a.left for a in answers]), torch.cat([a.settled for a in answers]))
        return min(answers, key=lambda answer: answer.margin)

    def decide(self, case: Case, leaf: Leaf) -> Counterexample | None:
        """Asks `leaf` about every domain that cannot be split; a counterexample ends it."""
        ends, left = self.stuck.read(torch.arange(len(self.stuck))), []
        for i in range(len(ends)):
            one = ends.select(slice(i, i + 1))
            lower, found = leaf(_conjunction(self.bounding, case, int(one.owner)), self.bounding.decisions(one))
            if found is not None:
                return found
            one = replace(one, bound=one.bound.clamp(min=lower))
            if bool(self._closed(one)):
                self.settled = min(self.settled, float(one.bound))
            else:
                left.append(one)
        self.stuck = Pool(joined([ends.select(slice(0, 0)), *left]))
        self._book(ends.select(slice(0, 0)), ends.bound[:0])
        return None

    def _split(self, parents: Domains) -> _Split | None:
        """Both children of each domain, bounded."""
        batch = self.bounding.unpacked(parents)
        found = self.bounding.glance(batch)
        neuron = look_ahead(self.bounding, batch, found, CANDIDATES)
        margins = self.bounding.margins(batch.owner, found.path.point)
        at = int(margins.argmin())
        last = (neuron < 0).nonzero().flatten()
        some = (neuron >= 0).nonzero().flatten()
        children = [
            parents.select(some).deepened(neuron[some], torch.full((len(some),), above)) for above in (True, False)
        ]
        bounded, in_time = self._bounded(joined(children), EACH)
        ends, last_in_time = self._bounded(parents.select(last), LAST)
        if not (in_time and last_in_time):
            return None
        closed, shut = self._closed(bounded), self._closed(ends)
        return _Split(
            bounded.select((~closed).nonzero().flatten()),
            ends.select((~shut).nonzero().flatten()),
            torch.cat([bounded.bound[closed], ends.bound[shut]]),
            len(bounded),
            found.path.point[at],
            int(batch.owner[at]),
            float(margins[at]),
        )

    def _bounded(self, domains: Domains, schedule: Schedule) -> tuple[Domains, bool]:
        """The domains with what an ascent finds; whether there was the time."""
        if not len(domains):
            return domains, True
        batch = self.bounding.unpacked(domains)
        void, some = batch.void.nonzero().flatten(), (~batch.void).nonzero().flatten()
        nothing = replace(domains.select(void), bound=domains.bound.new_full((len(void),), torch.inf))
        if len(void):
            domains, batch = domains.select(some), batch.select(some)
        if not len(domains):
            return nothing, True
        value = ascend(self.bounding, batch, schedule, self.late)
        if self.late() and self.domains:
            return domains, False
        bounded = self.bounding.repacked(domains, batch, self._proven(domains, batch, value))
        return joined([bounded, nothing]) if len(nothing) else bounded, True

    def _proven(self, domains: Domains, batch: Batch, value: Tensor) -> Tensor:
        """Proven bounds: of all that may be done, and of every few generations; else the parent's hold."""
        depth = (domains.neuron >= 0).sum(1)
        curved = torch.full_like(value, self.bounding.curved, dtype=torch.bool)
        worth = ((value > 0) | (depth % _GENERATIONS == 0) | curved).nonzero().flatten()
        bound = domains.bound.clone()
        if len(worth):
            bound[worth] = self.bounding.proven(batch.select(worth))
        return bound

    def _closed(self, domains: Domains) -> Tensor:
        """Which domains are proved."""
        strict = self.bounding.questions.strict[domains.owner.long()]
        return (domains.bound > 0) | (strict & (domains.bound >= 0))


def fitting(bounding: Bounding, memory: int) -> int:
    """How many domains go through a pass together: few enough for the caches, many enough for the interpreter."""
    size = 4 * _LIVE_TENSORS * bounding.relaxed.numbers
    if not on_processor():
        return max(4, min(_MOST_THERE, memory // 16 // size))
    return max(4, min(1024, min(_PART_BYTES, memory // 16) // size))


def branch(
    search: Search,
    case: Case,
    replay: Replay,
    *,
    leaf: Leaf | None = None,
    most: float = torch.inf,
    say: Callable[[str], None] = lambda _: None,
) -> Searched:
    """Carries a search on until every domain is proved, a counterexample is confirmed by replay, or it has to end.

    It pauses after `most` domains. What `leaf` is asked is a domain without a neuron left to split: a linear program.
    Every point of a question's region lies in a domain that is proved, or waits, or cannot be split any more, so that
    `lower` holds whatever ended it.
    """
    attained, found, reason, interrupted = torch.inf, None, "", False
    try:
        while len(search.waiting) and search.domains < most and not search.late():
            say(f"splitting neurons: {search.domains} domains bounded, {len(search.waiting)} wait")
            if search.full:
                reason = f"{len(search.waiting)} domains wait, as many as the memory holds; raise --memory"
                break
            best = search.round()
            if best is None:
                break
            found, margin = _tried(search.bounding, case, best, replay)
            if found is None and leaf is not None:
                found = search.decide(case, leaf)
            attained = min(attained, margin if found is None else found.margin)
            if found is not None:
                break
    except KeyboardInterrupt:  # what is proved stands
        interrupted = True
    if not reason and len(search.stuck) and not len(search.waiting):
        reason = (
            f"every neuron of {len(search.stuck)} domains is decided, and the linear programs that are left of them"
            " are not solved"
        )
    proved = not (len(search.waiting) or len(search.stuck) or interrupted or found)
    return Searched(search.lower, proved, found, attained, search.domains, reason, interrupted)


def _conjunction(bounding: Bounding, case: Case, owner: int) -> Case:
    """The case of a question alone."""
    questions = bounding.questions
    return case.question(int(questions.region[owner]), int(questions.disjunct[owner]))


def _tried(bounding: Bounding, case: Case, best: _Split, replay: Replay) -> tuple[Counterexample | None, float]:
    """Whether the lowest point of a relaxation is a counterexample, and the margin that it attains."""
    at = int(bounding.questions.region[best.owner])
    one = case.select(slice(at, at + 1))
    point = one.region.project(best.point.double().unsqueeze(0))
    margin = float(one.unsafe.margin(bounding.network.flat(point)))
    if margin > 1e-6 * float(bounding.proof.reach[best.owner].amax()):
        return None, margin
    found = confirm(bounding.network, one, point, replay)
    return found, margin if found is None else min(margin, found.margin)
