"""The smallest slope at which a property is refuted: candidates from below, each replayed in the file's own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nextafter
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak.attack import search
from leaktight.verify.leak.attained import Lowest
from leaktight.verify.leak.curve import proved_up_to
from leaktight.verify.leak.plan import LIGHT, Plan
from leaktight.verify.leak.refuted import refuted
from leaktight.verify.leak.traced import Traced
from leaktight.verify.verdict import Counterexample

_HALVINGS = 6
_RUNGS = tuple(10.0**-k for k in range(6, -1, -1))  # parts of the lowest margin of a curve


Candidate = tuple[float, float, Tensor]
"""A slope, what an input attains there, and the input."""


@dataclass(frozen=True)
class Refuted:
    """A slope, exactly as float32 holds it, and an input that is unsafe when the file has this slope."""

    slope: float
    counterexample: Counterexample

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, **self.counterexample.to_json()}


def first_refuted(
    slopes: Slopes, case: Case, found: Sequence[Traced], within: tuple[float, float], plan: Plan
) -> list[Refuted | None]:
    """For each region the smallest slope found at which a replayed input refutes the case; None where there is none.

    Starts from what the curve attained below zero, and looks between what is proven and there, halving.
    Raises UsageError: the network has no file to set a slope in.
    """
    candidates = [sorted((a, upper, x) for a, (upper, x) in one.attained.items() if upper < 0) for one in found]
    unsafe = [i for i, own in enumerate(candidates) if own]
    if not unsafe:
        return [None] * len(found)
    tries = [_clearer(own) for own in candidates]
    for i, a, upper, x in _searched(slopes, case, found, candidates, unsafe, within, plan):
        tries[i].insert(0, (a, upper, x))
    answers: list[Refuted | None] = [None] * len(found)
    for attempt in range(max(map(len, tries))):
        waiting = [i for i in unsafe if answers[i] is None and attempt < len(tries[i])]
        if not waiting or (attempt and plan.late):
            break
        tried = [tries[i][attempt] for i in waiting]
        index = torch.tensor(waiting)
        lo, hi = _after_proved(found, waiting, within), torch.full((len(waiting),), within[1], dtype=torch.float64)
        points = Lowest(torch.stack([x for _, _, x in tried]), _column(tried, 0), _column(tried, 1))
        confirmed = refuted(slopes, Case(case.region.select(index), case.unsafe.select(index)), points, lo, hi)
        for i, example in zip(waiting, confirmed, strict=True):
            answers[i] = None if example is None else Refuted(*example)
    return answers


def _clearer(own: Sequence[Candidate]) -> list[Candidate]:
    """The candidate with the smallest slope, and the first ones whose margins are ever further below zero.

    The file's runtime computes in float32, where a margin next to zero may come out on its other side.
    """
    if not own:
        return []
    deepest = min(upper for _, upper, _ in own)
    places = [next(k for k, (_, upper, _) in enumerate(own) if upper <= rung * deepest) for rung in _RUNGS]
    return [own[k] for k in sorted({0, *places})]


def _after_proved(found: Sequence[Traced], regions: Sequence[int], within: tuple[float, float]) -> Tensor:
    """The smallest slopes that are worth replaying: a float32 next to a candidate may be one that is proved."""
    ends = [proved_up_to(found[i].segments) for i in regions]
    first = [within[0] if a is None else nextafter(a, inf) for a in ends]
    return torch.tensor(first, dtype=torch.float64)


def _column(candidates: Sequence[Candidate], place: int) -> Tensor:
    return torch.tensor([candidate[place] for candidate in candidates], dtype=torch.float64)


def _searched(
    slopes: Slopes,
    case: Case,
    found: Sequence[Traced],
    candidates: Sequence[Sequence[Candidate]],
    unsafe: Sequence[int],
    within: tuple[float, float],
    plan: Plan,
) -> list[tuple[int, float, float, Tensor]]:
    """Unsafe inputs at smaller slopes than the candidates', by halving what lies between them and what is proven."""
    between = [i for i in unsafe if candidates[i][0][0] > within[0]]
    if not between:
        return []
    index = torch.tensor(between)
    part = Case(case.region.select(index), case.unsafe.select(index))
    proved = [proved_up_to(found[i].segments) for i in between]
    low = torch.tensor([within[0] if a is None else a for a in proved], dtype=torch.float64)
    high = torch.tensor([candidates[i][0][0] for i in between], dtype=torch.float64)
    starts = torch.stack([candidates[i][0][2] for i in between]).unsqueeze(0)
    better: dict[int, tuple[int, float, float, Tensor]] = {}
    for _ in range(_HALVINGS):
        if plan.late:
            break
        middle = low / 2 + high / 2
        tried = search(slopes, part, low, middle, starts=starts, **LIGHT, seed=plan.seed, deadline=plan.deadline)
        hit = tried.upper < 0
        for place in hit.nonzero().flatten().tolist():
            a = float(tried.slopes[place])
            better[between[place]] = (between[place], a, float(tried.upper[place]), tried.points[place])
        high, low = torch.where(hit, torch.minimum(tried.slopes, middle), high), torch.where(hit, low, middle)
    return list(better.values())
