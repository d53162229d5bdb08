"""Normalisation of the data as the first layer of a network: what is proven is then about the data's own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf, nextafter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import ModelError, UsageError
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Scale

Array = np.ndarray[Any, Any]


def normalised(network: Network, mean: float | Sequence[float], std: float | Sequence[float]) -> Network:
    """The network of ``x -> (x - mean) / std``, then `network`.

    `mean` and `std` are one number for all entries, or one for each channel: each place along the first axis after the
    batch axis of the only input. They are rounded to the input's dtype first, as the network's own weights once were.
    The layer is an affine operator whose stored ``1 / std`` and ``-mean / std`` carry their rounding errors. The ONNX
    model in `source`, where there is one, gets the same subtraction and division in front, under the same input name.

    Raises UsageError: a number of channels that is not the input's, a value that is not finite, ``std <= 0``, or a
    network of several inputs or of integers.
    """
    if len(network.inputs) != 1:
        names = ", ".join(port.name for port in network.inputs)
        raise UsageError(
            f"--mean, --std: the network has {len(network.inputs)} inputs ({names}); normalisation needs "
            "a network of one input"
        )
    (port,) = network.inputs
    centre, spread = _channels(network, port, "mean", mean), _channels(network, port, "std", std)
    if not (spread > 0).all():
        raise UsageError(f"--std: got {spread.ravel().tolist()}; every standard deviation must be above 0")
    name = _unused(f"{port.name}/normalised", network.by_name)
    layer = Node(name, _layer(centre, spread), (port.name,), network.by_name[port.name].shape, name)
    source = network.source
    if source is not None and source.onnx is not None:
        source = replace(source, onnx=_spliced(source.onnx, port.name, centre, spread))
    outputs = tuple(replace(p, name=name) if p.name == port.name else p for p in network.outputs)
    return replace(network, nodes=_in_front(network, port.name, layer), outputs=outputs, source=source)


def _channels(network: Network, port: Port, what: str, given: float | Sequence[float]) -> Array:
    """The numbers in the input's dtype, in a shape that broadcasts against the input's."""
    dtype = np.dtype(port.dtype)
    if dtype.kind != "f":
        raise UsageError(f"--{what}: the network's input {port.name!r} holds {port.dtype}; it must be floating-point")
    with np.errstate(over="ignore"):
        values = np.asarray(given, dtype=np.float64).astype(dtype)
    if not np.isfinite(values).all():
        raise UsageError(f"--{what}: got {np.asarray(given).tolist()}; every number must be finite in {port.dtype}")
    if values.size == 1:
        return values.reshape(())
    axis = 1 if network.batched and len(port.shape) > 1 else 0
    if values.ndim != 1 or values.size != port.shape[axis]:
        raise UsageError(
            f"--{what}: got {values.size} numbers; the input {port.name!r} of shape {list(port.shape)} "
            f"has {port.shape[axis]} channels; give one number, or one for each channel"
        )
    return values.reshape(-1, *[1] * (len(port.shape) - axis - 1))


def _layer(mean: Array, std: Array) -> Scale:
    mean, std = np.broadcast_arrays(mean, std)
    pairs = [(Fraction(float(m)), Fraction(float(s))) for m, s in zip(mean.ravel(), std.ravel(), strict=True)]
    weight, weight_error = _stored([1 / s for _, s in pairs], mean.shape)
    bias, bias_error = _stored([-m / s for m, s in pairs], mean.shape)
    return Scale(weight, bias, weight_error=weight_error, bias_error=bias_error)


def _stored(exact: list[Fraction], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The nearest float64 numbers, and bounds on how far they are off."""
    try:
        nearest = [float(value) for value in exact]
    except OverflowError:
        raise UsageError("--mean, --std: mean / std is beyond float64; give a larger standard deviation") from None
    errors = []
    for value, near in zip(exact, nearest, strict=True):
        off = abs(value - Fraction(near))
        error = float(off)
        errors.append(error if Fraction(error) >= off else nextafter(error, inf))
    return (
        torch.tensor(nearest, dtype=torch.float64).reshape(shape),
        torch.tensor(errors, dtype=torch.float64).reshape(shape),
    )


def _in_front(network: Network, entrance: str, layer: Node) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for node in network.nodes:
        nodes.append(replace(node, inputs=tuple(layer.name if name == entrance else name for name in node.inputs)))
        if node.name == entrance:
            nodes.append(layer)
    return tuple(nodes)


def _unused(wanted: str, taken: Any) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted


def _spliced(content: bytes, entrance: str, mean: Array, std: Array) -> bytes:
    """The ONNX model with ``Sub`` and ``Div`` between its input and everything that uses it."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(content)
    graph = model.graph
    if any(output.name == entrance for output in graph.output):
        raise ModelError(f"the network's input {entrance!r} is also its output; put an Identity node between them")
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {t.name for t in graph.initializer}
    centred, divided, centre, spread = (
        _unused(f"{entrance}/{end}", taken) for end in ("centred", "normalised", "mean", "std")
    )
    for node in graph.node:
        node.input[:] = [divided if name == entrance else name for name in node.input]
    first = [
        helper.make_node("Sub", [entrance, centre], [centred], name=centred),
        helper.make_node("Div", [centred, spread], [divided], name=divided),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])
    graph.initializer.extend([numpy_helper.from_array(mean, centre), numpy_helper.from_array(std, spread)])
    return bytes(model.SerializeToString())
