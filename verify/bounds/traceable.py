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

# A dense stand-in of an affine operator has at most so many entries (128 MiB in float64).
DENSE_ENTRIES = 1 << 24


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
        found = [_flat(known[node.name], self.shape(node.shape)) for node in last]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _split(self, x: Tensor) -> dict[str, Tensor]:
        ports = self.network.inputs
        if len(ports) == 1:
            return {ports[0].name: x}
        known, start = {}, 0
        for port in ports:
            shape = self.network.by_name[port.name].shape
            known[port.name] = _shaped(x[:, start : start + port.size], self.shape(shape))
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
            return _linear(op.weight, op.bias)
        if isinstance(op, Conv) and op.weight.dim() == 4 and len(shape) == 3 and len(set(op.dilation)) == 1:
            return _convolution(op)  # auto_LiRPA 0.3 goes wrong where the axes are dilated differently
        if isinstance(op, Scale):
            bias = None if op.bias is None else _plain(op.bias, node.shape, shape)
            return Scaling(_plain(op.weight, node.shape, shape), bias)
        if isinstance(op, Sum) and all(other == node.shape for other in shapes):
            return SignedSum(op.signs)
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


def _flat(x: Tensor, shape: Shape) -> Tensor:
    return x if len(shape) == 1 else _shaped(x, (prod(shape),))


def _shaped(x: Tensor, shape: Shape) -> Tensor:
    return x.flatten(1) if len(shape) == 1 and x.dim() > 2 else x.reshape(-1, *shape)


def _plain(parameter: Tensor, full: Shape, shape: Shape) -> Tensor:
    """A parameter that broadcasts against `full`, with the axes of `shape` behind a batch axis."""
    return parameter.expand(full).reshape(1, *shape)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data = weight.clone()
    layer.bias.data = weight.new_zeros(len(weight)) if bias is None else bias.clone()
    return layer


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


class Dense(nn.Module):
    """``W x + b`` over all entries of a value, in a new shape."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Shape) -> None:
        super().__init__()
        self.linear, self.shape = _linear(weight, bias), shape

    def forward(self, x: Tensor) -> Tensor:
        value = self.linear(x.flatten(1) if x.dim() > 2 else x)
        return value if len(self.shape) == 1 else _shaped(value, self.shape)


class Scaling(nn.Module):
    """``w * x + b`` entry by entry."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone())
        self.register_buffer("bias", None if bias is None else bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        value = x * self.weight
        return value if self.bias is None else value + self.bias


class SignedSum(nn.Module):
    """The sum of several values, each with a sign."""

    def __init__(self, signs: Sequence[int]) -> None:
        super().__init__()
        self.signs = tuple(signs)

    def forward(self, *inputs: Tensor) -> Tensor:
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for sign, x in zip(self.signs[1:], inputs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total


class Concatenation(nn.Module):
    """Values joined along an axis counted from the back."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, inputs[0].dim() + self.axis)


class Reshaping(nn.Module):
    """The same entries in another shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return _shaped(x, self.shape)


def _two_slope(op: TwoSlope, shape: Shape, relus: bool) -> nn.Module:
    slope = float(op.left.flatten()[0])
    if bool((op.left == slope).all()) and bool((op.right == 1).all()) and not op.kink.any() and not op.value.any():
        if slope == 0:
            return nn.ReLU()
        if 0 < slope <= 1 and not relus:
            return nn.LeakyReLU(slope)
    return TwoSlopeByRelu(op, shape)


class TwoSlopeByRelu(nn.Module):
    """``value + left (x - kink) + (right - left) relu(x - kink)``, the two-slope activation with any parameters."""

    left: Tensor
    rise: Tensor
    shift: Tensor | None
    value: Tensor | None

    def __init__(self, op: TwoSlope, shape: Shape) -> None:
        super().__init__()
        full = tuple((op.left + op.right + op.kink + op.value + op.left.new_zeros(shape)).shape)
        left, right, kink, value = (_plain(p, full, shape) for p in (op.left, op.right, op.kink, op.value))
        self.relu = nn.ReLU()
        self.register_buffer("left", left.clone())
        self.register_buffer("rise", right - left)
        self.register_buffer("shift", -kink if bool(kink.any()) else None)
        self.register_buffer("value", value.clone() if bool(value.any()) else None)

    def forward(self, x: Tensor) -> Tensor:
        moved = x if self.shift is None else x + self.shift
        y: Tensor = moved * self.left + self.relu(moved) * self.rise
        return y if self.value is None else y + self.value


class ClipByRelus(nn.Module):
    """``lower + relu(x - lower) - relu(x - upper)``, which is ``x`` clipped."""

    def __init__(self, lower: float, upper: float) -> None:
        super().__init__()
        self.lower, self.upper, self.relu = lower, upper, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x - self.lower) - self.relu(x - self.upper) + self.lower  # type: ignore[no-any-return]


class MaximumStage(nn.Module):
    """``rest(x) + relu(rise(x))``: each pair of entries becomes its larger one."""

    def __init__(self, rise: nn.Linear, rest: nn.Linear) -> None:
        super().__init__()
        self.rise, self.rest, self.relu = rise, rest, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.relu(self.rise(x)) + self.rest(x)
        return value


class MaximumByRelus(nn.Module):
    """The maximum over the last axis as a tree of ``max(a, b) = b + relu(a - b)``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        *self.shape, width = shape
        groups = prod(self.shape)
        stages: list[nn.Module] = []
        while width > 1:
            half = (width + 1) // 2  # an odd entry is compared with itself
            eye = torch.eye(width, dtype=torch.float64)
            every = torch.eye(groups, dtype=torch.float64)
            pairs = (eye[:half] - eye[-half:], eye[-half:])
            if groups * groups * half * width > DENSE_ENTRIES:
                raise UnsupportedOperator(
                    f"a maximum over values of shape {tuple(shape)} needs too large dense"
                    " matrices; use one of leaktight's own engines"
                )
            rise, rest = (_linear(torch.kron(every, pair), None) for pair in pairs)
            stages.append(MaximumStage(rise, rest))
            width = half
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1) if x.dim() > 2 else x
        for stage in self.stages:
            value = stage(value)
        return value if len(self.shape) == 1 else _shaped(value, tuple(self.shape))
