"""Simplification: what is folded, what keeps its name, and that the error terms cover every rounding."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from types import FrameType
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Draft
from onnx_zoo import ZOO, Maker, zoo_model

from leaktight.models.enclosure import Enclosure
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes
from leaktight.models.ops import Conv, Linear, Reshape, Scale, TwoSlope
from leaktight.models.simplify import simplify
from leaktight.specs.region import Box
from leaktight.verify.bounds.interval import Interval, propagate

FINITE = st.floats(-(2.0**500), 2.0**500, allow_nan=False)
ERROR = st.one_of(st.just(0.0), st.floats(0, 1e-3))


def network_of(maker: Maker, *outputs: str) -> Network:
    return network_from_bytes(maker.build(*outputs).SerializeToString(), path="made.onnx")


def kinds(network: Network) -> list[str]:
    return [type(node.op).__name__ for node in network.nodes[1:]]


def normalized(m: Maker, x: str, channels: int, *, mean: float = 0.0) -> str:
    return m.node(
        "BatchNormalization",
        x,
        m.numbers(channels),
        m.numbers(channels),
        m.constant(m.random.normal(size=channels) + mean),
        m.constant(m.random.uniform(0.1, 2, channels)),
    )


# -- enclosures


def _truths(number: float, error: float) -> list[Fraction]:
    return [Fraction(number) + sign * Fraction(error) for sign in (-1, 0, 1)]


def _assert_encloses(found: Enclosure, truths: list[Fraction]) -> None:
    value, error = Fraction(float(found.value)), Fraction(float(found.error))
    assert all(abs(truth - value) <= error for truth in truths)


@settings(max_examples=1000, deadline=None)
@given(FINITE, ERROR, FINITE, ERROR, st.sampled_from(["+", "-", "*", "/"]))
def test_arithmetic_encloses_every_true_result(a: float, ea: float, b: float, eb: float, sign: str) -> None:
    first, second = (Enclosure(np.asarray(x), np.asarray(e)) for x, e in ((a, ea), (b, eb)))
    operate: dict[str, Callable[[Any, Any], Any]] = {
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "/": lambda x, y: x / y,
    }
    if sign == "/" and not abs(b) > eb:
        with pytest.raises(ZeroDivisionError):
            first / second
        return
    with np.errstate(over="raise", invalid="raise"):  # what overflows is said by the result, and by nothing else
        found = operate[sign](first, second)
    if found.finite:
        _assert_encloses(found, [operate[sign](x, y) for x in _truths(a, ea) for y in _truths(b, eb)])


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-300, 1e300), st.floats(0, 0.5))
def test_square_root_encloses_every_true_result(a: float, share: float) -> None:
    error = a * share
    found = Enclosure(np.asarray(a), np.asarray(error)).sqrt()
    mpmath.mp.dps = 60
    for truth in (mpmath.mpf(a) - mpmath.mpf(error), mpmath.mpf(a), mpmath.mpf(a) + mpmath.mpf(error)):
        assert abs(mpmath.sqrt(truth) - mpmath.mpf(float(found.value))) <= mpmath.mpf(float(found.error))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_matrix_product_encloses_the_true_one(seed: int, inner: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.normal(size=s) * 10.0 ** random.integers(-8, 8, s) for s in ((3, inner), (inner, 2)))
    ea, eb = (np.abs(x) * random.choice([0, 1e-9]) for x in (a, b))
    found = Enclosure(a, ea) @ Enclosure(b, eb)
    signs = random.choice([-1, 1], size=2)
    for i in range(3):
        for j in range(2):
            truth = sum(
                (Fraction(a[i, k]) + int(signs[0]) * Fraction(ea[i, k]))
                * (Fraction(b[k, j]) + int(signs[1]) * Fraction(eb[k, j]))
                for k in range(inner)
            )
            assert abs(truth - Fraction(found.value[i, j])) <= Fraction(found.error[i, j])


def test_products_that_underflow_in_a_matrix_product_are_enclosed() -> None:
    tiny, none = np.full((1, 3), 1e-200), np.zeros((1, 3))
    found = Enclosure(tiny, none) @ Enclosure(tiny.T, none.T)
    assert Fraction(found.error[0, 0]) >= 3 * Fraction(1e-200) ** 2 > 0
    assert (Enclosure(none, none) @ Enclosure(tiny.T, none.T)).exact


def test_exact_arithmetic_has_no_error() -> None:
    a = Enclosure(np.asarray([1.5, -3.0]), np.zeros(2))
    b = Enclosure(np.asarray([0.25, 4.0]), np.zeros(2))
    assert (a + b).exact
    assert (a * b).exact
    assert (a / b).exact
    assert b.sqrt().exact
    assert not (a / Enclosure(np.asarray([3.0, 7.0]), np.zeros(2))).exact


# -- what is folded


def test_matmul_add_becomes_one_exact_linear() -> None:
    m = Maker(0)
    y = m.node("Add", m.node("MatMul", m.input(1, 3), m.numbers(3, 2)), m.numbers(2))
    network = simplify(network_of(m, y))
    (node,) = network.nodes[1:]
    assert isinstance(node.op, Linear)
    assert node.op.bias is not None
    assert node.op.weight_error is None
    assert node.op.bias_error is None
    assert node.name == y


def test_batch_normalization_goes_into_convolutions_on_both_sides() -> None:
    m = Maker(1)
    x = m.node("Conv", m.input(1, 2, 5, 5), m.numbers(3, 2, 3, 3))
    x = normalized(m, m.node("Relu", normalized(m, x, 3)), 3)
    network = simplify(network_of(m, m.node("Conv", x, m.numbers(2, 3, 2, 2))))
    assert kinds(network) == ["Conv", "TwoSlope", "Conv"]


def test_shift_in_front_of_a_padded_convolution_is_not_folded_into_it() -> None:
    m = Maker(2)
    x = m.node("Relu", m.input(1, 2, 5, 5))
    a = m.node("Conv", normalized(m, m.node("MaxPool", x, kernel_shape=[2, 2]), 2), m.numbers(2, 2, 3, 3), pads=[1] * 4)
    network = simplify(network_of(m, a))
    assert kinds(network) == ["TwoSlope", "Select", "Maximum", "Scale", "Conv"]
    scaled = Maker(2)
    x = scaled.node("Mul", scaled.node("Relu", scaled.input(1, 2, 5, 5)), scaled.numbers(2, 1, 1))
    network = simplify(network_of(scaled, scaled.node("Conv", x, scaled.numbers(2, 2, 3, 3), pads=[1] * 4)))
    assert kinds(network) == ["TwoSlope", "Conv"]


def test_normalization_around_an_activation_becomes_one_activation_with_its_name() -> None:
    m = Maker(3)
    x, other = m.input(1, 3, 4), m.input(1, 3, 4)
    a = m.node("LeakyRelu", normalized(m, x, 3), alpha=0.3)
    network = simplify(network_of(m, m.node("Add", normalized(m, a, 3), other)))
    assert [type(node.op).__name__ for node in network.nodes[2:]] == ["TwoSlope", "Sum"]
    node = network.by_name[a]
    assert isinstance(node.op, TwoSlope)
    assert node.origin.startswith("LeakyRelu")
    assert 0 < node.op.precision < 1e-12


def test_negative_scales_exchange_the_sides_of_an_activation() -> None:
    m = Maker(4)
    x = m.node("Add", m.node("Mul", m.input(1, 2), m.constant([-2.0, 0.5])), m.constant([1.0, -4.0]))
    network = simplify(network_of(m, m.node("LeakyRelu", x, alpha=0.5)))
    assert kinds(network) == ["TwoSlope"]
    op = network.nodes[1].op
    assert isinstance(op, TwoSlope)
    assert op.kink.tolist() == [0.5, 8.0]
    assert op.left.tolist() == [-2.0, 0.25]
    assert op.right.tolist() == [-1.0, 0.5]


def test_scale_by_zero_is_not_folded_into_an_activation() -> None:
    m = Maker(5)
    network = simplify(network_of(m, m.node("Relu", m.node("Mul", m.input(1, 2), m.constant([0.0, 1.0])))))
    assert kinds(network) == ["Scale", "TwoSlope"]


def test_values_with_two_readers_are_not_folded() -> None:
    m = Maker(6)
    z = m.node("MatMul", m.input(1, 3), m.numbers(3, 3))
    a = m.node("Mul", z, m.numbers(3))
    network = simplify(network_of(m, m.node("Add", a, m.node("Relu", z))))
    assert kinds(network) == ["Linear", "Scale", "TwoSlope", "Sum"]
    assert kinds(simplify(network_of(m, a, z))) == ["Linear", "Scale"]


def test_linear_chains_merge_only_where_that_is_not_larger() -> None:
    for sizes, expected in (((4, 3, 2), ["Linear"]), ((6, 1, 6), ["Linear", "Linear"])):
        m = Maker(7)
        x = m.input(1, sizes[0])
        for a, b in pairwise(sizes):
            x = m.node("MatMul", x, m.numbers(a, b))
        assert kinds(simplify(network_of(m, x))) == expected


def test_rearrangements_merge_and_vanish() -> None:
    m = Maker(8)
    x = m.node("Transpose", m.node("Transpose", m.node("Relu", m.input(1, 2, 3)), perm=[0, 2, 1]), perm=[0, 2, 1])
    y = m.node("Flatten", m.node("Unsqueeze", x, m.whole(1)))
    assert kinds(simplify(network_of(m, y))) == ["TwoSlope", "Reshape"]


def test_normalization_passes_a_flattening_in_both_directions() -> None:
    m = Maker(9)
    x = m.node("Reshape", m.node("MatMul", m.input(1, 3), m.numbers(3, 8)), m.whole(1, 2, 2, 2))
    x = m.node("Relu", normalized(m, x, 2))
    y = m.node("MatMul", m.node("Flatten", normalized(m, x, 2)), m.numbers(8, 2))
    assert kinds(simplify(network_of(m, y))) == ["Linear", "Reshape", "TwoSlope", "Reshape", "Linear"]


# -- what survives


@pytest.mark.parametrize("name", sorted(ZOO))
def test_ports_activations_origins_and_source_survive(name: str) -> None:
    for seed in range(5):
        network = network_from_bytes(zoo_model(name, seed).SerializeToString(), path="zoo.onnx")
        simple = simplify(network)
        assert (simple.inputs, simple.outputs, simple.source) == (network.inputs, network.outputs, network.source)
        assert simple.batched == network.batched
        activations = {n.name: n.origin for n in network if isinstance(n.op, TwoSlope)}
        assert {n.name: n.origin for n in simple if isinstance(n.op, TwoSlope)} == activations
        assert {n.origin for n in simple} <= {n.origin for n in network}
        assert kinds(simplify(simple)) == kinds(simple)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_simplified_network_encloses_what_the_original_computes(name: str) -> None:
    """At single points both sets of interval bounds contain the true outputs, so they must meet."""
    for seed in range(6):
        network = network_from_bytes(zoo_model(name, seed).SerializeToString(), path="zoo.onnx")
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=(8, network.input_size)))
        before, after = (propagate(n, Box(x, x)) for n in (network, simplify(network)))
        for port in network.outputs:
            a, b = (Interval(*(end.reshape(8, -1) for end in z[port.name].ends)) for z in (before, after))
            assert torch.all((a.lower <= b.upper) & (b.lower <= a.upper))
            assert torch.all(b.upper - b.lower <= 1e-6 * (1 + b.magnitude))


# -- error terms against high precision


def _true_normalization(parameters: list[np.ndarray], epsilon: float) -> tuple[list[Any], list[Any]]:
    mpmath.mp.dps = 60
    gain, shift, mean, variance = ([mpmath.mpf(float(x)) for x in p] for p in parameters)
    weight = [g / mpmath.sqrt(v + mpmath.mpf(epsilon)) for g, v in zip(gain, variance, strict=True)]
    bias = [b - mu * w for b, mu, w in zip(shift, mean, weight, strict=True)]
    return weight, bias


def _assert_within(found: torch.Tensor, error: torch.Tensor | None, truth: list[Any]) -> None:
    errors = torch.zeros_like(found) if error is None else error
    for value, off, true in zip(found.flatten().tolist(), errors.flatten().tolist(), truth, strict=True):
        assert abs(true - mpmath.mpf(value)) <= mpmath.mpf(off)
        assert off <= 1e-9 * (1 + abs(value))


@pytest.mark.parametrize("seed", range(10))
def test_true_normalization_lies_within_the_recorded_errors(seed: int) -> None:
    random = np.random.default_rng(seed)
    parameters = [
        random.normal(size=5).astype(np.float32),
        random.normal(size=5).astype(np.float32),
        (random.normal(size=5) * 10.0 ** random.integers(-3, 6, 5)).astype(np.float32),
        (10.0 ** random.uniform(-8, 4, 5)).astype(np.float32),
    ]
    m = Maker(seed)
    w, b = random.normal(size=(5, 3)).astype(np.float32), random.normal(size=5).astype(np.float32)
    z = m.node("Gemm", m.input(1, 3), m.constant(w), m.constant(b), transB=1)
    network = network_of(m, m.node("BatchNormalization", z, *(m.constant(p) for p in parameters)))
    weight, bias = _true_normalization(parameters, float(np.float32(1e-5)))
    raw, folded = network.nodes[-1].op, simplify(network).nodes[-1].op
    assert isinstance(raw, Scale)
    assert isinstance(folded, Linear)
    assert raw.bias is not None
    assert folded.bias is not None
    mpmath.mp.dps = 60
    _assert_within(raw.weight, raw.weight_error, weight)
    _assert_within(
        folded.weight,
        folded.weight_error,
        [s * mpmath.mpf(float(x)) for s, row in zip(weight, w, strict=True) for x in row],
    )
    for found, error, truth in (
        (raw.bias, raw.bias_error, bias),
        (
            folded.bias,
            folded.bias_error,
            [s * mpmath.mpf(float(x)) + t for s, x, t in zip(weight, b, bias, strict=True)],
        ),
    ):
        assert error is not None
        for value, off, true in zip(found.tolist(), error.tolist(), truth, strict=True):
            assert abs(true - mpmath.mpf(value)) <= mpmath.mpf(off)


@pytest.mark.parametrize("seed", range(5))
def test_true_convolution_after_an_activation_lies_within_the_recorded_errors(seed: int) -> None:
    m = Maker(seed)
    random = np.random.default_rng(seed)
    parameters = [random.uniform(0.1, 2, 4).astype(np.float32) for _ in range(4)]
    kernel = random.normal(size=(2, 2, 2, 2)).astype(np.float32)
    x = m.node("BatchNormalization", m.node("Relu", m.input(1, 4, 3, 3)), *(m.constant(p) for p in parameters))
    folded = simplify(network_of(m, m.node("Conv", x, m.constant(kernel), group=2))).nodes[-1].op
    assert isinstance(folded, Conv)
    assert folded.bias is not None
    weight, bias = _true_normalization(parameters, float(np.float32(1e-5)))
    mpmath.mp.dps = 60
    entries = [
        (o, i, mpmath.mpf(float(kernel[o, i, j, k])))
        for o in range(2)
        for i in range(2)
        for j in range(2)
        for k in range(2)
    ]
    _assert_within(folded.weight, folded.weight_error, [w * weight[2 * o + i] for o, i, w in entries])
    _assert_within(
        folded.bias,
        folded.bias_error,
        [sum(w * bias[2 * o + i] for o, i, w in entries if o == out) for out in range(2)],
    )


def test_mean_by_three_records_its_rounding() -> None:
    m = Maker(0)
    network = network_of(m, m.node("ReduceMean", m.input(1, 3), axes=[1]))
    op = network.nodes[-1].op
    assert isinstance(op, Scale)
    assert op.weight_error is not None
    off = abs(Fraction(1, 3) - Fraction(float(op.weight)))
    assert 0 < off <= Fraction(float(op.weight_error)) <= 2 * off


def test_constants_computed_in_float32_enclose_the_real_result_and_the_computed_one() -> None:
    m = Maker(0)
    a, b = np.float32(0.7), np.float32(0.3)
    network = network_of(m, m.node("Add", m.input(1, 1), m.node("Mul", m.constant(a), m.constant(b))))
    op = network.nodes[-1].op
    assert isinstance(op, Scale)
    assert op.bias is not None
    assert op.bias_error is not None
    assert float(op.bias) == float(a * b)
    assert abs(Fraction(float(a)) * Fraction(float(b)) - Fraction(float(op.bias))) <= Fraction(float(op.bias_error))


def test_the_work_grows_with_the_number_of_nodes_and_no_faster() -> None:
    """Lines run in the room `models`, for chains of 150 and 600 of each kind that is folded."""

    def lines(length: int) -> int:
        draft, done = Draft(0), 0
        at = draft.input(1, 2)
        for _ in range(length):
            at = draft.linear(draft.add(Scale(torch.full((2,), 1.5, dtype=torch.float64)), at), 2)
            at = draft.leaky(draft.add(Reshape((1, 2), (1, 2)), at), 0.5)
        network = draft.network(at)

        def count(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
            nonlocal done
            if "/models/" not in frame.f_code.co_filename.replace("\\\\", "/"):
                return None
            done += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            simplified = simplify(network)
        finally:
            sys.settrace(before)
        assert len(simplified.nodes) == 1 + 2 * length
        return done

    assert lines(600) < 4.5 * lines(150)
