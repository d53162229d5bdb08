"""The constant over slopes: proven between its corners, falling, exact at slope 1, close to solving anew."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from chains import Array, chain, random_weights, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build

import leaktight as lt
from leaktight.errors import InternalError, UsageError
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz.curve import curve
from leaktight.verify.lipschitz.methods import Question
from leaktight.verify.lipschitz.mixture import mixed

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


def test_channels_whose_slopes_pass_one_make_the_curve_rise() -> None:
    """Slopes ``0.1 a`` and ``1.9 a``: the second neuron, which alone is read, has the constant ``max(1, 1.9 a)``."""
    network = chain([np.array([[1.0], [1.0]]), np.array([[0.0, 1.0]])], [[0.1, 1.9]])
    for norm in ("2", "inf", "1"):
        found = lt.lipschitz(network, slopes=(0.0, 1.0), norm=norm).curve
        assert found is not None
        for segment in found:
            assert segment.upper >= max(1.0, 1.9 * segment.hi) * (1 - 1e-12)
        assert found[0].upper <= 1.2


@pytest.mark.parametrize("norm", ["2", "inf", "1"])
def test_curves_in_every_norm_stay_above_the_worst_pattern(norm: str) -> None:
    order = {"2": 2, "inf": np.inf, "1": 1}[norm]
    weights = random_weights([3, 5, 4, 2], 5)
    found = lt.lipschitz(chain(weights, 0.1), norm=norm, slopes=(0.0, 1.0)).curve
    assert found is not None
    assert all(a.upper >= b.upper for a, b in pairwise(found))
    for segment in found[::5]:
        for a in (segment.lo, segment.hi):
            assert segment.upper >= worst(weights, a, order) * (1 - 1e-13)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0, 0.9), st.floats(0, 1), st.sampled_from(["2", "inf", "1"]))
def test_the_mixture_of_both_ends_is_above_the_worst_pattern(seed: int, lo: float, share: float, norm: str) -> None:
    order = {"2": 2, "inf": np.inf, "1": 1}[norm]
    weights = random_weights([2, 4, 3, 2], seed)
    a = min(1.0, lo + share * (1 - lo))
    line = float(np.linalg.norm(np.linalg.multi_dot(weights[::-1]), order))
    bound = worst(weights, lo, order)
    found = mixed(bound, line, lo, a, 2)
    assert worst(weights, a, order) * (1 - 1e-12) <= found <= bound


def test_the_mixture_ends_in_its_ends_and_refuses_other_slopes() -> None:
    assert mixed(3.0, 1.0, 0.0, 0.0, 3) == 3.0
    assert mixed(3.0, 1.0, 0.25, 1.0, 3) == 1.0
    assert mixed(3.0, 1.0, 0.0, 0.5, 2) == 2.5
    for lo, a in ((-0.1, 0.5), (0.5, 0.4), (0.0, 1.1), (1.0, 1.0)):
        with pytest.raises(InternalError, match="not within"):
            mixed(3.0, 1.0, lo, a, 1)


def test_independent_slopes_are_covered_up_to_each_segment() -> None:
    network = chain([np.array([[1.0], [1.0]]), np.array([[0.0, 1.0]])], 0.1)
    question = Question(network, Norm.L2)
    found = curve(Slopes.of(network), 0.0, 2.0, question, ends=[0.0, 0.5, 1.0, 1.5, 2.0], independent=True)
    for segment, least in zip(found, (1.0, 1.0, 1.5, 2.0), strict=True):
        assert least * (1 - 1e-12) <= segment.upper <= 1.2 * least


def test_a_network_without_slopes_has_no_curve() -> None:
    with pytest.raises(UsageError, match="no slope to move"):
        lt.lipschitz(build("clipped"), slopes=(0.0, 1.0))
