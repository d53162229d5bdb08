"""From domains to curves: their chords, what inputs attain at their ends, and what inputs refute in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.clock import TimeUp
from leaktight.verify.leak.closing import Answers
from leaktight.verify.leak.curve import Chord, Segment, lowest
from leaktight.verify.leak.domains import Domains, ends_of
from leaktight.verify.leak.incumbents import Incumbents
from leaktight.verify.leak.plan import Plan
from leaktight.verify.leak.throughout import settled
from leaktight.verify.leak.told import refuted_spans, told
from leaktight.verify.leak.traced import Traced

_HALVINGS = 12  # of segments that an input refutes at one end


class Drawing:
    """The curves of some regions; what inputs refute on whole segments is kept from one drawing to the next."""

    def __init__(self, slopes: Slopes, case: Case, incumbents: Incumbents) -> None:
        self.slopes, self.case, self.incumbents = slopes, case, incumbents
        self.refuted: list[list[tuple[float, float, float]]] = [[] for _ in range(case.region.batch)]

    def curves(self, domains: Domains, plan: Plan, *, interrupted: bool) -> list[Traced]:
        """A curve for each region."""
        chords: dict[int, list[Chord]] = defaultdict(list)
        each = map(Chord, *(x.tolist() for x in ends_of(domains)))
        for owner, chord in zip(domains.owner.tolist(), each, strict=True):
            chords[owner].append(chord)
        counts = torch.bincount(domains.owner, minlength=self.case.region.batch).tolist()
        found = []
        for owner, known in enumerate(self.incumbents.known):
            segments = _segments(lowest(chords[owner]), known)
            found.append(Traced(self._settled(owner, segments, plan), known, counts[owner], interrupted))
        return found

    def _settled(self, owner: int, segments: list[Segment], plan: Plan) -> list[Segment]:
        """The segments, with what the best inputs at their ends attain on all of them, and what was found so before."""
        known = self.incumbents.known[owner]
        segments = told(segments, Answers(refuted=self.refuted[owner]), known)
        open_ = [s for s in segments if not s.refuted] if known else []
        if not open_ or plan.late:
            return segments
        one = slice(owner, owner + 1)
        case = Case(self.case.region.select(one), self.case.unsafe.select(one))
        try:
            found = settled(self.slopes, case, open_, known, _HALVINGS, plan.deadline)
        except TimeUp:  # what is proven and attained at their ends stands
            return segments
        segments = sorted([*(s for s in segments if s.refuted), *found], key=lambda s: (s.lo, s.hi))
        self.refuted[owner] = refuted_spans(segments)
        return segments


def _segments(chords: Sequence[Chord], known: Mapping[float, tuple[float, Tensor]]) -> list[Segment]:
    if not known:
        return [Segment(lo, hi, (at_lo, at_hi)) for lo, hi, at_lo, at_hi in chords]
    upper = [[known.get(a, (inf,))[0] for a in (chord.lo, chord.hi)] for chord in chords]
    return [Segment(c.lo, c.hi, (c.at_lo, c.at_hi), (low, high)) for c, (low, high) in zip(chords, upper, strict=True)]
