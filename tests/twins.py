"""Small random networks that exist twice: as leaktight operators, and as ONNX bytes made by the onnx package."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from leaktight.models.network import Network, Node, Port, Source
from leaktight.models.ops import Input, Linear, leaky_relu


def fully_connected(weights: list[tuple[np.ndarray, np.ndarray]], slope: float = 0.1, *, file: bool = True) -> Network:
    """Affine layers ``(W, b)`` in float32 with Leaky ReLUs between them; with `file`, together with its ONNX twin."""
    nodes = [Node("x", Input(), (), (1, weights[0][0].shape[1]))]
    for i, (weight, bias) in enumerate(weights):
        if i:
            nodes.append(Node(f"a{i}", leaky_relu(float(np.float32(slope))), (nodes[-1].name,), nodes[-1].shape))
        op = Linear(torch.from_numpy(weight).double(), torch.from_numpy(bias).double())
        name = "y" if i == len(weights) - 1 else f"z{i}"
        nodes.append(Node(name, op, (nodes[-1].name,), (1, len(bias))))
    source = Source("twin.onnx", "0" * 64, onnx_twin(weights, slope)) if file else None
    return Network(tuple(nodes), (Port("x", nodes[0].shape),), (Port("y", nodes[-1].shape),), source=source)


def onnx_twin(weights: list[tuple[np.ndarray, np.ndarray]], slope: float, folder: Path | None = None) -> bytes:
    """The same network as a serialized ONNX model; with `folder`, its weights lie in a file there."""
    operators, tensors, last = [], [], "x"
    for i, (weight, bias) in enumerate(weights):
        if i:
            operators.append(helper.make_node("LeakyRelu", [last], [f"a{i}"], alpha=slope))
            last = f"a{i}"
        tensors += [numpy_helper.from_array(weight, f"W{i}"), numpy_helper.from_array(bias, f"b{i}")]
        name = "y" if i == len(weights) - 1 else f"z{i}"
        operators.append(helper.make_node("Gemm", [last, f"W{i}", f"b{i}"], [name], transB=1))
        last = name
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", weights[0][0].shape[1]), ("y", len(weights[-1][1])))
    ]
    graph = helper.make_graph(operators, "twin", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if folder is not None:
        onnx.save(model, folder / "twin.onnx", save_as_external_data=True, location="twin.weights", size_threshold=0)
        return (folder / "twin.onnx").read_bytes()
    return model.SerializeToString()


def random_weights(sizes: list[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Affine layers between layers of the given sizes."""
    generator = np.random.default_rng(seed)
    return [
        (
            (generator.standard_normal((out, inp)) / inp**0.5).astype(np.float32),
            (0.2 * generator.standard_normal(out)).astype(np.float32),
        )
        for inp, out in itertools.pairwise(sizes)
    ]


def identity(size: int = 1) -> Network:
    """``y = x``."""
    return fully_connected([(np.eye(size, dtype=np.float32), np.zeros(size, np.float32))])
