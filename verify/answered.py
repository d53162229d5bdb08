"""A group of labelled inputs from question to results, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from leaktight.verify.certification import InputResult
from leaktight.verify.clock import alarm
from leaktight.verify.inputs import Group, Question
from leaktight.verify.radii import find_radii
from leaktight.verify.radius import Radius

# Inputs are bounded together in groups of this size: large enough to be fast, small enough to show progress.
GROUP = 64


def groups(count: int, size: int) -> Iterator[slice]:
    """So many inputs in parts of this size."""
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def answer_group(
    question: Question, inputs: Tensor, labels: Tensor, epsilon: float, first: int, *, radius: bool
) -> tuple[list[InputResult], bool]:
    """The results of a group, whose inputs are counted from `first`, and whether the user interrupted it.

    Where radii are asked for, half of the time is for them.
    """
    began, budget = time.monotonic(), question.limited(len(inputs))
    group, interrupted = Group(question, inputs, labels, epsilon), False
    group.radii = [Radius(0.0, None)] * len(inputs) if radius else []
    with alarm(budget.deadline) as clock:
        try:
            group.settle(replace(budget, deadline=budget.share(2)) if radius else budget)
            if radius:
                find_radii(group, budget)
        except KeyboardInterrupt:
            interrupted = not clock.rung
            group.late = group.late and clock.rung
    return group.results(first, time.monotonic() - began), interrupted


def unanswered(
    question: Question, inputs: Tensor, labels: Tensor, epsilon: float, first: int, *, radius: bool
) -> list[InputResult]:
    """Results of inputs, counted from `first`, of which nothing is known but what the network says of themselves."""
    found = list[InputResult]()
    for part in groups(len(inputs), GROUP):
        group = Group(question, inputs[part], labels[part], epsilon)
        group.radii = [Radius(0.0, None)] * len(group.inputs) if radius else []
        found += group.results(first + part.start, 0.0)
    return found
