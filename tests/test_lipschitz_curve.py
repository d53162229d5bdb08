"""The constant over slopes: proven between its corners, falling, exact at slope 1, close to solving anew."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from chains import Array, chain, random_weights, worst
from networks import build

import leaktight as lt
from leaktight.errors import UsageError

WEIGHTS = {2: random_weights([4, 8, 2], 0), 3: random_weights([4, 6, 6, 2], 1)}


def linear(weights: list[Array]) -> float:
    return float(np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2))


@pytest.mark.parametrize("depth", [2, 3])
def test_the_curve_lies_between_solving_anew_and_the_first_solve(depth: int) -> None:
    weights = WEIGHTS[depth]
    found = lt.lipschitz(chain(weights, 0.0), method="lipsdp", slopes=(0.0, 1.0))
    assert found.curve is not None
    assert [found.curve[0].lo, found.curve[-1].hi] == [0, 1]
    assert all(a.hi == b.lo for a, b in pairwise(found.curve))
    assert all(a.upper >= b.upper for a, b in pairwise(found.curve))
    assert found.curve[0].upper <= found.upper * (1 + 1e-9)
    for segment in (found.curve[2], found.curve[9]):
        for a in (segment.lo, (segment.lo + segment.hi) / 2):
            anew = lt.lipschitz(chain(weights, a), method="lipsdp").upper
            assert anew <= segment.upper * (1 + 1e-6)
            assert segment.upper <= 1.25 * anew
            assert segment.upper >= worst(weights, a, 2) if depth == 2 else True


def test_at_slope_one_the_curve_is_the_linear_map() -> None:
    for weights in WEIGHTS.values():
        found = lt.lipschitz(chain(weights, 0.3), method="lipsdp", slopes=(1.0, 1.0)).curve
        assert found is not None
        assert found[0].upper == pytest.approx(linear(weights), rel=1e-9)
        assert found[0].upper >= linear(weights) * (1 - 1e-14)


def test_one_hidden_layer_is_below_the_mixture_of_its_ends() -> None:
    """``f_a = (1 - a) f_0 + a f_1`` exactly, so the constant at ``a`` is at most the mixture of those at 0 and 1."""
    weights = WEIGHTS[2]
    at_zero = lt.lipschitz(chain(weights, 0.0), method="lipsdp").upper
    for a in (0.1, 0.5, 0.9):
        mixture = (1 - a) * at_zero + a * linear(weights)
        assert lt.lipschitz(chain(weights, a), method="lipsdp").upper <= mixture * (1 + 1e-7)


@pytest.mark.parametrize(("lo", "hi"), [(-1.0, 0.5), (0.5, 2.0), (1.5, 3.0)])
def test_slopes_outside_of_the_unit_interval_are_covered_too(lo: float, hi: float) -> None:
    weights = random_weights([3, 5, 4, 2], 5)
    found = lt.lipschitz(chain(weights, 0.1), method="fast", slopes=(lo, hi)).curve
    assert found is not None
    for segment in found[::5]:
        for a in (segment.lo, segment.hi):
            assert segment.upper >= worst(weights, a, 2) * (1 - 1e-13)


@pytest.mark.parametrize("kind", ["scaled", "branches", "residual"])
def test_curves_of_other_graphs_hold_for_the_networks_that_they_speak_of(kind: str) -> None:
    from leaktight.models.slopes import Slopes

    network = build(kind, 1)
    found = lt.lipschitz(network, method="fast", slopes=(0.0, 0.5)).curve
    assert found is not None
    for segment in found[::7]:
        for a in (segment.lo, segment.hi):
            lower = lt.lipschitz(Slopes.of(network).at(a), method="fast").lower
            assert lower is not None
            assert lower <= segment.upper


def test_a_network_without_slopes_has_no_curve() -> None:
    with pytest.raises(UsageError, match="no slope to move"):
        lt.lipschitz(build("clipped"), slopes=(0.0, 1.0))
