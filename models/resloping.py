"""Other slopes in an ONNX model: what a network's file would be, had its Leaky ReLUs been given these slopes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes
from leaktight.models.readers.file import parsed
from leaktight.models.simplify import simplify

_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def resloped(network: Network, slopes: Mapping[str, Tensor]) -> Network:
    """The network's ONNX model with other slopes in the activations named by `slopes`, read again and simplified.

    Args: slopes: for each node the slopes in a shape that broadcasts against its value's; they are rounded to the
    file's element type, and one slope of a Relu or LeakyRelu to float32.
    Raises UsageError: there is no ONNX model, an activation is not in it, or a slope overflows in the file's type.
    """
    source = network.source
    if source is None or source.onnx is None:
        raise UsageError("the network has no ONNX model to set the slope in; load it from a file or a module")
    model = parsed(source.onnx, source.path)
    producers = {name: node for node in model.graph.node for name in node.output}
    for name, slope in slopes.items():
        node = producers.get(name)
        if node is None or node.op_type not in _SETTERS:
            raise UsageError(f"{source.path}: the model has no Relu, LeakyRelu or PRelu that computes {name!r}")
        _SETTERS[node.op_type](model, node, slope, network.inputs[0].dtype)
    data: bytes = model.SerializeToString()
    return simplify(network_from_bytes(data, path=source.path, folder=source.folder))


def _set_attribute(model: ModelProto, node: NodeProto, slope: Tensor, dtype: str) -> None:  # noqa: ARG001
    node.op_type = "LeakyRelu"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("alpha", float(_rounded(slope.flatten()[0], np.dtype("float32")))))


def _set_weights(model: ModelProto, node: NodeProto, slope: Tensor, dtype: str) -> None:
    stored = next((t.data_type for t in model.graph.initializer if t.name == node.input[1]), _TYPES[dtype])
    values = _rounded(slope, helper.tensor_dtype_to_np_dtype(stored))
    taken = {t.name for t in model.graph.initializer} | {x for n in model.graph.node for x in (*n.input, *n.output)}
    name = f"{node.output[0]}/slope"
    while name in taken:
        name += "_"
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    node.input[1] = name


_SETTERS = {"Relu": _set_attribute, "LeakyRelu": _set_attribute, "PRelu": _set_weights}


def _rounded(slope: Tensor, dtype: np.dtype[np.generic]) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with np.errstate(over="ignore"):
        values = np.asarray(slope.double().numpy()).astype(dtype)
    if not np.isfinite(values).all():
        raise UsageError(f"slope {slope.tolist()}: {dtype} does not hold numbers of this size; take a smaller slope")
    return values
