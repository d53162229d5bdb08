"""The sign of the margin, closed over boxes of inputs and slopes (`leaktight.verify.leak.joint_boxes`).

Slopes at which an input is unsafe are cut out of all boxes; what no box holds any more at the end is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak.closing import Answers, Limits, Span, Stretch, joined, without
from leaktight.verify.leak.joint_boxes import Line, box_search, reached
from leaktight.verify.leak.throughout import around
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.verdict import Counterexample


class SlopeBoxes:
    """A search over boxes of inputs and stretches of slopes, of a case whose regions are boxes.

    least: the lowest margin that is known; a small part of it is what is proved. narrowest: slopes between which boxes
    would have to be narrower are left open.
    """

    def __init__(
        self,
        slopes: Slopes,
        case: Case,
        stretches: Sequence[Stretch],
        least: float,
        narrowest: float,
        memory: int,
        **effort: Any,
    ) -> None:
        self.slopes, self.whole, self.stretches, self.narrowest = slopes, case, stretches, narrowest
        self.region = torch.tensor([stretch.region for stretch in stretches])
        lines = [Line()] * len(stretches)
        self.search = box_search(slopes, case, stretches, lines, least, memory, self._confirm)
        self.effort = effort
        self.hit: tuple[int, float, float, Tensor] | None = None
        self.removed: dict[int, list[Span]] = {}
        self.answers: dict[int, Answers] = {region: Answers() for region in self.region.tolist()}

    def run(self, limits: Limits, say: Callable[[str], None]) -> None:
        """Searches until nothing is open or the limits are reached. Raises KeyboardInterrupt: `conclude` still can."""
        search, easiest = self.search, False
        while search.waiting and not search.stuck and search.boxes < limits.domains and not limits.late:
            say(f"closing the sign: {search.boxes} boxes of inputs and slopes bounded, {search.waiting} wait")
            search.advance(limits.deadline, easiest=easiest)
            easiest = not easiest and search.found is None  # in turn: next to a slope where the sign changes no end is
            if search.found is not None:
                self._cut_refuted()
            self._leave_narrow()

    def conclude(self) -> dict[int, Answers]:
        """By region what is proved and refuted by now."""
        left = self.search.open_boxes()
        spans = [Span(lo, hi) for lo, hi in zip(left.lower[:, -1].tolist(), left.upper[:, -1].tolist(), strict=True)]
        owners, value = left.owner.tolist(), self.search.settled
        for place, stretch in enumerate(self.stretches):
            answers = self.answers[stretch.region]
            open_ = [span for span, owner in zip(spans, owners, strict=True) if owner == place]
            if value > 0:
                closed = without(Span(stretch.lo, stretch.hi), [*open_, *self.removed.get(stretch.region, [])])
                answers.proved += [(span.lo, span.hi, value) for span in closed]
        each = max(1, len(self.answers))
        for answers in self.answers.values():
            answers.domains += self.search.boxes // each
        return self.answers

    def _confirm(self, place: int, points: Tensor) -> Counterexample | None:
        """Where the margin is negative in real arithmetic."""
        a, upper, x = reached(self.slopes, self.whole, self.stretches[place].region, points)
        if not upper < 0:
            return None
        self.hit = (place, a, upper, x)
        return Counterexample({}, {}, points[0].cpu().numpy(), upper)

    def _cut_refuted(self) -> None:
        """Cuts the slopes out at which the input that was found is unsafe."""
        if self.hit is None or self.search.found is None:
            raise InternalError("a counterexample was found and not kept")
        (place, a, _, x), self.hit = self.hit, None
        whole = self.stretches[place]
        region = whole.region
        one = slice(region, region + 1)
        part = self.whole.select(one)
        open_ = without(Span(whole.lo, whole.hi), self.removed.get(region, []))
        lo, hi = next(span for span in open_ if span.lo <= a <= span.hi)
        unsafe, spans = around(self.slopes, part, x, a, lo, hi, **self.effort)
        answers = self.answers[region]
        answers.unsafe += unsafe
        answers.refuted += spans
        cut = [Span(max(lo, a - self.narrowest / 2), min(hi, a + self.narrowest / 2)), *joined(spans)]
        for span in cut:
            self._remove(region, span, self.search.open_boxes())

    def _remove(self, region: int, span: Span, boxes: Boxes) -> None:
        """Goes on with what the boxes hold beside a span of slopes of a region."""
        self.removed.setdefault(region, []).append(span)
        self.search.restart(_beside(boxes, self.region[boxes.owner] == region, span))

    def _leave_narrow(self) -> None:
        """Leaves slopes open between which a box has become too narrow."""
        boxes = self.search.open_boxes()
        narrow = boxes.upper[:, -1] - boxes.lower[:, -1] < self.narrowest
        while bool(narrow.any()):
            one = int(narrow.to(torch.uint8).argmax())
            if float(boxes.upper[one, -1]) == float(boxes.lower[one, -1]):  # a stretch of a single slope
                narrow[one] = False
                continue
            span = Span(float(boxes.lower[one, -1]), float(boxes.upper[one, -1]))
            self._remove(int(self.region[int(boxes.owner[one])]), span, boxes)
            boxes = self.search.open_boxes()
            narrow = boxes.upper[:, -1] - boxes.lower[:, -1] < self.narrowest


def _beside(boxes: Boxes, mine: Tensor, span: Span) -> Boxes:
    """The boxes without what those that are `mine` hold at slopes inside the span."""
    lo, hi = boxes.lower[:, -1], boxes.upper[:, -1]
    inside = mine & (lo >= span.lo) & (hi <= span.hi)
    crossing = mine & ~inside & (lo < span.hi) & (hi > span.lo)
    parts = [boxes.select((~inside & ~crossing).nonzero().flatten())]
    for cut, name, end in (
        (crossing & (lo < span.lo), "upper", span.lo),
        (crossing & (hi > span.hi), "lower", span.hi),
    ):
        some = boxes.select(cut.nonzero().flatten())
        walls = getattr(some, name).clone()
        walls[:, -1] = end
        parts.append(replace(some, **{name: walls}))
    return Boxes.joined(parts)
