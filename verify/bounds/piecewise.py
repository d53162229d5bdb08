"""Networks whose only activations have two slopes: `Clip` and `Maximum` rewritten, in exact arithmetic.

    clip(x, a, b)  =  min(max(x, a), b)          max(x, y)  =  y + relu(x - y)

What is left is affine maps and `TwoSlope` activations, and whoever decides the sides of all kinks has linear programs.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch

from leaktight.errors import UnsupportedOperator
from leaktight.models.network import Network, Node
from leaktight.models.ops import (
    Affine,
    Clip,
    Concat,
    Input,
    Maximum,
    Op,
    Reshape,
    Select,
    Shape,
    Sum,
    TwoSlope,
    leaky_relu,
)  # fmt: skip


def two_slopes_only(network: Network) -> Network:
    """A network that computes the same, in real arithmetic, from affine nodes and `TwoSlope` activations alone.

    Nodes keep their names; those that are new are named after the one that they help to make.

    Raises UnsupportedOperator: a node is not piecewise linear; the message names it.
    """
    nodes: list[Node] = []
    for node in network:
        if isinstance(node.op, (Input, Affine, TwoSlope)):
            nodes.append(node)
        elif isinstance(node.op, Clip):
            nodes += _clip(node, node.op)
        elif isinstance(node.op, Maximum):
            nodes += _maximum(network, node)
        else:
            raise UnsupportedOperator(
                f"node {node.origin or node.name!r}: operator {type(node.op).__name__} is not piecewise linear, and"
                " exact answers need that; use engine auto or branch"
            )
    return replace(network, nodes=tuple(nodes))


def _clip(node: Node, op: Clip) -> list[Node]:
    floor, ceiling = (torch.tensor(x, dtype=torch.float64) for x in (op.lower, op.upper))
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    inner = replace(node, name=f"{node.name}/floor", op=TwoSlope(zero, one, floor, floor))
    return [inner, replace(node, op=TwoSlope(one, zero, ceiling, ceiling), inputs=(inner.name,))]


def _maximum(network: Network, node: Node) -> list[Node]:
    """Rounds of a tournament over the last axis: of every pair the larger goes on, and one that is left over too."""
    made: list[Node] = []

    def add(op: Op, shape: Shape, *inputs: str) -> str:
        made.append(Node(f"{node.name}/{len(made)}", op, inputs, shape, node.origin))
        return made[-1].name

    at, shape = node.inputs[0], network.by_name[node.inputs[0]].shape
    while shape[-1] > 1:
        places = torch.arange(prod(shape)).reshape(shape)
        half = shape[-1] // 2
        pair = (*shape[:-1], half)
        first, second = (add(Select(places[..., k : 2 * half : 2], shape), pair, at) for k in (0, 1))
        rise = add(leaky_relu(0.0), pair, add(Sum((1, -1)), pair, first, second))
        larger = add(Sum((1, 1)), pair, second, rise)
        if shape[-1] % 2:
            last = add(Select(places[..., -1:], shape), (*shape[:-1], 1), at)
            larger, pair = add(Concat(-1), (*shape[:-1], half + 1), larger, last), (*shape[:-1], half + 1)
        at, shape = larger, pair
    made.append(replace(node, op=Reshape(shape, node.shape), inputs=(at,)))
    return made
