"""Interval Jacobians: what a change of one node's value does to linear functions of the outputs.

For two inputs (or two slopes) let ``d`` be the difference of a node's values. An affine operator maps differences by
its weights. An activation maps ``d`` to ``s d``, where ``s`` is the slope of a secant of its graph, which lies between
the least and the greatest slope of the graph on the interval that holds both values. So products of weights and such
intervals enclose every secant of the network (no derivative is asked for, and kinks do no harm).

Rounding: as in leaktight.verify.bounds.interval, transposed: for coefficients within ``centre ± radius``, those in
front of an affine operator lie within ``W^T centre ± |W|^T (radius + gamma (|centre| + radius))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import (
    Affine,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Linear,
    Maximum,
    Op,
    Reshape,
    Scale,
    Select,
    Shape,
    Sigmoid,
    Sum,
    Tanh,
    TwoSlope,
)  # fmt: skip
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import tick
from leaktight.verify.leak.intervals import Known, around, beyond, hull, product
from leaktight.verify.rounding import down, gamma, underflow, unit, up

_SMOOTH = 64 * unit(torch.float64)  # torch's sigmoid and tanh are within 4 ulp, and three operations follow
Steepness = Callable[[Any, Interval], Interval]


def secants(
    networks: tuple[Network, Network], objectives: Tensor, known: Known, wanted: Sequence[str]
) -> Iterator[tuple[str, Interval]]:
    """For each wanted node, last first, what a change of its value adds to the objectives per unit.

    Args: networks: one network, or the same one at both ends of a range of slopes, for all slopes in between.
    objectives: ``(batch, rows, output_size)``. known: bounds that hold the values of both of whatever is compared.
    Yields: node name and bounds of the coefficients ``(batch, rows, *shape)``, in float64.
    Raises: MissingRule: an operator has no rule.
    """
    network, last = networks
    behind = _behind(network, set(wanted))
    found: dict[str, Interval] = {}
    for name, rows in network.parted(objectives, network.outputs):
        _add(found, name, Interval(rows, rows))
    for node in reversed(network.nodes):
        rows_at = found.pop(node.name, None)
        if rows_at is None or node.name not in behind:
            continue
        if node.name in wanted:
            yield node.name, rows_at
        if not any(name in behind for name in node.inputs):
            continue
        for name, given in zip(
            node.inputs, _pulled(network, node, last.by_name[node.name], rows_at, known), strict=True
        ):
            _add(found, name, given)


def _behind(network: Network, wanted: set[str]) -> set[str]:
    """The wanted nodes and all that depend on them."""
    found: set[str] = set()
    for node in network:
        if node.name in wanted or any(name in found for name in node.inputs):
            found.add(node.name)
    return found


def _add(found: dict[str, Interval], name: str, more: Interval) -> None:
    before = found.get(name)
    found[name] = more if before is None else Interval(down(before.lower + more.lower), up(before.upper + more.upper))


def _pulled(network: Network, node: Node, last: Node, rows: Interval, known: Known) -> Sequence[Interval]:
    """The coefficients of the node's inputs, given those of its value."""
    tick()
    if isinstance(node.op, Affine):
        shapes = [network.by_name[name].shape for name in node.inputs]
        return _adjoint(node, node.op, rows, shapes)
    z = known[node.inputs[0]]
    if isinstance(node.op, Maximum):
        share = _shares(z)
        wide = Interval(rows.lower.unsqueeze(-1), rows.upper.unsqueeze(-1))
        return [product(wide, Interval(share.lower.unsqueeze(1), share.upper.unsqueeze(1)))]
    steep = hull(steepness(node, z), steepness(last, z)) if last is not node else steepness(node, z)
    return [product(rows, Interval(steep.lower.unsqueeze(1), steep.upper.unsqueeze(1)))]


def _adjoint(node: Node, op: Affine, rows: Interval, shapes: Sequence[Shape]) -> list[Interval]:
    terms = op.adjoint_terms
    if terms == 0:  # entries only move, perhaps with a sign
        ends = zip(op.adjoint(rows.lower, shapes), op.adjoint(rows.upper, shapes), strict=True)
        return [Interval(torch.minimum(a, b), torch.maximum(a, b)) for a, b in ends]
    dtype = rows.lower.dtype
    centre = rows.lower / 2 + rows.upper / 2
    radius = torch.maximum(rows.upper - centre, centre - rows.lower) * (1 + 4 * unit(dtype))
    reach, factor = centre.abs() + radius, gamma(terms, dtype)
    off = absolute(op, node).adjoint(radius + factor * reach, shapes)
    error = uncertainty(op)
    if error is not None:
        off = tuple(a + b for a, b in zip(off, error.adjoint(reach, shapes), strict=True))
    slack = [(x + terms * underflow(dtype)) * (1 + factor) for x in off]
    middle = op.adjoint(centre, shapes)
    found = (Interval(down(m - s), up(m + s)) for m, s in zip(middle, slack, strict=True))
    return [interval.trusted() for interval in found]


def absolute(op: Affine, node: Node) -> Affine:
    """The linear operator with the absolute values of the weights, their uncertainty included."""
    if isinstance(op, Linear | Scale | Conv | ConvTranspose):
        weight = op.weight.abs() if op.weight_error is None else up(op.weight.abs() + op.weight_error)
        return replace(op, weight=weight, weight_error=None, bias=None, bias_error=None)
    if isinstance(op, Sum):
        return replace(op, signs=(1,) * len(op.signs))
    if isinstance(op, Select | Reshape | Concat | Constant):
        return op
    raise _missing(node)


def uncertainty(op: Affine) -> Affine | None:
    """The linear operator whose weights are the errors of the given one's; None for none."""
    if not isinstance(op, Linear | Scale | Conv | ConvTranspose) or op.weight_error is None:
        return None
    return replace(op, weight=op.weight_error.expand(op.weight.shape), weight_error=None, bias=None, bias_error=None)


def _missing(node: Node) -> MissingRule:
    return MissingRule(
        f"interval Jacobians have no rule for {type(node.op).__name__} (node {node.origin or node.name!r})"
    )


def _shares(z: Interval) -> Interval:
    """How much of a change each entry may hand on to the maximum: nothing, all, or something in between.

    ``max x' - max x`` is a mean of the entries' changes: it lies between the change of an entry that was the largest
    and that of one that is. Entries that are never the largest have no weight in it.
    """
    never = z.upper < z.lower.amax(-1, keepdim=True)
    alone = (~never).sum(-1, keepdim=True) == 1
    return Interval((~never & alone).to(z.lower.dtype), (~never).to(z.lower.dtype))


def steepness(node: Node, z: Interval) -> Interval:
    """Bounds of the slopes of all secants of an elementwise operator's graph on the interval, ``(batch, *shape)``.

    Raises: MissingRule: the operator has no rule.
    """
    rule = _STEEPNESS.get(type(node.op))
    if rule is None:
        raise _missing(node)
    found = rule(node.op, z)
    shape = z.lower.shape
    return Interval(found.lower.expand(shape), found.upper.expand(shape))


def _two_slope(op: TwoSlope, z: Interval) -> Interval:
    left, right, reach = around(op.left, op.precision), around(op.right, op.precision), beyond(op, z)
    both = hull(left, right)
    only_right, only_left = reach.lower >= 0, reach.upper <= 0
    return Interval(
        torch.where(only_right, right.lower, torch.where(only_left, left.lower, both.lower)),
        torch.where(only_right, right.upper, torch.where(only_left, left.upper, both.upper)),
    )


def _clip(op: Clip, z: Interval) -> Interval:
    flat = (z.upper <= op.lower) | (z.lower >= op.upper)
    inside = (z.lower >= op.lower) & (z.upper <= op.upper)
    return Interval((inside & ~flat).to(z.lower.dtype), (~flat).to(z.lower.dtype))


def _bell(op: Sigmoid | Tanh, z: Interval) -> Interval:
    """The derivative falls away from zero on both sides."""
    nearest = torch.minimum(torch.maximum(torch.zeros_like(z.lower), z.lower), z.upper)
    low, high = _derivative(op, z.magnitude), _derivative(op, nearest)
    return Interval((low - _SMOOTH).clamp(min=0), high + _SMOOTH)


def _derivative(op: Sigmoid | Tanh, x: Tensor) -> Tensor:
    value = op(x)
    return value * (1 - value) if isinstance(op, Sigmoid) else 1 - value * value


_STEEPNESS: Mapping[type[Op], Steepness] = {TwoSlope: _two_slope, Clip: _clip, Sigmoid: _bell, Tanh: _bell}
