"""Error terms against exact rational numbers: what rounds, overflows and underflows never moves a bound inwards."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Draft, exact_outputs, fully_connected
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.models.ops import (
    Constant,
    Conv,
    ConvTranspose,
    Linear,
    Maximum,
    Reshape,
    Scale,
    Sigmoid,
    Sum,
    TwoSlope,
    leaky_relu,
)
from leaktight.specs.region import Box, Norm, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.centred import Centred
from leaktight.verify.bounds.engine import ENGINES, bound, lower_bounds
from leaktight.verify.bounds.interval import lower_of_outputs, propagate
from leaktight.verify.bounds.rows import Rows, Units, rows_on_outputs
from leaktight.verify.bounds.single import Single
from leaktight.verify.relax import Lines
from leaktight.verify.rounding import down, gamma, trusted_lower, trusted_upper, underflow, unit, up

DTYPES = (torch.float64, torch.float32)
both = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_engine = pytest.mark.parametrize("engine", ENGINES)


@both
@pytest.mark.parametrize("terms", [1, 2, 3, 10, 1000, 100_000])
def test_gamma_is_at_least_twice_the_textbook_factor(dtype: torch.dtype, terms: int) -> None:
    share = terms * Fraction(unit(dtype))
    assert Fraction(gamma(terms, dtype)) >= 2 * share / (1 - share)
    assert gamma(terms, dtype) <= 3 * (terms + 8) * unit(dtype)


def test_the_unit_roundoff_is_that_of_round_to_nearest() -> None:
    assert (unit(torch.float64), unit(torch.float32)) == (2.0**-53, 2.0**-24)
    assert gamma(0, torch.float32) == 0.0


@pytest.fixture(params=["high", "medium", "ONEDNN", "DNNL"])
def shortened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products of float32 matrices may be made of shortened factors."""
    if request.param.isupper():
        monkeypatch.setenv(f"{request.param}_DEFAULT_FPMATH_MODE", "BF16")
        yield
        return
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("shortened")
@every_engine
def test_no_bound_rests_on_shortened_products(engine: str) -> None:
    network, rows = fully_connected(1, (4, 64, 3)), torch.eye(3, dtype=torch.float64).unsqueeze(0)
    region = ball(torch.zeros(1, 4, dtype=torch.float64), 0.5)
    assert not Single.fits(Backward(network, region, {}))
    with pytest.raises(UsageError, match="set_float32_matmul_precision"):
        lower_bounds(network, region, rows, engine=engine, dtype=torch.float32)
    assert torch.isfinite(lower_bounds(network, region, rows, engine=engine)).all()


def test_a_sum_too_long_for_its_arithmetic_is_refused() -> None:
    with pytest.raises(UsageError, match="float64"):
        gamma(1_000_000, torch.float32)
    assert gamma(1_000_000, torch.float64) > 0


@both
@settings(max_examples=200, deadline=None)
@given(x=st.floats(allow_nan=False, allow_infinity=False))
def test_down_and_up_pass_the_neighbouring_numbers(dtype: torch.dtype, x: float) -> None:
    value = torch.tensor([x], dtype=torch.float64).to(dtype)
    if torch.isfinite(value):
        infinity = value.new_tensor(torch.inf)
        assert bool(down(value) <= torch.nextafter(value, -infinity))
        assert bool(up(value) >= torch.nextafter(value, infinity))


@both
def test_what_overflowed_or_is_undefined_says_nothing(dtype: torch.dtype) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0], dtype=dtype)
    assert trusted_lower(x).tolist() == [-torch.inf, -torch.inf, -torch.inf, 1.0]
    assert trusted_upper(x).tolist() == [torch.inf, torch.inf, torch.inf, 1.0]


# ---- inner products that cancel ----

HARD = st.sampled_from([1e8, -1e8, 1e-8, -1e-8, 1.0, -1.0, 0.1, 3e7 + 1, -(3e7 + 1), 1 / 3, 0.0])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(HARD, HARD), min_size=1, max_size=40), st.sampled_from(DTYPES))
def test_gamma_covers_inner_products_in_any_order(pairs: list[tuple[float, float]], dtype: torch.dtype) -> None:
    a, b = (torch.tensor([pair[i] for pair in pairs], dtype=dtype) for i in (0, 1))
    exact = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True))
    reach = a.abs() @ b.abs()
    for found in (a @ b, (a * b).sum(), (a.flip(0) * b.flip(0)).cumsum(0)[-1]):
        assert abs(Fraction(float(found)) - exact) <= Fraction(gamma(len(pairs), dtype)) * Fraction(float(reach))


def linear_chain(seed: int, depth: int, width: int = 6) -> Network:
    """Affine layers whose weights mix 1e8 with 1e-8, each undone, almost, by the next."""
    draft = Draft(seed)
    at = draft.input(1, width)
    for layer in range(depth):
        weight = draft.normal(width, width) * draft.choose((1e4, 1e-4, 1.0), width, width)
        weight[0] = -weight[1] * (1 + 1e-7)  # rows that cancel when they meet
        if layer % 2:
            weight[:, 0] = weight[:, 1]
        at = draft.add(Linear(weight, draft.normal(width) * 1e3), at)
    return draft.network(at)


@every_engine
@both
@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_ill_conditioned_networks_contain_the_exact_result(
    seed: int, engine: str, dtype: torch.dtype
) -> None:
    network = linear_chain(seed, 4)
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    box = bound(network, Box(x, x), engine=engine, dtype=dtype)
    assert_encloses(box.lower, exact_outputs(network, fractions(x)), box.upper)


CANCELLING = [1.0, 2.0**-3, -3.0, 5e-3]


def cancelling(kind: str, big: float) -> Network:
    """One operator that adds ``big`` and ``-big`` to small numbers: what it computes is mostly error."""
    draft = Draft(0)
    orders = [[big, *CANCELLING, -big], [1.0, -3.0, big, 5e-3, -big, 0.1], [-big, big / 3, 1.0, 5e-3, 2 * big / 3, 0.1]]
    weight = torch.tensor(orders, dtype=torch.float64)
    if kind == "linear":
        return draft.network(draft.add(Linear(weight, torch.tensor([0.1, big, -big]).double()), draft.input(1, 6)))
    if kind == "conv":
        op = Conv(weight.reshape(3, 2, 3), torch.tensor([0.1, big, -big]).double())
        return draft.network(draft.flatten(draft.add(op, draft.input(1, 2, 3))))
    if kind == "transposed":
        spread = ConvTranspose(weight.T.reshape(6, 3, 1), None)
        return draft.network(draft.flatten(draft.add(spread, draft.input(1, 6, 1))))
    parts = [draft.add(Scale(weight[0, i].reshape(1, 1), None), draft.input(1, 1)) for i in range(6)]
    return draft.network(draft.add(Sum((1, 1, -1, 1, 1, 1)), *parts))


@every_engine
@both
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed", "sum"])
@pytest.mark.parametrize("big", [2.0**27, 2.0**60, 1e19])
def test_one_operator_that_cancels_contains_the_exact_result(
    kind: str, big: float, engine: str, dtype: torch.dtype
) -> None:
    network = cancelling(kind, big)
    for x in (torch.ones(1, 6), torch.tensor([[1.0, 0.5, 3.0, 0.25, 2.0, 1.0]])):
        box = bound(network, Box(x.double(), x.double()), engine=engine, dtype=dtype)
        assert_encloses(box.lower, exact_outputs(network, fractions(x)), box.upper)


def fractions(x: Tensor) -> list[Fraction]:
    return [Fraction(v) for v in x.flatten().tolist()]


def assert_encloses(low: Tensor, exact: list[Fraction], high: Tensor) -> None:
    for least, value, most in zip(low.flatten().tolist(), exact, high.flatten().tolist(), strict=True):
        assert least == -torch.inf or Fraction(least) <= value
        assert most == torch.inf or value <= Fraction(most)


@every_engine
@both
def test_a_join_of_paths_that_cancel_contains_the_exact_result(engine: str, dtype: torch.dtype) -> None:
    """``y = big x - big x + x`` over three paths and a constant, each rounded where it joins."""
    for seed in range(12):
        draft = Draft(seed)
        x = draft.input(1, 3)
        weight, bias = draft.normal(3, 3, scale=1e7), draft.normal(3, scale=1e6)
        first = draft.add(leaky_relu(1.0), draft.add(Linear(weight, bias), x))
        second = draft.add(leaky_relu(1.0), draft.add(Linear(weight * (1 - 3e-8), bias), x))
        shifted = draft.add(
            Sum((1, -1)),
            first,
            draft.add(
                Constant(draft.normal(1, 3, scale=1e7)),
            ),
        )
        network = draft.network(draft.linear(draft.add(Sum((1, -1, 1)), shifted, second, x), 2))
        at = draft.normal(1, 3)
        box = bound(network, Box(at, at), engine=engine, dtype=dtype)
        assert_encloses(box.lower, exact_outputs(network, fractions(at)), box.upper)


@every_engine
@both
@pytest.mark.parametrize("shrink", [-120, -140, -147])
def test_layers_that_underflow_before_they_are_magnified_stay_sound(
    engine: str, dtype: torch.dtype, shrink: int
) -> None:
    shrink = shrink if dtype == torch.float32 else shrink - 925
    for seed in range(8):
        for slope in (1.0, 0.3, None):
            draft = Draft(seed)
            x = draft.input(1, 4)
            small = draft.add(Linear(torch.ldexp(draft.normal(4, 4), torch.tensor(shrink)), None), x)
            large = torch.ldexp(draft.normal(2, 4), torch.tensor(min(-shrink, 1000 if dtype == torch.float64 else 125)))
            between = small if slope is None else draft.add(leaky_relu(slope), small)
            network = draft.network(draft.add(Linear(large, None), between))
            at = draft.normal(1, 4)
            box = bound(network, Box(at, at), engine=engine, dtype=dtype)
            assert_encloses(box.lower, exact_outputs(network, fractions(at)), box.upper)


@every_engine
@both
def test_outputs_that_underflow_are_magnified_soundly_by_the_objective(engine: str, dtype: torch.dtype) -> None:
    """The slack of a subnormal weight vanishes in the arithmetic, until a large coefficient multiplies it."""
    shrink, grow = (-136, 2.0**125) if dtype == torch.float32 else (-1061, 2.0**1000)
    for seed in range(12):
        draft = Draft(seed)
        weight = torch.ldexp(draft.normal(4, 4), torch.tensor(shrink))
        network = draft.network(draft.add(Linear(weight, None), draft.input(1, 4)))
        x, rows = 0.1 * draft.normal(1, 4), draft.normal(1, 2, 4).to(dtype).double() * grow
        y = exact_outputs(network, fractions(x))
        low = lower_bounds(network, Box(x, x), rows, engine=engine, dtype=dtype)
        for row, found in zip(rows[0].tolist(), low[0].tolist(), strict=True):
            exact = sum(Fraction(c) * v for c, v in zip(row, y, strict=True))
            assert found == -torch.inf or Fraction(found) <= exact


# ---- overflow ----


def exploding(seed: int, scale: float) -> Network:
    draft = Draft(seed)
    at = draft.input(1, 3)
    for _ in range(3):
        at = draft.leaky(draft.linear(at, 4, scale), 0.1)
    joined = draft.add(Sum((1, -1)), at, draft.linear(at, 4))
    windows = draft.add(Reshape((1, 4), (1, 2, 2)), joined)
    return draft.network(draft.linear(draft.add(Maximum(), windows), 2), draft.add(Sigmoid(), joined))


@every_engine
@both
@pytest.mark.parametrize("scale", [1e13, 1e20, 1e103, 1e160])
@pytest.mark.parametrize("norm", Norm)
def test_overflow_is_minus_infinity_and_never_nan_or_a_proof(
    engine: str, dtype: torch.dtype, scale: float, norm: Norm
) -> None:
    network = exploding(1, scale)
    region = ball(torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64), 0.5, norm)
    eye = torch.eye(network.output_size, dtype=torch.float64)
    rows = torch.cat([eye, -eye]).unsqueeze(0)
    low = lower_bounds(network, region, rows, engine=engine, dtype=dtype)
    assert not bool(torch.isnan(low).any())
    assert not bool((low == torch.inf).any())
    y = network.flat(torch.stack([region.sample(torch.Generator().manual_seed(k)) for k in range(50)])[:, 0])
    found = (rows @ y.T).squeeze(0)
    assert not bool((low.squeeze(0).unsqueeze(1) > found).any())
    unsafe = Unsafe(
        torch.cat([eye, -eye]).unsqueeze(0),
        torch.zeros(1, 2 * len(eye), dtype=torch.float64),
        torch.arange(2 * len(eye)),
    )
    assert not bool(unsafe.proved(low).any())


@every_engine
@both
def test_slopes_that_float32_cannot_hold_are_bounded_all_the_same(engine: str, dtype: torch.dtype) -> None:
    """They ended in torch's RuntimeError, where lines are turned in quick arithmetic."""
    network = fully_connected(0, (2, 5, 4, 2), 1e60)
    region = Box(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    eye = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    low = lower_bounds(network, region, torch.cat([eye, -eye], 1), engine=engine, dtype=dtype)[0]
    x = torch.tensor([[0.25, -0.5]], dtype=torch.float64)
    y = exact_outputs(network, [Fraction(value) for value in x[0].tolist()])
    exact = [*y, *(-v for v in y)]
    assert all(b == -torch.inf or Fraction(b) <= v for b, v in zip(low.tolist(), exact, strict=True))
    assert leaky_relu(1e60)(torch.tensor([2.0, 0.0, -1.0])).tolist() == [2.0, 0.0, -torch.inf]


@every_engine
def test_objectives_that_float32_cannot_hold_are_bounded_all_the_same(engine: str) -> None:
    draft = Draft(2)
    network = draft.network(draft.linear(draft.input(1, 3), 3))
    x = draft.normal(1, 3)
    y = exact_outputs(network, fractions(x))
    rows = [[1 / 3, 0.1, -0.7], [1e-46, 0, 0], [1e-300, -1e-300, 0], [1e300, 0, 0], [1 + 2.0**-40, 0, -1]]
    asked = torch.tensor([[*rows, [1e39, -1e39, 1]]], dtype=torch.float64)
    low = lower_bounds(network, Box(x, x), asked, engine=engine, dtype=torch.float32)
    for row, found in zip(asked[0].tolist(), low[0].tolist(), strict=True):
        exact = sum(Fraction(c) * v for c, v in zip(row, y, strict=True))
        assert found == -torch.inf or Fraction(found) <= exact
        assert found == found


@every_engine
def test_an_objective_beyond_float32_on_an_output_that_is_zero_gives_no_nan(engine: str) -> None:
    draft = Draft(1)
    x = draft.input(1, 2)
    zero = draft.add(Constant(torch.zeros(1, 1, dtype=torch.float64)))
    network = draft.network(zero, draft.linear(x, 1))
    at, rows = draft.normal(1, 2), torch.tensor([[[1e300, 0.0], [1e39, 0.1]]], dtype=torch.float64)
    low = lower_bounds(network, Box(at, at), rows, engine=engine, dtype=torch.float32)
    assert not bool(torch.isnan(low).any())


@every_engine
@both
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_kinks_and_values_of_any_size_stay_sound(engine: str, dtype: torch.dtype, seed: int) -> None:
    draft = Draft(seed)
    at = draft.linear(draft.input(1, 2), 3)
    left, right = draft.choose((0.0, 1.0, -3.0, 1e-9, 1e6), 3), draft.choose((1.0, -1.0, 1e3, 0.5), 3)
    kink, value = draft.choose((0.0, 1e8, -1e-8, 0.1), 3), draft.choose((0.0, -1e8, 1e-8), 3)
    network = draft.network(draft.linear(draft.add(TwoSlope(left, right, kink, value), at), 2))
    x = draft.normal(1, 2) * float(draft.choose((1.0, 1e8, 1e-8), 1))
    box = bound(network, Box(x, x), engine=engine, dtype=dtype)
    assert_encloses(box.lower, exact_outputs(network, fractions(x)), box.upper)


@both
def test_underflow_is_at_least_what_one_flushed_result_loses(dtype: torch.dtype) -> None:
    assert underflow(dtype) >= torch.finfo(dtype).smallest_normal


def drowned(dtype: torch.dtype, size: int) -> Tensor:
    """One, and many numbers that each vanish when they are added to it: a running sum of them stays one."""
    return torch.tensor([1.0] + [0.9 * unit(dtype)] * (size - 1)).to(dtype).double()


def sums(kind: str, numbers: Tensor) -> Network:
    """A network at whose input 1 (or at these inputs) the sum of all outputs is the sum of these numbers."""
    draft, size = Draft(0), len(numbers)
    if kind == "inputs":
        return draft.network(draft.input(1, size))
    at = draft.input(1, 1)
    still = torch.zeros(size, 1, dtype=torch.float64)
    if kind == "bias":
        return draft.network(draft.add(Linear(still, numbers), at))
    if kind == "offset":
        one = torch.ones(size, dtype=torch.float64)
        return draft.network(draft.add(TwoSlope(one, one, 0 * one, numbers), draft.add(Linear(still, None), at)))
    if kind == "paths":  # the last path is the first on the way back
        parts = [draft.add(Scale(x.reshape(1, 1), None), at) for x in numbers.flip(0)]
        return draft.network(draft.add(Sum((1,) * size), *parts))
    behind = draft.add(Linear(numbers.reshape(-1, 1), None), at)
    return draft.network(draft.add(leaky_relu(1.0), behind) if kind == "activation" else behind)


@both
@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", ["bias", "offset", "activation", "plain", "paths", "inputs"])
def test_long_sums_that_lose_most_of_their_terms_are_charged_for(kind: str, norm: Norm, dtype: torch.dtype) -> None:
    numbers = drowned(dtype, 200 if kind == "paths" else 20_000)
    network = sums(kind, numbers).to(dtype)
    region = ball((numbers if kind == "inputs" else torch.ones(1))[None], 0.0, norm).to(dtype)
    exact = sum(map(Fraction, numbers.tolist()), Fraction(0))
    (port,) = network.outputs
    turned = {port.name: torch.full((1, 1, *port.shape), 0.5, dtype=dtype)} if kind == "activation" else {}
    for sign, tilts in ((1, {}), (-1, {}), (1, turned), (-1, turned)):
        backward = Backward(network, region, propagate(network, region), tilts)
        rows = Rows(port.name, torch.full((1, 1, *port.shape), float(sign), dtype=dtype))
        assert Fraction(float(backward.lower(rows))) <= sign * exact


@both
@pytest.mark.parametrize("sign", [1, -1])
def test_a_long_objective_on_intervals_is_charged_for_what_its_sum_loses(dtype: torch.dtype, sign: int) -> None:
    numbers = drowned(dtype, 20_000)
    network = sums("inputs", numbers).to(dtype)
    region = Box(numbers[None], numbers[None]).to(dtype)
    rows = torch.full((1, 1, len(numbers)), float(sign), dtype=dtype)
    found = lower_of_outputs(network, propagate(network, region), rows)
    assert Fraction(float(found)) <= sign * sum(map(Fraction, numbers.tolist()), Fraction(0))


@pytest.mark.parametrize("known", [0.0, 1e-9, 0.5])
def test_weights_that_are_rounded_to_float32_keep_what_was_rounded_away(known: float) -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    error = torch.full_like(weight, known) if known else None
    short = Linear(weight, weight[:, 0], weight_error=error).to(torch.float32)
    assert short.weight_error is not None
    assert short.bias_error is not None
    for exact, near, off, least in (
        (weight, short.weight, short.weight_error, known),
        (weight[:, 0], short.bias, short.bias_error, 0.0),
    ):
        for a, b, e in zip(exact.flatten().tolist(), near.flatten().tolist(), off.flatten().tolist(), strict=True):
            assert abs(Fraction(a) - Fraction(b)) + Fraction(least) <= Fraction(e)


def test_the_interval_of_a_maximum_is_that_of_its_largest_ends() -> None:
    draft = Draft(0)
    network = draft.network(draft.add(Maximum(), draft.input(1, 3)))
    box = Box(torch.tensor([[-1.0, 2.0, 0.0]]).double(), torch.tensor([[5.0, 3.0, 0.5]]).double())
    found = propagate(network, box)[network.outputs[0].name]
    assert (found.lower.tolist(), found.upper.tolist()) == ([[2.0]], [[5.0]])


@both
@settings(max_examples=100, deadline=None)
@given(low=HARD, high=HARD)
def test_halved_offsets_lie_outside_those_of_the_lines(low: float, high: float, dtype: torch.dtype) -> None:
    below, above = (torch.tensor([x], dtype=torch.float64).to(dtype) for x in (low, high))
    found = Centred.of(Lines(torch.zeros_like(below), below, torch.zeros_like(below), above))
    middle, half = (Fraction(float(x)) for x in (found.offset, found.half_offset))
    assert middle + half <= Fraction(float(below))
    assert middle - half >= Fraction(float(above))


@every_engine
def test_an_objective_that_float32_takes_for_zero_still_counts(engine: str) -> None:
    draft = Draft(0)
    network = draft.network(draft.add(Linear(torch.tensor([[1e30]], dtype=torch.float64), None), draft.input(1, 1)))
    at, rows = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[[-1e-50]]], dtype=torch.float64)
    low = lower_bounds(network, Box(at, at), rows, engine=engine, dtype=torch.float32)
    assert float(low) <= -1e-20


def test_rows_that_start_from_uncertain_weights_hold_for_all_of_them() -> None:
    draft = Draft(0)
    weight, error = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64)
    at = draft.add(Linear(weight, None, weight_error=error), draft.input(1, 1))
    network, one = draft.network(draft.add(leaky_relu(0.1), at)), torch.ones(1, 1, dtype=torch.float64)
    region = Box(one, one)
    backward = Backward(network, region, propagate(network, region))
    for sign, least in ((1.0, 0.5), (-1.0, -1.5)):
        units = Units(at, torch.zeros(1, 1, dtype=torch.int64), sign * one)
        assert float(backward.lower(units)) <= least


@pytest.mark.parametrize("norm", Norm)
def test_parts_of_a_batch_are_bounded_over_their_own_regions(norm: Norm) -> None:
    network = fully_connected(3)
    region = ball(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) * 3, 0.1, norm)
    backward = Backward(network, region, propagate(network, region))
    rows = torch.eye(3, dtype=torch.float64)
    starts = rows_on_outputs(network, rows.expand(4, 3, 3))
    backward.prepare(network.nodes[-1])
    whole = backward.lower(*starts)
    order = torch.tensor([2, 0, 3, 1])
    known = {name: interval.select(order) for name, interval in backward.known.items()}
    for part in (backward.select(order), backward.narrowed(order, known, {})):
        torch.testing.assert_close(part.lower(*starts), whole[order], rtol=1e-12, atol=1e-12)
