"""Attacks on input and slope together: what they attain is a true upper bound, and what they refute replays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from leaky import EXACT_KINDS, ask, exact_at
from networks import Draft
from torch import Tensor
from twins import fully_connected

from leaktight.models.onnx import network_from_bytes
from leaktight.models.ops import Linear
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box, Norm, Product, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.leak import attack
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.joint import with_slope_input
from leaktight.verify.leak.refuted import refuted, within_float32
from leaktight.verify.search.exact import lies_in_unsafe_set
from leaktight.verify.search.membership import lies_inside
from leaktight.verify.search.replay import Replay, flatten


def numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unsafe(weights: Tensor, bounds: Tensor, disjunct: list[int]) -> Unsafe:
    return Unsafe(weights.double(), bounds.double(), torch.tensor(disjunct))


def exact_margin(conditions: Unsafe, i: int, y: list[Fraction]) -> Fraction:
    atoms = [
        sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0)) - Fraction(d)
        for row, d in zip(conditions.weights[i].tolist(), conditions.bounds[i].tolist(), strict=True)
    ]
    worst = [max(a for a, j in zip(atoms, conditions.disjunct.tolist(), strict=True) if j == k) for k in (0, 1)]
    return min(worst)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_what_is_attained_is_at_least_the_exact_margin(kind: str, norm: Norm) -> None:
    question = ask(kind, 7, norm)
    bounds = torch.randn(len(question.lo), 3, generator=question.generator, dtype=torch.float64)
    case = Case(question.region, Unsafe(question.objectives, bounds, torch.tensor([0, 1, 1])))
    for _ in range(4):
        x, a = question.draw()
        upper = attained(question.slopes, case, x, a)
        assert bool(torch.isfinite(upper).all())
        for i in range(len(x)):
            y = exact_at(question.plain, [Fraction(v) for v in x[i].tolist()], Fraction(float(a[i])))
            exact = exact_margin(case.unsafe, i, y)
            assert exact <= Fraction(float(upper[i]))
            assert float(upper[i]) <= float(exact) + 1e-9 * (1 + abs(float(exact)))


def test_a_point_outside_attains_nothing() -> None:
    question = ask("fully_connected", 0)
    case = Case(question.region, Unsafe(question.objectives, question.objectives[..., 0], torch.tensor([0, 1, 1])))
    x, a = question.draw()
    x[1, 0] = torch.nextafter(question.region.upper[1, 0], torch.tensor(torch.inf).double())
    x[2, 1] = torch.nan
    assert attained(question.slopes, case, x, a).isinf().tolist() == [i in (1, 2) for i in range(len(x))]


def test_a_coordinate_that_no_float_holds_is_enclosed() -> None:
    """Between 0.1's neighbours the margin is at most what it is at either of them."""
    draft = Draft(0)
    y = draft.leaky(draft.input(1, 1), 0.1)
    slopes = Slopes.of(draft.network(y))
    below = torch.tensor([[0.1]], dtype=torch.float64)
    above = torch.nextafter(below, torch.tensor(1.0).double())
    region = Box(below, above, above, below)
    case = Case(region, unsafe(torch.ones(1, 1, 1), torch.zeros(1, 1), [0]))
    assert float(attained(slopes, case, below, torch.zeros(1).double())) >= float(above)


def hump(slope: float = 0.1) -> Slopes:
    """``phi(x) + phi(-x) = (1 - a) |x|``, in a file."""
    first = (np.array([[1.0], [-1.0]], np.float32), np.array([0.0, 0.0], np.float32))
    second = (np.array([[1.0, 1.0]], np.float32), np.array([0.0], np.float32))
    network = fully_connected([first, second], slope)
    assert network.source is not None
    assert network.source.onnx is not None
    return Slopes.of(network_from_bytes(network.source.onnx, path="hump.onnx"))


def test_the_minimum_over_input_and_slope_is_found() -> None:
    """Of ``y = (1 - a) |x|`` on [-2, 1]: ``y - 1/4`` is lowest at x = 0 or a = 1, ``3 - y`` at x = -2, a = -1/4."""
    slopes = hump()
    region = Box(numbers([[-2.0]]), numbers([[1.0]]))
    lo, hi = numbers([-0.25]), numbers([0.75])
    rising = Case(region, unsafe(torch.ones(1, 1, 1), torch.full((1, 1), 0.25), [0]))
    found = attack.search(slopes, rising, lo, hi)
    assert float(found.upper) == pytest.approx(-0.25, abs=5e-3)
    falling = Case(region, unsafe(-torch.ones(1, 1, 1), torch.full((1, 1), -3.0), [0]))
    found = attack.search(slopes, falling, lo, hi)
    assert float(found.upper) == pytest.approx(0.5)
    assert float(found.slopes) == -0.25
    assert found.points.tolist() == [[-2.0]]


def test_along_several_slopes_each_has_its_own_minimum() -> None:
    slopes = hump()
    region = Box(numbers([[-2.0], [-1.0]]), numbers([[1.0], [0.5]]))
    at = numbers([[-0.5, 0.0, 0.5, 1.0]]).expand(2, -1)
    falling = Case(region, unsafe(-torch.ones(1, 1, 1), torch.full((1, 1), -3.0), [0]))
    found = attack.along(slopes, falling, at)
    assert torch.equal(found.slopes, at)
    assert torch.allclose(found.upper, torch.stack([1 + 2 * at[0], 2 + at[1]]))


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "residual", "several_inputs"])
def test_searching_beats_sampling_and_its_bounds_are_those_of_its_points(kind: str, norm: Norm) -> None:
    question = ask(kind, 5, norm)
    bounds = torch.zeros(len(question.lo), 3).double()
    case = Case(question.region, Unsafe(question.objectives, bounds, torch.tensor([0, 1, 1])))
    found = attack.search(question.slopes, case, question.lo, question.hi)
    assert bool(question.region.contains(found.points).all())
    assert bool(((found.slopes >= question.lo) & (found.slopes <= question.hi)).all())
    assert torch.equal(found.upper, attained(question.slopes, case, found.points, found.slopes))
    sampled = torch.stack([attained(question.slopes, case, *question.draw()) for _ in range(200)]).amin(0)
    assert bool((found.upper <= sampled + 5e-2 * (1 + sampled.abs())).all())


def test_a_refutation_is_a_replay_at_a_float32_slope_inside_the_range() -> None:
    """``(1 - a) |x|`` on [-2, 1] exceeds 2.5 only below the slope -1/4."""
    slopes = hump()
    region = Box(torch.tensor([[-2.0]] * 3).double(), torch.tensor([[1.0]] * 3).double())
    case = Case(region, unsafe(-torch.ones(1, 1, 1), torch.full((1, 1), -2.5), [0]))
    lo = numbers([-0.5, -0.2, -0.3000000000000001])
    hi = numbers([-0.3, 0.9, -0.3])
    found = attack.search(slopes, case, lo, hi)
    examples = refuted(slopes, case, found, lo, hi)
    assert examples[1] is None
    assert examples[2] is None  # no float32 lies in the range
    assert examples[0] is not None
    a, example = examples[0]
    assert float(np.float32(a)) == a
    assert -0.5 <= a <= -0.3
    network = slopes.file_at(a)
    single = region.select(slice(0, 1))
    assert lies_inside(single, torch.from_numpy(example.point))
    values = flatten(Replay(network).run(torch.from_numpy(example.point)))
    assert lies_in_unsafe_set(case.unsafe, values)
    assert example.margin < 0


@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "convolutional", "residual", "scaled", "max_pool"])
def test_a_network_with_a_slope_input_computes_what_the_network_at_the_slope_does(kind: str) -> None:
    question = ask(kind, 3)
    joint = with_slope_input(question.slopes)
    x, a = question.draw()
    expected = question.slopes.at(a).flat(x)
    assert torch.allclose(joint.flat(torch.cat([x, a.unsqueeze(-1)], -1)), expected, rtol=1e-12, atol=1e-12)
    soft = with_slope_input(question.slopes, 0.1)
    assert torch.allclose(soft.flat(torch.cat([x, a.unsqueeze(-1)], -1)), expected, rtol=1e-12, atol=1e-12)


def test_where_the_slope_is_zero_a_leaking_derivative_is_not() -> None:
    draft = Draft(0)
    slopes = Slopes.of(draft.network(draft.leaky(draft.input(1, 1), 0.0)))
    for leak, expected in ((0.0, 0.0), (0.1, 0.1)):
        x = torch.tensor([[-2.0, 0.0]], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(with_slope_input(slopes, leak).flat(x).sum(), x)
        assert float(gradient[0, 0]) == expected


def test_a_product_of_regions_is_both() -> None:
    generator = torch.Generator().manual_seed(0)
    first = ball(torch.zeros(3, 4).double(), 0.5, Norm.L2)
    second = Box(torch.ones(3, 1).double(), 2 * torch.ones(3, 1).double())
    both = Product(first, second)
    assert both.size == 5
    x = both.sample(generator)
    assert bool(both.contains(x).all())
    assert not both.contains(x + torch.tensor([0, 0, 0, 0, 1.5])).any()
    wild = 3 * torch.randn(7, 3, 5, generator=generator, dtype=torch.float64)
    assert bool(torch.stack([both.contains(row) for row in both.project(wild)]).all())
    a = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    expected = first.minimum(a[..., :4]) + second.minimum(a[..., 4:])
    assert torch.equal(both.minimum(a), expected)
    assert torch.equal(both.select(slice(1, 2)).lower, both.lower[1:2])
    assert both.to(torch.float32).lower.dtype == torch.float32
    with pytest.raises(ValueError, match="equally many"):
        Product(first, second.select(slice(0, 2)))


def test_slopes_are_rounded_into_their_range() -> None:
    a = numbers([0.1, 0.1, 0.1, 0.3])
    lo = numbers([0.0, 0.1, 0.1, -1.0])
    hi = numbers([1.0, 1.0, 0.1, 0.2])
    near = within_float32(a, lo, hi)
    assert float(near[0]) == float(np.float32(0.1))
    assert float(near[1]) >= 0.1
    assert bool(near[2].isnan())
    assert 0.19 < float(near[3]) <= 0.2
    assert torch.equal(near[:2].float().double(), near[:2])


def test_an_unsafe_set_without_conditions_is_searched_without_an_end() -> None:
    slopes = hump()
    region = Box(numbers([[-2.0]]), numbers([[1.0]]))
    nothing = Unsafe(torch.zeros(1, 0, 1).double(), torch.zeros(1, 0).double(), torch.zeros(0, dtype=torch.long))
    found = attack.search(slopes, Case(region, nothing), torch.zeros(1).double(), torch.ones(1).double())
    assert float(found.upper) == torch.inf


def test_linear_networks_have_exact_minima_at_every_slope() -> None:
    """A neuron that is always active: the slope does not matter, and the corner is found."""
    draft = Draft(0)
    z = draft.add(Linear(numbers([[1.0, -2.0]]), numbers([10.0])), draft.input(1, 2))
    slopes = Slopes.of(draft.network(draft.leaky(z, 0.3)))
    region = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
    case = Case(region, unsafe(torch.ones(1, 1, 1), torch.zeros(1, 1), [0]))
    found = attack.along(slopes, case, torch.linspace(-1, 2, 5).double()[None])
    assert torch.allclose(found.upper, torch.full((1, 5), 7.0).double())


def test_the_same_seed_gives_the_same_points() -> None:
    question = ask("residual", 9)
    case = Case(question.region, Unsafe(question.objectives, question.objectives[..., 0] * 0, torch.tensor([0, 1, 1])))
    one, two = (attack.search(question.slopes, case, question.lo, question.hi, seed=3) for _ in range(2))
    assert torch.equal(one.points, two.points)
    other = attack.search(question.slopes, case, question.lo, question.hi, seed=4)
    assert not torch.equal(one.points, other.points)
