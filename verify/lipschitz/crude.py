"""The quickest bound, in any norm: what sums of absolute weights say, in one pass forwards and one backwards.

Whatever the slopes ``d``, every entry of ``J = W_L d W_(L-1) ... d W_1`` is at most that of ``A = |W_L| s ... s |W_1|``
in absolute value, with ``s`` the steepest slope of each neuron; for other graphs the same holds of the sums over paths
(a maximum moves by one of its entries, with slope 1, whichever that is). So ``|J|_inf <= |A|_inf``, the largest entry
of ``A 1``, which is one pass of the network with absolute weights, and ``|J|_1 <= |A|_1``, the largest entry of ``A^T
1``, a pass backwards. In L2 ``|J|^2 <= |J|_1 |J|_inf``. No matrix is made, so that this is there within any time limit;
it is at most the product of the layers' norms, each bounded by such sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, sqrt

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Constant, Input, Maximum, Sum, Weighted
from leaktight.specs.region import Norm
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.norms import times, up
from leaktight.verify.lipschitz.sectors import sector
from leaktight.verify.rounding import gamma

_TINY = 1e-290  # more than underflow takes away


def crude(network: Network, norm: Norm, known: Mapping[str, Interval] | None = None) -> float:
    """At least the Lipschitz constant in `norm`, from all inputs, joined, to all outputs, joined.

    known: bounds of its values in a convex region; then for differences within it. Infinite where numbers overflow.
    Raises UnsupportedOperator: an activation has no sector.
    """
    needed = {port.name for port in network.outputs}
    for node in reversed(network.nodes):
        needed.update(node.inputs if node.name in needed else ())
    nodes = [node for node in network if node.name in needed]
    with torch.no_grad():
        rows = _forwards(network, nodes, known) if norm is not Norm.L1 else 1.0
        columns = _backwards(network, nodes, known) if norm is not Norm.LINF else 1.0
    return times(up(sqrt(rows)), up(sqrt(columns))) if norm is Norm.L2 else times(rows, columns)


def _forwards(network: Network, nodes: Sequence[Node], known: Mapping[str, Interval] | None) -> float:
    """At least the largest entry of ``A 1``."""
    values: dict[str, Tensor] = {}
    for node in nodes:
        before = [values[name] for name in node.inputs]
        if isinstance(node.op, Input | Constant):
            values[node.name] = torch.full(node.shape, float(isinstance(node.op, Input)), dtype=torch.float64)
        elif isinstance(node.op, Affine):
            op = _absolute(node.op)
            values[node.name] = _raised(op.linear(*before), op.forward_terms).expand(node.shape)
        elif isinstance(node.op, Maximum):
            values[node.name] = node.op(before[0])
        else:
            values[node.name] = _raised(_steepest(node, known) * before[0], 1)
    return max(_largest(values[port.name]) for port in network.outputs)


def _backwards(network: Network, nodes: Sequence[Node], known: Mapping[str, Interval] | None) -> float:
    """At least the largest entry of ``A^T 1``."""
    sums: dict[str, Tensor] = {}

    def add(name: str, part: Tensor) -> None:
        sums[name] = _raised(sums[name] + part, 1) if name in sums else part

    for port in network.outputs:
        add(port.name, torch.ones(network.by_name[port.name].shape, dtype=torch.float64))
    for node in reversed(nodes):
        if isinstance(node.op, Affine):
            op, shapes = _absolute(node.op), [network.by_name[name].shape for name in node.inputs]
            parts = op.adjoint(sums[node.name], shapes)
            for name, part, shape in zip(node.inputs, parts, shapes, strict=True):
                add(name, _raised(part, op.adjoint_terms).reshape(shape))
        elif isinstance(node.op, Maximum):
            shape = network.by_name[node.inputs[0]].shape
            add(node.inputs[0], sums[node.name].unsqueeze(-1).expand(shape))
        elif not isinstance(node.op, Input):
            add(node.inputs[0], _raised(_steepest(node, known) * sums[node.name], 1))
    return max((_largest(sums[port.name]) for port in network.inputs if port.name in sums), default=0.0)


def _absolute(op: Affine) -> Affine:
    """The operator with the largest absolute values that its weights may have."""
    if isinstance(op, Sum):
        return Sum((1,) * len(op.signs))
    if not isinstance(op, Weighted):
        return op  # it moves entries
    weight = op.weight.double().abs()
    if op.weight_error is not None:
        weight = _raised(weight + op.weight_error.double(), 1)
    return replace(op, weight=weight, weight_error=None, bias=None, bias_error=None)


def _steepest(node: Node, known: Mapping[str, Interval] | None) -> Tensor:
    found = sector(node, None if known is None else known[node.inputs[0]])
    return torch.from_numpy(found.steepest).reshape(node.shape)


def _raised(value: Tensor, terms: int) -> Tensor:
    """At least what the sum of so many products of numbers that are not negative would be without rounding."""
    return value * (1 + gamma(terms + 4, torch.float64)) + _TINY if terms else value


def _largest(value: Tensor) -> float:
    """Infinity where numbers overflow."""
    found = float(value.max()) if value.numel() else 0.0
    return found if isfinite(found) else inf
