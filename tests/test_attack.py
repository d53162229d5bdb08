"""The attack: how low it gets where the answer is known, and what it promises about points, seeds, time and memory."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor
from twins import fully_connected, identity, random_weights

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Box, Norm, Region, ball
from leaktight.specs.unsafe import Unsafe, misclassified
from leaktight.verify.search.attack import attack
from leaktight.verify.search.refute import refute, refute_each

NORMS = [Norm.LINF, Norm.L2, Norm.L1]


def balls(norm: Norm, batch: int, size: int, radius: float) -> Region:
    centre = torch.rand(batch, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return ball(centre, radius, norm, clip=(0.0, 1.0))


def conditions(rows: list[list[float]], bounds: list[float], disjunct: list[int]) -> Unsafe:
    """Atoms ``rows . y <= bounds``."""
    weights, limits = torch.tensor([rows], dtype=torch.float64), torch.tensor([bounds], dtype=torch.float64)
    return Unsafe(weights, limits, torch.tensor(disjunct))


def grid_minimum(network: Network, case: Case, count: int) -> Tensor:
    """The lowest margin of each region over a dense grid of two inputs: a reference that follows no gradient."""
    shares = torch.cartesian_prod(*[torch.linspace(0, 1, count, dtype=torch.float64)] * 2).unsqueeze(1)
    points = case.region.project(case.region.lower + shares * (case.region.upper - case.region.lower))
    return torch.stack(
        [
            case.unsafe.margin(network.flat(points[:, i]))[:, None].amin()
            if len(case.unsafe.weights) == 1
            else case.unsafe.select(slice(i, i + 1)).margin(network.flat(points[:, i])).amin()
            for i in range(case.region.batch)
        ]
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_attack_finds_the_exact_minimum_of_a_linear_network(norm: Norm) -> None:
    ((weight, bias),) = random_weights([30, 1], 2)
    region = balls(norm, 7, 30, 0.4)
    unsafe = conditions([[1.0]], [-1e3], [0])
    found = attack(fully_connected([(weight, bias)]), Case(region, unsafe))
    row = torch.from_numpy(weight).double().expand(7, 1, 30)
    expected = region.minimum(row)[:, 0] + float(bias[0]) + 1e3
    torch.testing.assert_close(found.margins[:, 0], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_every_point_of_an_attack_lies_in_its_region(norm: Norm) -> None:
    region = balls(norm, 5, 30, 0.3)
    found = attack(fully_connected(random_weights([30, 16, 4], 3)), Case(region, misclassified(torch.arange(5) % 4, 4)))
    assert found.points.shape == (5, 4, 30)
    for k in range(4):
        point = found.points[:, k]
        if isinstance(region, Ball):  # float32 roundings; the replay shrinks them away
            order = 2 if norm is Norm.L2 else 1
            assert ((point - region.centre).norm(p=order, dim=-1) <= region.radius * (1 + 1e-5)).all()
        else:
            assert region.contains(point).all()


@pytest.mark.parametrize("slope", [0.0, 0.1, -1.0])
def test_refutations_agree_with_a_dense_grid(slope: float) -> None:
    network = fully_connected(random_weights([2, 24, 24, 3], 11), slope)
    centre = 2 * torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = network.flat(centre).argmax(-1)
    case = Case(ball(centre, 0.7), misclassified(labels, 3))
    found = refute_each(network, case)
    lowest = grid_minimum(network, case, 61)
    refuted = torch.tensor([example is not None for example in found.counterexamples])
    assert 0 < refuted.sum() < 40
    assert (refuted | (lowest > 0)).all(), "the grid found what the attack missed"
    assert (found.margins <= lowest + 1e-3)[~refuted].all()


def test_the_reported_margin_is_attained_inside_the_region() -> None:
    network = fully_connected(random_weights([2, 16, 1], 8))
    case = Case(Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()), conditions([[1.0]], [-50.0], [0]))
    example, margins = refute(network, case)
    assert example is None
    assert abs(float(margins[0]) - float(grid_minimum(network, case, 301)[0])) < 1e-2


@pytest.mark.parametrize("norm", NORMS)
def test_counterexamples_are_inside_and_unsafe_in_every_norm(norm: Norm) -> None:
    network = fully_connected(random_weights([20, 32, 5], 6))
    region = balls(norm, 20, 20, 0.5)
    labels = network.flat(region.sample(torch.Generator().manual_seed(0))).argmax(-1)
    found = refute_each(network, Case(region, misclassified(labels, 5)))
    examples = [(i, example) for i, example in enumerate(found.counterexamples) if example is not None]
    assert examples
    for i, example in examples:
        assert region.select(slice(i, i + 1)).contains(torch.from_numpy(example.point).unsqueeze(0)).all()
        scores = example.outputs["y"][0]
        assert scores[labels[i]] <= max(np.delete(scores, int(labels[i])))


def test_a_disjunct_that_looks_worse_at_the_centre_is_still_attacked() -> None:
    # y_0 = x_0 (almost unsafe, never quite); y_1 = 40 x_1 (far from unsafe at the centre, unsafe at the wall)
    weights = [(np.diag([1.0, 40.0]).astype(np.float32), np.zeros(2, np.float32))]
    unsafe = conditions([[1.0, 0.0], [0.0, 1.0]], [-1.0001, -39.9], [0, 1])
    box = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
    example, _ = refute(fully_connected(weights), Case(box, unsafe), restarts=1)
    assert example is not None
    assert example.point[1] < -0.99


def test_a_conjunction_needs_all_of_its_atoms() -> None:
    unsafe = conditions([[1.0, 0.0], [0.0, -1.0]], [-0.999, -0.999], [0, 0])  # x_0 <= -0.999 and x_1 >= 0.999
    example, _ = refute(identity(2), Case(Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()), unsafe))
    assert example is not None
    assert example.point[0] <= -0.999
    assert example.point[1] >= 0.999


def test_an_empty_unsafe_set_is_never_reached() -> None:
    none = Unsafe(torch.zeros(1, 0, 1).double(), torch.zeros(1, 0).double(), torch.zeros(0, dtype=torch.long))
    example, margins = refute(identity(), Case(Box(torch.zeros(1, 1).double(), torch.ones(1, 1).double()), none))
    assert example is None
    assert margins.tolist() == [float("inf")]


def test_the_same_seed_gives_the_same_points_and_another_seed_others() -> None:
    network = fully_connected(random_weights([30, 16, 4], 3))
    case = Case(balls(Norm.LINF, 3, 30, 0.01), misclassified(torch.tensor([0, 1, 2]), 4))
    one, same, other = (attack(network, case, seed=seed, steps=5).points for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_little_memory_changes_how_much_is_done_at_once_but_not_what_is_found() -> None:
    network = fully_connected(random_weights([30, 16, 4], 3))
    region = balls(Norm.LINF, 12, 30, 0.1)
    labels = network.flat(region.lower / 2 + region.upper / 2).argmax(-1)
    case = Case(region, misclassified(labels, 4))
    much, little = (attack(network, case, restarts=8, memory=memory) for memory in (2**28, 2**14))
    one, other = much.margins[:, 0], little.margins[:, 0]
    safe = one > 0
    assert 0 < safe.sum() < 12
    assert torch.equal(safe, other > 0)
    torch.testing.assert_close(one[safe], other[safe], atol=1e-2, rtol=0)


def test_the_attack_stops_as_soon_as_every_region_has_an_unsafe_point() -> None:
    network = identity()
    region = Box(torch.zeros(3, 1).double(), torch.ones(3, 1).double())
    at_once = attack(network, Case(region, conditions([[1.0]], [2.0], [0])))
    never = attack(network, Case(region, conditions([[1.0]], [-2.0], [0])))
    assert at_once.evaluations < never.evaluations


def test_a_flat_network_is_attacked_through_its_dead_neurons() -> None:
    # y = 1 - relu(s . x - 15) with 20 signs + and 20 signs -: flat on all but a corner that no random point meets
    signs = np.array([[1, -1] * 20], np.float32)
    weights = [(signs, np.full(1, -15, np.float32)), (np.full((1, 1), -1, np.float32), np.ones(1, np.float32))]
    case = Case(Box(torch.zeros(1, 40).double(), torch.ones(1, 40).double()), conditions([[1.0]], [-3.5], [0]))
    example, _ = refute(fully_connected(weights, 0.0), case)
    assert example is not None


def test_zooming_finds_a_small_unsafe_cell_that_gradients_walk_past() -> None:
    # |x_0 - 0.3| <= 2e-4 and |x_1 - 0.7| <= 2e-4 and |x_2 - 0.1| <= 2e-4: a share of 6e-11 of the box
    at = [0.3, 0.7, 0.1]
    rows = [[s * float(i == j) for j in range(3)] for i in range(3) for s in (1.0, -1.0)]
    limits = [s * v + 2e-4 for v in at for s in (1.0, -1.0)]
    case = Case(Box(torch.zeros(1, 3).double(), torch.ones(1, 3).double()), conditions(rows, limits, [0] * 6))
    example, _ = refute(identity(3), case, steps=1)
    assert example is not None
    np.testing.assert_allclose(example.point, at, atol=2.1e-4)


def test_a_deadline_is_kept() -> None:
    network = fully_connected(random_weights([200, 400, 400, 10], 3))
    case = Case(balls(Norm.LINF, 50, 200, 1e-4), misclassified(torch.zeros(50, dtype=torch.long), 10))
    began = time.process_time()
    found = attack(network, case, restarts=200, steps=500, deadline=began + 0.3)
    assert time.process_time() - began < 3
    assert torch.isfinite(found.margins).all()


def test_given_starts_are_tried_first() -> None:
    needle = torch.tensor([0.123456], dtype=torch.float64)
    unsafe = conditions([[1.0], [-1.0]], [float(needle) + 1e-7, -float(needle) + 1e-7], [0, 0])
    case = Case(Box(torch.zeros(1, 1).double(), torch.full((1, 1), 1e6).double()), unsafe)
    found = attack(identity(), case, starts=needle.reshape(1, 1, 1), restarts=1, steps=1)
    assert float(found.margins[0, 0]) <= 0
