"""A Network as a torch module of plain layers, for tools that read traced torch graphs.

Values keep their shapes, without the file's own batch axis where every value has it, so that convolutions stay
convolutions. An affine operator without a plain layer of its own (a rearrangement, a one-dimensional convolution)
becomes its dense matrix. How far stored parameters may be off (`Affine.spread`) is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from leaktight.errors import UnsupportedOperator
from leaktight.models.network import Network, Node
from leaktight.models.ops import (
    Affine,
    Clip,
    Concat,
    Constant,
    Conv,
    Input,
    Linear,
    Maximum,
    Reshape,
    Scale,
    Select,
    Shape,
    Sigmoid,
    Sum,
    Tanh,
    TwoSlope,
)
from leaktight.verify.bounds.layers import (
    DENSE_ENTRIES,
    ClipByRelus,
    Concatenation,
    Dense,
    MaximumByRelus,
    Reshaping,
    Scaling,
    SignedSum,
    TwoSlopeByRelu,
    dense_layer,
    flat,
    plain,
    shaped,
)


class Traceable(nn.Module):
    """The network as layers: ``(batch, *shape)`` of one input or ``(batch, n)`` of several to ``(batch, outputs)``.

    With `relus` every Leaky ReLU is written as ``s z + (1 - s) relu(z)``, which holds for any slope. Without it, slopes
    in [0, 1] that one number describes stay Leaky ReLU layers.

    Raises UnsupportedOperator: an operator has no layer, or its dense matrix would be too large; names the node.
    """

    def __init__(self, network: Network, *, relus: bool = False) -> None:
        super().__init__()
        self.network = network
        self.squeezed = network.batched and all(node.shape[:1] == (1,) for node in network)
        self.layers = nn.ModuleList(self._layer(node, relus) for node in network)

    def shape(self, shape: Shape) -> Shape:
        """The shape that a value of the network has here, behind the batch axis."""
        return shape[1:] if self.squeezed else shape

    def arrange(self, x: Tensor) -> Tensor:
        """``(batch, n)`` entries in the shape that `forward` takes."""
        first, *others = self.network.inputs
        return x if others else x.reshape(len(x), *self.shape(self.network.by_name[first.name].shape))

    def forward(self, x: Tensor) -> Tensor:
        known = self._split(x)
        first = x.flatten(1) if x.dim() > 2 else x
        for node, layer in zip(self.network, self.layers, strict=True):
            if not isinstance(node.op, Input):
                known[node.name] = layer(*(known[name] for name in node.inputs) if node.inputs else (first,))
        last = [self.network.by_name[port.name] for port in self.network.outputs]
        found = [flat(known[node.name], self.shape(node.shape)) for node in last]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _split(self, x: Tensor) -> dict[str, Tensor]:
        ports = self.network.inputs
        if len(ports) == 1:
            return {ports[0].name: x}
        known, start = {}, 0
        for port in ports:
            shape = self.network.by_name[port.name].shape
            known[port.name] = shaped(x[:, start : start + port.size], self.shape(shape))
            start += port.size
        return known

    def _layer(self, node: Node, relus: bool) -> nn.Module:
        op, shape = node.op, self.shape(node.shape)
        shapes = [self.network.by_name[name].shape for name in node.inputs]
        if isinstance(op, Affine):
            return self._affine(node, op, shape, shapes)
        if isinstance(op, TwoSlope):
            return _two_slope(op, shape, relus)
        if isinstance(op, Clip):
            return ClipByRelus(op.lower, op.upper)
        if isinstance(op, Maximum):
            return MaximumByRelus(self.shape(shapes[0]))
        if isinstance(op, Input):
            return nn.Identity()
        if isinstance(op, (Sigmoid, Tanh)):
            return nn.Sigmoid() if isinstance(op, Sigmoid) else nn.Tanh()
        raise _without_layer(node)

    def _affine(self, node: Node, op: Affine, shape: Shape, shapes: Sequence[Shape]) -> nn.Module:
        if isinstance(op, Linear) and len(shape) == 1:
            return dense_layer(op.weight, op.bias)
        if isinstance(op, Conv) and op.weight.dim() == 4 and len(shape) == 3 and len(set(op.dilation)) == 1:
            return _convolution(op)  # auto_LiRPA 0.3 goes wrong where the axes are dilated differently
        if isinstance(op, Scale):
            bias = None if op.bias is None else plain(op.bias, node.shape, shape)
            return Scaling(plain(op.weight, node.shape, shape), bias)
        if isinstance(op, Sum) and all(other == node.shape for other in shapes):
            return SignedSum(op)
        if isinstance(op, Concat):
            return Concatenation(op.axis)
        if isinstance(op, Reshape):
            return Reshaping(shape)
        if isinstance(op, Constant):
            entries = self.network.input_size
            value = op.value.expand(node.shape).flatten()
            return Dense(value.new_zeros(value.numel(), entries), value, shape)
        if isinstance(op, Select) or len(node.inputs) == 1:
            return _dense(node, op, shapes[0], shape)
        raise _without_layer(node)


def _without_layer(node: Node, reason: str = "") -> UnsupportedOperator:
    kind = type(node.op).__name__
    return UnsupportedOperator(
        f"node {node.origin or node.name!r}: operator {kind} has no plain torch layer{reason};"
        " use one of leaktight's own engines"
    )


def _convolution(op: Conv) -> nn.Conv2d:
    out, width, *kernel = op.weight.shape
    layer = nn.Conv2d(
        width * op.groups,
        out,
        (kernel[0], kernel[1]),
        _pair(op.stride),
        _pair(op.padding),
        _pair(op.dilation),
        op.groups,
        dtype=op.weight.dtype,
    )
    layer.weight.data = op.weight.clone()
    bias = op.weight.new_zeros(out) if op.bias is None else op.bias.clone()
    layer.bias = nn.Parameter(bias)
    return layer


def _pair(numbers: Shape) -> tuple[int, int]:
    return (numbers[0], numbers[-1])


def _dense(node: Node, op: Affine, before: Shape, after: Shape) -> nn.Module:
    entries, size = prod(before), prod(after)
    if entries * size > DENSE_ENTRIES:
        raise _without_layer(
            node, f", and its dense matrix would have {size} x {entries} entries, more than {DENSE_ENTRIES}"
        )
    dtype = getattr(op, "weight", torch.zeros(0, dtype=torch.float64)).dtype
    columns = op.linear(torch.eye(entries, dtype=dtype).reshape(entries, *before)).reshape(entries, size)
    bias = None if op.bias_value is None else op.bias_value.expand(node.shape).flatten()
    return Dense(columns.T.contiguous(), bias, after)


def _two_slope(op: TwoSlope, shape: Shape, relus: bool) -> nn.Module:
    slope = float(op.left.flatten()[0])
    if bool((op.left == slope).all()) and bool((op.right == 1).all()) and not op.kink.any() and not op.value.any():
        if slope == 0:
            return nn.ReLU()
        if 0 < slope <= 1 and not relus:
            return nn.LeakyReLU(slope)
    return TwoSlopeByRelu(op, shape)
