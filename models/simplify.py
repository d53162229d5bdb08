"""Meaning-preserving rewrites: smaller graphs, tighter bounds, the same function in real arithmetic.

Every rewrite is a function of a draft and one node, and says whether it changed something. Parameters that a rewrite
computes carry bounds on what rounding took away (leaktight.models.enclosure), so that the simplified network encloses
the original one. The names of outputs and of activations, and every node's origin, survive; a value that keeps its name
keeps its meaning, with one exception: an activation that absorbs a following Scale. Values without axes get one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import torch

from leaktight.models.draft import Draft
from leaktight.models.folding import (
    linear_into_linear,
    scale_into_affine_after,
    scale_into_affine_before,
    scale_into_scale,
    scale_into_two_slope_after,
    scale_into_two_slope_before,
)
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Concat, Constant, Input, Reshape, Scale, Select, Shape, Sum

Rewrite = Callable[[Draft, Node], bool]


def simplify(network: Network) -> Network:
    """The same function with fewer operators: BatchNormalization folded, affine chains merged, no-ops dropped.

    The network is one in float64, as readers make it. Exact where no parameter has to be rounded; elsewhere the
    operators' error terms account for it. Inputs, outputs and source are those of `network`.
    """
    draft = Draft(network)
    for rewrites in ((give_an_axis,), _MOVES, _AFFINE, _ACTIVATIONS, _MOVES):
        while _pass(draft, rewrites):
            draft.prune()
    return replace(network, nodes=tuple(draft.nodes.values()))


def _pass(draft: Draft, rewrites: tuple[Rewrite, ...]) -> bool:
    """Tries every rewrite at every node once, in topological order; whether anything changed."""
    changed = False
    for name in list(draft.nodes):
        for rewrite in rewrites:
            if name in draft.nodes and rewrite(draft, draft.nodes[name]):
                changed = True
    return changed


def give_an_axis(draft: Draft, node: Node) -> bool:
    """A value without axes becomes the one entry of an axis, as all rules expect it; inputs and outputs stay so."""
    output = node.name in draft.outputs
    if node.shape or (isinstance(node.op, Reshape | Select | Constant) and not output):
        return False
    wide, inner = _with_an_axis(draft, node)
    known = output or not isinstance(node.op, Affine)  # also what bends, and inputs: by the name of what has an axis
    other = draft.fresh(f"{node.name}/{'scalar' if known else 'entry'}")
    inside, outside = (node.name, other) if known else (other, node.name)
    back = Node(outside, Reshape((1,), ()), (inside,), (), node.origin)
    draft.put(*wide, replace(inner, name=inside), back, instead_of=(node.name,))
    if known:
        draft.reroute(inside, outside)
    return True


def _with_an_axis(draft: Draft, node: Node) -> tuple[list[Node], Node]:
    """The node with an axis, and what its inputs have to go through for that."""
    op = node.op
    if isinstance(op, Input):
        return [], replace(node, shape=(1,))
    if isinstance(op, Reshape):
        return [], replace(node, op=Reshape(op.input_shape, (1,)), shape=(1,))
    if isinstance(op, Select):
        return [], replace(node, op=replace(op, index=op.index.reshape(1)), shape=(1,))
    if isinstance(op, Constant):
        error = None if op.error is None else op.error.reshape(1)
        return [], replace(node, op=Constant(op.value.reshape(1), error), shape=(1,))
    shapes = [draft.nodes[name].shape for name in node.inputs]
    wide = [
        Node(draft.fresh(f"{node.name}/{i}"), Reshape(shape, (1, *shape)), (name,), (1, *shape), node.origin)
        for i, (name, shape) in enumerate(zip(node.inputs, shapes, strict=True))
    ]
    return wide, replace(node, inputs=tuple(given.name for given in wide), shape=(1,))


def drop_no_op(draft: Draft, node: Node) -> bool:
    """Drops a node that hands its input on. One that names an output stays, unless its producer can take the name."""
    if len(node.inputs) != 1 or not _is_no_op(node, draft.nodes[node.inputs[0]]):
        return False
    if node.name not in draft.outputs:
        draft.bypass(node.name, node.inputs[0])
        return True
    producer = draft.nodes[node.inputs[0]]
    if draft.only_consumer(producer.name) == node.name and draft.renamable(producer):
        draft.put(replace(producer, name=node.name), instead_of=(producer.name, node.name))
        return True
    if not isinstance(node.op, Reshape):
        draft.put(replace(node, op=Reshape(node.shape, node.shape)), instead_of=(node.name,))
        return True
    return False


def _is_no_op(node: Node, given: Node) -> bool:
    op = node.op
    if node.shape != given.shape:
        return False
    if isinstance(op, Scale):
        still = bool((op.weight == 1).all()) and op.weight_error is None
        return still and op.bias_error is None and (op.bias is None or not op.bias.any())
    if isinstance(op, Select):
        return _in_order(op)
    return isinstance(op, Reshape | Concat) or (isinstance(op, Sum) and op.signs == (1,))


def _in_order(op: Select) -> bool:
    size = op.index.numel()
    return size == prod(op.input_shape) and bool(torch.equal(op.index.reshape(-1), torch.arange(size)))


def merge_moves(draft: Draft, node: Node) -> bool:
    """Merges two rearrangements in a row into one."""
    if not isinstance(node.op, Reshape | Select):
        return False
    if isinstance(node.op, Select) and _in_order(node.op):
        draft.put(replace(node, op=Reshape(node.op.input_shape, node.shape)), instead_of=(node.name,))
        return True
    given = draft.nodes[node.inputs[0]]
    if not isinstance(given.op, Reshape | Select):
        return False
    op = _merged(given.op, node.op, node.shape)
    draft.put(replace(node, op=op, inputs=given.inputs), instead_of=(node.name,))
    return True


def _merged(first: Reshape | Select, second: Reshape | Select, shape: Shape) -> Reshape | Select:
    """`second` after `first`, of the given result shape."""
    if isinstance(first, Reshape):
        return replace(second, input_shape=first.input_shape)
    if isinstance(second, Reshape):
        return replace(first, index=first.index.reshape(shape))
    outer = second.index
    picked = first.index.reshape(-1)[outer.clamp(min=0)]
    return replace(first, index=picked.where(outer >= 0, picked.new_tensor(-1)))


_MOVES: tuple[Rewrite, ...] = (drop_no_op, merge_moves)
_AFFINE: tuple[Rewrite, ...] = (
    drop_no_op,
    scale_into_scale,
    scale_into_affine_before,
    scale_into_affine_after,
    linear_into_linear,
)
_ACTIVATIONS: tuple[Rewrite, ...] = (scale_into_two_slope_after, scale_into_two_slope_before)
