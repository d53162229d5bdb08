"""A network whose gradients do not die: the same values, but flat pieces of activations pass some gradient back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Op, TwoSlope


@dataclass(frozen=True, eq=False)
class _Leaking(Op):
    """The values of one activation with the derivative of another."""

    value: TwoSlope
    derivative: TwoSlope

    def __call__(self, *inputs: Tensor) -> Tensor:
        smooth = self.derivative(*inputs)
        with torch.no_grad():
            value = self.value(*inputs)
        return value + (smooth - smooth.detach())  # adds an exact zero


def leaking(network: Network, leak: float) -> Network:
    """The network, differentiated as if no piece of a two-slope activation were flatter than `leak` times the other."""
    return replace(
        network,
        nodes=tuple(
            replace(node, op=_Leaking(node.op, _leaky(node.op, leak))) if isinstance(node.op, TwoSlope) else node
            for node in network.nodes
        ),
    )


def is_flat(network: Network, leak: float) -> bool:
    """Whether `leaking` changes any derivative."""
    ops = [node.op for node in network.nodes if isinstance(node.op, TwoSlope)]
    pieces = [(op.left.abs(), op.right.abs()) for op in ops]
    return any(bool(((left < leak * right) | (right < leak * left)).any()) for left, right in pieces)


def _leaky(op: TwoSlope, leak: float) -> TwoSlope:
    return replace(
        op,
        left=torch.where(op.left.abs() < leak * op.right.abs(), leak * op.right, op.left),
        right=torch.where(op.right.abs() < leak * op.left.abs(), leak * op.left, op.right),
    )
