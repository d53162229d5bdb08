"""Closing a curve's sign: searches where it is neither proved positive nor refuted by some input.

Each stretch of open slopes of a region is searched as a whole: over boxes of inputs and slopes together where inputs
are few (`leaktight.verify.leak.slope_boxes`), else over neurons (`leaktight.verify.leak.joint_neurons`). What is proved
is closed. Where an input is unsafe, so it is on some slopes around; what lies beyond is searched again. A stretch that
a search leaves open is halved, and its halves may cost twice as much.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch

from leaktight.errors import UsageError
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.closing import Answers, Limits, Span, Stretch, joined, without
from leaktight.verify.leak.curve import undecided
from leaktight.verify.leak.joint_neurons import split_neurons
from leaktight.verify.leak.plan import LIGHT, Plan
from leaktight.verify.leak.raised import Raising
from leaktight.verify.leak.slope_boxes import SlopeBoxes
from leaktight.verify.leak.throughout import Attained, around
from leaktight.verify.leak.told import told
from leaktight.verify.leak.traced import Traced
from leaktight.verify.search.activations import splittable
from leaktight.verify.search.bisect import FEW_INPUTS

_NEURONS = 256  # domains of a first search
_SHRUNK = 0.75  # a stretch that an input leaves longer than this part of what it was is halved as well
Say = Callable[[str], None]


@dataclass(frozen=True)
class Branching:
    """narrowest: stretches below this part of the range are left open. most: domains of one region; raises: further
    boxes to bring the curve up to what inputs attain."""

    narrowest: float
    most: float = inf
    raises: float = 0


@dataclass(order=True)
class _Waiting:
    """Open slopes that wait; those that were halved least come first, and may cost so many domains."""

    depth: int
    region: int
    lo: float
    hi: float
    domains: int = field(compare=False)


def closing(slopes: Slopes, region: Region, *, wanted: bool) -> str | None:
    """What to branch on inside segments: "boxes" where inputs are few, else "neurons"; None: neither can be.

    Raises UsageError: neither can be, and it is `wanted`.
    """
    boxes = isinstance(region, Box)
    if boxes and region.size <= FEW_INPUTS:
        return "boxes"
    if splittable(slopes.network):
        return "neurons"
    if wanted and boxes:
        return "boxes"
    if wanted:
        raise UsageError(
            "--engine branch: it splits neurons of piecewise linear activations or halves boxes; this network has other"
            " activations, and the region is a ball; use another engine"
        )
    return None


class SignSearch:
    """Closes the signs of a case's regions; a `leaktight.verify.leak.trace.Closer`.

    `how`: see `closing`. It ends at the plan's deadline.
    """

    def __init__(self, slopes: Slopes, case: Case, how: str, branching: Branching, plan: Plan, say: Say) -> None:
        self.slopes, self.case, self.plan, self.say = slopes, case, plan, say
        self.branching, self.how = branching, how
        self.answers: dict[int, Answers] = {}
        self.waiting: list[_Waiting] = []

    def search(self, begun: list[Traced]) -> None:
        """Searches the open slopes of curves. Raises KeyboardInterrupt; what was found by then is kept."""
        stretches = [Stretch(i, lo, hi) for i, one in enumerate(begun) for lo, hi in undecided(one.segments)]
        if not stretches:
            return
        ends = [(one.segments[0].lo, one.segments[-1].hi) for one in begun]
        narrowest = self.branching.narrowest * max(hi - lo for lo, hi in ends)
        if self.how == "boxes":
            self._over_boxes(begun, stretches, narrowest)
        else:
            self._over_neurons(stretches, narrowest)

    def _over_boxes(self, begun: list[Traced], stretches: list[Stretch], narrowest: float) -> None:
        least = min(upper for one in begun for upper, _ in one.attained.values())
        memory = self.plan.memory or default_memory()
        search = SlopeBoxes(self.slopes, self.case, stretches, least, narrowest, memory, **self._effort())
        self.answers = search.answers
        try:
            most = self.branching.most * len({stretch.region for stretch in stretches})
            search.run(Limits(most, self.plan.deadline, memory), self.say)
        finally:
            search.conclude()

    def _effort(self) -> dict[str, Any]:
        return {**LIGHT, "seed": self.plan.seed, "deadline": self.plan.deadline}

    def closes(self, region: int, lo: float, hi: float) -> bool:
        """Whether all slopes of a segment are proved by one search, or all refuted by one input."""
        return region in self.answers and self.answers[region].closes(lo, hi)

    def _over_neurons(self, stretches: list[Stretch], narrowest: float) -> None:
        self.answers = {stretch.region: Answers() for stretch in stretches}
        self.waiting = [_Waiting(0, s.region, s.lo, s.hi, _NEURONS) for s in stretches]
        heapq.heapify(self.waiting)
        while self.waiting and not self.plan.late:
            self.say(f"closing the sign: {len(self.waiting)} stretches of slopes are open")
            self._split(heapq.heappop(self.waiting), narrowest)

    def _split(self, one: _Waiting, narrowest: float) -> None:
        """Searches over the neurons of a region on a stretch of slopes."""
        answers, part = self.answers[one.region], self._one(one.region)
        left = self.branching.most - answers.domains
        if left <= 0:
            return
        found = split_neurons(
            self.slopes,
            part,
            one.lo,
            one.hi,
            Limits(min(one.domains, left), self.plan.deadline, self.plan.memory),
        )
        answers.domains += found.domains
        if found.interrupted:
            raise KeyboardInterrupt
        if found.proved and found.lower > 0:
            answers.proved.append((one.lo, one.hi, found.lower))
            return
        pieces = [(one.lo, one.hi)]
        if found.found is not None:
            a, _, x = found.found
            unsafe, spans = around(self.slopes, part, x, a, one.lo, one.hi, **self._effort())
            answers.unsafe += unsafe
            answers.refuted += spans
            pieces = [(lo, hi) for lo, hi in without(Span(one.lo, one.hi), [Span(a, a), *joined(spans)])]
        for lo, hi in pieces:
            short = hi - lo <= _SHRUNK * (one.hi - one.lo)
            self._wait(_Waiting(one.depth + 1, one.region, lo, hi, one.domains * (1 if short else 2)), short, narrowest)

    def _wait(self, one: _Waiting, whole: bool, narrowest: float) -> None:
        middle = one.lo / 2 + one.hi / 2
        for lo, hi in [(one.lo, one.hi)] if whole else [(one.lo, middle), (middle, one.hi)]:
            if hi - lo > narrowest:
                heapq.heappush(self.waiting, replace(one, lo=lo, hi=hi))

    def _one(self, region: int) -> Case:
        part = slice(region, region + 1)
        return Case(self.case.region.select(part), self.case.unsafe.select(part))

    def told(self, traced: list[Traced]) -> list[Traced]:
        """The curves with what was found."""
        return [self._told(i, one) if i in self.answers else one for i, one in enumerate(traced)]

    def raised(self, traced: list[Traced]) -> list[Traced]:
        """The curves after searches for a smaller gap, where boxes are halved and it is asked for."""
        if self.how != "boxes" or not self.branching.raises or self.plan.late:
            return traced
        limits = Limits(self.branching.raises * len(traced), self.plan.deadline, self.plan.memory)
        raising = Raising(self.slopes, self.case, traced, self.plan.tolerance, limits, self._effort())
        try:
            raising.run(self.say)
        except KeyboardInterrupt:
            return [replace(one, interrupted=True) for one in raising.curves()]
        return raising.curves()

    def _told(self, region: int, one: Traced) -> Traced:
        answers = self.answers[region]
        domains, known = one.domains + answers.domains, dict(one.attained)
        for a, upper, x in answers.unsafe:
            if a not in known or upper < known[a][0]:
                known[a] = (upper, x)
        ends = sorted({end for lo, hi, _ in (*answers.proved, *answers.refuted) for end in (lo, hi)})
        known = self._attained_at(region, known, [a for a in ends if a not in one.attained])
        return replace(one, segments=told(one.segments, answers, known), attained=known, domains=domains)

    def _attained_at(self, region: int, known: Attained, ends: list[float]) -> Attained:
        """What is known to be attained, at some more slopes too: the best of the inputs of the slopes next to them."""
        if not ends or not known:
            return known
        near = [sorted(known, key=lambda b, a=a: abs(b - a))[:3] for a in ends]  # type: ignore[misc]
        points = torch.stack([known[b][1] for some in near for b in some])
        at = torch.tensor([a for a, some in zip(ends, near, strict=True) for _ in some], dtype=torch.float64)
        owner = torch.full((len(at),), region)
        case = Case(self.case.region.select(owner), self.case.unsafe.select(owner))
        uppers = attained(self.slopes, case, points, at).tolist()
        more = dict(known)
        for a, upper, x in zip(at.tolist(), uppers, points, strict=True):
            if a not in more or upper < more[a][0]:
                more[a] = (upper, x)
        return more
