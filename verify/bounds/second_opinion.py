"""The cross-check: auto_LiRPA's bounds beside ours, and whether they can both be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import Contradiction
from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.bounds import auto_lirpa
from leaktight.verify.bounds.engine import lower_bounds

# auto_LiRPA bounds no rounding; differences below this (relative to the numbers' size) are taken for rounding.
_TOLERANCE = 1e-4


def compare(network: Network, cases: Sequence[tuple[Case, Tensor]], attained: float) -> dict[str, Any]:
    """Both tools' proven margins, as a report for the verdict.

    Each tool encloses every atom ``c . y - d`` in an interval; two intervals that do not meet cannot both be right, and
    neither can one whose lower end is above a margin that some input attains.

    Raises Contradiction: with both numbers.
    """
    margins = []
    for case, atoms in cases:
        theirs = _interval(network, case, atoms)
        _must_meet(case, atoms, network, *theirs)
        margins.append(float(case.unsafe.combine(theirs[0]).amin()))
    lower = min(margins)
    if lower > attained + _TOLERANCE * (1 + abs(attained)):
        raise Contradiction(f"auto_LiRPA's lower bound of the margin is {lower!r}, but an input attains {attained!r}")
    return {
        "engine": "auto-lirpa",
        "version": auto_lirpa.available(),
        "method": "crown",
        "margin": {"lower": lower},
        "agrees": True,
    }


def _interval(network: Network, case: Case, atoms: Tensor) -> tuple[Tensor, Tensor]:
    weights = case.unsafe.weights.expand(len(atoms), -1, -1)
    found = auto_lirpa.lower_bounds(network, case.region, torch.cat([weights, -weights], 1), method="crown").double()
    count = atoms.shape[1]
    return found[:, :count] - case.unsafe.bounds, -found[:, count:] - case.unsafe.bounds


def _must_meet(case: Case, atoms: Tensor, network: Network, lower: Tensor, upper: Tensor) -> None:
    weights = case.unsafe.weights.expand(len(atoms), -1, -1)
    ours_upper = -lower_bounds(network, case.region, -weights, engine="crown") - case.unsafe.bounds
    for mine, other, who in (
        (atoms, upper, "leaktight's lower bound {} is above auto_LiRPA's upper bound {}"),
        (lower, ours_upper, "auto_LiRPA's lower bound {} is above leaktight's upper bound {}"),
    ):
        beyond = mine > other + _TOLERANCE * (1 + mine.abs() + other.abs())
        if beyond.any():
            at = tuple(beyond.nonzero()[0].tolist())
            raise Contradiction(
                f"output condition {at[1] + 1}: " + who.format(repr(float(mine[at])), repr(float(other[at])))
            )
