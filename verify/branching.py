"""What to branch on where bounds do not decide: inputs, neurons, or neurons until linear programs do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Box, Norm, Region
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.budget import Budget
from leaktight.verify.search.activations import splittable
from leaktight.verify.search.attack import EFFORT
from leaktight.verify.search.bisect import FEW_INPUTS, Attack, bisect
from leaktight.verify.search.complete import check_exact, complete
from leaktight.verify.search.leaf import decide
from leaktight.verify.search.neurons import Leaf
from leaktight.verify.search.questions import whole_margin
from leaktight.verify.search.refute import refute
from leaktight.verify.search.replay import Replay, confirming
from leaktight.verify.search.stages import split
from leaktight.verify.standing import Standing
from leaktight.verify.verdict import Counterexample

AUTO, BRANCH, MILP = "auto", "branch", "milp"
# Multiplications and steps of the attacks that come before boxes are halved, soon after, and when it takes long.
ATTACKS: tuple[dict[str, Any], ...] = ({"effort": 5e7, "steps": 15}, {"effort": 2e8}, {"effort": EFFORT})
Progress = Callable[[str], None]
Branching = Callable[[Network, Standing, Budget, Replay, Progress], None]


def branching(network: Network, region: Region, engine: str) -> Branching | None:
    """What to branch on: inputs where they are few, neurons where all that bends can be split.

    Raises: what the engine that is asked for cannot do, by name: UsageError of regions, UnsupportedOperator of nodes.
    """
    if engine == MILP:
        check_exact(network, region)
        return by_programs
    if engine not in (AUTO, BRANCH):
        return None
    halving = isinstance(region, Box)
    if halving and region.size <= FEW_INPUTS:
        return halve
    if splittable(network):
        return split_neurons
    if engine == AUTO:
        return None
    if not halving:
        raise UsageError(
            "engine 'branch' splits neurons of piecewise linear activations or halves boxes; this network has other"
            " activations, and the property's region is a ball; use another engine"
        )
    return halve


def by_programs(network: Network, standing: Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Splits neurons until linear programs decide.

    Raises KeyboardInterrupt: as `Standing.conclude`.
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


def split_neurons(network: Network, standing: Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Branches on neurons until the case is settled, the time is up, or too many domains wait.

    Raises KeyboardInterrupt: as `Standing.conclude`.
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
            ground=standing.ground,
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


def halve(network: Network, standing: Standing, budget: Budget, replay: Replay, say: Progress) -> None:
    """Branches on the input until the case is settled, the time is up, or too many boxes wait.

    Raises KeyboardInterrupt: as `Standing.conclude`.
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
