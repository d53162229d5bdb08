"""The shift of a margin, ``M(a) - M(lo)``: what each level says, and their intersection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nextafter
from typing import Any

from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak import closed_form, local, stepwise
from leaktight.verify.leak.curve import Segment
from leaktight.verify.leak.effort import Effort

Ends = tuple[float, float]


@dataclass(frozen=True)
class Shift:
    """Bounds of ``M(a) - M(lo)`` over a range of slopes ``[lo, hi]``.

    change: at ``a = hi``, the intersection of all levels. closed_form: ``|M(a) - M(lo)| <= rate (a - lo)``. local:
    ``(a - lo) low <= M(a) - M(lo) <= (a - lo) high``. parametric: on each segment, for every ``a`` in it.
    """

    change: Ends
    closed_form: float
    local: Ends
    parametric: tuple[tuple[Ends, Ends], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "change": list(self.change) if all(map(isfinite, self.change)) else None,
            "closed_form": {"rate": self.closed_form} if isfinite(self.closed_form) else None,
            "local": {"rate": list(self.local)} if all(map(isfinite, self.local)) else None,
            "parametric": [{"slopes": list(ends), "change": list(change)} for ends, change in self.parametric]
            if all(isfinite(end) for _, change in self.parametric for end in change)
            else None,
        }


def rates(slopes: Slopes, case: Case, within: Ends, effort: Effort = stepwise.PLAIN) -> tuple[Tensor, Tensor, Tensor]:
    """Of each region's margin the closed form's rate, and the least and largest local rate, each ``(batch,)``."""
    lo, hi = (case.region.lower.new_full((case.region.batch,), end) for end in within)
    size = closed_form.rates(slopes, case.region, case.unsafe.weights, lo, hi).amax(1)
    low, high = local.joined(*stepwise.rates(slopes, case.region, case.unsafe.weights, *within, effort))
    return size, low, high


def shift(segments: Sequence[Segment], closed: float, rate: Ends, within: Ends) -> Shift:
    """The levels together, given a curve and the rates of the range.

    Raises InternalError: two levels exclude each other, so one of them is wrong.
    """
    width = nextafter(within[1] - within[0], inf)
    first, last = segments[0], segments[-1]
    levels = [
        (-_times(closed, width), _times(closed, width)),
        (-_times(-rate[0], width), _times(rate[1], width)),
        (_less(last.lower[1], first.upper[0]), -_less(first.lower[0], last.upper[1])),
    ]
    change = max(low for low, _ in levels), min(high for _, high in levels)
    if change[0] > change[1]:
        raise InternalError(f"bounds of the shift exclude each other: {levels}")
    parametric = tuple(
        ((s.lo, s.hi), (_less(min(s.lower), first.upper[0]), -_less(first.lower[0], s.throughout))) for s in segments
    )
    return Shift(change, closed, rate, parametric)


def _times(rate: float, width: float) -> float:
    """At least ``rate * w`` for every ``0 <= w <= width`` with the rate's own sign kept; width is rounded up."""
    if rate < 0:  # the true width is at least two units below
        return nextafter(rate * nextafter(nextafter(width, 0), 0), inf)
    return 0.0 if rate == 0 else nextafter(rate * width, inf)


def _less(a: float, b: float) -> float:
    """At most ``a - b``; minus infinity where either is unknown."""
    return nextafter(a - b, -inf) if isfinite(a) and isfinite(b) else -inf
