"""Domains as linear programs: exact where every neuron's side is decided, else the best that relaxed neurons give.

What is proved rests on the multipliers that a solver proposes, judged by `Program.bound` with all rounding; what is
refuted, on the replay of the point that it proposes. The solver's own verdicts count for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.bounds.interval import Interval, propagate
from leaktight.verify.bounds.linear_program import Linearised, Program
from leaktight.verify.bounds.linear_rows import Floats
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.splits import Splits, cut, domain_bounds, empty, is_piecewise_linear, undecided_entries
from leaktight.verify.device import CPU
from leaktight.verify.search.membership import settle
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample, Status


@dataclass(frozen=True, eq=False)
class Decision:
    """What is known of one domain.

    `lower`: a proven bound of the margin over it; infinite where it holds no input. `status`: PROVED, REFUTED (`found`
    lies in the region, not always in the domain) or UNKNOWN. `exact`: no neuron was relaxed, so that unknown means a
    margin within rounding of zero. `point` ``(n,)``: where the relaxed margin is least; `attained`: the margin there.
    `values`: what the program gives the nodes there, by name ``(size,)``, and `influence`: how the margin moves with
    each, as its multipliers say.
    """

    status: Status
    lower: float
    exact: bool = False
    found: Counterexample | None = None
    point: Tensor | None = None
    attained: float = torch.inf
    values: Mapping[str, Tensor] | None = None
    influence: Mapping[str, Tensor] | None = None


def decide(
    network: Network,
    case: Case,
    splits: Splits,
    *,
    known: Mapping[str, Interval] | None = None,
    linear: Linearised | None = None,
    replay: Replay | None = None,
    deadline: float | None = None,
) -> Decision:
    """Decides a domain: the inputs of the case's (single) region for which the sides of neurons are as `splits` says.

    splits: by the name of a `TwoSlope` activation, int8 ``(size,)``: 1 where its argument is at or above the kink, -1
    at or below it, 0 undecided. known: bounds that hold on the domain (``(1, *shape)`` by node, float64), where there
    are any; they are narrowed by CROWN otherwise. linear: the network over the region, to share work between domains.

    PROVED: in real arithmetic the margin is above zero on the whole domain, or the domain is empty. REFUTED: the replay
    of `found` is unsafe. UNKNOWN: sides are undecided, the time is up, or the margin is within rounding of zero.
    Raises: UsageError: the region is an L2 ball.
    """
    with CPU.at_work():
        there = CPU.of((network, case, splits, known))
        return _decided(*there, linear, replay, deadline)


def _decided(
    network: Network,
    case: Case,
    splits: Splits,
    known: Mapping[str, Interval] | None,
    linear: Linearised | None,
    replay: Replay | None,
    deadline: float | None,
) -> Decision:
    from leaktight.verify.bounds.linear_solver import propose

    network = network.to(torch.float64) if network.dtype != torch.float64 else network
    sides = {name: side.reshape(1, -1) for name, side in splits.items()}
    if known is None:
        base = propagate(network, case.region)
        known = domain_bounds(network, case.region, base, sides, default_memory(), deadline)
    known = cut(network, known, sides)
    if bool(empty(known)[0]):
        return Decision(Status.PROVED, torch.inf, exact=True)
    linear = linear or Linearised(network, case.region, known)
    exact = is_piecewise_linear(network) and not any(
        bool(x.any()) for x in undecided_entries(network, known, sides).values()
    )
    answer = Decision(Status.PROVED, torch.inf, exact)
    for disjunct in range(case.unsafe.disjuncts):
        program = linear.least_margin(known, splits, case.unsafe, disjunct)
        left = None if deadline is None else deadline - time.monotonic()
        proposal = propose(program, left)
        if proposal.ray is not None and _excluded(program, proposal.ray):
            return Decision(Status.PROVED, torch.inf, exact)
        lower = -torch.inf if proposal.multipliers is None else program.bound(proposal.multipliers)
        strict = bool(case.unsafe.strict[case.unsafe.disjunct == disjunct].all())
        proved = lower > 0 or (strict and lower == 0)
        if lower < answer.lower:
            answer = replace(answer, lower=lower)
            if proposal.point is not None and proposal.multipliers is not None:
                answer = _at(network, case, linear, program, proposal.point, proposal.multipliers, answer)
        if not proved:
            answer = replace(answer, status=Status.UNKNOWN)
    return answer if answer.status is Status.PROVED else _replayed(network, case, answer, replay)


def _excluded(program: Program, ray: Floats) -> bool:
    """Whether the ray, of either sign, shows that no values satisfy the program: zero would be above zero."""
    nothing = 0 * program.cost
    return any(program.bound(sign * ray, cost=nothing) > 0 for sign in (1.0, -1.0))


def _at(
    network: Network,
    case: Case,
    linear: Linearised,
    program: Program,
    point: Floats,
    multipliers: Floats,
    answer: Decision,
) -> Decision:
    """The answer with the program's point, moved into the region, and the margin that it attains."""
    x = settle(network, case.region, torch.from_numpy(point[program.inputs]).unsqueeze(0))
    with torch.no_grad():
        attained = float(case.unsafe.margin(network.flat(x))[0])
    return replace(
        answer,
        point=x[0],
        attained=min(attained, answer.attained),
        values=linear.values(point),
        influence=linear.influence(multipliers),
    )


def _replayed(network: Network, case: Case, answer: Decision, replay: Replay | None) -> Decision:
    if answer.point is None or not answer.attained <= 1e-6 * (1 + abs(answer.lower)):
        return answer
    found = confirm(network, case, answer.point.unsqueeze(0), replay)
    if found is None:
        return answer
    return replace(answer, status=Status.REFUTED, found=found, attained=min(answer.attained, found.margin))
