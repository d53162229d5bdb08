"""Certification of labelled inputs: for each, does its label win on the whole ball around it, and how far out?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UnsupportedOperator, UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property, misclassified
from leaktight.specs.region import Norm, ball
from leaktight.verify.lipschitz.anchored import anchored_radius
from leaktight.verify.prove import (
    AUTO,
    BRANCH,
    MILP,
    SECOND_OPINION,
    STAGES,
    Budget,
    atom_bounds,
    engine_names,
    prove,
)
from leaktight.verify.radius import Radius, close_in, distance
from leaktight.verify.search.bisect import proves
from leaktight.verify.search.refute import refute_each
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status, Verdict

# Inputs are bounded together in groups of this size: large enough to be fast, small enough to show progress.
_GROUP = 64
LIGHT = 1e6  # what attacks may cost that follow a thorough one on the same input
Certified = Callable[[int, int], None]


@dataclass(frozen=True)
class InputResult:
    """What was found for one labelled input.

    `radius`: proven; `refuted_radius`: a counterexample lies within it; both None unless radii were asked for.
    """

    index: int
    label: int
    predicted: int
    status: Status
    margin: Margin
    seconds: float
    radius: float | None = None
    refuted_radius: float | None = None
    counterexample: Counterexample | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "status": self.status.value,
            "margin": self.margin.to_json(),
            "radius": self.radius,
            "refuted_radius": self.refuted_radius,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True)
class Certification:
    """The results of all inputs; JSON schema leaktight.certification/1."""

    inputs: Sequence[InputResult]
    epsilon: float
    norm: Norm
    engine: str
    seconds: float
    network: Mapping[str, str | None] = field(default_factory=dict)
    data: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def accuracy(self) -> dict[str, float]:
        """Shares of all inputs: classified as labelled, proved on the whole ball, and not refuted by the attack."""
        total = max(1, len(self.inputs))
        return {
            "clean": sum(r.predicted == r.label for r in self.inputs) / total,
            "certified": sum(r.status is Status.PROVED for r in self.inputs) / total,
            "attacked": sum(r.status is not Status.REFUTED for r in self.inputs) / total,
        }

    @property
    def status(self) -> Status:
        """The worst answer among the inputs."""
        return Status.worst([r.status for r in self.inputs])

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        return {
            "schema": "leaktight.certification/1",
            "inputs": [r.to_json() for r in self.inputs],
            "accuracy": self.accuracy,
            "epsilon": self.epsilon,
            "norm": self.norm.value,
            "engine": self.engine,
            "guarantee": Guarantee.REAL.value,
            "seconds": round(self.seconds, 6),
            "network": dict(self.network),
            "data": dict(self.data),
            "version": __version__,
        }


@dataclass(frozen=True)
class _Question:
    network: Network
    norm: Norm
    clip: tuple[float, float] | None
    stages: tuple[str, ...]
    budget: Budget
    timeout: float | None
    replay: Replay
    complete: str | None  # the engine that decides one input at a time; None: bounds have to do

    def case(self, inputs: Tensor, labels: Tensor, epsilon: float | Tensor) -> Case:
        return Case(ball(inputs, epsilon, self.norm, self.clip), misclassified(labels, self.network.output_size))

    @property
    def anchors(self) -> bool:
        """Whether constants of margins may beat linear bounds: in L2, if no single engine was asked for."""
        return self.norm is Norm.L2 and len(self.stages) > 1

    def limited(self, inputs: int) -> Budget:
        """The budget of a group: the time limit of each input, all together."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout * inputs
        return replace(self.budget, deadline=deadline)

    def ask(self, x: Tensor, label: Tensor, deadline: float | None, epsilon: float) -> Verdict:
        """A complete answer for one input ``(1, n)``."""
        return prove(
            self.network,
            Property((self.case(x, label, epsilon),)),
            engine=self.complete or AUTO,
            timeout=None if deadline is None else max(deadline - time.monotonic(), 1e-3),
            dtype=self.budget.dtype,
            memory=self.budget.memory,
            seed=self.budget.seed,
            effort=LIGHT,
        )


def certify(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
    engine: str = AUTO,
    radius: bool = False,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
    progress: Certified | None = None,
) -> Certification:
    """Proves or refutes, for every labelled input, that its label scores strictly highest within `epsilon` of it.

    inputs ``(batch, ...)`` in the data's units (see `leaktight.models.normalise`), labels ``(batch,)``. An input that
    is misclassified as it stands is refuted, with itself as the counterexample. With `radius`, a proven radius is found
    for each input by bisection, no larger than `epsilon`, and one that a counterexample refutes. With ``auto`` and the
    norm 2, Lipschitz constants of the margins prove radii too (leaktight.verify.lipschitz.anchored).

    What bounds leave open is decided by a complete search, one input at a time, where `engine` is "branch" or "milp",
    and for "auto" where a `timeout` limits it.

    Args: norm, clip: the ball is ``|x' - x| <= epsilon`` in `norm`, cut with ``clip[0] <= x' <= clip[1]``. timeout:
    seconds for each input. progress: called with the numbers of inputs done and of all.
    Raises: PropertyError: a label, epsilon or input is not allowed. UsageError: an engine or limit is not allowed.
    """
    began = time.monotonic()
    usable = [name for name in engine_names() if name != SECOND_OPINION]
    if engine not in usable:
        allowed = ", ".join(usable)
        raise UsageError(f"engine {engine!r} cannot certify data; allowed: {allowed}")
    chosen = Norm.named(norm)
    question = _Question(
        network,
        chosen,
        clip,
        STAGES[AUTO] if engine in (BRANCH, MILP) else STAGES.get(engine, (engine,)),
        Budget.starting_now(timeout, dtype, memory, seed),
        timeout,
        Replay(network),
        engine if engine in (BRANCH, MILP) or (engine == AUTO and timeout is not None) else None,
    )
    flat = inputs.double().flatten(1)
    ball(flat, epsilon, chosen, clip)  # refuse a bad epsilon or input before any work
    misclassified(labels, network.output_size)
    results: list[InputResult] = []
    for start in range(0, len(flat), _GROUP):
        part = slice(start, min(len(flat), start + _GROUP))
        results += _group(question, flat[part], labels[part], epsilon, start, radius)
        if progress:
            progress(len(results), len(flat))
    source = network.source
    return Certification(
        results,
        epsilon,
        chosen,
        engine,
        time.monotonic() - began,
        {"path": source.path if source else None, "sha256": source.sha256 if source else None},
    )


def _group(
    question: _Question, inputs: Tensor, labels: Tensor, epsilon: float, first: int, radius: bool
) -> list[InputResult]:
    began = time.monotonic()
    scores = question.network.flat(inputs)
    predicted = scores.argmax(1)
    case = question.case(inputs, labels, epsilon)
    budget = question.limited(len(inputs))
    margins = torch.full((len(inputs),), -torch.inf, dtype=torch.float64)
    proved = torch.zeros(len(inputs), dtype=torch.bool)
    upper = case.unsafe.margin(scores)
    examples: list[Counterexample | None] = [None] * len(inputs)
    first_stage, *more = question.stages
    _prove_open(question, case, first_stage, budget, margins, proved)
    for i in ((predicted != labels) & ~proved).nonzero().flatten().tolist():
        single = Case(case.region.select(slice(i, i + 1)), case.unsafe.select(slice(i, i + 1)))
        examples[i] = confirm(question.network, single, inputs[i : i + 1], question.replay)
    left = torch.tensor([example is None for example in examples]) & ~proved
    for i, found, low in _attacked(question, case, left.nonzero().flatten(), budget):
        examples[i], upper[i] = found, min(float(upper[i]), low)
    refuted = torch.tensor([example is not None for example in examples])
    for stage in more:
        if not budget.spent:
            _prove_open(question, case, stage, budget, margins, proved, skip=refuted)
    if question.complete is not None:
        _decide_open(question, inputs, labels, epsilon, budget, margins, upper, proved, examples)
    radii = _radii(question, inputs, labels, epsilon, proved, predicted == labels, examples) if radius else None
    share = (time.monotonic() - began) / len(inputs)
    return [
        InputResult(
            first + i,
            int(labels[i]),
            int(predicted[i]),
            _status(bool(proved[i]), examples[i], budget),
            Margin(float(margins[i]), float(upper[i])),
            share,
            None if radii is None else radii[i].proven,
            None if radii is None else radii[i].refuted,
            examples[i],
        )
        for i in range(len(inputs))
    ]


def _status(proved: bool, example: Counterexample | None, budget: Budget) -> Status:
    if proved:
        return Status.PROVED
    if example is not None:
        return Status.REFUTED
    return Status.TIMEOUT if budget.spent else Status.UNKNOWN


def _prove_open(
    question: _Question,
    case: Case,
    stage: str,
    budget: Budget,
    margins: Tensor,
    proved: Tensor,
    skip: Tensor | None = None,
) -> None:
    """Raises `margins` and marks `proved`, both in place, by bounding the regions that are still open."""
    left = ~proved if skip is None else ~proved & ~skip
    index = left.nonzero().flatten()
    if not len(index):
        return
    some = Case(case.region.select(index), case.unsafe.select(index))
    atoms = atom_bounds(question.network, some, stage, budget)
    margins[index] = torch.maximum(margins[index], some.unsafe.combine(atoms))
    proved[index] = proves(some, atoms)


def _decide_open(
    question: _Question,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    budget: Budget,
    margins: Tensor,
    upper: Tensor,
    proved: Tensor,
    examples: list[Counterexample | None],
) -> None:
    """Asks for a complete answer where there is none; all but `inputs` and `labels` are changed in place."""
    waiting = [i for i in range(len(inputs)) if not proved[i] and examples[i] is None]
    for number, i in enumerate(waiting):
        if budget.spent:
            return
        answer = question.ask(inputs[i : i + 1], labels[i : i + 1], budget.share(len(waiting) - number), epsilon)
        examples[i], proved[i] = answer.counterexample, answer.status is Status.PROVED
        margins[i] = max(float(margins[i]), -torch.inf if answer.margin.lower is None else answer.margin.lower)
        upper[i] = min(float(upper[i]), torch.inf if answer.margin.upper is None else answer.margin.upper)


def _attacked(
    question: _Question, case: Case, index: Tensor, budget: Budget
) -> list[tuple[int, Counterexample | None, float]]:
    if not len(index):
        return []
    some = Case(case.region.select(index), case.unsafe.select(index))
    found = refute_each(question.network, some, seed=budget.seed, deadline=budget.deadline, replay=question.replay)
    return list(zip(index.tolist(), found.counterexamples, found.margins.tolist(), strict=True))


def _radii(
    question: _Question,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    proved: Tensor,
    correct: Tensor,
    examples: list[Counterexample | None],
) -> list[Radius]:
    """Radii up to `epsilon`, by bisection to a thousandth of it; zero where nothing is proven."""
    budget = question.limited(len(inputs))
    low = _bounded_radii(question, inputs, labels, epsilon, proved, correct, budget)
    if question.anchors:
        low = _anchored(question, inputs, labels, epsilon, low, correct)
    found = []
    for i, example in enumerate(examples):
        measure = partial(distance, question.norm, inputs[i])
        known = Radius(float(low[i]), None if example is None else measure(example))
        if question.complete is not None and bool(correct[i]):
            ask = partial(question.ask, inputs[i : i + 1], labels[i : i + 1], budget.share(len(examples) - i))
            largest = epsilon if not budget.spent else known.proven
            known = close_in(ask, known, largest, epsilon / 1024, measure)
        found.append(known)
    return found


def _bounded_radii(
    question: _Question,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    proved: Tensor,
    correct: Tensor,
    budget: Budget,
) -> Tensor:
    """Radii ``(batch,)`` that bounds alone prove, all inputs together."""
    high = torch.full((len(inputs),), epsilon, dtype=torch.float64)
    low = torch.where(proved, high, 0.0)
    low[~correct], high[~correct] = 0.0, 0.0
    for _ in range(10):
        index = ((high - low) > epsilon / 1024).nonzero().flatten()
        if not len(index) or budget.spent:
            break
        middle = (low[index] + high[index]) / 2
        case = question.case(inputs[index], labels[index], middle)
        holds = proves(case, atom_bounds(question.network, case, question.stages[-1], budget))
        low[index], high[index] = torch.where(holds, middle, low[index]), torch.where(holds, high[index], middle)
    return low


def _anchored(
    question: _Question, inputs: Tensor, labels: Tensor, epsilon: float, radii: Tensor, correct: Tensor
) -> Tensor:
    """The radii, larger where the Lipschitz constants of the margins prove more than linear bounds do.

    Their ball is the whole one, not cut with `clip`: what holds on it holds on the part.
    """
    budget, found = question.limited(len(inputs)), radii.clone()
    for i in (correct & (radii < epsilon)).nonzero().flatten().tolist():
        if budget.spent:
            break
        known = float(radii[i])
        try:
            anchored = anchored_radius(
                question.network,
                inputs[i],
                int(labels[i]),
                largest=epsilon,
                known=known,
                deadline=budget.deadline,
                memory=budget.memory,
            )
        except UnsupportedOperator:  # no sectors, or too large: the linear bounds have to do
            break
        found[i] = max(known, anchored.radius)
    return found
