"""From a property to a verdict: stages of rising cost, each able to end the matter.

What ends it is either a proof (a lower bound of the margin above zero, with all error terms, over every case) or a
concrete input that onnxruntime confirms to be unsafe. Everything else is unknown, with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.verify.bounds.engine import ENGINES, lower_bounds
from leaktight.verify.branching import ATTACKS, AUTO, BRANCH, MILP, Branching, Progress, branching, halve, split_neurons
from leaktight.verify.budget import Budget
from leaktight.verify.clock import alarm
from leaktight.verify.device import CPU, Device
from leaktight.verify.kinds import check_kinds
from leaktight.verify.rounding import down
from leaktight.verify.search.attack import EFFORT
from leaktight.verify.search.refute import refute
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.stages import Ground
from leaktight.verify.standing import Standing
from leaktight.verify.standing import verdict as verdict_of
from leaktight.verify.verdict import Counterexample, Guarantee, Status, Verdict

SECOND_OPINION = "auto-lirpa"
# the bounds that engines begin with that are more than one
STAGES = {AUTO: ("crown", "alpha-crown"), BRANCH: ("crown", "alpha-crown"), MILP: ("crown",)}


def engine_names() -> tuple[str, ...]:
    """Every name that `engine` may take."""
    return (AUTO, *ENGINES, BRANCH, MILP, SECOND_OPINION)


def atom_bounds(network: Network, case: Case, engine: str, budget: Budget) -> Tensor:
    """Proven lower bounds ``(batch, atoms)`` of ``c . y - d`` over the case's regions."""
    unsafe = case.unsafe
    found = lower_bounds(
        network,
        case.region,
        unsafe.weights,
        engine=engine,
        dtype=budget.dtype,
        memory=budget.memory,
        target=unsafe.bounds,
        every=len(unsafe.disjunct.unique()) == len(unsafe.disjunct),  # no disjunct has a second atom to rule it out by
        deadline=budget.deadline,
    )
    return down(found - unsafe.bounds)


def prove(
    network: Network,
    property: Property,
    *,
    engine: str = AUTO,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
    cross_check: bool = False,
    effort: float = EFFORT,
    device: str | Device = CPU,
    progress: Progress | None = None,
    grounds: Sequence[Ground] | None = None,
) -> Verdict:
    """Does the property hold?

    PROVED: in real arithmetic, with the weights that the file gives, the margin of every input in the property's region
    is above zero (`margin.lower` is a proven bound of the smallest). REFUTED: `counterexample` lies in the region and
    onnxruntime computes an unsafe output for it. UNKNOWN and TIMEOUT claim nothing; `reason` says what was tried.

    Args: engine: one of `engine_names()`. "auto" tries cheap ones first; it and "branch" go on to halve boxes of inputs
    where these are few, and else to split neurons, where all activations have two slopes; "milp" decides small
    networks by linear programs. timeout: seconds. dtype: the arithmetic of the bounds (the guarantee is the same in
    float32). memory: a cap in bytes. cross_check: also ask auto_LiRPA. effort: multiplications that an attack may cost
    at most. device: where it is computed, ``cpu``, ``cuda`` or ``cuda:N``. grounds: one for each case, if several
    properties of the same network with the same regions are asked one after the other: what can be shared is found
    once. Ctrl-C ends it with what is known by then, as an UNKNOWN that says `interrupted`.
    Raises: PropertyError: the property does not fit the network. UsageError: an argument is not allowed, or there is no
    such device. Contradiction: auto_LiRPA and leaktight exclude each other.
    """
    began = time.monotonic()
    check_kinds(network=network, property=property)
    if engine not in engine_names():
        raise UsageError(f"engine {engine!r} is not known; allowed: {', '.join(engine_names())}")
    budget = replace(Budget.starting_now(timeout, dtype, memory, seed, device), effort=effort)
    say = progress or (lambda _: None)
    replay, there = Replay(network), budget.device.of(network)
    standings, interrupted = list[Standing](), False
    with budget.device.at_work():
        cases = budget.device.of(property).about(network)
        for case, ground in zip(cases, grounds or [Ground() for _ in cases], strict=True):
            standings.append(standing := Standing.of(case, ground))
            with alarm(budget.deadline) as clock:
                try:
                    _settle(there, standing, engine, budget, replay, say)
                except KeyboardInterrupt:  # what is proven stands
                    interrupted = not clock.rung
            if standing.found or interrupted or (budget.spent and not standing.proved):
                break
        guarantee = Guarantee.UNROUNDED if engine == SECOND_OPINION else Guarantee.REAL
        verdict = verdict_of(standings, len(cases), budget, engine=engine, guarantee=guarantee)
    if interrupted and verdict.status is not Status.REFUTED:
        verdict = replace(verdict, status=Status.UNKNOWN, reason=f"interrupted; {verdict.reason}", interrupted=True)
    checked = None
    if cross_check and not interrupted:
        say("asking auto_LiRPA")
        checked = _second_opinion(network, standings)
    return replace(
        verdict,
        cross_check=checked,
        seconds=time.monotonic() - began,
        network=network.file,
        property=property.file,
    )


def _settle(network: Network, standing: Standing, engine: str, budget: Budget, replay: Replay, say: Progress) -> None:
    """Runs the stages on one case until it is proved or refuted, or nothing is left to try."""
    how = branching(network, standing.case.region, engine)
    rest = _open(network, standing, engine, how, budget, replay, say)
    for stage in rest:
        if not (standing.proved or standing.found or budget.spent):
            _bound(network, standing, stage, budget, say)
    if how and not (standing.proved or standing.found or budget.spent):
        how(network, standing, budget, replay, say)


def _open(
    network: Network,
    standing: Standing,
    engine: str,
    how: Branching | None,
    budget: Budget,
    replay: Replay,
    say: Progress,
) -> list[str]:
    """What comes before branching: a first bound and an attack. Returns the stages that are left, of bounds."""
    # branching begins with good lines itself
    first, *rest = ("crown",) if how else STAGES.get(engine, (engine,))
    _bound(network, standing, first, budget.first_part() if rest or how else budget, say)
    _attack(
        network,
        standing,
        budget,
        replay,
        say,
        briefly=standing.proved,
        limits=ATTACKS[0] if how is halve else {"effort": budget.effort},
    )
    return rest


@dataclass(frozen=True, eq=False)
class Opened:
    """A case before branching: proven bounds of its atoms, what an attack found, and which way to branch, if any."""

    atoms: Tensor
    lower: float
    attained: float
    proved: bool
    found: Counterexample | None
    halving: bool
    splitting: bool


def opened(network: Network, case: Case, engine: str, budget: Budget, replay: Replay) -> Opened:
    """Bounds and attacks a case as `prove` does before it branches.

    Raises: as `prove`.
    """
    standing = Standing.of(case)
    how = branching(network, case.region, engine)
    _open(network, standing, engine, how, budget, replay, lambda _: None)
    halving, splitting = how is halve, how is split_neurons
    return Opened(
        standing.atoms, standing.lower, standing.attained, standing.proved, standing.found, halving, splitting
    )


def _bound(network: Network, standing: Standing, stage: str, budget: Budget, say: Progress) -> None:
    say(f"bounding with {stage}")
    if stage == SECOND_OPINION:
        from leaktight.verify.bounds import auto_lirpa

        with CPU.at_work():
            plain, case = CPU.of(network), CPU.of(standing.case)
            found = auto_lirpa.lower_bounds(plain, case.region, case.unsafe.weights, method="alpha-crown")
        standing.learn(budget.device.of(found.double()) - standing.case.unsafe.bounds)
    else:
        standing.learn(atom_bounds(network, standing.case, stage, budget))


def _attack(
    network: Network,
    standing: Standing,
    budget: Budget,
    replay: Replay,
    say: Progress,
    *,
    briefly: bool,
    limits: Mapping[str, Any],
) -> None:
    """Looks for a counterexample; on a proved case only for the margin that some input attains."""
    case = standing.case
    if briefly:
        point = case.region.project((case.region.lower + case.region.upper) / 2)
        standing.attained = float(case.unsafe.margin(network.flat(point)).amin())
        return
    say("looking for a counterexample")
    limits = {**limits, "effort": min(limits["effort"], budget.effort)}
    standing.found, attained = refute(
        network, case, seed=budget.seed, deadline=budget.deadline, replay=replay, **limits
    )
    standing.attained = float(attained.amin())


def _second_opinion(network: Network, standings: list[Standing]) -> Mapping[str, Any]:
    """auto_LiRPA's bounds of the same atoms beside ours.

    Raises Contradiction: it excludes what we prove, or what a counterexample attains (and the other way round).
    """
    from leaktight.verify.bounds.second_opinion import compare

    known = [CPU.of((s.case, s.atoms)) for s in standings]
    with CPU.at_work():
        return compare(CPU.of(network), known, min((s.attained for s in standings), default=torch.inf))
