"""What every ONNX operator means, against onnxruntime; adjoints and magnitudes of everything that a file becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from onnx_zoo import ZOO, zoo_model

from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes, read_onnx
from leaktight.models.ops import Affine
from leaktight.models.simplify import simplify

SEEDS = 10
BATCH = 3
BENCH = Path(__file__).resolve().parents[1].parent / "shared" / "bench"


def session_of(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def runtime_outputs(network: Network, inputs: list[np.ndarray]) -> list[np.ndarray]:
    assert network.source is not None
    assert network.source.onnx is not None
    session = session_of(network.source.onnx)
    names = [port.name for port in network.outputs]
    runs = [session.run(names, {port.name: x[i] for port, x in zip(network.inputs, inputs, strict=True)})
            for i in range(BATCH)]
    return [np.stack(values) for values in zip(*runs, strict=True)]


def random_inputs(network: Network, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(BATCH, *port.shape)).astype(port.dtype) * 2 for port in network.inputs]


def assert_agreement(network: Network, inputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    values = network.values(*(torch.from_numpy(x).double() for x in inputs))
    for port, wanted in zip(network.outputs, expected, strict=True):
        found = values[port.name].numpy()
        assert found.shape == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        assert float(np.abs(found - wanted).max(initial=0)) <= 1e-5 * scale


def network_of(model: ModelProto) -> Network:
    return network_from_bytes(model.SerializeToString(), path="zoo.onnx")


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", sorted(ZOO))
def test_network_and_its_simplification_compute_what_onnxruntime_computes(name: str, seed: int) -> None:
    network = network_of(zoo_model(name, seed))
    inputs = random_inputs(network, seed)
    expected = runtime_outputs(network, inputs)
    assert_agreement(network, inputs, expected)
    assert_agreement(simplify(network), inputs, expected)
