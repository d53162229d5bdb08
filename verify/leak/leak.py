"""How certificates move with the leak: the question as users ask it, and its answer (schema leaktight.leak/1)."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case, Property, misclassified
from leaktight.specs.region import Norm, Region, ball
from leaktight.verify.clock import Alarm, alarm
from leaktight.verify.leak.constant import Constant, constant
from leaktight.verify.leak.critical import Refuted, first_refuted
from leaktight.verify.leak.curve import Segment, lowest, proved_up_to, undecided
from leaktight.verify.leak.independent import trace_independent
from leaktight.verify.leak.radius import RadiusSegment, radii
from leaktight.verify.leak.shift import Shift, rates, shift
from leaktight.verify.leak.signal import Signal, signal
from leaktight.verify.leak.signs import Branching, SignSearch, closing
from leaktight.verify.leak.trace import Plan, Progress, Traced, trace
from leaktight.verify.leak.transfer import follow
from leaktight.verify.verdict import Guarantee, Status

ENGINES = ("auto", "crown", "alpha-crown", "branch")
MEANINGS = ("shared", "independent")
# how far signs are searched for that bounds leave open
SEARCHES = {
    "auto": {"boxes": Branching(2.0**-9, 8192), "neurons": Branching(2.0**-6, 512)},
    "branch": {"boxes": Branching(2.0**-12, raises=200_000), "neurons": Branching(2.0**-12)},
}
TOLERANCE = 0.05


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


def _down(x: float) -> str:
    """The number in few digits, never above it."""
    short = f"{x:.6g}"
    return short if float(short) <= x else f"{x:.17g}"


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
            told = f"{proved} of {len(self.inputs)} inputs proved for every slope from {lo:g} to {hi:g}"
        else:
            end, refuted = self.curve.proved_up_to, self.curve.refuted
            told = "proved at no slope" if end is None else f"proved for every slope from {lo:g} to {_down(end)}"
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


@dataclass(frozen=True)
class Ways:
    """How a leak question is answered; see `leak`."""

    slopes: tuple[float, float]
    tolerance: float = TOLERANCE
    nodes: Iterable[str] | None = None
    meaning: str = "shared"
    engine: str = "auto"
    timeout: float | None = None
    memory: int | None = None
    seed: int = 0
    progress: Progress | None = None
    lipschitz: bool | None = None

    def __post_init__(self) -> None:
        lo, hi = self.slopes
        if not (isfinite(lo) and isfinite(hi)):
            raise UsageError(f"--slopes: {lo}:{hi} is not a range of finite numbers; write it like 0:0.3")
        if lo > hi:
            raise UsageError(f"--slopes: {lo}:{hi} is empty; give the lower slope first, like {hi}:{lo}")
        if not (isfinite(self.tolerance) and self.tolerance > 0):
            raise UsageError(f"--tolerance must be a positive number; got {self.tolerance}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"--timeout must be a positive number of seconds; got {self.timeout}")
        for option, word, allowed in (("--leak", self.meaning, MEANINGS), ("--engine", self.engine, ENGINES)):
            if word not in allowed:
                raise UsageError(f"{option}: {word!r} is not known; allowed: {', '.join(allowed)}")
        if self.meaning == "independent" and self.engine == "branch":
            raise UsageError("--engine branch: it searches for one slope that all neurons share; leave --leak out")

    def plan(self) -> Plan:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        return Plan(
            tolerance=self.tolerance,
            optimise=self.engine != "crown",
            boxes=self.engine == "auto",
            memory=self.memory,
            deadline=deadline,
            seed=self.seed,
        )


def leak(
    network: Network,
    property: Property,
    slopes: tuple[float, float],
    *,
    tolerance: float = TOLERANCE,
    nodes: Iterable[str] | None = None,
    meaning: str = "shared",
    engine: str = "auto",
    timeout: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    lipschitz: bool | None = None,
) -> LeakResult:
    """How the property's margin moves with the slope of the network's Leaky ReLUs, proven for every slope of a range.

    Let ``M(a)`` be the smallest margin over the property's regions of the network with the slope ``a``, in exact real
    arithmetic. The result's curve bounds it from below at every ``a`` in ``[lo, hi]``, and from above by what inputs
    attain; see `Curve`.

    Args: slopes: ``(lo, hi)``, any finite numbers. tolerance: segments are halved until the two curves are this close,
    or halving no longer helps. nodes: names of the Leaky ReLU nodes to move; all by default. meaning: "shared": one
    slope for all chosen nodes; "independent": each neuron has its own, anywhere in ``[lo, a]``. engine: "crown",
    "alpha-crown" (optimised lines where the sign is open), or "auto" (also halves boxes of few inputs). timeout:
    seconds; memory: bytes. lipschitz: whether the result carries the network's Lipschitz constant over the slopes (L2);
    by default where that is cheap.
    Raises: UsageError: an argument is not allowed, or there is no slope to move. PropertyError: the property does not
    fit the network.
    """
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz)
    began = time.monotonic()
    moving, plan = Slopes.of(network, nodes), ways.plan()
    cases = property.arranged(network.inputs, network.outputs).fitted(network.input_size, network.output_size)
    with alarm(plan.deadline) as clock:
        found, tracing = list[list[Traced]](), plan.tracing
        for case in cases:
            hurry = any(traced.interrupted for some in found for traced in some)
            found.append(_traced(moving, case, ways, replace(tracing, deadline=0.0) if hurry else tracing))
        regions = [traced for some in found for traced in some]
        curve, bounded = Curve(_joined(regions), timed_out=tracing.late), None
        interrupted = any(traced.interrupted for traced in regions)
        try:
            if clock.rung or not interrupted:
                refuted = [first_refuted(moving, c, t, ways.slopes, plan) for c, t in zip(cases, found, strict=True)]
                known = [one for some in refuted for one in some if one is not None]
                curve = replace(curve, refuted=min(known, key=lambda one: one.slope, default=None))
            if not interrupted and meaning == "shared":
                size, low, high = (
                    torch.cat(x)
                    for x in zip(*(rates(moving, c, slopes, plan.effort(False)) for c in cases), strict=True)
                )
                # a minimum of margins moves no faster than the fastest of them
                moved = shift(curve.segments, float(size.amax()), (float(low.amin()), float(high.amax())), slopes)
                curve = replace(curve, shift=moved)
            bounded = None if interrupted or plan.late else _constant(moving, ways, plan, Norm.L2)
        except KeyboardInterrupt:  # the curve stands
            interrupted = True
        region = cases[0].region
        result = _result(
            network,
            moving,
            ways,
            plan,
            began,
            regions,
            curve=curve,
            region=region,
            interrupted=interrupted,
            clock=clock,
            constant=bounded,
        )
    return result.about({"property": {"path": property.path, "sha256": property.sha256}})


def leak_of_data(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    slopes: tuple[float, float],
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
    radius: bool = False,
    tolerance: float = TOLERANCE,
    nodes: Iterable[str] | None = None,
    meaning: str = "shared",
    engine: str = "auto",
    timeout: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    lipschitz: bool | None = None,
) -> LeakResult:
    """`leak` for labelled inputs: a curve for each, "the label scores highest within epsilon of the input".

    Args: inputs ``(batch, ...)``, labels ``(batch,)``, norm, clip: as for `leaktight.certify`. radius: also a proven
    radius, no larger than `epsilon`, on segments of the slopes. lipschitz: the constant is in the data's norm, and
    proves radii too where they are asked for. The rest as for `leak`; the timeout is for all inputs.
    """
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz)
    began = time.monotonic()
    moving, plan = Slopes.of(network, nodes), ways.plan()
    flat, kind = inputs.reshape(len(inputs), -1).double(), Norm.named(norm)
    case = Case(ball(flat, epsilon, kind, clip), misclassified(labels, network.output_size))
    predicted = network.flat(flat).argmax(1).tolist()
    with alarm(plan.deadline) as clock:
        tracing = plan.tracing
        found = _traced(moving, case, ways, tracing)
        interrupted = any(traced.interrupted for traced in found)
        curves, bounded = [Curve(tuple(traced.segments), timed_out=tracing.late) for traced in found], None
        try:
            if not interrupted:
                refuted = first_refuted(moving, case, found, ways.slopes, plan)
                curves = [replace(curve, refuted=one) for curve, one in zip(curves, refuted, strict=True)]
            if not interrupted and meaning == "shared":
                each = zip(curves, *(x.tolist() for x in rates(moving, case, slopes, plan.effort(False))), strict=True)
                curves = [replace(c, shift=shift(c.segments, k, (low, high), slopes)) for c, k, low, high in each]
            bounded = None if interrupted or plan.late else _constant(moving, ways, plan, kind)
            if not interrupted and radius:
                parts = radii(moving, flat, labels, epsilon, kind, clip, ways.slopes, plan, meaning == "independent")
                parts = follow(moving, flat, labels, epsilon, bounded, parts) if meaning == "shared" else parts
                curves = [replace(curve, radius=tuple(part)) for curve, part in zip(curves, parts, strict=True)]
        except KeyboardInterrupt:  # the curves stand
            interrupted = True
        records = tuple(
            InputCurve(i, int(label), guess, curve)
            for i, (label, guess, curve) in enumerate(zip(labels.tolist(), predicted, curves, strict=True))
        )
        result = _result(
            network,
            moving,
            ways,
            plan,
            began,
            found,
            inputs=records,
            region=case.region,
            interrupted=interrupted,
            clock=clock,
            constant=bounded,
        )
    return result.about({"epsilon": epsilon, "norm": kind.value, "data": {"path": None, "sha256": None}})


def _constant(moving: Slopes, ways: Ways, plan: Plan, norm: Norm) -> Constant | None:
    apart = ways.meaning == "independent"
    return constant(moving, ways.slopes, norm, wanted=ways.lipschitz, independent=apart, deadline=plan.deadline)


def _traced(moving: Slopes, case: Case, ways: Ways, plan: Plan) -> list[Traced]:
    if ways.meaning == "independent":
        return trace_independent(moving, case, *ways.slopes, plan)
    how = closing(moving, case.region, wanted=ways.engine == "branch") if ways.engine in SEARCHES else None
    if how is None:
        return trace(moving, case, *ways.slopes, plan, ways.progress)
    say = ways.progress or (lambda _: None)
    closer = SignSearch(moving, case, how, SEARCHES[ways.engine][how], plan, say)
    return trace(moving, case, *ways.slopes, plan, say, closer)


def _joined(regions: list[Traced]) -> tuple[Segment, ...]:
    """One curve of several regions: the smallest of their margins."""
    if len(regions) == 1:
        return tuple(regions[0].segments)
    chords = [segment.chord for traced in regions for segment in traced.segments]
    parts = []
    for chord in lowest(chords):
        over = [s for traced in regions for s in traced.segments if s.lo <= chord.lo and chord.hi <= s.hi]
        known = [
            min((traced.attained[a][0] for traced in regions if a in traced.attained), default=inf)
            for a in (chord.lo, chord.hi)
        ]
        throughout = min((s.throughout for s in over), default=inf)
        parts.append(Segment(chord.lo, chord.hi, (chord.at_lo, chord.at_hi), (known[0], known[1]), throughout))
    return tuple(parts)


def _result(
    network: Network,
    moving: Slopes,
    ways: Ways,
    plan: Plan,
    began: float,
    found: list[Traced],
    *,
    curve: Curve | None = None,
    inputs: tuple[InputCurve, ...] = (),
    region: Region,
    interrupted: bool,
    clock: Alarm,
    constant: Constant | None,
) -> LeakResult:
    lo, hi = ways.slopes
    factors = None
    try:
        if not (plan.late or interrupted):
            factors = signal(moving, region, lo, hi, memory=ways.memory, deadline=plan.deadline)
    except KeyboardInterrupt:
        interrupted = True
    source = network.source
    return LeakResult(
        slopes=ways.slopes,
        own=moving.own,
        nodes=tuple(network.by_name[name].origin or name for name in moving.nodes),
        meaning=ways.meaning,
        tolerance=ways.tolerance,
        curve=curve,
        inputs=inputs,
        signal=factors,
        engine=ways.engine,
        seconds=time.monotonic() - began,
        interrupted=interrupted and not clock.rung,
        statistics={"domains": sum(traced.domains for traced in found)},
        constant=constant,
        asked={"network": {"path": source.path if source else None, "sha256": source.sha256 if source else None}},
    )
