"""What decisions imply for other neurons holds where they do, and is as tight as a linear program."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
import torch
from networks import Draft, build, fully_connected
from scipy.optimize import linprog
from test_neurons import KINDS, MEMORY, asked, bounding_of, enumerated, inputs_of, never, tiny
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope, leaky_relu
from leaktight.specs.property import Case
from leaktight.verify.branching import leaf_of
from leaktight.verify.budget import Budget
from leaktight.verify.search import stages
from leaktight.verify.search.implied import Implied, _least
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import EACH, Search, branch
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.stages import staged


def single(network: Network, seed: int, **how: int) -> Case:
    """One region."""
    case = asked(network, seed, **how)
    return Case(case.region.select(slice(0, 1)), case.unsafe)


def implying(network: Network, case: Case) -> Bounding:
    bounding = bounding_of(network, case)
    bounding.imply()
    assert bounding.implied is not None
    return bounding


def shallow(seed: int, inputs: int = 5, width: int = 7) -> Network:
    """One layer of neurons with kinks anywhere and slopes anywhere in [-2, 3]."""
    draft = Draft(seed)
    at = draft.linear(draft.input(1, inputs), width, 1.0)
    left, right = draft.uniform(-2, 3, width), draft.uniform(-2, 3, width)
    at = draft.add(TwoSlope(left, right, 0.3 * draft.normal(width), draft.normal(width)), at)
    return draft.network(draft.linear(at, 2))


def ends(implied: Implied) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds ``(2 k, k)`` by decision."""
    low, high = implied.table[:-1].double().split(implied.count, 1)
    return low, -high


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_input_is_outside_of_what_its_neurons_sides_imply(kind: str) -> None:
    network = build(kind, 3)
    case = single(network, 3)
    bounding = bounding_of(network, case)
    bounding.imply()
    if bounding.implied is None:
        assert not len(bounding.columns)
        return
    points = case.region.select(torch.zeros(3000, dtype=torch.long)).sample(torch.Generator().manual_seed(0))
    z, kink = inputs_of(bounding, points)[:, bounding.columns], bounding.activations.kink[bounding.columns]
    lower, upper = ends(bounding.implied)
    for decision, holds in enumerate(torch.cat([z <= kink, z >= kink], 1).T):
        assert bool((z[holds] >= lower[decision]).all())
        assert bool((z[holds] <= upper[decision]).all())


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_what_one_decision_implies_in_the_first_layer_is_the_linear_programs_answer(seed: int) -> None:
    network = shallow(seed)
    case = single(network, seed)
    bounding = implying(network, case)
    assert bounding.implied is not None
    op = network.nodes[1].op
    weight, bias = op.weight.numpy()[bounding.columns], op.bias.numpy()[bounding.columns]  # type: ignore[attr-defined]
    kink, count = bounding.activations.kink[bounding.columns].numpy(), len(bounding.columns)
    box = list(zip(case.region.lower[0].tolist(), case.region.upper[0].tolist(), strict=True))
    lower, upper = ends(bounding.implied)
    tightened = 0
    for side, i, j in product((0, 1), range(count), range(count)):
        if i == j:
            continue
        sign = 1 - 2 * side  # below: w x + b <= kink
        wall = {"A_ub": [sign * weight[i]], "b_ub": [sign * (kink[i] - bias[i])], "bounds": box}
        for direction, given in ((1, lower), (-1, upper)):
            exact = direction * linprog(direction * weight[j], **wall).fun + bias[j]
            assert float(given[i + side * count, j]) == pytest.approx(exact, abs=1e-5)
            assert direction * (exact - float(given[i + side * count, j])) >= -1e-9
            whole = bounding.base.lower if direction == 1 else bounding.base.upper
            tightened += abs(exact - float(whole[0, bounding.columns[j]])) > 1e-3
    assert tightened > count


def rational(sizes: list[list[Fraction]], floors: list[Fraction], decision: int, row: int) -> Fraction:
    """The largest value that a multiplier gives: at zero or at a kink."""
    mine, theirs = sizes[row], sizes[decision]
    opposite = [(abs(a), abs(b)) for a, b in zip(mine, theirs, strict=True) if a * b < 0]
    tries = [Fraction(0), *(a / b for a, b in opposite)]
    return floors[row] + max(m * floors[decision] + sum(min(a, m * b) for a, b in opposite) for m in tries)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12])
def test_rounding_never_raises_what_is_implied(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = scale * torch.randn(12, 5, generator=generator, dtype=torch.float64)
    floors = -scale * torch.rand(12, generator=generator, dtype=torch.float64)
    floors[6:] *= 1000  # next to which what the gain is reduced by is nothing
    found = _least(sizes, floors)
    exact = [[Fraction(x) for x in row] for row in sizes.tolist()]
    for decision, row in product(range(12), range(12)):
        wanted = rational(exact, [Fraction(x) for x in floors.tolist()], decision, row)
        assert Fraction(float(found[decision, row])) <= wanted
        assert float(found[decision, row]) == pytest.approx(float(wanted), abs=1e-12 * scale)


def test_bounds_are_kept_in_single_precision_outwards() -> None:
    lower, upper = torch.rand(6, 3, dtype=torch.float64), 1 + torch.rand(6, 3, dtype=torch.float64)
    low, high = ends(Implied.of(lower, upper))
    assert bool((low <= lower).all())
    assert bool((high >= upper).all())
    assert bool((lower - low).max() < 1e-7)


def searched(network: Network, case: Case) -> tuple[Search, float, bool]:
    """A search to its end in which decisions imply what they can, its bound, and whether it proved."""
    bounding = implying(network, case)
    search, replay = Search(bounding, never, MEMORY), Replay(network)
    leaf = leaf_of(network, case, Budget.starting_now(None, torch.float64, None, 0), replay)
    found = branch(search, case, replay, leaf=leaf)
    return search, found.lower, found.proved


@pytest.mark.parametrize("kind", ["shallow", "deep"])
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 60))])
@torch.no_grad()
def test_searches_with_implied_bounds_agree_with_the_enumeration_of_all_patterns(seed: int, kind: str) -> None:
    network = shallow(seed, 4, 6) if kind == "shallow" else tiny(seed)
    case = single(network, seed, disjuncts=1, size=1 + seed % 2)
    least = enumerated(network, case, (0, 0))
    gap = 1e-3 * (1 + abs(least))
    for shift in (gap, -gap):
        moved = replace(case.unsafe, bounds=case.unsafe.bounds + least - shift)
        _, lower, proved = searched(network, Case(case.region, moved))
        assert proved == (shift > 0)
        assert lower <= shift + 1e-9


@torch.no_grad()
def test_a_search_of_one_layer_needs_fewer_domains_with_what_decisions_imply(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fully_connected(2, (13, 24, 2), 0.1)
    case = single(network, 2, disjuncts=1, size=1)
    bounding = bounding_of(network, case)
    points = case.region.select(torch.zeros(2000, dtype=torch.long)).sample(torch.Generator().manual_seed(0))
    attained = float((network.flat(points) @ case.unsafe.weights[0].mT - case.unsafe.bounds[0]).amin())
    low = float(Search(bounding, never, MEMORY).lower)
    case = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + low + 0.2 * (attained - low)))
    nothing = torch.full((1, 1), -torch.inf, dtype=torch.float64)
    how = {"memory": MEMORY, "deadline": None, "late": never}
    found, search = staged(network, case, nothing, Replay(network), **how)  # type: ignore[arg-type]
    assert search.bounding.implied is not None
    monkeypatch.setattr(stages.Bounding, "imply", lambda _: None)
    plain, _ = staged(network, case, nothing, Replay(network), **how)  # type: ignore[arg-type]
    assert (found.proved, plain.proved) == (True, True)
    assert found.domains < plain.domains


@torch.no_grad()
@pytest.mark.parametrize("half", [0.5, 0.01])
def test_a_domain_that_decisions_leave_empty_is_settled_and_a_narrow_one_is_not(half: float) -> None:
    draft = Draft(0)
    at = draft.linear(draft.input(1, 1), 2)
    network = draft.network(draft.linear(draft.add(leaky_relu(0.1), at), 1))
    op = network.nodes[1].op
    op.weight[:], op.bias[:] = torch.tensor([[1.0], [1.0]]), torch.tensor([half, -half])  # type: ignore[attr-defined]
    case = single(network, 0, disjuncts=1, size=1)
    case = Case(type(case.region)(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double()), case.unsafe)
    bounding = implying(network, case)
    first = bounding.first().select(torch.zeros(4, dtype=torch.long))
    sides = torch.tensor(list(product((False, True), repeat=2)))
    domains = replace(first.widened(2), neuron=torch.tensor([[0, 1]] * 4, dtype=torch.int32), above=sides)
    # z0 = x + half and z1 = x - half: nothing is below the first kink and above the second
    assert bounding.unpacked(domains).void.tolist() == [not a and b for a, b in sides.tolist()]
    bounded, in_time = Search(bounding, never, MEMORY)._bounded(domains, EACH)
    assert in_time
    assert sorted(bounded.bound.isposinf().tolist()) == [False, False, False, True]
