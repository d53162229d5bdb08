"""How certificates move with the leak: the question as users ask it, for a property and for labelled data."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Norm, Region, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.clock import Alarm, alarm
from leaktight.verify.device import CPU, Device
from leaktight.verify.leak.constant import Constant, constant
from leaktight.verify.leak.critical import first_refuted
from leaktight.verify.leak.independent import trace_independent
from leaktight.verify.leak.joint_curve import joined
from leaktight.verify.leak.plan import Plan, Progress
from leaktight.verify.leak.radius import radii
from leaktight.verify.leak.result import Curve, InputCurve, LeakResult
from leaktight.verify.leak.shift import rates, shift
from leaktight.verify.leak.signal import signal
from leaktight.verify.leak.signs import SignSearch, closing
from leaktight.verify.leak.trace import trace
from leaktight.verify.leak.traced import Traced
from leaktight.verify.leak.transfer import follow
from leaktight.verify.leak.ways import SEARCHES, TOLERANCE, Ways


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
    device: str | Device = CPU,
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
    by default where that is cheap. device: where curves are computed, ``cpu``, ``cuda`` or ``cuda:N``.
    Raises: UsageError: an argument is not allowed, or there is no slope to move or no such device. PropertyError: the
    property does not fit the network.
    """
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz, device)
    began = time.monotonic()
    there = Device.named(device)
    moving, plan = there.of(Slopes.of(network, nodes)), ways.plan()
    with there.at_work():
        cases = there.of(property).about(network)
    with there.at_work(), alarm(plan.deadline) as clock:
        found, tracing = list[list[Traced]](), plan.tracing
        for case in cases:
            hurry = any(traced.interrupted for some in found for traced in some)
            found.append(_traced(moving, case, ways, replace(tracing, deadline=0.0) if hurry else tracing))
        regions = [traced for some in found for traced in some]
        curve, bounded = Curve(joined(regions), timed_out=tracing.late), None
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
    return result.about({"property": property.file})


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
    device: str | Device = CPU,
) -> LeakResult:
    """`leak` for labelled inputs: a curve for each, "the label scores highest within epsilon of the input".

    Args: inputs ``(batch, ...)``, labels ``(batch,)``, norm, clip: as for `leaktight.certify`. radius: also a proven
    radius, no larger than `epsilon`, on segments of the slopes. lipschitz: the constant is in the data's norm, and
    proves radii too where they are asked for. The rest as for `leak`; the timeout is for all inputs.
    """
    ways = Ways(slopes, tolerance, nodes, meaning, engine, timeout, memory, seed, progress, lipschitz, device)
    began = time.monotonic()
    there = Device.named(device)
    moving, plan = there.of(Slopes.of(network, nodes)), ways.plan()
    inputs, labels = there.of((inputs, labels))
    flat, kind = inputs.reshape(len(inputs), -1).double(), Norm.named(norm)
    with there.at_work():
        case = Case(ball(flat, epsilon, kind, clip), misclassified(labels, network.output_size))
    with there.at_work(), alarm(plan.deadline) as clock:
        predicted = moving.network.flat(flat).argmax(1).tolist()
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
    with CPU.at_work():
        still = CPU.of(moving)
        return constant(still, ways.slopes, norm, wanted=ways.lipschitz, independent=apart, deadline=plan.deadline)


def _traced(moving: Slopes, case: Case, ways: Ways, plan: Plan) -> list[Traced]:
    if ways.meaning == "independent":
        return trace_independent(moving, case, *ways.slopes, plan)
    how = closing(moving, case.region, wanted=ways.engine == "branch") if ways.engine in SEARCHES else None
    if how is None:
        return trace(moving, case, *ways.slopes, plan, ways.progress)
    say = ways.progress or (lambda _: None)
    closer = SignSearch(moving, case, how, SEARCHES[ways.engine][how], plan, say)
    return trace(moving, case, *ways.slopes, plan, say, closer)


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
        asked={"network": network.file},
    )
