"""The Lipschitz constant over slopes, beside the margins: how far outputs can move, at every slope of a range."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

from leaktight.errors import UnsupportedOperator
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm
from leaktight.verify.device import CPU
from leaktight.verify.leak.curve import equal_parts
from leaktight.verify.leak.radius import SEGMENTS
from leaktight.verify.lipschitz.bound import Segment
from leaktight.verify.lipschitz.curve import curve
from leaktight.verify.lipschitz.methods import Question

Margins = Callable[[int, int], Sequence[Segment]]

_CHEAP = 128  # neurons, inputs and outputs up to which nobody has to ask


@dataclass(frozen=True)
class Constant:
    """For all inputs x, y and every slope of a segment, ``|f(x) - f(y)| <= upper |x - y|`` in `norm`.

    margins: the same of ``f_i - f_j`` for two outputs, on the same segments; None where it was not asked for.
    """

    norm: Norm
    segments: tuple[Segment, ...]
    seconds: float
    margins: Margins | None = None

    def to_json(self) -> dict[str, Any]:
        parts = [
            {"slopes": [part.lo, part.hi], "upper": part.upper if isfinite(part.upper) else None}
            for part in self.segments
        ]
        return {"norm": self.norm.value, "curve": parts, "seconds": round(self.seconds, 6)}


def constant(
    moving: Slopes,
    within: tuple[float, float],
    norm: Norm,
    *,
    wanted: bool | None = None,
    independent: bool = False,
    deadline: float | None = None,
) -> Constant | None:
    """The constant's curve over a range of slopes (leaktight.verify.lipschitz.curve), in a few segments.

    wanted: None leaves it out where it is not cheap or does not exist; True also has the curves of margins.
    independent: each neuron has its own slope. deadline: of time.monotonic; what is proven by then holds.
    Raises UnsupportedOperator: it was asked for, and an activation has no sector or a matrix would be too large.
    """
    began, ends = time.monotonic(), equal_parts(*within, SEGMENTS)
    if wanted is False:
        return None
    question = Question(moving.network, norm, deadline=deadline)
    try:
        if wanted is None and not _cheap(moving, question):
            return None
        found = curve(moving, *within, question, ends=ends, independent=independent)
    except UnsupportedOperator:
        if wanted:
            raise
        return None
    margins = _margins(moving, within, question, ends) if wanted and not independent else None
    return Constant(norm, tuple(found), time.monotonic() - began, margins)


def _margins(moving: Slopes, within: tuple[float, float], question: Question, ends: list[float]) -> Margins:
    @cache
    def of(low: int, high: int) -> list[Segment]:
        with CPU.at_work():  # it is asked later, wherever that is
            return curve(moving, *within, question.of_margin(low, high), ends=ends)

    return lambda label, other: of(min(label, other), max(label, other))


def _cheap(moving: Slopes, question: Question) -> bool:
    largest = max((node.size for node in moving.network), default=0)
    return largest <= _CHEAP and question.layers.neurons <= _CHEAP
