"""Branch and bound on the input decides what bounds alone leave open, and never wrongly."""

from __future__ import annotations

import pytest
import torch
from networks import build, fully_connected
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property, Unsafe
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.verify.prove import prove
from leaktight.verify.verdict import Status


def least(network: Network, region: Box, weights: Tensor) -> float:
    """Nearly the smallest value of ``max_j weights_j . y`` over a box of two inputs, by ever finer grids."""
    low, high = region.lower[0].clone(), region.upper[0].clone()
    best = torch.inf
    for _ in range(12):
        sides = [torch.linspace(float(a), float(b), 81, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*sides)
        values = (network.flat(grid) @ weights.mT).amax(1)
        best = min(best, float(values.min()))
        at, step = grid[values.argmin()], (high - low) / 20
        low, high = torch.maximum(at - step, region.lower[0]), torch.minimum(at + step, region.upper[0])
    return best


def question(seed: int, slope: float, atoms: int) -> tuple[Network, Box, Tensor]:
    network = fully_connected(seed, (2, 10, 10, 3), slope)
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(atoms, 3, generator=generator, dtype=torch.float64)
    return network, Box(centre - 1.5, centre + 1.5), weights


def property_of(region: Region, weights: Tensor, bound: float) -> Property:
    """Unsafe: every atom is at most `bound`, that is ``max_j w_j . y <= bound``."""
    unsafe = Unsafe(
        weights.unsqueeze(0),
        torch.full((1, len(weights)), bound, dtype=torch.float64),
        torch.zeros(len(weights)).long(),
    )
    return Property((Case(region, unsafe),))


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.1, 1.7])
@pytest.mark.parametrize("atoms", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_what_holds_by_little_is_proved_and_what_fails_by_little_is_refuted(
    seed: int, slope: float, atoms: int
) -> None:
    network, region, weights = question(seed, slope, atoms)
    edge = least(network, region, weights)
    gap = 2e-3 * (1 + abs(edge))
    held = prove(network, property_of(region, weights, edge - gap), timeout=60)
    assert held.status is Status.PROVED
    assert held.margin.lower is not None
    assert 0 < held.margin.lower <= gap * 1.01
    failed = prove(network, property_of(region, weights, edge + gap), timeout=60)
    assert failed.status is Status.REFUTED
    assert failed.margin.upper is not None
    assert failed.margin.upper <= 0


def test_bounds_alone_leave_open_what_halving_decides() -> None:
    network, region, weights = question(5, 0.1, 1)
    tight = property_of(region, weights, least(network, region, weights) - 5e-3)
    assert prove(network, tight, engine="alpha-crown").status is Status.UNKNOWN
    found = prove(network, tight, engine="branch")
    assert found.status is Status.PROVED
    assert found.statistics["domains"] > 1


def test_every_region_of_a_case_has_to_hold() -> None:
    network, region, weights = question(7, 0.1, 1)
    edge = least(network, region, weights)
    far = Box(region.upper + 1, region.upper + 1)  # one point
    both = Box(torch.cat([far.lower, region.lower]), torch.cat([far.upper, region.upper]))
    assert prove(network, property_of(both, weights, edge + 1e-2), engine="branch").status is Status.REFUTED
    low = min(edge, float((network.flat(far.lower) @ weights.mT).amin()))
    assert prove(network, property_of(both, weights, low - 1e-2), engine="branch").status is Status.PROVED


def test_time_ends_it_with_a_bound_that_holds() -> None:
    network, region, weights = question(5, 0.1, 1)
    edge = least(network, region, weights)
    found = prove(network, property_of(region, weights, edge - 1e-9), engine="branch", timeout=0.3)
    assert found.status in (Status.TIMEOUT, Status.PROVED)
    assert found.margin.lower is not None
    assert found.margin.lower <= 1e-6


def test_the_same_question_has_the_same_answer() -> None:
    network, region, weights = question(3, 0.1, 2)
    asked = property_of(region, weights, least(network, region, weights) - 1e-2)
    first, again = (prove(network, asked, engine="branch", seed=1) for _ in range(2))
    assert first.margin == again.margin
    assert first.statistics == again.statistics


def test_balls_are_refused_by_name() -> None:
    network, weights = build("smooth", 1), torch.ones(1, 3, dtype=torch.float64)
    round_one = ball(torch.zeros(1, 3, dtype=torch.float64), 1.0, Norm.L2)
    with pytest.raises(UsageError, match=r"branch.*halves boxes"):
        prove(network, property_of(round_one, weights, 0.0), engine="branch")
