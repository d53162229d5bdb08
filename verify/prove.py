"""From a property to a verdict: stages of rising cost, each able to end the matter.

What ends it is either a proof (a lower bound of the margin above zero, with all error terms, over every case) or a
concrete input that onnxruntime confirms to be unsafe. Everything else is unknown, with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Ball, Box, Norm, Region
from leaktight.verify.bounds.engine import ENGINES, lower_bounds
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.clock import alarm
from leaktight.verify.rounding import down
from leaktight.verify.search.attack import EFFORT
from leaktight.verify.search.bisect import FEW_INPUTS, Attack, bisect, proves
from leaktight.verify.search.complete import check_exact, complete
from leaktight.verify.search.leaf import decide
from leaktight.verify.search.neurons import Leaf
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.refute import refute
from leaktight.verify.search.relaxed import splittable
from leaktight.verify.search.replay import Replay, confirming
from leaktight.verify.search.stages import split, whole_margin
from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status, Verdict

SECOND_OPINION = "auto-lirpa"
AUTO = "auto"
BRANCH = "branch"
MILP = "milp"
# the bounds that engines begin with that are more than one
STAGES = {AUTO: ("crown", "alpha-crown"), BRANCH: ("crown", "alpha-crown"), MILP: ("crown",)}
# Multiplications and steps of the attacks that come before boxes are halved, soon after, and when it takes long.
ATTACKS: tuple[dict[str, Any], ...] = ({"effort": 5e7, "steps": 15}, {"effort": 2e8}, {"effort": EFFORT})
Progress = Callable[[str], None]
Branching = Callable[["Network", "_Standing", "Budget", Replay, Progress], None]


def engine_names() -> tuple[str, ...]:
    """Every name that `engine` may take."""
    return (AUTO, *ENGINES, BRANCH, MILP, SECOND_OPINION)


@dataclass(frozen=True)
class Budget:
    """What a proof may use. `deadline`: time.monotonic() after which to stop, or None; `effort`: the attack's."""

    deadline: float | None
    dtype: torch.dtype
    memory: int | None
    seed: int
    effort: float = EFFORT

    @classmethod
    def starting_now(cls, timeout: float | None, dtype: torch.dtype, memory: int | None, seed: int) -> Budget:
        """Raises UsageError: the timeout or the memory cap is not a positive number."""
        if timeout is not None and not timeout > 0:
            raise UsageError(f"--timeout must be a positive number of seconds; got {timeout}")
        if memory is not None and memory <= 0:
            raise UsageError(f"--memory must be a positive number of bytes; got {memory}")
        return cls(None if timeout is None else time.monotonic() + timeout, dtype, memory, seed)

    def first_part(self) -> Budget:
        """The same with a third of the time that is left: what a first stage may use before others have had a turn."""
        now = time.monotonic()
        return self if self.deadline is None else replace(self, deadline=now + (self.deadline - now) / 3)

    def share(self, parts: int) -> float | None:
        """The deadline of the first of so many parts that share what time is left."""
        now = time.monotonic()
        return None if self.deadline is None else now + (self.deadline - now) / parts

    @property
    def spent(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass
class _Standing:
    """What is known of one case so far: proven lower bounds of its atoms, and the margin attained by some input."""

    case: Case
    atoms: Tensor
    attained: float = torch.inf
    found: Counterexample | None = None
    searched: Searched | None = None

    @property
    def lower(self) -> float:
        whole = float(self.case.unsafe.combine(self.atoms).amin())
        return whole if self.searched is None else max(whole, self.searched.lower)

    @property
    def proved(self) -> bool:
        """Every disjunct has an atom that no input satisfies, on the whole case or on each part of it."""
        by_search = self.searched is not None and self.searched.proved
        return by_search or bool(proves(self.case, self.atoms).all())

    @property
    def domains(self) -> int:
        return 1 + (0 if self.searched is None else self.searched.domains)

    def learn(self, atoms: Tensor) -> None:
        self.atoms = torch.maximum(self.atoms, atoms)

    def conclude(self, searched: Searched) -> None:
        """Raises KeyboardInterrupt: the search was interrupted; what it found by then is kept."""
        self.searched, self.found = searched, searched.found
        self.attained = min(self.attained, searched.attained)
        if searched.interrupted:
            raise KeyboardInterrupt


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
    progress: Progress | None = None,
) -> Verdict:
    """Does the property hold?

    PROVED: in real arithmetic, with the weights that the file gives, the margin of every input in the property's region
    is above zero (`margin.lower` is a proven bound of the smallest). REFUTED: `counterexample` lies in the region and
    onnxruntime computes an unsafe output for it. UNKNOWN and TIMEOUT claim nothing; `reason` says what was tried.

    Args: engine: one of `engine_names()`. "auto" tries cheap ones first; it and "branch" go on to halve boxes of inputs
    where these are few, and else to split neurons, where all activations have two slopes; "milp" decides small
    networks by linear programs. timeout: seconds. dtype: the arithmetic of the bounds (the guarantee is the same in
    float32). memory: a cap in bytes. cross_check: also ask auto_LiRPA. effort: multiplications that an attack may cost
    at most. Ctrl-C ends it with what is known by then, as an UNKNOWN that says `interrupted`.
    Raises: PropertyError: the property does not fit the network. UsageError: an argument is not allowed. Contradiction:
    auto_LiRPA and leaktight exclude each other.
    """
    began = time.monotonic()
    if engine not in engine_names():
        raise UsageError(f"engine {engine!r} is not known; allowed: {', '.join(engine_names())}")
    budget = replace(Budget.starting_now(timeout, dtype, memory, seed), effort=effort)
    say = progress or (lambda _: None)
    replay = Replay(network)
    standings, interrupted = [], False
    arranged = property.arranged(network.inputs, network.outputs)
    for case in arranged.fitted(network.input_size, network.output_size):
        standing = _Standing(
            case, torch.full((case.region.batch, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
        )
        standings.append(standing)
        with alarm(budget.deadline) as clock:
            try:
                _settle(network, standing, engine, budget, replay, say)
            except KeyboardInterrupt:  # what is proven stands
                interrupted = not clock.rung
        if standing.found or interrupted or (budget.spent and not standing.proved):
            break
    verdict = _verdict(standings, len(property.cases), engine, budget)
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
        network=origin(network),
        property={"path": property.path, "sha256": property.sha256},
    )


def _settle(network: Network, standing: _Standing, engine: str, budget: Budget, replay: Replay, say: Progress) -> None:
    """Runs the stages on one case until it is proved or refuted, or nothing is left to try."""
    how = _branching(network, standing.case.region, engine)
    rest = _open(network, standing, engine, how, budget, replay, say)
    for stage in rest:
        if not (standing.proved or standing.found or budget.spent):
            _bound(network, standing, stage, budget, say)
    if how and not (standing.proved or standing.found or budget.spent):
        how(network, standing, budget, replay, say)


def _open(
    network: Network,
    standing: _Standing,
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
        limits=ATTACKS[0] if how is _halve else {"effort": budget.effort},
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
    nothing = torch.full((case.region.batch, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
    standing = _Standing(case, nothing)
    how = _branching(network, case.region, engine)
    _open(network, standing, engine, how, budget, replay, lambda _: None)
    halving, splitting = how is _halve, how is _split
    return Opened(
        standing.atoms, standing.lower, standing.attained, standing.proved, standing.found, halving, splitting
    )


def _branching(network: Network, region: Region, engine: str) -> Branching | None:
    """What to branch on: inputs where they are few, neurons where all that bends can be split.

    Raises: what the engine that is asked for cannot do, by name: UsageError of regions, UnsupportedOperator of nodes.
    """
    if engine == MILP:
        check_exact(network, region)
        return _complete
    if engine not in (AUTO, BRANCH):
        return None
    halving = isinstance(region, Box)
    if halving and region.size <= FEW_INPUTS:
        return _halve
    if splittable(network):
        return _split
    if engine == AUTO:
        return None
    if not halving:
        raise UsageError(
            "engine 'branch' splits neurons of piecewise linear activations or halves boxes; this network has other"
            " activations, and the property's region is a ball; use another engine"
        )
    return _halve


def _complete(network: Network, standing: _Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Splits neurons until linear programs decide.

    Raises KeyboardInterrupt: as `_Standing.conclude`.
    """
    found = complete(
        network, standing.case, replay, deadline=budget.deadline, memory=budget.memory, seed=budget.seed, say=say
    )
    standing.conclude(found)


def leaf_of(network: Network, case: Case, budget: Budget, replay: Replay) -> Leaf | None:
    """Decides domains whose neurons are all decided by linear programs, where the region has flat walls."""
    if isinstance(case.region, Ball) and case.region.norm is Norm.L2:
        return None

    def leaf(part: Case, sides: Mapping[str, Tensor]) -> tuple[float, Counterexample | None]:
        found = decide(network, part, sides, replay=replay, deadline=budget.deadline)
        return found.lower, found.found

    return leaf


def _split(network: Network, standing: _Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Branches on neurons until the case is settled, the time is up, or too many domains wait.

    Raises KeyboardInterrupt: as `_Standing.conclude`.
    """
    memory = default_memory() if budget.memory is None else budget.memory
    with torch.no_grad():
        found = split(
            network,
            standing.case,
            standing.atoms,
            replay,
            memory=memory,
            deadline=budget.deadline,
            late=lambda: budget.spent,
            leaf=leaf_of(network, standing.case, budget, replay),
            say=say,
        )
    standing.conclude(replace(found, lower=whole_margin(standing.case, standing.atoms, found.lower)))


def later_attacks(network: Network, case: Case, budget: Budget, replay: Replay) -> Attack:
    """The attacks, each more thorough than the one before, that boxes which are halved for long are worth."""

    def attack(turn: int) -> tuple[Counterexample | None, float]:
        limits = {**ATTACKS[turn + 1], "seed": budget.seed + turn + 1, "deadline": budget.deadline}
        limits["effort"] = min(limits["effort"], budget.effort)
        found, attained = refute(network, case, replay=replay, **limits)
        return found, float(attained.amin())

    return attack


def _halve(network: Network, standing: _Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Branches on the input until the case is settled, the time is up, or too many boxes wait.

    Raises KeyboardInterrupt: as `_Standing.conclude`.
    """
    found = bisect(
        network,
        standing.case,
        confirming(network, standing.case, replay),
        attained=standing.attained,
        deadline=budget.deadline,
        late=lambda: budget.spent,
        memory=budget.memory or default_memory(),
        attack=later_attacks(network, standing.case, budget, replay),
        say=say,
    )
    standing.conclude(found)


def _bound(network: Network, standing: _Standing, stage: str, budget: Budget, say: Progress) -> None:
    say(f"bounding with {stage}")
    if stage == SECOND_OPINION:
        from leaktight.verify.bounds import auto_lirpa

        found = auto_lirpa.lower_bounds(
            network, standing.case.region, standing.case.unsafe.weights, method="alpha-crown"
        )
        standing.learn(found.double() - standing.case.unsafe.bounds)
    else:
        standing.learn(atom_bounds(network, standing.case, stage, budget))


def _attack(
    network: Network,
    standing: _Standing,
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


def _verdict(standings: list[_Standing], cases: int, engine: str, budget: Budget) -> Verdict:
    guarantee = Guarantee.UNROUNDED if engine == SECOND_OPINION else Guarantee.REAL
    upper = min((s.attained for s in standings), default=torch.inf)
    everywhere = len(standings) == cases
    lower = min((s.lower for s in standings), default=torch.inf) if everywhere else -torch.inf
    base = Verdict(
        Status.UNKNOWN,
        Margin(lower, upper),
        engine=engine,
        guarantee=guarantee,
        statistics={"domains": sum(s.domains for s in standings), "cases": cases},
    )
    for standing in standings:
        if standing.found is not None:
            best = min(upper, standing.found.margin)
            return replace(
                base,
                status=Status.REFUTED,
                counterexample=standing.found,
                margin=Margin(lower, best),
                reason="an input in the region has an unsafe output, computed by onnxruntime",
            )
    if everywhere and all(s.proved for s in standings):
        return replace(base, status=Status.PROVED, reason=f"the margin is at least {lower:.6g} on the whole region")
    if budget.spent:
        return replace(
            base, status=Status.TIMEOUT, reason="the time was up before a proof or a counterexample was found"
        )
    ends = [s.searched for s in standings if s.searched is not None]
    if ended := next((end.reason for end in ends if end.reason), ""):
        return replace(base, reason=f"the margin's proven bound is {lower:.6g}: {ended}")
    reason = f"the margin's proven bound is {lower:.6g}, not above zero, and no counterexample was found"
    return replace(base, reason=reason)


def _second_opinion(network: Network, standings: list[_Standing]) -> Mapping[str, Any]:
    """auto_LiRPA's bounds of the same atoms beside ours.

    Raises Contradiction: it excludes what we prove, or what a counterexample attains (and the other way round).
    """
    from leaktight.verify.bounds.second_opinion import compare

    return compare(
        network, [(s.case, s.atoms) for s in standings], min((s.attained for s in standings), default=torch.inf)
    )


def origin(network: Network) -> dict[str, str | None]:
    source = network.source
    return {"path": source.path if source else None, "sha256": source.sha256 if source else None}
