"""Tracing a curve: segments, and where inputs are few also boxes, are halved where that can still raise what is proven.

A domain is a part of a region together with a segment of slopes. All domains of a round are bounded in one batch. One
is halved while the gap between what is proven on it and what inputs attain is above the tolerance, or its sign is open,
and while halving is likely to close a part of that: what the last halving gained says what the next will.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import TimeUp
from leaktight.verify.leak.attack import along, search
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.closing import Answers
from leaktight.verify.leak.curve import Chord, Segment, equal_parts, lowest
from leaktight.verify.leak.domains import Domains, ends_of
from leaktight.verify.leak.margin import MarginLines, margin_lines
from leaktight.verify.leak.parametric import Floor
from leaktight.verify.leak.plan import LIGHT, Plan, Progress
from leaktight.verify.leak.stages import PIECES, first_margins
from leaktight.verify.leak.throughout import settled
from leaktight.verify.leak.told import refuted_spans, told
from leaktight.verify.leak.traced import Closer, Traced

FEW_INPUTS = 8  # up to so many, boxes are halved too
_ATTACKED = 4  # each so-manieth end of the first segments is attacked
_SPEND = 6.0  # what a segment's width costs in all, in multiples of what it costs in the last pass (measured)
_HALVINGS = 12  # of segments that an input refutes at one end
_ROUND = 2048  # domains halved at once
_NARROW = 2.0**-12  # segments are not halved below this part of the range


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
        self.slopes, self.case, self.plan, self.width, self.closer = slopes, case, plan, hi - lo, closer
        regions = case.region.batch
        self.ends = torch.tensor(equal_parts(lo, hi, plan.first), dtype=torch.float64)
        owner = torch.arange(regions).repeat_interleave(len(self.ends) - 1)
        region = case.region if not isinstance(case.region, Box) else Box(case.region.lower, case.region.upper)
        nothing = torch.full((len(owner),), -torch.inf, dtype=torch.float64)
        first, last = self.ends[:-1].repeat(regions), self.ends[1:].repeat(regions)
        self.domains = Domains(owner, region.select(owner), first, last, nothing, nothing.clone(), -nothing)
        self.known: dict[str, Interval] | None = None
        self.attained: list[dict[float, tuple[float, Tensor]]] = [{} for _ in range(regions)]
        self.refuted: list[list[tuple[float, float, float]]] = [[] for _ in range(regions)]
        self.halves_boxes = plan.boxes and isinstance(region, Box) and region.size <= FEW_INPUTS

    def begin(self) -> None:
        if len(self.ends) == PIECES + 1 and self.width > 0:
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
        self._attack_first()
        if self.plan.optimise:
            self._optimise()

    def _first_lines(self) -> None:
        """The first bounds of all segments."""
        given = (self.slopes, self.case, self.ends, self.plan.tolerance, self.plan.effort(False))
        found, self.known = first_margins(*given)
        self.domains = replace(self.domains.better(found), hope=found.loss)

    def _attack_first(self) -> None:
        """What inputs attain at the ends of the first segments: found at some, and tried at those next to them."""
        every = _ATTACKED if len(self.ends) == PIECES + 1 and self.width > 0 else 1
        at = self.ends[::every].unique()
        found = along(self.slopes, self.case, at.expand(self.case.region.batch, -1), **self._effort())
        for owner in range(self.case.region.batch):
            for place, slope in enumerate(at.tolist()):
                self._keep(owner, slope, float(found.upper[owner, place]), found.points[owner, place])
        between = [k for k in range(len(self.ends)) if k % every]
        for step in (0, 1) if between else ():
            points = found.points[:, [k // every + step for k in between]].flatten(0, 1)
            owners = torch.arange(self.case.region.batch).repeat_interleave(len(between))
            slopes = self.ends[between].repeat(self.case.region.batch)
            case = Case(self.case.region.select(owners), self.case.unsafe.select(owners))
            upper = attained(self.slopes, case, points, slopes).tolist()
            for owner, slope, value, x in zip(owners.tolist(), slopes.tolist(), upper, points, strict=True):
                self._keep(owner, slope, value, x)

    def halve(self) -> bool:
        """Halves the domains that are worth it; whether there were any."""
        gaps = self._gaps()
        index = self._worth(gaps).nonzero().flatten()
        if not len(index):
            return False
        doubt = self._in_doubt()[index]
        index = index[doubt] if bool(doubt.any()) else index  # open signs first
        index = index[gaps[index].argsort(descending=True, stable=True)][:_ROUND]
        parents = self.domains.select(index)
        by_slope = self._by_slope(parents, gaps[index])
        middle = parents.lo / 2 + parents.hi / 2
        if self.plan.attack:
            self._attack(parents.owner[by_slope], middle[by_slope])
        halves = self._halved(parents, by_slope, middle)
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
        owners = self.domains.owner.tolist()
        found = [
            [self.attained[owner].get(a, (torch.inf,))[0] for owner, a in zip(owners, ends.tolist(), strict=True)]
            for ends in (self.domains.lo, self.domains.hi)
        ]
        low, high = torch.tensor(found, dtype=torch.float64).reshape(2, -1)
        return low, high

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

    def _worth(self, gaps: Tensor) -> Tensor:
        domains, tolerance = self.domains, self.plan.tolerance
        doubt = self._in_doubt()
        wanted = (gaps > tolerance) | (doubt & (gaps > tolerance / 16))
        decisive = doubt & (2 * domains.hope > -domains.least)
        enough = torch.where(decisive, tolerance / 16, torch.maximum(gaps / 8, gaps.new_tensor(tolerance / 2)))
        promising = (domains.hope > enough) & self._can_narrow(domains)
        if self.halves_boxes:
            promising |= self._can_shrink(domains)
        room = torch.bincount(domains.owner, minlength=self.case.region.batch) < self.plan.most
        return wanted & promising & room[domains.owner]

    def _can_narrow(self, domains: Domains) -> Tensor:
        middle = domains.lo / 2 + domains.hi / 2  # of neighbouring floats it is one of them
        return (domains.hi - domains.lo > _NARROW * self.width) & (domains.lo < middle) & (middle < domains.hi)

    def _can_shrink(self, domains: Domains) -> Tensor:
        sides = (domains.region.upper - domains.region.lower).amax(1)
        return sides > 1e-6 * (self.case.region.upper - self.case.region.lower).amax(1)[domains.owner]

    def _by_slope(self, domains: Domains, gaps: Tensor) -> Tensor:
        """Whether to halve the segment rather than the box: where its width costs more than half of the gap."""
        narrow = self._can_narrow(domains)
        if not self.halves_boxes:
            return narrow
        return narrow & ((domains.hope > gaps / 2) | ~self._can_shrink(domains))

    def _halved(self, parents: Domains, by_slope: Tensor, middle: Tensor) -> Domains:
        """Both halves of every domain, the first ones first, with what is proven of their parents."""
        chords = [Chord(*ends) for ends in zip(*(x.tolist() for x in ends_of(parents)), strict=True)]
        between = torch.tensor([c.at(a) for c, a in zip(chords, middle.tolist(), strict=True)], dtype=torch.float64)
        first = replace(
            parents, hi=torch.where(by_slope, middle, parents.hi), at_hi=torch.where(by_slope, between, parents.at_hi)
        )
        last = replace(
            parents, lo=torch.where(by_slope, middle, parents.lo), at_lo=torch.where(by_slope, between, parents.at_lo)
        )
        if self.halves_boxes:
            lower, upper = parents.region.lower, parents.region.upper
            longest = torch.nn.functional.one_hot((upper - lower).argmax(1), lower.shape[1]).bool()
            cut = longest & ~by_slope.unsqueeze(1)
            half = lower / 2 + upper / 2
            first = replace(first, region=Box(lower, torch.where(cut, half, upper)))
            last = replace(last, region=Box(torch.where(cut, half, lower), upper))
        return first.joined(last)

    def _attack(self, owner: Tensor, at: Tensor) -> None:
        """Looks for low margins of these regions at these slopes, from what was found at the slopes next to them."""
        pairs = sorted({(i, a) for i, a in zip(owner.tolist(), at.tolist(), strict=True) if a not in self.attained[i]})
        if not pairs:
            return
        pick = torch.tensor([i for i, _ in pairs])
        slopes = torch.tensor([a for _, a in pairs], dtype=torch.float64)
        near = [sorted(self.attained[i], key=lambda known, a=a: abs(known - a))[:2] for i, a in pairs]  # type: ignore[misc]
        starts = torch.stack(
            [
                torch.stack(
                    [
                        self.attained[i][known[min(k, len(known) - 1)]][1]
                        for (i, _), known in zip(pairs, near, strict=True)
                    ]
                )
                for k in range(2)
            ]
        )
        case = Case(self.case.region.select(pick), self.case.unsafe.select(pick))
        found = search(self.slopes, case, slopes, slopes, starts=starts, **self._effort())
        for place, (i, a) in enumerate(pairs):
            self._keep(i, a, float(found.upper[place]), found.points[place])

    def _keep(self, owner: int, slope: float, upper: float, point: Tensor) -> None:
        if slope not in self.attained[owner] or upper < self.attained[owner][slope][0]:
            self.attained[owner][slope] = (upper, point)

    def _effort(self) -> dict[str, Any]:
        return {**LIGHT, "seed": self.plan.seed, "deadline": self.plan.deadline}

    def curves(self, interrupted: bool) -> list[Traced]:
        d = self.domains
        chords: dict[int, list[Chord]] = defaultdict(list)
        for owner, chord in zip(d.owner.tolist(), map(Chord, *(x.tolist() for x in ends_of(d))), strict=True):
            chords[owner].append(chord)
        counts = torch.bincount(d.owner, minlength=self.case.region.batch).tolist()
        found = []
        for owner in range(self.case.region.batch):
            attained = self.attained[owner]
            segments = [
                Segment(
                    c.lo,
                    c.hi,
                    (c.at_lo, c.at_hi),
                    (attained.get(c.lo, (inf,))[0], attained.get(c.hi, (inf,))[0]),
                )
                for c in lowest(chords[owner])
            ]
            found.append(Traced(self._settled(owner, segments), attained, counts[owner], interrupted))
        return found

    def _settled(self, owner: int, segments: list[Segment]) -> list[Segment]:
        """The segments, with what the best inputs at their ends attain on all of them, and what was found so before."""
        known = self.attained[owner]
        segments = told(segments, Answers(refuted=self.refuted[owner]), known)
        open_ = [s for s in segments if not s.refuted]
        if not known or not open_ or self.plan.late:
            return segments
        one = slice(owner, owner + 1)
        case = Case(self.case.region.select(one), self.case.unsafe.select(one))
        try:
            found = settled(self.slopes, case, open_, known, _HALVINGS, self.plan.deadline)
        except TimeUp:  # what is proven and attained at their ends stands
            return segments
        segments = sorted([*(s for s in segments if s.refuted), *found], key=lambda s: (s.lo, s.hi))
        self.refuted[owner] = refuted_spans(segments)
        return segments
