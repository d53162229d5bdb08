"""Tracing a curve: segments, and where inputs are few also boxes, are halved where that can still raise what is proven.

A domain is a part of a region together with a segment of slopes. All domains of a round are bounded in one batch. One
is halved while the gap between what is proven on it and what inputs attain is above the tolerance, or its sign is open,
and while halving is likely to close a part of that: what the last halving gained says what the next will.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import TimeUp
from leaktight.verify.leak.curve import equal_parts
from leaktight.verify.leak.domains import Domains, whole
from leaktight.verify.leak.drawing import Drawing
from leaktight.verify.leak.effort import Floor
from leaktight.verify.leak.halving import Halving
from leaktight.verify.leak.incumbents import Incumbents
from leaktight.verify.leak.margin import MarginLines, margin_lines
from leaktight.verify.leak.plan import Plan, Progress
from leaktight.verify.leak.stages import PIECES, first_margins
from leaktight.verify.leak.traced import Closer, Traced

_SPEND = 6.0  # what a segment's width costs in all, in multiples of what it costs in the last pass (measured)
_ROUND = 2048  # domains halved at once


def trace(
    slopes: Slopes,
    case: Case,
    lo: float,
    hi: float,
    plan: Plan,
    progress: Progress | None = None,
    closer: Closer | None = None,
) -> list[Traced]:
    """For each region of the case a curve of its smallest margin over the slopes ``[lo, hi]``.

    `closer` has its turn before segments are halved. Ctrl-C ends it early: what is proven so far is returned, marked as
    interrupted.
    """
    tracer = _Tracer(slopes, case, lo, hi, plan, closer)
    say = progress or (lambda _: None)
    interrupted = False
    try:
        tracer.begin()
        if closer is not None:
            closer.search(tracer.curves(False))
        halving = plan.halving
        while not halving.late and tracer.halve():
            say(f"bounding: {len(tracer.domains)} parts of regions and slopes")
    except KeyboardInterrupt:
        interrupted = True
    curves = tracer.curves(interrupted)
    if closer is None:
        return curves
    try:
        answered = closer.told(curves)
    except TimeUp:
        return curves
    return answered if interrupted else closer.raised(answered)


class _Tracer:
    def __init__(
        self, slopes: Slopes, case: Case, lo: float, hi: float, plan: Plan, closer: Closer | None = None
    ) -> None:
        self.slopes, self.case, self.plan, self.closer = slopes, case, plan, closer
        self.ends = torch.tensor(equal_parts(lo, hi, plan.first), dtype=torch.float64)
        self.in_pieces = len(self.ends) == PIECES + 1 and hi > lo
        self.domains = whole(case.region, self.ends)
        self.known: dict[str, Interval] | None = None
        self.incumbents = Incumbents(slopes, case, plan)
        self.drawing = Drawing(slopes, case, self.incumbents)
        self.halving = Halving.of(case.region, hi - lo, plan)

    def begin(self) -> None:
        if self.in_pieces:
            self._first_lines()
        unbounded = self.domains.least.isneginf().nonzero().flatten()
        if len(unbounded):  # a single slope, or a range of a few floats; or numbers overflowed
            some = self.domains.select(unbounded)
            found = self._bounded(some, optimise=False)
            better = some.better(found)
            for name, x in (("at_lo", better.at_lo), ("at_hi", better.at_hi), ("hope", _SPEND * found.loss)):
                getattr(self.domains, name)[unbounded] = x
        if not self.plan.attack:
            return
        self.incumbents.begin(self.ends, many=self.in_pieces)
        if self.plan.optimise:
            self._optimise()

    def _first_lines(self) -> None:
        """The first bounds of all segments."""
        given = (self.slopes, self.case, self.ends, self.plan.tolerance, self.plan.effort(False))
        found, self.known = first_margins(*given)
        self.domains = replace(self.domains.better(found), hope=found.loss)

    def halve(self) -> bool:
        """Halves the domains that are worth it; whether there were any."""
        gaps = self._gaps()
        index = self.halving.worth(self.domains, gaps, self._in_doubt()).nonzero().flatten()
        if not len(index):
            return False
        doubt = self._in_doubt()[index]
        index = index[doubt] if bool(doubt.any()) else index  # open signs first
        index = index[gaps[index].argsort(descending=True, stable=True)][:_ROUND]
        parents = self.domains.select(index)
        by_slope = self.halving.by_slope(parents, gaps[index])
        middle = parents.lo / 2 + parents.hi / 2
        if self.plan.attack:
            self.incumbents.attack(parents.owner[by_slope], middle[by_slope])
        halves = self.halving.halved(parents, by_slope, middle)
        found = self._bounded(halves, optimise=False)
        children = halves.better(found)
        gained = torch.maximum(children.at_lo - halves.at_lo, children.at_hi - halves.at_hi).nan_to_num(0.0, 0.0, 0.0)
        # the loss of a segment is linear in its width where it is large: what halving gained is what is left
        hope = torch.where(by_slope.repeat(2), gained, halves.hope)
        rest = torch.ones(len(self.domains), dtype=torch.bool)
        rest[index] = False
        self.domains = self.domains.select(rest.nonzero().flatten()).joined(replace(children, hope=hope))
        if self.plan.optimise:
            self._optimise(len(self.domains) - len(children))
        return True

    def _bounded(self, domains: Domains, *, optimise: bool) -> MarginLines:
        case = Case(domains.region, self.case.unsafe.select(domains.owner))
        floor = None if self.known is None else Floor(self.known, domains.owner)
        return margin_lines(self.slopes, case, domains.lo, domains.hi, self.plan.effort(optimise), floor)

    def _optimise(self, first: int = 0) -> None:
        """Bounds the domains from `first` on whose sign is open once more, with optimised lines."""
        index = (self._in_doubt() & (torch.arange(len(self.domains)) >= first)).nonzero().flatten()
        if len(index) and not self.plan.late:
            some = self.domains.select(index)
            found = self._bounded(some, optimise=True)
            better = some.better(found)
            self.domains.at_lo[index], self.domains.at_hi[index] = better.at_lo, better.at_hi
            # turned lines have to hold on the whole segment, so they gain more by halving it than plain ones do
            self.domains.hope[index] = torch.maximum(some.hope, _SPEND * found.loss)

    def _uppers(self) -> tuple[Tensor, Tensor]:
        """What inputs of the domains' regions attain at both ends of their segments."""
        d = self.domains
        return self.incumbents.uppers(d.owner, d.lo), self.incumbents.uppers(d.owner, d.hi)

    def _gaps(self) -> Tensor:
        if not self.plan.attack:
            return self.domains.hope
        low, high = self._uppers()
        return torch.maximum(low - self.domains.at_lo, high - self.domains.at_hi)

    def _in_doubt(self) -> Tensor:
        """Where nothing attained is negative at an end at which nothing positive is proven, or the sign changes."""
        if not self.plan.attack:
            return torch.zeros(len(self.domains), dtype=torch.bool)
        low, high = self._uppers()
        at_lo, at_hi = self.domains.at_lo, self.domains.at_hi
        changes = ((at_lo > 0) & (high < 0)) | ((at_hi > 0) & (low < 0))
        return (changes | ((at_lo <= 0) & (low >= 0)) | ((at_hi <= 0) & (high >= 0))) & ~self._closed()

    def _closed(self) -> Tensor:
        """Where a search has closed the sign."""
        d = self.domains
        if self.closer is None:
            return torch.zeros(len(d), dtype=torch.bool)
        each = zip(d.owner.tolist(), d.lo.tolist(), d.hi.tolist(), strict=True)
        return torch.tensor([self.closer.closes(*one) for one in each], dtype=torch.bool)

    def curves(self, interrupted: bool) -> list[Traced]:
        return self.drawing.curves(self.domains, self.plan, interrupted=interrupted)
