"""The course that every question about a leak takes: devices, time, tracing, and what follows from the curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Norm
from leaktight.verify.clock import Alarm, alarm
from leaktight.verify.device import CPU, Device
from leaktight.verify.leak.constant import Constant, constant
from leaktight.verify.leak.independent import trace_independent
from leaktight.verify.leak.plan import Plan
from leaktight.verify.leak.result import LeakResult
from leaktight.verify.leak.signal import signal
from leaktight.verify.leak.signs import SignSearch, closing
from leaktight.verify.leak.trace import trace
from leaktight.verify.leak.traced import Traced
from leaktight.verify.leak.ways import SEARCHES, Ways


@dataclass(frozen=True)
class Setting:
    """Where and how a question is answered: the network whose slope moves, on its device; ways and plan."""

    network: Network
    moving: Slopes
    ways: Ways
    plan: Plan


class Question(Protocol):
    """What is asked, as cases; and, step by step, what is known of it. Each step may be broken off by Ctrl-C.

    norm: of the Lipschitz constant that is asked for beside the curves. replays_late: whether inputs are replayed too
    where the time was up while curves were traced.
    """

    cases: list[Case]
    norm: Norm
    replays_late: bool

    def begin(self, found: list[list[Traced]], late: bool) -> None:
        """Takes the curves of each case's regions; `late`: their time was up."""

    def refute(self, setting: Setting) -> None:
        """Replays what refutes them."""

    def shift(self, setting: Setting) -> None:
        """How far margins move."""

    def follow(self, setting: Setting, constant: Constant | None) -> None:
        """What else follows."""

    def told(self) -> dict[str, Any]:
        """The fields of the result that are about this question."""


def answered(network: Network, ways: Ways, asked: Callable[[Device, Setting], Question]) -> LeakResult:
    """The answer to a question, which `asked` poses on a device.

    Raises: as for `leaktight.verify.leak.leak.leak`.
    """
    began, there = time.monotonic(), Device.named(ways.device)
    setting = Setting(network, there.of(Slopes.of(network, ways.nodes)), ways, ways.plan())
    plan, bounded = setting.plan, None
    with there.at_work(), alarm(plan.deadline) as clock:
        question, tracing = asked(there, setting), plan.tracing
        found = _all_traced(question.cases, setting, tracing)
        interrupted = any(traced.interrupted for some in found for traced in some)
        question.begin(found, tracing.late)
        try:
            if not interrupted or (clock.rung and question.replays_late):
                question.refute(setting)
            if not interrupted and ways.meaning == "shared":
                question.shift(setting)
            bounded = None if interrupted or plan.late else _constant(setting, question.norm)
            if not interrupted:
                question.follow(setting, bounded)
        except KeyboardInterrupt:  # the curves stand
            interrupted = True
        return _result(setting, question, found, began, interrupted, clock, bounded)


def _all_traced(cases: list[Case], setting: Setting, tracing: Plan) -> list[list[Traced]]:
    """The curves of all cases; after Ctrl-C the others' first bounds alone."""
    found = list[list[Traced]]()
    for case in cases:
        hurry = any(traced.interrupted for some in found for traced in some)
        found.append(_traced(case, setting, replace(tracing, deadline=0.0) if hurry else tracing))
    return found


def _traced(case: Case, setting: Setting, plan: Plan) -> list[Traced]:
    moving, ways = setting.moving, setting.ways
    if ways.meaning == "independent":
        return trace_independent(moving, case, *ways.slopes, plan)
    how = closing(moving, case.region, wanted=ways.engine == "branch") if ways.engine in SEARCHES else None
    if how is None:
        return trace(moving, case, *ways.slopes, plan, ways.progress)
    say = ways.progress or (lambda _: None)
    closer = SignSearch(moving, case, how, SEARCHES[ways.engine][how], plan, say)
    return trace(moving, case, *ways.slopes, plan, say, closer)


def _constant(setting: Setting, norm: Norm) -> Constant | None:
    ways, apart = setting.ways, setting.ways.meaning == "independent"
    with CPU.at_work():
        still, deadline = CPU.of(setting.moving), setting.plan.deadline
        return constant(still, ways.slopes, norm, wanted=ways.lipschitz, independent=apart, deadline=deadline)


def _result(
    setting: Setting,
    question: Question,
    found: list[list[Traced]],
    began: float,
    interrupted: bool,
    clock: Alarm,
    constant: Constant | None,
) -> LeakResult:
    network, ways, plan, factors = setting.network, setting.ways, setting.plan, None
    region = question.cases[0].region
    try:
        if not (plan.late or interrupted):
            factors = signal(setting.moving, region, *ways.slopes, memory=ways.memory, deadline=plan.deadline)
    except KeyboardInterrupt:
        interrupted = True
    return LeakResult(
        slopes=ways.slopes,
        own=setting.moving.own,
        nodes=tuple(network.by_name[name].origin or name for name in setting.moving.nodes),
        meaning=ways.meaning,
        tolerance=ways.tolerance,
        signal=factors,
        engine=ways.engine,
        seconds=time.monotonic() - began,
        interrupted=interrupted and not clock.rung,
        statistics={"domains": sum(traced.domains for some in found for traced in some)},
        constant=constant,
        asked={"network": network.file},
        **question.told(),
    )
