"""Raising a proven curve towards what inputs attain, by searches over boxes of inputs and slopes together.

On a segment of slopes the line a little below what inputs attain at both ends is asked about: is the margin above it
everywhere? A search (`leaktight.verify.leak.joint_boxes`) proves that, or finds an input below the line; then the
segment is cut at that slope, where more is attained now. Segments on which what inputs attain is no line are halved
first. Many segments of many regions are searched together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak.attack import search
from leaktight.verify.leak.closing import Limits, Stretch
from leaktight.verify.leak.curve import Segment
from leaktight.verify.leak.joint_boxes import Line, box_search, reached
from leaktight.verify.leak.traced import Traced
from leaktight.verify.verdict import Counterexample

_BELOW = 0.5  # the line asked about is so many tolerances below what is attained,
_BENT = 0.25  # which may be so many off the line between two slopes
_SHARES = (0.25, 0.5, 0.75)
_NARROW = 2.0**-10  # segments below this part of the range are not cut for what is attained within them,
_NARROWEST = 2.0**-16  # nor below this for an input that was found


@dataclass
class _Part:
    """A segment of a region's curve; `tried`: what is attained within it is known; `done`: no more is to be gained."""

    region: int
    segment: Segment
    tried: bool = False
    done: bool = False


class Raising:
    """Raises the curves of regions that are boxes until the gap to what inputs attain is within the tolerance."""

    def __init__(
        self, slopes: Slopes, case: Case, traced: list[Traced], tolerance: float, limits: Limits, effort: dict[str, Any]
    ) -> None:
        self.slopes, self.case, self.traced, self.tolerance = slopes, case, traced, tolerance
        self.limits, self.effort, self.boxes = limits, effort, 0
        self.parts = [_Part(i, s, s.lo == s.hi) for i, one in enumerate(traced) for s in one.segments]
        self.hit: tuple[int, float, float, Tensor] | None = None

    def run(self, say: Callable[[str], None]) -> None:
        """Goes on until nothing is open or the limits are reached. Raises KeyboardInterrupt: `curves` stand."""
        while not self._over:
            self._straighten()
            wanted = [part for part in self.parts if self._open(part)]
            if not wanted:
                break
            say(f"raising the curve: {len(wanted)} segments of slopes are below what inputs attain")
            self._ask(wanted)

    def curves(self) -> list[Traced]:
        """The curves as they are by now."""
        found = []
        for i, one in enumerate(self.traced):
            own = sorted((p.segment for p in self.parts if p.region == i), key=lambda s: (s.lo, s.hi))
            found.append(replace(one, segments=own, domains=one.domains + self.boxes // len(self.traced)))
        return found

    @property
    def _over(self) -> bool:
        return self.limits.late or self.boxes >= self.limits.domains

    def _open(self, part: _Part) -> bool:
        s = part.segment
        gap = max(u - x for u, x in zip(s.upper, s.lower, strict=True))
        return not part.done and self.tolerance < gap < torch.inf

    def _width(self, part: _Part) -> float:
        own = self.traced[part.region].segments
        return own[-1].hi - own[0].lo

    def _straighten(self) -> None:
        """Cuts open segments within which more or less is attained than on the line between their ends."""
        new = [part for part in self.parts if self._open(part) or not part.tried]
        while new and not self._over:
            bent = list[_Part]()
            for part, places in zip(new, self._tried(new), strict=True):
                s, part.tried = part.segment, True
                line = Line.through(s.lo, s.hi, *s.upper)
                off = [upper - line.level - line.rate * a for a, upper, _ in places]
                k = max(range(len(off)), key=lambda k, off=off: abs(off[k]))  # type: ignore[misc]
                worth = off[k] > _BENT * self.tolerance or (-off[k] > _BENT * self.tolerance and self._open(part))
                if worth and s.hi - s.lo > _NARROW * self._width(part):
                    bent += self._cut(part, *places[k])
            new = bent

    def _tried(self, parts: list[_Part]) -> list[list[tuple[float, float, Tensor]]]:
        """What is attained at a few slopes within each segment."""
        asked = [(p, p.segment.lo + share * (p.segment.hi - p.segment.lo)) for p in parts for share in _SHARES]
        near = [[self.traced[p.region].attained[b][1] for b in (p.segment.lo, p.segment.hi)] for p, _ in asked]
        owner, at = torch.tensor([p.region for p, _ in asked]), torch.tensor([a for _, a in asked], dtype=torch.float64)
        case = Case(self.case.region.select(owner), self.case.unsafe.select(owner))
        starts = torch.stack([torch.stack(points) for points in zip(*near, strict=True)])
        found = search(self.slopes, case, at, at, starts=starts, **self.effort)
        told = list(zip(at.tolist(), found.upper.tolist(), found.points, strict=True))
        return [told[k : k + len(_SHARES)] for k in range(0, len(told), len(_SHARES))]

    def _cut(self, part: _Part, a: float, upper: float, x: Tensor) -> list[_Part]:
        """Both parts of a segment, which take its place."""
        known, s = self.traced[part.region].attained, part.segment
        if a not in known or upper < known[a][0]:
            known[a] = (upper, x)
        upper, low = known[a][0], s.chord.at(a)
        halves = [
            _Part(part.region, s._replace(hi=a, lower=(s.lower[0], low), upper=(s.upper[0], upper))),
            _Part(part.region, s._replace(lo=a, lower=(low, s.lower[1]), upper=(upper, s.upper[1]))),
        ]
        self.parts = [p for p in self.parts if p is not part] + halves
        return halves

    def _line(self, s: Segment) -> Line:
        return Line.through(s.lo, s.hi, *(upper - _BELOW * self.tolerance for upper in s.upper))

    def _ask(self, wanted: list[_Part]) -> None:
        """Asks whether margins are above lines; of each segment that is answered, the answer takes its place."""
        lines = [self._line(part.segment) for part in wanted]
        stretches = [Stretch(part.region, part.segment.lo, part.segment.hi) for part in wanted]

        def confirm(place: int, points: Tensor) -> Counterexample | None:
            a, upper, x = reached(self.slopes, self.case, stretches[place].region, points)
            if not upper < lines[place].below(a):
                return None
            self.hit = (place, a, upper, x)
            return Counterexample({}, {}, points[0].cpu().numpy(), upper)

        memory = self.limits.memory or 1 << 28
        boxes = box_search(self.slopes, self.case, stretches, lines, 0.0, memory, confirm)
        before, left = self.boxes, set(range(len(wanted)))
        while left and boxes.waiting and not self._over and not boxes.stuck:
            boxes.advance(self.limits.deadline, easiest=True)
            self.boxes = before + boxes.boxes
            waiting = boxes.open_boxes()
            if boxes.found is not None:
                if self.hit is None:
                    raise InternalError("an input was found and not kept")
                (place, a, upper, x), self.hit = self.hit, None
                left.discard(place)
                self._below(wanted[place], a, upper, x)
                waiting = waiting.select((waiting.owner != place).nonzero().flatten())
                boxes.restart(waiting)
            for place in left - set(waiting.owner.tolist()):
                self._proved(wanted[place], lines[place])
                left.discard(place)
        if not self._over:
            for place in left:  # next to a point
                wanted[place].done = True

    def _below(self, part: _Part, a: float, upper: float, x: Tensor) -> None:
        """Cuts a segment at a slope at which less is attained than on the line; at an end, that end is known better."""
        s = part.segment
        if a in (s.lo, s.hi):
            self._lowered(part.region, a, upper, x)
        elif s.hi - s.lo > _NARROWEST * self._width(part):
            self._cut(part, a, upper, x)
        else:
            part.done = True

    def _lowered(self, region: int, a: float, upper: float, x: Tensor) -> None:
        """Less is attained at an end of segments."""
        self.traced[region].attained[a] = (upper, x)
        for p in self.parts:
            s = p.segment
            if p.region == region and a in (s.lo, s.hi):
                p.segment = s._replace(upper=(upper if a == s.lo else s.upper[0], upper if a == s.hi else s.upper[1]))

    def _proved(self, part: _Part, line: Line) -> None:
        s = part.segment
        low = (line.below(s.lo), line.below(s.hi))
        old = min(s.lower)
        part.done = True
        if min(low) >= old or low[0] + low[1] > s.lower[0] + s.lower[1]:
            part.segment = s._replace(lower=low)
