"""Normalisation as a layer: against onnxruntime, against rational arithmetic, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from leaktight.errors import UsageError
from leaktight.models.network import Network, Port
from leaktight.models.normalise import normalised
from leaktight.models.onnx import network_from_bytes
from leaktight.models.ops import Scale

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]


def model(
    nodes: list[onnx.NodeProto],
    shape: list[object],
    output: list[object],
    weights: dict[str, np.ndarray],
    kind: int = TensorProto.FLOAT,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, output)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def convolutional(batch: object = 1) -> bytes:
    """A convolution whose input has a second user, so that both have to be moved behind the normalisation."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["h"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    weights = {"w": rng.normal(size=(3, 3, 3, 3)).astype(np.float32)}
    return model(nodes, [batch, 3, 4, 5], [batch, 3, 4, 5], weights)


def dense(batch: object = "N") -> bytes:
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return model(nodes, [batch, 6], [batch, 2], {"w": rng.normal(size=(6, 2)).astype(np.float32)})


def unbatched() -> bytes:
    return model([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)], [3, 2, 2], [3, 2, 2], {})


def read(content: bytes) -> Network:
    return network_from_bytes(content, path="net.onnx")


def ran(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


CASES = [
    (convolutional(), MEAN, STD),
    (convolutional("N"), MEAN, 0.25),
    (dense(), 0.1307, 0.3081),
    (dense(1), [0.5], [2.0]),
    (dense(), list(range(6)), [1, 2, 3, 4, 5, 6]),
]


@pytest.mark.parametrize(("content", "mean", "std"), CASES)
def test_the_layer_and_the_spliced_model_compute_the_same(content: bytes, mean: object, std: object) -> None:
    network = read(content)
    found = normalised(network, mean, std)  # type: ignore[arg-type]
    rng, shape = np.random.default_rng(2), network.inputs[0].shape
    channels = [-1, *[1] * (len(shape) - 2)]
    for _ in range(5):
        x = rng.uniform(0, 255, size=shape).astype(np.float32)
        mean_value, std_value = (np.reshape(np.float32(v), channels) for v in (mean, std))
        expected = ran(content, ((x - mean_value) / std_value).astype(np.float32))
        assert found.source is not None
        assert found.source.onnx is not None
        replayed = ran(found.source.onnx, x)
        ours = found.flat(torch.from_numpy(x).double().reshape(1, -1)).numpy().reshape(expected.shape)
        scale = np.abs(expected).max()
        assert np.array_equal(replayed, expected)
        assert np.abs(ours - expected).max() <= 1e-5 * scale


@pytest.mark.parametrize(("content", "mean", "std"), CASES)
def test_the_spliced_model_reads_back_as_the_same_function(content: bytes, mean: object, std: object) -> None:
    found = normalised(read(content), mean, std)  # type: ignore[arg-type]
    assert found.source is not None
    assert found.source.onnx is not None
    onnx.checker.check_model(onnx.load_model_from_string(found.source.onnx))
    again = read(found.source.onnx)
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(4, found.input_size)))
    assert torch.allclose(found.flat(x), again.flat(x), rtol=1e-13, atol=1e-13)
    assert [(p.name, p.shape) for p in again.inputs] == [(p.name, p.shape) for p in found.inputs]


def test_a_network_without_batch_axis_has_channels_first() -> None:
    network = replace(read(unbatched()), batched=False)
    found = normalised(network, MEAN, STD)
    x = np.random.default_rng(4).normal(size=(3, 2, 2)).astype(np.float32)
    assert found.source is not None
    assert found.source.onnx is not None
    replayed = ran(found.source.onnx, x)
    ours = found.flat(torch.from_numpy(x).double().reshape(1, -1)).numpy().reshape(3, 2, 2)
    assert np.allclose(ours, replayed, rtol=1e-5, atol=1e-6)


numbers = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(numbers, min_size=6, max_size=6), st.lists(st.floats(1e-6, 1e4), min_size=6, max_size=6))
def test_the_layer_encloses_the_exact_normalisation(mean: list[float], std: list[float]) -> None:
    found = normalised(NETWORK, mean, std)
    layer = next(node.op for node in found.nodes if isinstance(node.op, Scale))
    assert layer.weight_error is not None
    assert layer.bias is not None
    assert layer.bias_error is not None
    for i in range(6):
        m, s = Fraction(float(np.float32(mean[i]))), Fraction(float(np.float32(std[i])))
        assert abs(Fraction(float(layer.weight[i])) - 1 / s) <= Fraction(float(layer.weight_error[i]))
        assert abs(Fraction(float(layer.bias[i])) + m / s) <= Fraction(float(layer.bias_error[i]))
        assert float(layer.weight_error[i]) <= 2**-53 * abs(float(layer.weight[i]))
        assert float(layer.bias_error[i]) <= 2**-53 * abs(float(layer.bias[i]))


NETWORK = read(dense())


def test_a_network_without_a_file_is_normalised_all_the_same() -> None:
    found = normalised(replace(NETWORK, source=None), 1.0, 2.0)
    x = torch.arange(6.0, dtype=torch.float64).reshape(1, 6)
    assert torch.equal(found.flat(x), NETWORK.flat((x - 1) / 2))


def test_the_given_network_stays_as_it_was() -> None:
    assert NETWORK.source is not None
    before, content = NETWORK.digest, NETWORK.source.onnx
    normalised(NETWORK, 1.0, 2.0)
    assert (NETWORK.digest, NETWORK.source.onnx) == (before, content)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([1.0, 2.0], 1.0, r"--mean: got 2 numbers; the input 'x' of shape \[1, 6\] has 6 channels"),
        (0.0, [[1.0, 2.0]], "--std: got 2 numbers"),
        (float("nan"), 1.0, "--mean: got nan; every number must be finite in float32"),
        (0.0, 1e300, "--std: got 1e[+]300; every number must be finite in float32"),
        (0.0, 0.0, r"--std: got \[0.0\]; every standard deviation must be above 0"),
        (0.0, -1.0, r"--std: got \[-1.0\]"),
        (0.0, 1e-60, r"--std: got \[0.0\]"),
    ],
)
def test_wrong_numbers_are_refused(mean: object, std: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        normalised(NETWORK, mean, std)  # type: ignore[arg-type]


def test_networks_that_cannot_be_normalised_are_refused() -> None:
    (port,) = NETWORK.inputs
    with pytest.raises(UsageError, match=r"has 2 inputs \(x, x\)"):
        normalised(replace(NETWORK, inputs=(port, port)), 0.0, 1.0)
    with pytest.raises(UsageError, match="holds uint8; it must be floating-point"):
        normalised(replace(NETWORK, inputs=(Port("x", port.shape, "uint8"),)), 0.0, 1.0)
    with pytest.raises(UsageError, match="beyond float64; give a larger standard deviation"):
        normalised(replace(NETWORK, inputs=(Port("x", port.shape, "float64"),)), 0.0, 5e-324)
