"""Certified radii of a group of inputs: by bounds, all together; by Lipschitz constants; by complete answers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from leaktight.errors import UnsupportedOperator
from leaktight.verify.budget import Budget
from leaktight.verify.device import CPU
from leaktight.verify.inputs import Group
from leaktight.verify.lipschitz.anchored import anchored_radius
from leaktight.verify.prove import atom_bounds
from leaktight.verify.radius import Radius, close_in, distance
from leaktight.verify.verdict import Verdict

_STEPS = 10  # of bisection: a thousandth of epsilon
_PART = 1 / 1024


def find_radii(group: Group, budget: Budget) -> None:
    """Gives the group's inputs radii up to its epsilon, by bisection to a thousandth of it; zero where nothing is
    proven. Each way has a share of the time. Raises KeyboardInterrupt: `group.radii` hold what was found by then."""
    low = [group.epsilon if holds else 0.0 for holds in (group.proved & group.correct).tolist()]
    group.radii = [Radius(known, _reached(group, i)) for i, known in enumerate(low)]
    ways = (_by_bounds, *((_by_constants,) if group.question.anchors else ()))
    after = len(ways) - 1 + group.question.complete
    for way in ways:
        way(group, replace(budget, deadline=budget.share(1 + after)))
        after -= 1
    if group.question.complete:
        _by_answers(group, budget)


def _reached(group: Group, i: int) -> float | None:
    """How far a known counterexample is from its input."""
    example = group.examples[i]
    return None if example is None else distance(group.question.norm, group.inputs[i], example)


def _learn(group: Group, low: Tensor) -> None:
    group.radii = [
        replace(known, proven=max(known.proven, found)) for known, found in zip(group.radii, low.tolist(), strict=True)
    ]


def _by_bounds(group: Group, budget: Budget) -> None:
    """Radii that bounds alone prove, all inputs together."""
    question, epsilon = group.question, group.epsilon
    high = torch.full((len(group.inputs),), epsilon, dtype=torch.float64).masked_fill(~group.correct, 0.0)
    low = torch.where(group.proved, high, 0.0)
    for _ in range(_STEPS):
        index = ((high - low) > epsilon * _PART).nonzero().flatten()
        if not len(index) or budget.spent:
            break
        middle = (low[index] + high[index]) / 2
        case = question.case(group.inputs[index], group.labels[index], middle)
        holds = case.unsafe.proved(atom_bounds(question.network, case, question.stages[-1], budget))
        low[index], high[index] = torch.where(holds, middle, low[index]), torch.where(holds, high[index], middle)
        _learn(group, low)


def _by_constants(group: Group, budget: Budget) -> None:
    """The radii, larger where the Lipschitz constants of the margins prove more than linear bounds do.

    Their ball is the whole one, not cut with the range of values: what holds on it holds on the part.
    """
    low = torch.tensor([known.proven for known in group.radii], dtype=torch.float64)
    for i in (group.correct & (low < group.epsilon)).nonzero().flatten().tolist():
        if budget.spent:
            break
        try:
            with CPU.at_work():
                anchored = anchored_radius(
                    CPU.of(group.question.network),
                    CPU.of(group.inputs[i]),
                    int(group.labels[i]),
                    largest=group.epsilon,
                    known=float(low[i]),
                    deadline=budget.deadline,
                    memory=budget.memory,
                )
        except UnsupportedOperator:  # no sectors, or too large: the linear bounds have to do
            break
        low[i] = max(float(low[i]), anchored.radius)
        _learn(group, low)


def _by_answers(group: Group, budget: Budget) -> None:
    """What is proven and what is refuted close in on each other, input by input."""
    for i in group.correct.nonzero().flatten().tolist():
        if budget.spent:
            break
        ask = partial(_answer, group, i, budget.share(len(group.inputs) - i))
        measure = partial(distance, group.question.norm, group.inputs[i])
        group.radii[i] = close_in(ask, group.radii[i], group.epsilon, group.epsilon * _PART, measure)


def _answer(group: Group, i: int, deadline: float | None, epsilon: float) -> Verdict:
    """Raises KeyboardInterrupt: the user ended it."""
    found = group.question.ask(*group.single(i), deadline, epsilon)
    if found.interrupted:
        raise KeyboardInterrupt
    return found
