"""The slope as a variable: what the network with another slope means, in the graph and in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import build
from onnx_zoo import Maker
from torch import Tensor, nn

from leaktight.errors import UsageError
from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes, read_onnx
from leaktight.models.ops import TwoSlope
from leaktight.models.simplify import simplify
from leaktight.models.slopes import Slopes
from leaktight.verify.search.replay import Replay, flatten

RANGE = (-1.0, -0.25, 0.0, 0.0625, 0.3, 1.0, 1.7, 2.0)


def normalised(m: Maker, x: str, channels: int) -> str:
    """Batch normalisation with scales of both signs."""
    signs = m.random.choice([-1.0, 1.0], channels) * m.random.uniform(0.5, 2, channels)
    return m.node(
        "BatchNormalization",
        x,
        m.constant(signs),
        m.numbers(channels),
        m.numbers(channels),
        m.constant(m.random.uniform(0.5, 2, channels)),
    )


def activation(m: Maker, x: str, channels: int, axes: int = 0) -> str:
    kind = m.pick("Relu", "LeakyRelu", "PRelu", "PRelu")
    if kind == "PRelu":
        return m.node(kind, x, m.constant(m.random.uniform(0.05, 0.5, (channels, *[1] * axes))))
    return m.node(kind, x, **({"alpha": m.pick(0.01, 0.2, 1.5, -0.5)} if kind == "LeakyRelu" else {}))


def fully_connected(m: Maker) -> str:
    x = m.input(1, 4)
    for _ in range(2):
        x = activation(m, m.node("Gemm", x, m.numbers(4, 4), m.numbers(4)), 4)
    return m.node("Gemm", x, m.numbers(4, 3), m.numbers(3))


def convolutional(m: Maker) -> str:
    x = m.node("Conv", m.input(1, 2, 5, 5), m.numbers(3, 2, 2, 2), m.numbers(3))
    x = activation(m, normalised(m, x, 3), 3, 2)
    x = activation(m, m.node("Conv", x, m.numbers(3, 3, 2, 2), pads=[1, 1, 1, 1]), 3, 2)
    return m.node("Gemm", m.node("Flatten", x), m.numbers(75, 3))


def residual(m: Maker) -> str:
    x = m.input(1, 5)
    z = activation(m, x, 5)
    return m.node("Gemm", m.node("Add", activation(m, m.node("Gemm", z, m.numbers(5, 5)), 5), z), m.numbers(5, 2))


def folded_both_sides(m: Maker) -> str:
    """Scales in front of and behind an activation whose neighbours cannot take them."""
    x = m.node("MatMul", m.input(1, 3, 4), m.numbers(4, 4))
    x = normalised(m, activation(m, normalised(m, x, 3), 3, 1), 3)
    x = normalised(m, activation(m, normalised(m, x, 3), 3, 1), 3)
    return m.node("MatMul", x, m.numbers(4, 2))


FAMILIES: tuple[Callable[[Maker], str], ...] = (fully_connected, convolutional, residual, folded_both_sides)


def made(make: Callable[[Maker], str], seed: int, opset: int = 17) -> Network:
    maker = Maker(seed, opset)
    output = make(maker)
    return simplify(network_from_bytes(maker.build(output).SerializeToString(), path="made.onnx"))


def inputs(network: Network, count: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, network.input_size, generator=generator, dtype=torch.float64).float().double()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_a_network_at_a_slope_is_what_onnxruntime_computes_for_the_file_at_that_slope(
    make: Callable[[Maker], str], seed: int
) -> None:
    network = made(make, seed)
    slopes, x = Slopes.of(network), inputs(network)
    for a in RANGE:
        a = float(np.float32(a))
        runtime = Replay(slopes.file_at(a))
        expected = torch.stack([torch.from_numpy(flatten(runtime.run(row))) for row in x])
        found = slopes.at(a).flat(x)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().amax()))
        reread = slopes.file_at(a).flat(x)
        assert torch.allclose(found, reread, rtol=0, atol=1e-6 * float(expected.abs().amax()))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_at_its_own_slope_a_node_computes_what_it_did(make: Callable[[Maker], str], seed: int) -> None:
    network = made(make, seed)
    for name in Slopes.of(network).nodes:
        slopes = Slopes.of(network, [name])
        low, high = slopes.own
        x = inputs(network)
        assert low == high
        assert torch.allclose(slopes.at(low).flat(x), network.flat(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_a_batch_of_slopes_is_each_of_them(make: Callable[[Maker], str], seed: int) -> None:
    network = made(make, seed)
    slopes, x, a = Slopes.of(network), inputs(network, len(RANGE)), torch.tensor(RANGE, dtype=torch.float64)
    together = slopes.at(a).flat(x)
    for i, slope in enumerate(RANGE):
        assert torch.allclose(together[i : i + 1], slopes.at(slope).flat(x[i : i + 1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_the_sides_turn_at_their_rate_and_the_precision_covers_the_rounding(
    make: Callable[[Maker], str], seed: int
) -> None:
    network = made(make, seed)
    slopes = Slopes.of(network)
    a = 0.30000000000000004
    for name in slopes.nodes:
        before, after = network.by_name[name].op, slopes.at(a).by_name[name].op
        assert isinstance(before, TwoSlope)
        assert isinstance(after, TwoSlope)
        assert before.leak is not None
        shape = network.by_name[name].shape
        flipped = before.leak.flipped.expand(shape).flatten().tolist()
        rates = [_entries(rate, shape) for rate in slopes.rate(name)]
        sides = [_entries(side, shape) for side in (after.left, after.right)]
        still = [_entries(side, shape) for side in (before.left, before.right)]
        for i, turned in enumerate(flipped):
            own, other = rates[turned][i], rates[not turned][i]
            assert other == 0
            exact = Fraction(a) * Fraction(own)
            room = Fraction(after.precision) + Fraction(slopes.rate_precision(name))
            assert abs(Fraction(sides[turned][i]) - exact) <= room * abs(exact)
            assert sides[not turned][i] == still[not turned][i]


def _entries(value: Tensor, shape: tuple[int, ...]) -> list[float]:
    found: list[float] = value.expand(shape).flatten().tolist()
    return found


def test_a_negative_factor_in_front_of_the_activation_flips_it_and_one_behind_does_not() -> None:
    m = Maker(0)
    x = m.node("Mul", m.input(1, 2), m.constant([-2.0, 2.0]))
    y = m.node("Mul", m.node("LeakyRelu", x, alpha=0.5), m.constant([3.0, -3.0]))
    network = simplify(network_from_bytes(m.build(m.node("Sigmoid", y)).SerializeToString(), path="made.onnx"))
    slopes = Slopes.of(network)
    (name,) = slopes.nodes
    op = network.by_name[name].op
    assert isinstance(op, TwoSlope)
    assert op.leak is not None
    assert op.leak.flipped.flatten().tolist() == [True, False]
    left, right = slopes.rate(name)
    assert left.flatten().tolist() == [0.0, -6.0]
    assert right.flatten().tolist() == [-6.0, 0.0]
    moved = slopes.at(0.25).by_name[name].op
    assert isinstance(moved, TwoSlope)
    assert moved.left.flatten().tolist() == [-6.0, -1.5]
    assert moved.right.flatten().tolist() == [-1.5, -6.0]


def test_a_prelu_with_several_slopes_is_scaled_and_one_with_equal_slopes_is_set() -> None:
    m = Maker(0)
    x = m.node("PRelu", m.input(1, 2), m.constant([0.25, 0.75]))
    y = m.node("PRelu", x, m.constant([0.0, 0.0]))
    network = simplify(network_from_bytes(m.build(y).SerializeToString(), path="made.onnx"))
    slopes = Slopes.of(network)
    assert slopes.own == (0.0, 0.5)
    moved = slopes.at(1.0)
    first, second = (moved.by_name[name].op for name in slopes.nodes)
    assert isinstance(first, TwoSlope)
    assert isinstance(second, TwoSlope)
    assert first.left.tolist() == [0.5, 1.5]
    assert second.left.flatten().unique().tolist() == [1.0]
    assert first.precision == second.precision == 0.0


def test_unit_sides_stay_exact_at_every_slope() -> None:
    slopes = Slopes.of(build("fully_connected"))
    for a in (0.0, 1.0, -0.3, 1 / 3, 1e-300):
        network = slopes.at(a)
        ops = [network.by_name[name].op for name in slopes.nodes]
        assert all(isinstance(op, TwoSlope) and op.precision == 0.0 and bool((op.left == a).all()) for op in ops)


def test_some_nodes_move_and_the_others_stay() -> None:
    network = made(fully_connected, 0)
    first, second = Slopes.of(network).nodes
    slopes = Slopes.of(network, [network.by_name[second].origin])
    assert slopes.nodes == (second,)
    moved = slopes.at(0.123)
    assert moved.by_name[first] is network.by_name[first]
    assert moved.by_name[second] is not network.by_name[second]
    x = inputs(network)
    assert torch.allclose(slopes.file_at(0.125).flat(x), slopes.at(0.125).flat(x), rtol=1e-6, atol=1e-6)


def test_only_leaky_relus_count_as_such() -> None:
    m = Maker(0)
    x = m.node("Clip", m.node("Abs", m.input(1, 3)), m.constant(0.5), "")
    x = m.node("Max", x, m.node("Min", x, m.constant(2.0)))
    network = network_from_bytes(m.build(x).SerializeToString(), path="made.onnx")
    assert any(isinstance(node.op, TwoSlope) for node in network)
    with pytest.raises(UsageError, match="no Leaky ReLU, ReLU or PReLU"):
        Slopes.of(network)


def test_names_that_do_not_fit_are_answered_with_those_that_do() -> None:
    network = made(fully_connected, 0)
    known = network.by_name[Slopes.of(network).nodes[0]].origin
    with pytest.raises(UsageError, match=f"'Relu_9' does not exist; .*'{known}'"):
        Slopes.of(network, ["Relu_9"])
    gemm = next(node.origin for node in network if node.origin.startswith("Gemm"))
    with pytest.raises(UsageError, match=f"'{gemm}' is no Leaky ReLU; .*'{known}'"):
        Slopes.of(network, [known, gemm])
    with pytest.raises(UsageError, match="no node was named"):
        Slopes.of(network, [])


def test_trained_slopes_with_the_mean_zero_are_refused_by_name() -> None:
    m = Maker(0)
    y = m.node("PRelu", m.input(1, 2), m.constant([-0.5, 0.5]))
    network = network_from_bytes(m.build(y).SerializeToString(), path="made.onnx")
    with pytest.raises(UsageError, match=f"'{network.by_name[y].origin}': the mean of its trained slopes is 0"):
        Slopes.of(network)


@pytest.mark.parametrize("a", [np.nan, np.inf, torch.tensor([0.1, np.nan])])
def test_slopes_that_are_not_finite_are_refused(a: float) -> None:
    with pytest.raises(UsageError, match="must be a finite number"):
        Slopes.of(build("fully_connected")).at(a)


def test_slopes_that_the_file_cannot_hold_are_refused() -> None:
    slopes = Slopes.of(made(fully_connected, 0))
    with pytest.raises(UsageError, match="float32 does not hold"):
        slopes.file_at(1e300)
    with pytest.raises(UsageError, match="no ONNX model"):
        Slopes.of(build("fully_connected")).file_at(0.5)


@pytest.mark.parametrize("opset", [7, 9, 13, 15, 16])
def test_old_operator_sets_take_a_slope(opset: int) -> None:
    network = made(fully_connected, 1, opset)
    slopes, x = Slopes.of(network), inputs(network, 2)
    expected = slopes.at(0.375).flat(x)
    runtime = Replay(slopes.file_at(0.375))
    for row, y in zip(x, expected, strict=True):
        found = torch.from_numpy(flatten(runtime.run(row)))
        assert torch.allclose(found, y, rtol=1e-5, atol=1e-5 * float(y.abs().amax()))


def test_a_model_with_external_weights_takes_a_slope(tmp_path: Path) -> None:
    maker = Maker(3)
    model = maker.build(fully_connected(maker))
    path = tmp_path / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = simplify(read_onnx(path))
    slopes, x = Slopes.of(network), inputs(network, 1)
    found = torch.from_numpy(flatten(Replay(slopes.file_at(0.5)).run(x[0])))
    assert torch.allclose(found, slopes.at(0.5).flat(x)[0], rtol=1e-5, atol=1e-5)


def test_shared_prelu_weights_move_only_in_the_chosen_node() -> None:
    m = Maker(0)
    weights = m.constant([0.25, 0.75])
    x = m.node("PRelu", m.input(1, 2), weights)
    y = m.node("PRelu", m.node("Gemm", x, m.numbers(2, 2)), weights)
    network = simplify(network_from_bytes(m.build(y).SerializeToString(), path="made.onnx"))
    slopes, at = Slopes.of(network, [y]), inputs(network)
    assert torch.allclose(slopes.file_at(1.0).flat(at), slopes.at(1.0).flat(at), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(slopes.at(1.0).flat(at), network.flat(at))


def test_a_network_made_in_torch_knows_its_leaky_relus() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Linear(3, 4),
        nn.LeakyReLU(0.1),
        nn.Linear(4, 4),
        nn.PReLU(4),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 2),
    ]
    network = load(nn.Sequential(*layers), torch.zeros(1, 3))
    slopes = Slopes.of(network)
    assert len(slopes.nodes) == 3
    x = inputs(network)
    runtime = Replay(slopes.file_at(0.5))
    expected = torch.stack([torch.from_numpy(flatten(runtime.run(row))) for row in x])
    assert torch.allclose(slopes.at(0.5).flat(x), expected, rtol=1e-5, atol=1e-6)


def test_where_an_activation_comes_from_is_no_part_of_what_it_means() -> None:
    network = build("fully_connected")
    plain = replace(
        network,
        nodes=tuple(
            replace(node, op=replace(node.op, leak=None)) if isinstance(node.op, TwoSlope) else node for node in network
        ),
    )
    assert plain.digest == network.digest
    assert Slopes.of(network).at(0.77).digest != network.digest


def test_files_are_read_once() -> None:
    slopes = Slopes.of(made(fully_connected, 0))
    assert slopes.file_at(0.5) is slopes.file_at(0.5)


def test_the_network_that_is_kept_may_meet_gradients_whoever_asks_first() -> None:
    slopes = Slopes.of(build("fully_connected", 0))
    with torch.inference_mode():
        bent = slopes.bent
    x = torch.ones(1, bent.input_size, dtype=torch.float64, requires_grad=True)
    bent.flat(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert not any(bent.by_name[name].op.left.is_inference() for name in slopes.nodes)  # type: ignore[attr-defined]
