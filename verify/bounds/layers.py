"""Plain torch layers for what torch has no layer for: tools that read traced graphs see matrices, sums and ReLUs."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from leaktight.errors import UnsupportedOperator
from leaktight.models.ops import Shape, Sum, TwoSlope

# A dense stand-in of an affine operator has at most so many entries (128 MiB in float64).
DENSE_ENTRIES = 1 << 24


def flat(x: Tensor, shape: Shape) -> Tensor:
    return x if len(shape) == 1 else shaped(x, (prod(shape),))


def shaped(x: Tensor, shape: Shape) -> Tensor:
    return x.flatten(1) if len(shape) == 1 and x.dim() > 2 else x.reshape(-1, *shape)


def plain(parameter: Tensor, full: Shape, shape: Shape) -> Tensor:
    """A parameter that broadcasts against `full`, with the axes of `shape` behind a batch axis."""
    return parameter.expand(full).reshape(1, *shape)


def dense_layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data = weight.clone()
    layer.bias.data = weight.new_zeros(len(weight)) if bias is None else bias.clone()
    return layer


class Dense(nn.Module):
    """``W x + b`` over all entries of a value, in a new shape."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Shape) -> None:
        super().__init__()
        self.linear, self.shape = dense_layer(weight, bias), shape

    def forward(self, x: Tensor) -> Tensor:
        value = self.linear(x.flatten(1) if x.dim() > 2 else x)
        return value if len(self.shape) == 1 else shaped(value, self.shape)


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

    def __init__(self, op: Sum) -> None:
        super().__init__()
        self.op = op

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.op.linear(*inputs)


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
        return shaped(x, self.shape)


class TwoSlopeByRelu(nn.Module):
    """``value + left (x - kink) + (right - left) relu(x - kink)``, the two-slope activation with any parameters."""

    left: Tensor
    rise: Tensor
    shift: Tensor | None
    value: Tensor | None

    def __init__(self, op: TwoSlope, shape: Shape) -> None:
        super().__init__()
        full = tuple((op.left + op.right + op.kink + op.value + op.left.new_zeros(shape)).shape)
        left, right, kink, value = (plain(p, full, shape) for p in (op.left, op.right, op.kink, op.value))
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
            rise, rest = (dense_layer(torch.kron(every, pair), None) for pair in pairs)
            stages.append(MaximumStage(rise, rest))
            width = half
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1) if x.dim() > 2 else x
        for stage in self.stages:
            value = stage(value)
        return value if len(self.shape) == 1 else shaped(value, tuple(self.shape))
