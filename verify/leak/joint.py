"""A network that takes the slope as one more input, for a search over inputs and slopes together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input, Op, TwoSlope
from leaktight.models.slopes import Slopes


@dataclass(frozen=True, eq=False)
class _Moved(Op):
    """An activation whose sides turn with its second input, the slope ``(batch, 1)``.

    `leak`: the derivative (not the value) is that of an activation whose leaky side has at least this part of the other
    side's slope, so that a search is not stranded where the slope is 0.
    """

    still: TwoSlope
    left: Tensor
    right: Tensor
    flipped: Tensor
    leak: float

    def __call__(self, *inputs: Tensor) -> Tensor:
        x, slope = inputs
        a = slope.reshape(-1, *[1] * (x.dim() - 1))
        value = self._at(x, a)
        if not self.leak:
            return value
        smooth = self._at(x, torch.where(a.abs() < self.leak, self.leak, a))
        return value.detach() + (smooth - smooth.detach())

    def _at(self, x: Tensor, a: Tensor) -> Tensor:
        op, dtype = self.still, x.dtype
        shifted = x - op.kink.to(dtype)
        left = torch.where(self.flipped, op.left.to(dtype), a * self.left.to(dtype))
        right = torch.where(self.flipped, a * self.right.to(dtype), op.right.to(dtype))
        return op.value.to(dtype) + torch.where(shifted >= 0, right * shifted, left * shifted)


def slope_name(network: Network) -> str:
    """The name of the slope as an input."""
    name = "slope"
    while name in network.by_name:
        name += "'"
    return name


def with_slope_input(slopes: Slopes, leak: float = 0.0, *, handed_on: bool = False) -> Network:
    """The network with one more input behind its own, of shape ``(1,)``: the slope of the chosen nodes.

    The slope is the last of its outputs as well, where `handed_on`, so that conditions may depend on it. What it
    computes is rounded like any evaluation: for searching, not for proving. `leak`: see `_Moved`.
    """
    network = slopes.network
    name = slope_name(network)
    nodes = [Node(name, Input(), (), (1,))]
    nodes += [_moved(slopes, node, name, leak) if node.name in slopes.nodes else node for node in network]
    port = Port(name, (1,), network.inputs[0].dtype)
    outputs = (*network.outputs, port) if handed_on else network.outputs
    return replace(network, nodes=tuple(nodes), inputs=(*network.inputs, port), outputs=outputs, source=None)


def _moved(slopes: Slopes, node: Node, slope: str, leak: float) -> Node:
    if not isinstance(node.op, TwoSlope) or node.op.leak is None:
        raise InternalError(f"node {node.name!r} is no Leaky ReLU, and its slope was to move")
    op = _Moved(node.op, *slopes.rate(node.name), node.op.leak.flipped, leak)
    return replace(node, op=op, inputs=(*node.inputs, slope))
