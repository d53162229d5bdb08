"""Domains as linear programs: what is proved of them holds in rational arithmetic, whatever the solver proposes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import KINDS, build, exact_outputs
from questions import SHAPES, shifted, tiny_case, tiny_network
from rational import Fraction, smallest_margin

from leaktight.errors import UnsupportedOperator, UsageError
from leaktight.models.network import Network
from leaktight.models.ops import Elementwise, Maximum, TwoSlope
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Norm, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.interval import propagate
from leaktight.verify.bounds.linear_program import Linearised
from leaktight.verify.bounds.linear_solver import propose
from leaktight.verify.bounds.mixed_integer import guide
from leaktight.verify.bounds.piecewise import two_slopes_only
from leaktight.verify.search.leaf import Decision, decide
from leaktight.verify.verdict import Status


def every_leaf(network: Network, case: Case) -> list[Decision]:
    """The decisions on all domains in which every neuron has a side."""
    sizes = {node.name: node.size for node in network if isinstance(node.op, TwoSlope)}
    found = []
    for signs in itertools.product((1, -1), repeat=sum(sizes.values())):
        parts = torch.tensor(signs, dtype=torch.int8).split(list(sizes.values()))
        found.append(decide(network, case, dict(zip(sizes, parts, strict=True))))
    return found


@pytest.mark.parametrize("shape", ["chain", "residual", "per channel", "kinked"])
@pytest.mark.parametrize("seed", range(2))
def test_the_leaves_of_all_splits_have_the_exact_least_margin(shape: str, seed: int) -> None:
    network, case = tiny_network(shape, seed), tiny_case(seed)
    exact = smallest_margin(network, case)
    leaves = every_leaf(network, case)
    assert all(leaf.exact for leaf in leaves)
    lower = Fraction(min(leaf.lower for leaf in leaves))
    assert exact - Fraction(10) ** -6 * (1 + abs(exact)) <= lower <= exact
    assert min(leaf.attained for leaf in leaves) == pytest.approx(float(exact), abs=1e-9)
    refuted = [leaf for leaf in leaves if leaf.status is Status.REFUTED]
    assert bool(refuted) == (exact < 0)
    assert any(leaf.lower == torch.inf for leaf in leaves)  # sides that exclude each other hold no input


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_relaxed_domains_are_bounded_from_below(shape: str, seed: int) -> None:
    network, case = tiny_network(shape, seed), tiny_case(seed)
    exact = smallest_margin(network, case)
    for asked in (network, two_slopes_only(network)):
        whole = decide(asked, case, {})
        assert Fraction(whole.lower) <= exact
        assert Fraction(whole.attained) >= exact - Fraction(10) ** -9
        above = decide(asked, shifted(case, float(exact) + 0.01), {})
        assert above.status is not Status.PROVED


@settings(max_examples=40)
@given(seed=st.integers(0, 40), noise=st.floats(-12, 1), pick=st.integers(0, 2**32 - 1))
def test_no_multipliers_make_a_bound_wrong(seed: int, noise: float, pick: int) -> None:
    """The solver's multipliers, or what is left of them under noise of any size: bounds, never more."""
    network, case = tiny_network("kinked" if seed % 2 else "chain", seed), tiny_case(seed)
    known = propagate(network, case.region)
    linear = Linearised(network, case.region, known)
    least = min(float("inf"), *(_least_of(network, case, i) for i in range(case.unsafe.disjuncts)))
    bounds = []
    for disjunct in range(case.unsafe.disjuncts):
        program = linear.least_margin(known, {}, case.unsafe, disjunct)
        multipliers = propose(program).multipliers
        assert multipliers is not None
        generator = np.random.default_rng(pick)
        noisy = multipliers + 10**noise * generator.standard_normal(len(multipliers))
        bounds.append(program.bound(noisy))
        assert program.bound(np.full(len(multipliers), np.nan)) <= _least_of(network, case, disjunct)
        assert bounds[-1] <= _least_of(network, case, disjunct)
        assert program.bound(noisy, cost=0 * program.cost) <= 0  # no noise makes a ray: there are inputs
    assert min(bounds) <= least


def _least_of(network: Network, case: Case, disjunct: int) -> Fraction:
    atoms = case.unsafe.disjunct == disjunct
    unsafe = Unsafe(case.unsafe.weights[:, atoms], case.unsafe.bounds[:, atoms], torch.zeros(int(atoms.sum())).long())
    return smallest_margin(network, Case(case.region, unsafe))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "smooth"])
def test_programs_hold_for_sampled_inputs_of_every_kind_of_network(kind: str) -> None:
    network = build(kind, 3)
    generator = torch.Generator().manual_seed(3)
    centre = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
    region = ball(centre, 0.4)
    weights = torch.randn(1, 2, network.output_size, generator=generator, dtype=torch.float64)
    case = Case(region, Unsafe(weights, torch.zeros(1, 2).double(), torch.tensor([0, 0])))
    decision = decide(network, case, {})
    samples = torch.cat([region.sample(generator) for _ in range(200)])
    assert bool((case.unsafe.margin(network.flat(samples)) >= decision.lower).all())
    assert decision.lower > -torch.inf
    assert bool((case.unsafe.margin(network.flat(decision.point.unsqueeze(0))) >= decision.lower).all())  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(3))
def test_an_l1_ball_is_decided_exactly(seed: int) -> None:
    """Cut into the two halves of each kink, the least margin over the ball is that of its densest samples."""
    network, inner = tiny_network("chain", seed), tiny_case(seed)
    centre = inner.region.lower / 2 + inner.region.upper / 2
    region = ball(centre, 0.5, Norm.L1)
    assert isinstance(region, Ball)
    leaves = every_leaf(network, Case(region, inner.unsafe))
    side = torch.linspace(0, 1, 401, dtype=torch.float64)
    u, v = torch.cartesian_prod(side, side).T
    rotated = centre + 0.5 * torch.stack([(u + v - 1), (u - v)], 1)  # the square turned into the ball
    sampled = float(inner.unsafe.margin(network.flat(rotated)).min())
    lower = min(leaf.lower for leaf in leaves)
    assert lower <= sampled + 1e-12
    assert min(leaf.attained for leaf in leaves) == pytest.approx(lower, abs=1e-6)
    assert sampled - lower < 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_mixed_integer_program_leads_to_the_least_margin(shape: str, seed: int) -> None:
    network, case = two_slopes_only(tiny_network(shape, seed)), tiny_case(seed)
    known = propagate(network, case.region)
    linear = Linearised(network, case.region, known)
    for disjunct in range(case.unsafe.disjuncts):
        found = guide(linear, known, case.unsafe, disjunct, seconds=20)
        least = float(_least_of(network, case, disjunct))
        assert found.point is not None
        assert found.claimed == pytest.approx(least, abs=1e-5 * (1 + abs(least)))
        attained = network.flat(torch.from_numpy(found.point).unsqueeze(0))
        margin = case.unsafe.atoms(attained)[0, case.unsafe.disjunct == disjunct].max()
        assert float(margin) == pytest.approx(least, abs=1e-5 * (1 + abs(least)))


def test_an_l2_ball_is_refused_by_name() -> None:
    network, case = tiny_network("chain", 0), tiny_case(0)
    with pytest.raises(UsageError, match="L2 ball"):
        decide(network, Case(ball(torch.zeros(1, 2), 0.5, Norm.L2), case.unsafe), {})


@pytest.mark.parametrize("shape", ["clipped", "maximum"])
@pytest.mark.parametrize("seed", range(3))
def test_networks_of_two_slopes_compute_the_same_in_rational_arithmetic(shape: str, seed: int) -> None:
    network = tiny_network(shape, seed)
    other = two_slopes_only(network)
    assert not any(isinstance(node.op, (Maximum, Elementwise)) and not isinstance(node.op, TwoSlope) for node in other)
    generator = torch.Generator().manual_seed(seed)
    for x in torch.randn(20, 2, generator=generator, dtype=torch.float64).tolist():
        point = [Fraction(v) for v in x]
        assert exact_outputs(network, point) == exact_outputs(other, point)


def test_the_maximum_over_any_number_of_entries_is_rewritten() -> None:
    network = build("max_pool", 1)
    other = two_slopes_only(network)
    x = torch.randn(50, network.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(network.flat(x), other.flat(x), atol=1e-12)


def test_what_is_not_piecewise_linear_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedOperator, match="Sigmoid"):
        two_slopes_only(build("smooth", 0))
