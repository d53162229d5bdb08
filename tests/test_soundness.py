"""Bounds hold: for every engine, arithmetic, operator and region, no concrete input leaves them, at tolerance 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import KINDS, Draft, build, exact_outputs
from onnx_zoo import zoo_model
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes
from leaktight.models.ops import Constant, Conv, ConvTranspose, Linear, Op, Scale, TwoSlope
from leaktight.models.simplify import simplify
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


# ---- parameters that are known up to an error ----


def uncertain(network: Network, share: float) -> Network:
    """Every parameter is stored with an error of this share of it, as a rewrite that rounds would leave it."""

    def loosened(op: Any) -> Op:
        if isinstance(op, Constant):
            return replace(op, error=share * op.value.abs())
        if isinstance(op, TwoSlope):
            return replace(op, precision=share)
        if isinstance(op, (Linear, Scale, Conv, ConvTranspose)):
            bias_error = None if op.bias is None else share * op.bias.abs()
            return replace(op, weight_error=share * op.weight.abs(), bias_error=bias_error)
        return op  # type: ignore[no-any-return]

    return replace(network, nodes=tuple(replace(node, op=loosened(node.op)) for node in network.nodes))


def possible(network: Network, share: float, generator: torch.Generator) -> Network:
    """One of the networks that an uncertain one may be: every parameter moved by its whole error."""

    def moved(value: Tensor) -> Tensor:
        sign = torch.randint(2, value.shape, generator=generator).double() * 2 - 1
        return value * (1 + share * (1 - 1e-9) * sign)

    def changed(op: Any) -> Op:
        names = [f.name for f in fields(op) if f.name in ("weight", "bias", "value", "left", "right", "kink")]
        found = {name: getattr(op, name) for name in names}
        return replace(op, **{k: moved(v) for k, v in found.items() if v is not None})  # type: ignore[no-any-return]

    return replace(network, nodes=tuple(replace(node, op=changed(node.op)) for node in network.nodes))


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_contain_the_outputs_of_every_network_within_the_parameters_errors(kind: str) -> None:
    network, generator = build(kind, 31), torch.Generator().manual_seed(4)
    share = 0.02 if len(kind) % 2 else 1e-5
    loose = uncertain(network, share)
    x = torch.randn(2, network.input_size, generator=generator, dtype=torch.float64)
    y = torch.stack([possible(network, share, generator).flat(x) for _ in range(60)])
    for engine in ENGINES:
        for dtype in DTYPES if engine != "alpha-crown" else DTYPES[:1]:
            assert_sound(loose, Box(x, x), y, engine, dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["linear", "constant", "scale", "conv", "transposed", "bias"])
def test_the_error_of_one_parameter_is_in_the_bounds_whole(kind: str, engine: str) -> None:
    """Weights of 1 with an error of 0.25 at x = 2, a bias of 0 with an error of 0.5: off by 0.5 at the worst."""
    one, off = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 0.25, dtype=torch.float64)
    ops: dict[str, tuple[Op, float]] = {
        "linear": (Linear(one, weight_error=off), 0.5),
        "bias": (Linear(one, torch.zeros(1).double(), bias_error=torch.full((1,), 0.5).double()), 0.5),
        "scale": (Scale(one, weight_error=off), 0.5),
        "conv": (Conv(one.reshape(1, 1, 1), weight_error=off.reshape(1, 1, 1)), 0.5),
        "transposed": (ConvTranspose(one.reshape(1, 1, 1), weight_error=off.reshape(1, 1, 1)), 0.5),
        "constant": (Constant(torch.full((1, 1), 2.0).double(), error=torch.full((1, 1), 0.5).double()), 0.5),
    }
    op, wide = ops[kind]
    draft = Draft(0)
    x = draft.input(1, 1, 1) if kind in ("conv", "transposed") else draft.input(1, 1)
    value = draft.add(op) if kind == "constant" else draft.add(op, x)
    for network in (draft.network(value), draft.network(draft.leaky(value, 0.3))):
        at = torch.full((1, 1), 2.0, dtype=torch.float64)
        box = bound(network, Box(at, at), engine=engine)
        assert float(box.lower) <= 2.0 - wide
        assert float(box.upper) >= 2.0 + wide


@pytest.mark.parametrize("seed", range(4))
def test_values_without_axes_are_bounded_by_every_engine(seed: int) -> None:
    network = simplify(network_from_bytes(zoo_model("scalars", seed).SerializeToString(), path="scalars.onnx"))
    generator = torch.Generator().manual_seed(seed)
    region = ball(torch.randn(2, network.input_size, generator=generator, dtype=torch.float64), 0.5, Norm.LINF)
    points = (
        region.lower
        + (region.upper - region.lower) * torch.rand(999, *region.lower.shape, generator=generator).double()
    )
    values = torch.stack([network.flat(x) for x in points])
    for engine in ENGINES:
        found = bound(network, region, engine=engine)
        lower, upper = (
            torch.cat([found.outputs[port.name][end].reshape(2, -1) for port in network.outputs], 1) for end in (0, 1)
        )
        assert bool((values >= lower).all())
        assert bool((values <= upper).all())
