"""Regions: membership, projection, sampling, and the minimum of a linear function against oracles of other hands."""

from __future__ import annotations

from fractions import Fraction

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.region import Ball, Box, Norm, Region, ball, toward

BALLS = (Norm.L2, Norm.L1)
NORMS = (Norm.LINF, *BALLS)
U = 2.0**-53


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_ball(rng: np.random.Generator, norm: Norm, size: int = 6) -> Ball:
    """A ball cut with a box whose walls are anywhere from on the centre to far outside; some radii, centres are 0."""
    centre = rng.normal(size=size) * rng.choice([0.0, 1.0])
    room = rng.choice([0.0, 0.05, 0.31, 2.0, 50.0], size=(2, size))
    radius = rng.choice([0.0, 1e-9, 0.1, 1.0, 30.0])
    lower, upper = torch.from_numpy(centre - room[0])[None], torch.from_numpy(centre + room[1])[None]
    return Ball(torch.from_numpy(centre)[None], doubles([radius])[0], norm, lower, upper)


def optimum(region: Ball, a: np.ndarray) -> float:
    """The minimum of ``a . x`` over the region according to cvxpy."""
    x = cvxpy.Variable(region.size)
    order = 2 if region.norm is Norm.L2 else 1
    near = cvxpy.norm(x - region.centre[0].numpy(), order) <= float(region.radius[0])
    problem = cvxpy.Problem(cvxpy.Minimize(a @ x), [near, x >= region.lower[0].numpy(), x <= region.upper[0].numpy()])
    return float(problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("norm", BALLS, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_minimum_over_a_cut_ball_is_the_optimum_that_cvxpy_finds(norm: Norm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    region = random_ball(rng, norm)
    a = rng.normal(size=(3, region.size)) * rng.choice([0.0, 1e-3, 1.0, 100.0], size=(3, region.size))
    found = region.minimum(torch.from_numpy(a)[None])[0]
    for row, value in zip(a, found.tolist(), strict=True):
        scale = 1 + float(np.abs(row) @ region.magnitude[0].numpy())
        assert value == pytest.approx(optimum(region, row), abs=1e-7 * scale)


def exact_l1_minimum(region: Ball, a: list[float]) -> Fraction:
    """The greedy optimum in rational arithmetic: the budget goes where it gains most."""
    centre, low, high = ([Fraction(v) for v in x[0].tolist()] for x in (region.centre, region.lower, region.upper))
    budget, value = Fraction(float(region.radius[0])), Fraction(0)
    for i in sorted(range(len(a)), key=lambda i: -abs(a[i])):
        step = min(budget, centre[i] - low[i] if a[i] > 0 else high[i] - centre[i])
        value += Fraction(a[i]) * centre[i] - abs(Fraction(a[i])) * step
        budget -= step
    return value


def best_l2_bound(region: Ball, a: list[float]) -> Fraction:
    """A value of ``a . x`` attained at a rational point of the region: no valid bound is above it."""
    centre, low, high = ([Fraction(v) for v in x[0].tolist()] for x in (region.centre, region.lower, region.upper))
    radius = Fraction(float(region.radius[0]))
    start = [low[i] if a[i] > 0 else high[i] for i in range(len(a))]
    least = None
    for power in range(-60, 61):
        lam = Fraction(2) ** power
        step = [min(abs(Fraction(a[i])) / lam, abs(start[i] - centre[i])) for i in range(len(a))]
        if sum(s * s for s in step) <= radius * radius:
            parts = zip(a, centre, step, strict=True)
            value = sum((Fraction(v) * c - abs(Fraction(v)) * s for v, c, s in parts), Fraction(0))
            least = value if least is None else min(least, value)
    return sum((Fraction(v) * c for v, c in zip(a, centre, strict=True)), Fraction(0)) if least is None else least


@pytest.mark.parametrize("seed", range(40))
def test_rounding_of_the_minimum_stays_within_what_magnitude_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    scales = 10.0 ** rng.integers(-8, 9, size=size)
    a = (rng.normal(size=size) * scales).tolist()
    rows = torch.tensor(a, dtype=torch.float64)[None, None]
    for norm in BALLS:
        region = random_ball(rng, norm, size)
        share = (size + 8) * U
        slack = Fraction(share / (1 - share)) * sum(
            (abs(Fraction(v)) * Fraction(m) for v, m in zip(a, region.magnitude[0].tolist(), strict=True)), Fraction(0)
        )
        bound = Fraction(float(region.minimum(rows))) - slack
        if norm is Norm.L1:
            truth = exact_l1_minimum(region, a)
            assert bound <= truth <= bound + 2 * slack
        else:
            assert bound <= best_l2_bound(region, a)
    low = torch.from_numpy(rng.normal(size=(1, size)) * scales)
    box = Box(low, low + torch.from_numpy(rng.uniform(size=(1, size))))
    truth = sum(
        (
            min(Fraction(v) * Fraction(p), Fraction(v) * Fraction(q))
            for v, p, q in zip(a, box.lower[0].tolist(), box.upper[0].tolist(), strict=True)
        ),
        Fraction(0),
    )
    slack = Fraction(share / (1 - share)) * sum(
        (abs(Fraction(v)) * Fraction(m) for v, m in zip(a, box.magnitude[0].tolist(), strict=True)), Fraction(0)
    )
    assert abs(Fraction(float(box.minimum(rows))) - truth) <= slack


def test_minimum_over_a_box_is_reached_at_a_corner() -> None:
    rng = np.random.default_rng(0)
    low = torch.from_numpy(rng.normal(size=(2, 4)))
    box = Box(low, low + torch.from_numpy(rng.uniform(size=(2, 4))))
    a = torch.from_numpy(rng.normal(size=(2, 5, 4)))
    ends = torch.stack([box.lower, box.upper])
    corners = torch.stack([torch.stack([ends[(k >> i) & 1, :, i] for i in range(4)], -1) for k in range(16)])
    brute = (a.unsqueeze(0) * corners.unsqueeze(2)).sum(-1).amin(0)
    assert torch.allclose(box.minimum(a), brute, rtol=0, atol=1e-13)


@pytest.mark.parametrize("norm", BALLS, ids=str)
def test_minimum_over_an_uncut_ball_is_the_dual_norm(norm: Norm) -> None:
    centre, a = doubles([0.5, -2.0, 3.0]), doubles([3.0, -4.0, 0.0]).unsqueeze(1)
    dual = 5.0 if norm is Norm.L2 else 4.0
    assert float(ball(centre, 0.25, norm).minimum(a)) == pytest.approx(1.5 + 8.0 - 0.25 * dual, abs=1e-14)


def test_minimum_does_not_lose_coefficients_whose_squares_underflow() -> None:
    for dtype, tiny in ((torch.float64, 1e-170), (torch.float32, 1e-30)):
        region = ball(doubles([0.0, 0.0]), 1.0, Norm.L2).to(dtype)
        a = torch.full((1, 1, 2), tiny, dtype=dtype)
        assert float(region.minimum(a)) <= -1.414 * tiny


def test_minimum_over_a_tiny_ball_in_a_mixed_batch_is_not_undefined() -> None:
    region = Ball(
        doubles([0.0, 0.0], [0.0, 0.0]),
        doubles([0.0, 1.0])[0],
        Norm.L2,
        doubles([-1.0, -1.0], [0.0, -0.1]),
        doubles([1.0, 1.0], [0.5, 0.1]),
    )
    found = region.minimum(doubles([1e300, 1e300], [1.0, 1.0]).unsqueeze(1))
    assert found[0, 0] == 0
    assert found[1, 0] == pytest.approx(-0.1, abs=1e-12)


@pytest.mark.parametrize("norm", BALLS, ids=str)
def test_gradient_of_the_minimum_is_where_it_is_attained(norm: Norm) -> None:
    lower, upper = doubles([-0.1, -0.5, -2.0]), doubles([0.2, 0.5, 2.0])
    region = Ball(doubles([0.1, -0.2, 0.3]), doubles([0.7])[0], norm, lower, upper)
    a = doubles([1.0, -2.0, 0.7]).unsqueeze(1).requires_grad_()
    value = region.minimum(a)
    (point,) = torch.autograd.grad(value.sum(), a)
    assert float((point * a.detach()).sum()) == pytest.approx(float(value.detach()), abs=1e-9)
    assert (region.centre - point[:, 0]).norm(p=2 if norm is Norm.L2 else 1) <= 0.7 + 1e-9
    assert bool(((point[:, 0] >= region.lower - 1e-12) & (point[:, 0] <= region.upper + 1e-12)).all())


finite = st.floats(-1e6, 1e6)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    size = draw(st.integers(1, 5))
    centre = doubles(draw(st.lists(finite, min_size=size, max_size=size)))
    radius = draw(st.sampled_from([0.0, 1e-300, 1e-12, 0.1, 3.0, 1e5]))
    clip = draw(st.sampled_from([None, (-1e6, 1e6), (float(centre.min()), float(centre.max()))]))
    return ball(centre, radius, draw(st.sampled_from(NORMS)), clip)


def lies_exactly_inside(region: Region, x: list[float]) -> bool:
    walls = region.inside if isinstance(region, Box) else (region.lower, region.upper)
    within = all(p <= v <= q for v, p, q in zip(x, walls[0][0].tolist(), walls[1][0].tolist(), strict=True))
    if not isinstance(region, Ball):
        return within
    moves = [abs(Fraction(v) - Fraction(c)) for v, c in zip(x, region.centre[0].tolist(), strict=True)]
    power = 2 if region.norm is Norm.L2 else 1
    return within and sum(m**power for m in moves) <= Fraction(float(region.radius[0])) ** power


@settings(max_examples=300, deadline=None)
@given(regions(), st.integers(0, 2**32), st.sampled_from([1e-3, 1.0, 1e7]))
def test_projected_and_sampled_points_lie_inside_exactly(region: Region, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    away = torch.randn(3, 1, region.size, generator=generator, dtype=torch.float64) * spread
    for point in (*region.project(region.lower + away), region.sample(generator), region.project(region.lower)):
        assert bool(region.contains(point))
        assert lies_exactly_inside(region, point[0].tolist())


@settings(max_examples=200, deadline=None)
@given(regions(), st.integers(0, 2**32))
def test_no_sample_is_below_the_minimum(region: Region, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(1, 4, region.size, generator=generator, dtype=torch.float64)
    floor = region.minimum(a) - 2 * (region.size + 9) * U * (a.abs() @ region.magnitude.unsqueeze(-1)).squeeze(-1)
    for _ in range(5):
        value = (a @ region.sample(generator).unsqueeze(-1)).squeeze(-1)
        assert bool((floor <= value).all())


@settings(max_examples=200, deadline=None)
@given(regions(), st.integers(0, 2**32))
def test_the_float32_region_encloses_the_float64_one(region: Region, seed: int) -> None:
    single = region.to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for point in (region.sample(generator), region.lower, region.upper):
        assert bool(((single.lower.double() <= point) & (point <= single.upper.double())).all())
    if isinstance(region, Ball) and isinstance(single, Ball):
        pairs = zip(single.centre[0].tolist(), region.centre[0].tolist(), strict=True)
        shift = [Fraction(p) - Fraction(q) for p, q in pairs]
        power = 2 if region.norm is Norm.L2 else 1
        room = Fraction(float(single.radius[0])) - Fraction(float(region.radius[0]))
        assert room >= 0
        assert sum(abs(s) ** power for s in shift) <= room**power


def test_rounding_toward_a_side_keeps_the_gradient() -> None:
    x = doubles([0.1, -2e5 - 1e-7]).requires_grad_()
    toward(x, torch.float32, -torch.inf).sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 1).all())


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, width=64), st.sampled_from([torch.inf, -torch.inf]))
def test_rounding_toward_a_side_never_crosses_the_number(value: float, direction: float) -> None:
    x = doubles([value])
    rounded = float(toward(x, torch.float32, direction))
    assert rounded >= value if direction > 0 else rounded <= value


@settings(max_examples=300, deadline=None)
@given(finite, st.floats(0, 1e6))
def test_walls_of_a_ball_enclose_the_exact_interval_as_tightly_as_float64_can(centre: float, radius: float) -> None:
    box = ball(doubles([centre]), radius)
    assert isinstance(box, Box)
    assert box.inner_lower is not None
    assert box.inner_upper is not None
    low, high = Fraction(centre) - Fraction(radius), Fraction(centre) + Fraction(radius)
    outer_low, inner_low = Fraction(float(box.lower)), Fraction(float(box.inner_lower))
    inner_high, outer_high = Fraction(float(box.inner_upper)), Fraction(float(box.upper))
    assert outer_low <= low <= inner_low
    assert inner_high <= high <= outer_high
    assert (outer_low == low) == (inner_low == low)
    assert float(box.inner_lower) <= np.nextafter(float(box.lower), np.inf)
    assert float(box.upper) <= np.nextafter(float(box.inner_upper), np.inf)


def test_a_box_contains_what_its_inside_holds_and_nothing_else() -> None:
    box = Box(doubles([0.0]), doubles([1.0]), doubles([0.25]), doubles([0.75]))
    inside = [bool(box.contains(doubles([x]))) for x in (0.0, 0.2499, 0.25, 0.75, 0.7501, 1.0)]
    assert inside == [False, False, True, True, False, False]


def test_a_constant_that_float64_cannot_hold_accepts_its_neighbours() -> None:
    low, high = 0.1 - 2**-56, 0.1
    box = Box(doubles([low]), doubles([high]), doubles([high]), doubles([low]))
    assert bool(box.contains(doubles([low])))
    assert bool(box.contains(doubles([high])))
    assert not bool(box.contains(doubles([0.11])))


def test_points_just_outside_a_ball_are_outside() -> None:
    region = ball(doubles([0.0, 0.0]), 1.0, Norm.L2)
    assert not bool(region.contains(doubles([1.0, 1e-8])))
    assert bool(region.contains(doubles([1.0 - 1e-12, 0.0])))
    assert not bool(ball(doubles([0.0, 0.0]), 1e-200, Norm.L2).contains(doubles([1e-170, 0.0])))


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_ball_of_radius_zero_is_its_centre(norm: Norm) -> None:
    centre = doubles([0.1, -7.3])
    region = ball(centre, 0.0, norm, clip=(-10, 10))
    assert bool((region.project(centre + 1) == centre).all())
    assert bool(region.contains(centre))
    assert float(region.minimum(doubles([2.0, 1.0]).unsqueeze(1))) == float(2 * centre[0, 0] + centre[0, 1])


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_regions_are_selected_and_permuted_entry_by_entry(norm: Norm) -> None:
    region = ball(doubles([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), 0.05, norm)
    a = doubles([1.0, -2.0, 3.0]).unsqueeze(1)
    second = region.select(torch.tensor([1]))
    assert float(second.minimum(a)) == float(region.minimum(a.expand(2, 1, 3))[1])
    order = torch.tensor([2, 0, 1])
    assert float(second.permuted(order).minimum(a[..., order])) == pytest.approx(float(second.minimum(a)), abs=1e-15)


@pytest.mark.parametrize(
    ("word", "norm"),
    [
        ("inf", Norm.LINF),
        (2, Norm.L2),
        ("1", Norm.L1),
        (Norm.L1, Norm.L1),
        (2.0, Norm.L2),
        (float("inf"), Norm.LINF),
        ("Linf", Norm.LINF),
    ],
)
def test_norms_go_by_their_names(word: object, norm: Norm) -> None:
    assert Norm.named(word) is norm


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ball(doubles([0.5]), -1.0), r"radius \(epsilon\) must be a finite number >= 0; got \[-1"),
        (lambda: ball(doubles([0.5]), float("nan")), "radius .* got .*nan"),
        (lambda: ball(doubles([0.5]), float("inf")), "radius .* got .*inf"),
        (lambda: ball(doubles([float("nan")]), 1.0), "NaN or infinite"),
        (lambda: ball(doubles([0.5]), 1.0, clip=(1.0, 0.0)), "clip range must have lower <= upper; got 1.0 0.0"),
        (lambda: ball(doubles([0.5, 1.5]), 1.0, clip=(0.0, 1.0)), "input 0 has value 1.5 at entry 1, outside"),
        (lambda: ball(doubles([1.7e308]), 1e308), "not bounded: the upper bound of input entry 0 is inf"),
        (
            lambda: Box(doubles([0.0, 2.0]), doubles([1.0, 1.0])),
            "entry 1 has lower bound 2.0 above its upper bound 1.0",
        ),
        (lambda: Box(doubles([0.0, -torch.inf]), doubles([1.0, 1.0])), "the lower bound of input entry 1 is -inf"),
        (lambda: Ball(doubles([2.0]), doubles([1.0])[0], Norm.L2, doubles([0.0]), doubles([1.0])), "outside the box"),
        (lambda: Norm.named("3"), "norm '3' is not known; allowed: inf, 2, 1"),
    ],
)
def test_wrong_regions_are_refused_with_what_came(make: object, message: str) -> None:
    with pytest.raises(PropertyError, match=message):
        make()  # type: ignore[operator]
