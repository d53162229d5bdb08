"""Bounds hold: for every engine, arithmetic, operator and region, no concrete input leaves them, at tolerance 0."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import KINDS, build, exact_outputs
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.verify.bounds.engine import ENGINES, bound, lower_bounds

DTYPES = (torch.float64, torch.float32)
BATCH, SAMPLES, PUSHED = 4, 1000, 100


def centres(network: Network, generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, network.input_size, generator=generator, dtype=torch.float64)


def boxes(centre: Tensor, generator: torch.Generator) -> Region:
    radius = 1.2 * torch.rand(centre.shape, generator=generator, dtype=torch.float64) ** 2
    return Box(centre - radius, centre + radius)


def thin_boxes(centre: Tensor, generator: torch.Generator) -> Region:
    """Some coordinates fixed, some free on one side only, some wide."""
    kind = torch.randint(4, centre.shape, generator=generator)
    below = torch.where((kind == 1) | (kind == 3), 0.7, 0.0)
    above = torch.where((kind == 2) | (kind == 3), 0.4, 0.0)
    return Box(centre - below, centre + above)


Make = Callable[[Tensor, torch.Generator], Region]


def balls(norm: Norm, radius: float, clip: tuple[float, float] | None = None) -> Make:
    def make(centre: Tensor, generator: torch.Generator) -> Region:
        size = radius * torch.rand(len(centre), generator=generator, dtype=torch.float64)
        return ball(centre if clip is None else centre.clamp(*clip), size, norm, clip)

    return make


REGIONS: dict[str, Make] = {
    "box": boxes,
    "thin box": thin_boxes,
    "L2": balls(Norm.L2, 1.5),
    "L1": balls(Norm.L1, 2.5),
    "L2 cut": balls(Norm.L2, 2.0, (-0.6, 0.5)),
    "L1 cut": balls(Norm.L1, 3.0, (-0.6, 0.5)),
}


def corners(region: Region, count: int, generator: torch.Generator) -> Tensor:
    """Vertices of the bounding box ``(count, batch, n)``, moved into the region."""
    which = torch.rand(count, *region.lower.shape, generator=generator) < 0.5
    return region.project(torch.where(which, region.lower, region.upper))


def pushed(network: Network, region: Region, points: Tensor, steps: int = 12) -> Tensor:
    """Points ``(count, batch, n)`` after gradient steps that each raise or lower one output."""
    goal = torch.eye(network.output_size, dtype=torch.float64)
    goal = torch.cat([goal, -goal])[torch.arange(points.shape[0] * points.shape[1]) % (2 * len(goal))]
    width = (region.upper - region.lower) / 4
    for step in range(steps):
        x = points.detach().requires_grad_(True)
        with torch.enable_grad():
            value = (network.flat(x.flatten(0, 1)) * goal).sum()
            if not value.requires_grad:
                return points
            (slope,) = torch.autograd.grad(value, x)
        points = region.project(points + width * 0.8**step * slope.sign())
    return points


def concrete_outputs(network: Network, region: Region, generator: torch.Generator) -> Tensor:
    """Outputs ``(count, batch, outputs)``, in float64, of random points, vertices and points pushed to the extremes."""
    inside = torch.stack([region.sample(generator) for _ in range(SAMPLES // 2)])
    points = torch.cat([inside, corners(region, SAMPLES - SAMPLES // 2 - PUSHED, generator)])
    points = torch.cat([points, pushed(network, region, points[:: len(points) // PUSHED][:PUSHED])])
    assert all(bool(region.contains(x).all()) for x in points[::50])
    return network.flat(points.flatten(0, 1)).detach().reshape(len(points), region.batch, -1)


def assert_sound(network: Network, region: Region, y: Tensor, engine: str, dtype: torch.dtype) -> None:
    box = bound(network, region, engine=engine, dtype=dtype)
    low, high = (torch.cat([pair[end].flatten(1) for pair in box.outputs.values()], 1) for end in (0, 1))
    assert low.dtype == high.dtype == torch.float64
    assert bool((low <= y).all()), f"{engine} {dtype}: below the lower bound by {float((low - y).max())}"
    assert bool((y <= high).all()), f"{engine} {dtype}: above the upper bound by {float((y - high).max())}"
    assert bool((torch.isfinite(low) & torch.isfinite(high)).all())


def check(kind: str, shape: str, seed: int) -> None:
    network = build(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    region = REGIONS[shape](centres(network, generator), generator)
    y = concrete_outputs(network, region, generator)
    assert y.numel() == SAMPLES * BATCH * network.output_size
    for engine in ENGINES:
        for dtype in DTYPES if engine != "alpha-crown" else DTYPES[seed % 2 :][:1]:
            assert_sound(network, region, y, engine, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", REGIONS)
def test_bounds_contain_every_sampled_output(kind: str, shape: str) -> None:
    check(kind, shape, 10 + list(REGIONS).index(shape) + list(KINDS).index(kind))


def test_at_least_a_million_outputs_are_sampled_for_each_engine() -> None:
    assert sum(SAMPLES * BATCH * build(kind).output_size for kind in KINDS) * len(REGIONS) >= 10**6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_contain_every_sampled_output_of_many_networks(kind: str, seed: int) -> None:
    for shape in REGIONS:
        check(kind, shape, seed)


def assert_encloses(low: Tensor, exact: list[Fraction], high: Tensor) -> None:
    for least, value, most in zip(low.tolist(), exact, high.tolist(), strict=True):
        assert Fraction(least) <= value <= Fraction(most)


RATIONAL = [kind for kind in KINDS if kind not in ("smooth", "branches")]


@pytest.mark.parametrize("kind", RATIONAL)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_boxes_of_zero_width_contain_the_exact_rational_value(kind: str, scale: float) -> None:
    network = build(kind, 3)
    x = scale * torch.randn(2, network.input_size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = [exact_outputs(network, [Fraction(v) for v in row]) for row in x.tolist()]
    spread = 1e-9 if kind in ("scaled", "two_slopes", "average_pool") else 1e-11
    for engine in ENGINES:
        for dtype in DTYPES:
            box = bound(network, Box(x, x), engine=engine, dtype=dtype)
            low, high = (torch.cat([pair[end].flatten(1) for pair in box.outputs.values()], 1) for end in (0, 1))
            for i, row in enumerate(y):
                assert_encloses(low[i], row, high[i])
            if dtype == torch.float64:
                assert float((high - low).max()) <= spread * (1 + 10 * scale) * 10


@pytest.mark.parametrize("kind", RATIONAL)
@pytest.mark.parametrize("engine", ENGINES)
def test_bounds_contain_the_exact_rational_value_at_vertices(kind: str, engine: str) -> None:
    """Boxes so thin that what a float64 evaluation rounds away is most of their outputs' width."""
    network = build(kind, 4)
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
    region = Box(x - 1e-16 * x.abs(), x + 2e-15 * x.abs())
    points = corners(region, 6, generator)[:, 0].tolist()
    for dtype in DTYPES:
        box = bound(network, region, engine=engine, dtype=dtype)
        low, high = (torch.cat([pair[end].flatten(1) for pair in box.outputs.values()], 1)[0] for end in (0, 1))
        for point in points:
            y = exact_outputs(network, [Fraction(v) for v in point])
            assert_encloses(low, y, high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_linear_functions_of_the_outputs_hold(kind: str, engine: str, dtype: torch.dtype) -> None:
    network, generator = build(kind, 7), torch.Generator().manual_seed(8)
    region = boxes(centres(network, generator), generator)
    rows = torch.randn(BATCH, 3, network.output_size, generator=generator, dtype=torch.float64)
    low = lower_bounds(network, region, rows, engine=engine, dtype=dtype)
    y = concrete_outputs(network, region, generator)
    values = torch.einsum("bro,sbo->sbr", rows, y)
    assert low.shape == (BATCH, 3)
    assert bool((low <= values).all())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted(REGIONS)),
    st.integers(1000, 10**6),
    st.sampled_from(["interval", "crown"]),
    st.sampled_from(DTYPES),
)
def test_bounds_contain_samples_of_networks_nobody_chose(
    kind: str, shape: str, seed: int, engine: str, dtype: torch.dtype
) -> None:
    network, generator = build(kind, seed), torch.Generator().manual_seed(seed)
    region = REGIONS[shape](centres(network, generator), generator)
    assert_sound(network, region, concrete_outputs(network, region, generator), engine, dtype)
