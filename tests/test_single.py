"""Passes in float32: below the same pass in float64 and exact numbers, whatever is rounded away, and not far below."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from networks import KINDS, Draft, build, fully_connected
from test_rounding import drowned
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Concat, Elementwise, Linear, Maximum, Scale, Sum, TwoSlope, leaky_relu
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds, plain_rows
from leaktight.verify.bounds.interval import propagate
from leaktight.verify.bounds.rows import Rows, Units, rows_on_outputs
from leaktight.verify.bounds.single import Single

ONE = torch.ones(1, 1, dtype=torch.float64)
SIDES = (1.0, -1.0)
ALMOST = 1 + 0.99 * 2.0**-24  # which float32 takes for one
SHORT = tuple(kind for kind in KINDS if kind != "max_pool")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as small as those of these tests count."""
    monkeypatch.setattr("leaktight.verify.bounds.single._NARROW", 0)


def single(network: Network, region: Region) -> Single:
    backward = Backward(network, region, propagate(network, region))
    assert Single.fits(backward)
    return Single(backward)


def least(network: Network, region: Region, sign: float) -> Fraction:
    """The bound of ``sign`` times the one output."""
    (port,) = network.outputs
    units = Units(port.name, torch.zeros(1, 1, dtype=torch.int64), sign * ONE)
    return Fraction(float(single(network, region).lower(slice(None), units)))


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", SHORT)
def test_the_same_lines_give_no_more_in_float32_and_hardly_less(kind: str, norm: Norm) -> None:
    for seed in range(3):
        network = build(kind, seed)
        centre = torch.randn(5, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
        region = ball(centre.clamp(-1, 1), 0.3, norm, (-1.0, 1.0)) if seed else ball(centre, 0.3, norm)
        known = intermediate_bounds(network, region, 2**30, refine=plain_rows)
        backward = Backward(network, region, known)
        short = Single(backward)
        for node in network:
            if any(isinstance(network.by_name[name].op, Elementwise) for name in network.consumers[node.name]):
                index = torch.arange(node.size).expand(5, -1)
                for sign in SIDES:
                    units = Units(node.name, index, torch.full(index.shape, sign, dtype=torch.float64))
                    check(short.lower(slice(None), units), backward.lower(units))
        rows = torch.randn(5, 3, network.output_size, generator=torch.Generator().manual_seed(seed)).double()
        starts = rows_on_outputs(network, rows)
        check(short.lower(slice(None), *starts), backward.lower(*starts))


def check(short: Tensor, exact: Tensor) -> None:
    assert bool((short <= exact + 1e-12 * (1 + exact.abs())).all())
    assert bool((short >= exact - 1e-4 * (1 + exact.abs())).all())


def test_parts_of_a_batch_are_bounded_as_in_the_whole() -> None:
    network = fully_connected(3)
    region = ball(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) * 3, 0.5)
    short, order = single(network, region), torch.tensor([2, 0, 3, 1])
    index = torch.arange(3).expand(4, -1)
    for units in (
        Units(network.outputs[0].name, index, torch.ones(4, 3, dtype=torch.float64), span=slice(0, 3)),
        Units(network.outputs[0].name, index.flip(1), -torch.ones(4, 3, dtype=torch.float64)),
    ):
        whole = short.lower(slice(None), units)
        torch.testing.assert_close(short.lower(order, units), whole[order], rtol=1e-6, atol=1e-6)


# ---- what float32 rounds away is charged for -------------------------------------------------------------------------


def summing(kind: str, numbers: Tensor) -> tuple[Network, Region]:
    """A network whose output over its region has the sum of these numbers as its largest absolute value."""
    draft, size = Draft(0), len(numbers)
    ones = torch.ones(1, size, dtype=torch.float64)
    if kind == "inputs":
        at = draft.input(1, size)
        return draft.network(draft.add(Linear(numbers[None], None), at)), Box(-ones, ones)
    at = draft.input(1, 1)
    if kind == "paths":  # the last path is the first on the way back
        parts = [draft.add(Scale(x.reshape(1, 1), None), at) for x in numbers.flip(0)]
        at = draft.add(Sum((1,) * size), *parts)
    else:
        at = draft.add(Linear(numbers.reshape(-1, 1), None), at)
        at = draft.add(leaky_relu(1.0), at) if kind == "activation" else at
        at = draft.add(Linear(ones, None), at)
    return draft.network(at), Box(-ONE, ONE)


@pytest.mark.parametrize("sign", SIDES)
@pytest.mark.parametrize("kind", ["adjoint", "activation", "paths", "inputs"])
def test_sums_that_lose_most_of_their_terms(kind: str, sign: float) -> None:
    numbers = drowned(torch.float32, 200 if kind == "paths" else 20_000)
    network, region = summing(kind, numbers)
    assert least(network, region, sign) <= -sum(map(Fraction, numbers.tolist()), Fraction(0))


@pytest.mark.parametrize("sign", SIDES)
@pytest.mark.parametrize("behind", [False, True])
def test_references_that_float64_sums_wrongly(behind: bool, sign: float) -> None:
    numbers = drowned(torch.float64, 20_000)
    draft = Draft(0)
    at = draft.add(Linear(torch.zeros(len(numbers), 1, dtype=torch.float64), numbers), draft.input(1, 1))
    at = draft.add(Linear(torch.ones(1, len(numbers), dtype=torch.float64), None), at)
    if behind:
        at = draft.add(Linear(ONE, None), draft.add(leaky_relu(1.0), at))
    exact = sum(map(Fraction, numbers.tolist()), Fraction(0))
    assert least(draft.network(at), Box(ONE, ONE), sign) <= Fraction(sign) * exact


@pytest.mark.parametrize("sign", SIDES)
def test_rows_whose_value_at_the_reference_float64_sums_wrongly(sign: float) -> None:
    numbers = drowned(torch.float64, 20_000)
    draft = Draft(0)
    at = draft.add(Linear(torch.zeros(len(numbers), 1, dtype=torch.float64), numbers), draft.input(1, 1))
    rows = Rows(at, torch.full((1, 1, 1, len(numbers)), sign, dtype=torch.float64))
    found = single(draft.network(at), Box(ONE, ONE)).lower(slice(None), rows)
    assert Fraction(float(found)) <= Fraction(sign) * sum(map(Fraction, numbers.tolist()), Fraction(0))


@pytest.mark.parametrize("place", ["start", "activation", "row"])
def test_numbers_that_float32_does_not_have(place: str) -> None:
    """What is left of ``(1 + e) x - x``, or of eight such factors in a row, when float32 takes them for one."""
    draft = Draft(0)
    x, almost = draft.input(1, 1), ONE * ALMOST
    bent, factors = x, 8 if place == "activation" else 1
    for _ in range(factors if place == "activation" else 0):
        bent = draft.add(TwoSlope(almost, almost, 0 * ONE, 0 * ONE), bent)
    both = draft.add(Concat(-1), bent, x)
    pair = torch.tensor([[1.0 if place == "activation" else ALMOST, -1.0]], dtype=torch.float64)
    network = draft.network(both if place == "row" else draft.add(Linear(pair, None), both))
    region = Box(-ONE, ONE)
    if place == "row":
        found = Fraction(float(single(network, region).lower(slice(None), Rows(both, pair.reshape(1, 1, 1, 2)))))
    else:
        found = least(network, region, 1.0)
    assert found <= 1 - Fraction(ALMOST) ** factors


def test_the_length_of_a_row_that_loses_many_small_squares() -> None:
    numbers = torch.tensor([1.0] + [2.0**-13] * 20_000, dtype=torch.float64)
    draft = Draft(0)
    network = draft.network(draft.add(Linear(numbers[None], None), draft.input(1, len(numbers))))
    found = least(network, ball(torch.zeros(1, len(numbers)).double(), 1.0, Norm.L2), 1.0)
    assert found < 0
    assert found**2 >= sum(Fraction(x) ** 2 for x in numbers.tolist())


@pytest.mark.parametrize("middle", [False, True])
def test_uncertain_weights_hold_for_all_of_them(middle: bool) -> None:
    draft = Draft(0)
    at = draft.add(Linear(ONE, None, weight_error=ONE / 2), draft.input(1, 1))
    if middle:
        at = draft.add(Linear(ONE, None), draft.add(leaky_relu(1.0), at))
    for sign, most in ((1.0, Fraction(1, 2)), (-1.0, Fraction(-3, 2))):
        assert least(draft.network(at), Box(ONE, ONE), sign) <= most


def test_other_passes_are_left_to_float64() -> None:
    network = build("max_pool", 0)
    assert any(isinstance(node.op, Maximum) for node in network)
    box = Box(-torch.ones(1, network.input_size).double(), torch.ones(1, network.input_size).double())
    assert not Single.fits(Backward(network, box, propagate(network, box)))
    plain = fully_connected(0).to(torch.float32)
    box = Box(-torch.ones(1, 4), torch.ones(1, 4))
    assert not Single.fits(Backward(plain, box, propagate(plain, box)))
