"""Branch and bound on inputs and slope together: the slope is one more coordinate of the boxes that are halved.

A parametric pass (`leaktight.verify.leak.parametric`) bounds atoms from below by functions that are linear in the
inputs and in the slope. So everything that is done to boxes of inputs (`leaktight.verify.search.bisect`: what is proved
is cut off, the rest halved where that gains most) is done to boxes whose last coordinate is the slope. Slopes at which
an input is unsafe are cut out of all boxes; what no box holds any more at the end is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import refine_all
from leaktight.verify.bounds.interval import Interval, input_intervals
from leaktight.verify.bounds.rows import Rows
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.closing import Answers, Limits, Span, Stretch, joined, without
from leaktight.verify.leak.joint import slope_name, with_slope_input
from leaktight.verify.leak.parametric import Parametric
from leaktight.verify.leak.throughout import around
from leaktight.verify.rounding import down, trusted_lower, unit, up
from leaktight.verify.search.bisect import Bisection, Confirm
from leaktight.verify.search.box_bounds import Bounder, Known
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.verdict import Counterexample


class SlopePasses:
    """The coordinates of a box are the network's inputs and, last, the slope."""

    def __init__(self, slopes: Slopes, memory: int) -> None:
        self.slopes, self.memory, self.name = slopes, memory, slope_name(slopes.network)

    def opened(self, boxes: Boxes, floor: Known, deadline: float | None) -> Parametric:
        lower, upper = boxes.lower, boxes.upper
        region = Box(lower[:, :-1], upper[:, :-1])
        known = input_intervals(self.slopes.network, region)
        known[self.name] = Interval(lower[:, -1:], upper[:, -1:])
        backward = Parametric(self.slopes, region, known, lower[:, -1], upper[:, -1])
        refine_all(backward, known, self.memory, floor=floor, deadline=deadline)
        return backward

    def rows(self, backward: Backward, starts: list[Rows]) -> tuple[Tensor, Tensor]:
        """With ``a = middle + t``: a pass says ``atom >= row . x + rate t + c``, and how low ``row . x + c`` comes.

        Rows on the slope itself, ``k a = k middle + k t``, are added.
        """
        if not isinstance(backward, Parametric):
            raise InternalError("a box with a slope was opened by another pass")
        walk = backward.walk(*(start for start in starts if start.node != self.name))
        flat = walk.on_inputs() if walk.pending else torch.zeros(1, 1, backward.region.size, dtype=backward.dtype)
        value = walk.conclude()
        rate = torch.as_tensor(walk.rate, dtype=backward.dtype).expand(value.shape)
        off = torch.zeros_like(value)
        for start in starts:
            if start.node == self.name:
                factor = start.coefficients.squeeze(-1)
                level, steep = factor * backward.middle.unsqueeze(1), rate + factor
                off = off + 4 * unit(backward.dtype) * (
                    level.abs() + value.abs() + steep.abs() * backward.half.unsqueeze(1)
                )
                value, rate = value + level, steep
        fall = rate.abs() * backward.half.unsqueeze(1)
        floors = trusted_lower(
            down(value - fall * (1 + 4 * unit(backward.dtype)) - off * (1 + 4 * unit(backward.dtype)))
        )
        return torch.cat([flat.expand(*value.shape, -1), rate.unsqueeze(-1)], -1), floors


@dataclass(frozen=True)
class Line:
    """The line ``level + rate a`` over slopes ``a``."""

    level: float = 0.0
    rate: float = 0.0

    @classmethod
    def through(cls, lo: float, hi: float, at_lo: float, at_hi: float) -> Line:
        """About the line with these values at two slopes."""
        rate = (at_hi - at_lo) / (hi - lo) if hi > lo else 0.0
        return cls(at_lo - rate * lo, rate)

    def below(self, a: float) -> float:
        """At most the line's value."""
        rise = self.rate * a
        return self.level + rise - 1e-15 * (abs(self.level) + abs(rise)) - 1e-300


def box_search(
    slopes: Slopes,
    case: Case,
    stretches: Sequence[Stretch],
    lines: Sequence[Line],
    least: float,
    memory: int,
    confirm: Confirm,
    late: Callable[[], bool] = lambda: False,
) -> Bisection:
    """A search for the points of a case's regions and of stretches of slopes at which the margin is not above a line.

    Its boxes have the slope as a last coordinate, and the stretches as owners.
    """
    region = torch.tensor([stretch.region for stretch in stretches])
    part = case.select(region)
    ends = torch.tensor([(s.lo, s.hi) for s in stretches], dtype=torch.float64).split(1, 1)
    lower, upper = (torch.cat(both, 1) for both in zip((part.region.lower, part.region.upper), ends, strict=True))
    levels, rates = torch.tensor([(line.level, line.rate) for line in lines], dtype=torch.float64).split(1, 1)
    many, atoms = len(stretches), part.unsafe.weights.shape[1]
    weights = part.unsafe.weights.double().expand(many, -1, -1)
    bounds = part.unsafe.bounds.double().expand(many, -1)
    unsafe = replace(
        part.unsafe,
        weights=torch.cat([weights, -rates.unsqueeze(1).expand(-1, atoms, -1)], -1),
        bounds=torch.where(levels == 0, bounds, up(bounds + levels)),
        inner_bounds=None,
    )
    wide, network = Case(Box(lower, upper), unsafe), with_slope_input(slopes, handed_on=True)
    bounder = Bounder(network, wide, memory, SlopePasses(slopes, memory))
    return Bisection(network, wide, confirm, least, late, memory, bounder=bounder)


def reached(slopes: Slopes, case: Case, region: int, points: Tensor) -> tuple[float, float, Tensor]:
    """The slope of a point ``(1, n + 1)`` of a search, at least the margin there, and the input ``(n,)``."""
    part = slice(region, region + 1)
    one = case.select(part)
    x, a = one.region.project(points[:, :-1].double()), points[:, -1].double()
    return float(a), float(attained(slopes, one, x, a)), x[0]


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
