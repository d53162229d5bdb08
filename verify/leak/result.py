"""The answer to how certificates move with the leak: curves, and the document of schema leaktight.leak/1."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, isfinite
from typing import Any

from leaktight.verify.digits import rounded_inwards
from leaktight.verify.leak.constant import Constant
from leaktight.verify.leak.critical import Refuted
from leaktight.verify.leak.curve import Segment, proved_up_to, undecided
from leaktight.verify.leak.radius import RadiusSegment
from leaktight.verify.leak.shift import Shift
from leaktight.verify.leak.signal import Signal
from leaktight.verify.verdict import Guarantee, Status


@dataclass(frozen=True)
class Curve:
    """What is proven and attained of one margin ``M(a)``, the smallest one over a region, for slopes in a range.

    segments: in rising order, without gaps: on each, ``M(a)`` is at least the chord of `lower`, and at its ends at most
    `upper`. proved_up_to: at every slope of the range up to it the margin is positive. refuted: a slope and an input
    that onnxruntime, with the slope set in the file, confirms to be unsafe. open: slopes that are neither proved nor
    refuted. shift: bounds of ``M(a) - M(lo)``.
    """

    segments: tuple[Segment, ...]
    refuted: Refuted | None = None
    shift: Shift | None = None
    radius: tuple[RadiusSegment, ...] | None = None
    timed_out: bool = False

    @property
    def proved_up_to(self) -> float | None:
        return proved_up_to(self.segments)

    @property
    def open(self) -> list[list[float]]:
        return undecided(self.segments)

    @property
    def status(self) -> Status:
        """Proved: at every slope of the range. Refuted: at some slope."""
        if self.refuted is not None:
            return Status.REFUTED
        if all(segment.proved for segment in self.segments):
            return Status.PROVED
        return Status.TIMEOUT if self.timed_out else Status.UNKNOWN

    def lower(self, a: float) -> float:
        """The proven bound at a slope of the range."""
        return max((s.chord.at(a) for s in self.segments if s.lo <= a <= s.hi), default=-inf)

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status.value,
            "curve": [
                {"slopes": [s.lo, s.hi], "lower": _finite(s.lower), "upper": _finite(s.upper)} for s in self.segments
            ],
            "proved_up_to": self.proved_up_to,
            "refuted_from": None if self.refuted is None else self.refuted.slope,
            "open": self.open,
            "shift": None if self.shift is None else self.shift.to_json(),
            "radius": None if self.radius is None else [part.to_json() for part in self.radius],
            "counterexample": None if self.refuted is None else self.refuted.to_json(),
        }


def _finite(ends: Sequence[float]) -> list[float | None]:
    return [end if isfinite(end) else None for end in ends]


@dataclass(frozen=True)
class InputCurve:
    """The curve of one labelled input."""

    index: int
    label: int
    predicted: int
    curve: Curve

    def to_json(self) -> dict[str, Any]:
        found = self.curve.to_json()
        return {"index": self.index, "label": self.label, "predicted": self.predicted, **found}


@dataclass(frozen=True)
class LeakResult:
    """The answer. Of one property it has a `curve`, of labelled data `inputs`, one curve each."""

    slopes: tuple[float, float]
    own: tuple[float, float]
    nodes: tuple[str, ...]
    meaning: str
    tolerance: float
    curve: Curve | None
    inputs: tuple[InputCurve, ...]
    signal: Signal | None
    engine: str
    seconds: float
    interrupted: bool
    statistics: Mapping[str, int]
    constant: Constant | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst answer of all curves."""
        curves = [self.curve] if self.curve is not None else [one.curve for one in self.inputs]
        return Status.worst([curve.status for curve in curves])

    @property
    def proved_up_to(self) -> float | None:
        """The largest slope up to which all curves are proved."""
        curves = [self.curve] if self.curve is not None else [one.curve for one in self.inputs]
        ends = [curve.proved_up_to for curve in curves]
        return None if not ends or None in ends else min(end for end in ends if end is not None)

    @property
    def summary(self) -> str:
        """The answer in one line."""
        lo, hi = self.slopes
        partly = "; interrupted: what is shown holds, the rest is open" if self.interrupted else ""
        if self.curve is None:
            proved = sum(one.curve.status is Status.PROVED for one in self.inputs)
            told = f"{proved} of {len(self.inputs)} inputs proved for every slope from {rounded_inwards(lo, hi)}"
        else:
            end, refuted = self.curve.proved_up_to, self.curve.refuted
            told = "proved at no slope" if end is None else f"proved for every slope from {rounded_inwards(lo, end)}"
            told += "" if refuted is None else f", refuted at {refuted.slope:.9g}"
        return f"{told} ({self.seconds:.2f} s{partly})"

    def about(self, asked: Mapping[str, Any]) -> LeakResult:
        """The result with more facts about the question in its document."""
        return replace(self, asked={**self.asked, **asked})

    @property
    def accuracy(self) -> list[dict[str, Any]]:
        """On segments of slopes, the share of inputs proved on the whole segment, and of those not refuted on it."""
        ends = sorted({end for one in self.inputs for s in one.curve.segments for end in (s.lo, s.hi)})
        spans = list(pairwise(ends)) or [(a, a) for a in ends]
        proved, refuted = [0] * len(spans), [0] * len(spans)
        for one in self.inputs:
            for s in one.curve.segments:
                first = bisect_left(ends, s.lo)
                for place in range(first, max(bisect_left(ends, s.hi), first + 1)):
                    proved[place] += all(s.chord.at(a) > 0 for a in spans[place])
                    refuted[place] += s.refuted
        total = max(1, len(self.inputs))
        return [
            {"slopes": [lo, hi], "certified": p / total, "attacked": 1 - r / total}
            for (lo, hi), p, r in zip(spans, proved, refuted, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        document: dict[str, Any] = {
            "schema": "leaktight.leak/1",
            "status": self.status.value,
            "slopes": list(self.slopes),
            "leak": self.meaning,
            "nodes": list(self.nodes),
            "own_slopes": list(self.own),
            "tolerance": self.tolerance,
        }
        if self.curve is not None:
            document |= self.curve.to_json()
        else:
            document["inputs"] = [one.to_json() for one in self.inputs]
            document["accuracy"] = self.accuracy
        return document | {
            "signal": None if self.signal is None else self.signal.to_json(),
            "lipschitz": None if self.constant is None else self.constant.to_json(),
            "engine": self.engine,
            "guarantee": Guarantee.REAL.value,
            "seconds": round(self.seconds, 6),
            "statistics": dict(self.statistics),
            "interrupted": self.interrupted,
            **self.asked,
            "version": __version__,
        }
