"""Labelled inputs that are bounded, attacked and decided in groups, and what is known of each at any time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.branching import AUTO, BRANCH, MILP
from leaktight.verify.budget import Budget
from leaktight.verify.certification import InputResult
from leaktight.verify.prove import STAGES, atom_bounds, prove
from leaktight.verify.radius import Radius
from leaktight.verify.search.refute import refute_each
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample, Margin, Status, Verdict

LIGHT = 1e6  # what attacks may cost that follow a thorough one on the same input


@dataclass(frozen=True)
class Question:
    """What is asked of every input, and how. timeout: seconds for each."""

    network: Network
    norm: Norm
    clip: tuple[float, float] | None
    engine: str
    budget: Budget
    timeout: float | None
    replay: Replay

    @property
    def stages(self) -> tuple[str, ...]:
        """The bounds that are tried on all inputs of a group together."""
        return STAGES[AUTO] if self.engine in (BRANCH, MILP) else STAGES.get(self.engine, (self.engine,))

    @property
    def complete(self) -> bool:
        """Whether each input that bounds leave open is decided by a complete search."""
        return self.engine in (BRANCH, MILP) or (self.engine == AUTO and self.timeout is not None)

    @property
    def anchors(self) -> bool:
        """Whether constants of margins may beat linear bounds: in L2, if no single engine was asked for."""
        return self.norm is Norm.L2 and len(self.stages) > 1

    def case(self, inputs: Tensor, labels: Tensor, epsilon: float | Tensor) -> Case:
        return Case(ball(inputs, epsilon, self.norm, self.clip), misclassified(labels, self.network.output_size))

    def limited(self, inputs: int) -> Budget:
        """The budget of a group, from now on: the time limit of each input, all together."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout * inputs
        return replace(self.budget, deadline=deadline)

    def ask(self, x: Tensor, label: Tensor, deadline: float | None, epsilon: float) -> Verdict:
        """A complete answer for one input ``(1, n)``."""
        return prove(
            self.network,
            Property((self.case(x, label, epsilon),)),
            engine=self.engine,
            timeout=None if deadline is None else max(deadline - time.monotonic(), 1e-3),
            dtype=self.budget.dtype,
            memory=self.budget.memory,
            seed=self.budget.seed,
            effort=LIGHT,
            device=self.budget.device,
        )


class Group:
    """What is known of some inputs ``(batch, n)``. Whenever it is interrupted, what is known by then holds."""

    def __init__(self, question: Question, inputs: Tensor, labels: Tensor, epsilon: float) -> None:
        self.question, self.inputs, self.labels, self.epsilon = question, inputs, labels, epsilon
        self.case = question.case(inputs, labels, epsilon)
        scores = question.network.flat(inputs)
        self.predicted = scores.argmax(1)
        self.upper = self.case.unsafe.margin(scores)
        self.margins = torch.full((len(inputs),), -torch.inf, dtype=torch.float64)
        self.proved = torch.zeros(len(inputs), dtype=torch.bool)
        self.examples: list[Counterexample | None] = [None] * len(inputs)
        self.late = False
        self.radii: list[Radius] = []  # one for each input, where they are asked for

    @property
    def correct(self) -> Tensor:
        return self.predicted == self.labels

    def single(self, i: int) -> tuple[Tensor, Tensor]:
        """One input and its label, as a batch."""
        return self.inputs[i : i + 1], self.labels[i : i + 1]

    def settle(self, budget: Budget) -> None:
        """Proves or refutes what it can within the budget. Raises KeyboardInterrupt: it was interrupted."""
        self.late = True  # until it comes to its end
        first, *more = self.question.stages
        self._bound(first, budget)
        self._replay_mistakes()
        self._attack(budget)
        for stage in more:
            if not budget.spent:
                self._bound(stage, budget)
        if self.question.complete:
            self._decide(budget)
        self.late = budget.spent

    @property
    def _open(self) -> Tensor:
        """The places of the inputs that are neither proved nor refuted."""
        refuted = torch.tensor([example is not None for example in self.examples])
        return (~self.proved & ~refuted).nonzero().flatten()

    def _bound(self, stage: str, budget: Budget) -> None:
        index = self._open
        if len(index):
            some = self.case.select(index)
            atoms = atom_bounds(self.question.network, some, stage, budget)
            self.margins[index] = torch.maximum(self.margins[index], some.unsafe.combine(atoms))
            self.proved[index] = some.unsafe.proved(atoms)

    def _replay_mistakes(self) -> None:
        """An input that is misclassified as it stands is its own counterexample."""
        for i in (~self.correct & ~self.proved).nonzero().flatten().tolist():
            part = slice(i, i + 1)
            one = self.case.select(part)
            self.examples[i] = confirm(self.question.network, one, self.inputs[part], self.question.replay)

    def _attack(self, budget: Budget) -> None:
        index = self._open
        if not len(index):
            return
        some = self.case.select(index)
        network, replay = self.question.network, self.question.replay
        found = refute_each(network, some, seed=budget.seed, deadline=budget.deadline, replay=replay)
        self.upper[index] = torch.minimum(self.upper[index], found.margins)
        for i, example in zip(index.tolist(), found.counterexamples, strict=True):
            self.examples[i] = example

    def _decide(self, budget: Budget) -> None:
        """Asks for a complete answer where there is none. Raises KeyboardInterrupt: the user ended one."""
        waiting = self._open.tolist()
        for number, i in enumerate(waiting):
            if budget.spent:
                return
            answer = self.question.ask(*self.single(i), budget.share(len(waiting) - number), self.epsilon)
            lower, upper = answer.margin.lower, answer.margin.upper
            self.examples[i], self.proved[i] = answer.counterexample, answer.status is Status.PROVED
            self.margins[i] = max(float(self.margins[i]), -torch.inf if lower is None else lower)
            self.upper[i] = min(float(self.upper[i]), torch.inf if upper is None else upper)
            if answer.interrupted:
                raise KeyboardInterrupt

    def results(self, first: int, seconds: float) -> list[InputResult]:
        """The results of the inputs, which are counted from `first`. seconds: what all of them took."""
        return [
            InputResult(
                first + i,
                int(self.labels[i]),
                int(self.predicted[i]),
                self._status(i),
                Margin(float(self.margins[i]), float(self.upper[i])),
                seconds / len(self.inputs),
                self.radii[i].proven if self.radii else None,
                self.radii[i].refuted if self.radii else None,
                self.examples[i],
            )
            for i in range(len(self.inputs))
        ]

    def _status(self, i: int) -> Status:
        if bool(self.proved[i]):
            return Status.PROVED
        if self.examples[i] is not None:
            return Status.REFUTED
        return Status.TIMEOUT if self.late else Status.UNKNOWN
