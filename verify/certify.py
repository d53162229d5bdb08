"""Certification of labelled inputs: for each, does its label win on the whole ball around it, and how far out?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, misclassified
from leaktight.specs.region import Norm, ball
from leaktight.verify.prove import AUTO, BRANCH, MILP, SECOND_OPINION, Budget, atom_bounds, engine_names, proves
from leaktight.verify.search.refute import refute_each
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status

# Inputs are bounded together in groups of this size: large enough to be fast, small enough to show progress.
_GROUP = 64
Certified = Callable[[int, int], None]


@dataclass(frozen=True)
class InputResult:
    """What was found for one labelled input. `radius`: proven; None unless radii were asked for."""

    index: int
    label: int
    predicted: int
    status: Status
    margin: Margin
    seconds: float
    radius: float | None = None
    counterexample: Counterexample | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "status": self.status.value,
            "margin": self.margin.to_json(),
            "radius": self.radius,
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

    def case(self, inputs: Tensor, labels: Tensor, epsilon: float | Tensor) -> Case:
        return Case(ball(inputs, epsilon, self.norm, self.clip), misclassified(labels, self.network.output_size))

    def limited(self, inputs: int) -> Budget:
        """The budget of a group: the time limit of each input, all together."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout * inputs
        return replace(self.budget, deadline=deadline)


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
    is misclassified as it stands is refuted, with itself as the counterexample. With `radius`, a proven radius is
    found for each input by bisection, no larger than `epsilon`.

    Args: norm, clip: the ball is ``|x' - x| <= epsilon`` in `norm`, cut with ``clip[0] <= x' <= clip[1]``. timeout:
    seconds for each input. progress: called with the numbers of inputs done and of all.
    Raises: PropertyError: a label, epsilon or input is not allowed. UsageError: an engine or limit is not allowed.
    """
    began = time.monotonic()
    usable = [name for name in engine_names() if name not in (SECOND_OPINION, BRANCH, MILP)]
    if engine not in usable:
        allowed = ", ".join(usable)
        raise UsageError(f"engine {engine!r} cannot certify data; allowed: {allowed}")
    chosen = Norm.named(norm)
    question = _Question(
        network,
        chosen,
        clip,
        ("crown", "alpha-crown") if engine == AUTO else (engine,),
        Budget.starting_now(timeout, dtype, memory, seed),
        timeout,
        Replay(network),
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
    radii = _radii(question, inputs, labels, epsilon, proved, predicted == labels) if radius else None
    share = (time.monotonic() - began) / len(inputs)
    return [
        InputResult(
            first + i,
            int(labels[i]),
            int(predicted[i]),
            _status(bool(proved[i]), examples[i], budget),
            Margin(float(margins[i]), float(upper[i])),
            share,
            None if radii is None else float(radii[i]),
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


def _attacked(
    question: _Question, case: Case, index: Tensor, budget: Budget
) -> list[tuple[int, Counterexample | None, float]]:
    if not len(index):
        return []
    some = Case(case.region.select(index), case.unsafe.select(index))
    found = refute_each(question.network, some, seed=budget.seed, deadline=budget.deadline, replay=question.replay)
    return list(zip(index.tolist(), found.counterexamples, found.margins.tolist(), strict=True))


def _radii(
    question: _Question, inputs: Tensor, labels: Tensor, epsilon: float, proved: Tensor, correct: Tensor
) -> Tensor:
    """Proven radii up to `epsilon`, ``(batch,)``, by bisection to a thousandth of it; 0 where nothing is proven."""
    high = torch.full((len(inputs),), epsilon, dtype=torch.float64)
    low = torch.where(proved, high, 0.0)
    low[~correct], high[~correct] = 0.0, 0.0
    budget = question.limited(len(inputs))
    for _ in range(10):
        index = ((high - low) > epsilon / 1024).nonzero().flatten()
        if not len(index) or budget.spent:
            break
        middle = (low[index] + high[index]) / 2
        case = question.case(inputs[index], labels[index], middle)
        holds = proves(case, atom_bounds(question.network, case, question.stages[-1], budget))
        low[index], high[index] = torch.where(holds, middle, low[index]), torch.where(holds, high[index], middle)
    return low
