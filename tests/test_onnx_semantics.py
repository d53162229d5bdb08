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
from leaktight.models.onnx import network_from_bytes, read_onnx, supported
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
    runs = [
        session.run(names, {port.name: np.asarray(x[i]) for port, x in zip(network.inputs, inputs, strict=True)})
        for i in range(BATCH)
    ]
    return [np.stack(values) for values in zip(*runs, strict=True)]


def random_inputs(network: Network, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(BATCH, *port.shape)).astype(port.dtype) * 2 for port in network.inputs]


def assert_agreement(network: Network, inputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    values = network.values(*(torch.from_numpy(x).double() for x in inputs))
    for port, wanted in zip(network.outputs, expected, strict=True):
        found = values[port.name].reshape(-1, *port.shape).numpy()
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


def test_every_supported_operator_occurs_among_the_generated_models() -> None:
    used = {node.op_type for name in ZOO for seed in range(SEEDS) for node in zoo_model(name, seed).graph.node}
    assert set(supported()) <= used


@pytest.mark.parametrize("name", sorted(ZOO))
def test_adjoints_are_exact_and_magnitudes_bound_every_affine_node(name: str) -> None:
    for seed in range(4):
        network = network_of(zoo_model(name, seed))
        for version in (network, simplify(network)):
            for node in version:
                if isinstance(node.op, Affine) and node.inputs:
                    _check_affine(node.op, [version.by_name[given].shape for given in node.inputs], node.shape, seed)


def _check_affine(op: Affine, shapes: list[tuple[int, ...]], shape: tuple[int, ...], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    inputs = [torch.randn((2, *s), dtype=torch.float64, generator=random) for s in shapes]
    coefficients = torch.randn((2, *shape), dtype=torch.float64, generator=random)
    value = op.linear(*inputs)
    assert value.shape == coefficients.shape
    pulled = op.adjoint(coefficients, shapes)
    assert [p.shape for p in pulled] == [x.shape for x in inputs]
    forward = (coefficients * value).reshape(2, -1).sum(1)
    backward = sum((p * x).reshape(2, -1).sum(1) for p, x in zip(pulled, inputs, strict=True))
    size = (coefficients.abs() * op.magnitude(*(x.abs() for x in inputs))).reshape(2, -1).sum(1)
    assert torch.all((forward - backward).abs() <= 1e-12 * size)
    assert torch.all(op.magnitude(*(x.abs() for x in inputs)) * (1 + 1e-12) >= value.abs())
    assert op.forward_terms >= 0
    assert op.adjoint_terms >= 0


FAMILIES = (
    "acasxu_2023",
    "cgan_2023",
    "collins_rul_cnn_2022",
    "cora_2024",
    "dist_shift_2023",
    "glipsdp_mnist_leaky",
    "linearizenn_2024",
    "mnist_fc_2022",
    "oval21_2022",
    "reach_prob_density_2022",
    "rl_benchmarks_2022",
    "safenlp_2024",
    "sri_resnet_b_2022",
    "starv_acasxu_leaky",
    "starv_hcas_leaky",
)


@pytest.mark.parametrize("benchmark", FAMILIES)
def test_public_networks_load_and_compute_what_onnxruntime_computes(benchmark: str) -> None:
    files = sorted((BENCH / benchmark).glob("onnx/**/*.onnx*"))
    if not files:
        pytest.skip(f"the shared benchmark {benchmark} is not here")
    for file in (files[0], files[-1]):
        network = read_onnx(file)
        inputs = [abs(x) / 4 for x in random_inputs(network, 0)]
        expected = runtime_outputs(network, inputs)
        assert_agreement(network, inputs, expected)
        assert_agreement(simplify(network), inputs, expected)
