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
    Maximum,
    Op,
    Reshape,
    Select,
    Shape,
    Sigmoid,
    Sum,
    Tanh,
    TwoSlope,
    Weighted,
)  # fmt: skip
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import tick
from leaktight.verify.leak.intervals import Known, around, beyond, hull, product
from leaktight.verify.rounding import down, gamma, underflow, unit, up

_SMOOTH = 64 * unit(torch.float64)  # torch's sigmoid and tanh are within 4 ulp, and three operations follow
Steepness = Callable[[Any, Interval, Interval], Interval]


def secants(
    networks: tuple[Network, Network], objectives: Tensor, known: Known, start: Known, wanted: Sequence[str]
) -> Iterator[tuple[str, Interval, Mapping[str, Interval]]]:
    """For each wanted node, and each behind one that is not affine, last first: what a change of its value adds to the
    objectives per unit.

    Args: networks: one network, or the same one at both ends of a range of slopes, for all slopes in between.
    objectives: ``(batch, rows, output_size)``. known: bounds that hold the values of both of whatever is compared.
    start: bounds of those of the first of the two, within `known`.
    Yields: node name and bounds of the coefficients ``(batch, rows, *shape)``, in float64; and by name those of the
    other nodes through which changes reach what was passed so far: together they cut the network.
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
        if node.name in wanted or not isinstance(node.op, Affine):
            yield node.name, rows_at, found
        if not any(name in behind for name in node.inputs):
            continue
        for name, given in zip(
            node.inputs, _pulled(network, node, last.by_name[node.name], rows_at, known, start), strict=True
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


def _pulled(network: Network, node: Node, last: Node, rows: Interval, known: Known, start: Known) -> Sequence[Interval]:
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
    steep = steepness_between(node, last, z, start[node.inputs[0]])
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
    if isinstance(op, Weighted):
        weight = op.weight.abs() if op.weight_error is None else up(op.weight.abs() + op.weight_error)
        return replace(op, weight=weight, weight_error=None, bias=None, bias_error=None)
    if isinstance(op, Sum):
        return replace(op, signs=(1,) * len(op.signs))
    if isinstance(op, Select | Reshape | Concat | Constant):
        return op
    raise _missing(node)


def uncertainty(op: Affine) -> Affine | None:
    """The linear operator whose weights are the errors of the given one's; None for none."""
    if not isinstance(op, Weighted) or op.weight_error is None:
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
    may = possible(z)
    alone = may.sum(-1, keepdim=True) == 1
    return Interval((may & alone).to(z.lower.dtype), may.to(z.lower.dtype))


def possible(z: Interval) -> Tensor:
    """Which entries may be the largest along the last axis."""
    return z.upper >= z.lower.amax(-1, keepdim=True)


def steepness_between(node: Node, last: Node, z: Interval, start: Interval) -> Interval:
    """Those of a node whose slope lies anywhere between that of `node` and that of `last`; see `steepness`."""
    found = steepness(node, z, start)
    return found if last is node else hull(found, steepness(last, z, start))


def steepness(node: Node, z: Interval, start: Interval) -> Interval:
    """Bounds ``(batch, *shape)`` of the slopes of all secants of an elementwise operator's graph that begin at a value
    in `start` and end at one in `z`, which holds `start`.

    Raises: MissingRule: the operator has no rule.
    """
    rule = _STEEPNESS.get(type(node.op))
    if rule is None:
        raise _missing(node)
    found = rule(node.op, z, start)
    shape = z.lower.shape
    return Interval(found.lower.expand(shape), found.upper.expand(shape))


def _two_slope(op: TwoSlope, z: Interval, start: Interval) -> Interval:
    """A secant from ``c`` left of the kink to ``t`` right of it has the right side's slope on the share
    ``(t - kink) / (t - c)`` of its way and the left one's before; the share grows with both. Likewise from the right.
    """
    left, right = around(op.left, op.precision), around(op.right, op.precision)
    begin, reach = beyond(op, start), beyond(op, z)
    from_left = _turned(left, right, _share(reach.upper, begin.upper))
    from_right = _turned(right, left, _share(-reach.lower, -begin.lower))
    found = hull(left, right)
    lower, upper = (end.expand(z.lower.shape) for end in found.ends)
    for there, some in ((begin.upper < 0, from_left), (begin.lower > 0, from_right)):
        lower = torch.where(there, torch.maximum(lower, some.lower), lower)
        upper = torch.where(there, torch.minimum(upper, some.upper), upper)
    for only, own in ((reach.upper <= 0, left), (reach.lower >= 0, right)):
        lower, upper = torch.where(only, own.lower, lower), torch.where(only, own.upper, upper)
    return Interval(lower, upper)


def _share(end: Tensor, begin: Tensor) -> Tensor:
    """At least ``end / (end - begin)`` for ``begin < 0``, and no more than 1; 0 where the kink is not passed."""
    share = up(end / down(end - begin).clamp(min=underflow(end.dtype)))
    return torch.where(end > 0, share, 0.0).nan_to_num(1.0).clamp(max=1.0)


def _turned(own: Interval, other: Interval, share: Tensor) -> Interval:
    """Bounds of ``own + w (other - own)`` for ``0 <= w <= share``."""
    apart = Interval(down(other.lower - own.upper), up(other.upper - own.lower))
    turn = product(apart, Interval(torch.zeros_like(share), share))
    return Interval(down(own.lower + turn.lower), up(own.upper + turn.upper))


def _clip(op: Clip, z: Interval, _start: Interval) -> Interval:
    flat = (z.upper <= op.lower) | (z.lower >= op.upper)
    inside = (z.lower >= op.lower) & (z.upper <= op.upper)
    return Interval((inside & ~flat).to(z.lower.dtype), (~flat).to(z.lower.dtype))


def _bell(op: Sigmoid | Tanh, z: Interval, _start: Interval) -> Interval:
    """The derivative falls away from zero on both sides."""
    nearest = torch.minimum(torch.maximum(torch.zeros_like(z.lower), z.lower), z.upper)
    low, high = _derivative(op, z.magnitude), _derivative(op, nearest)
    return Interval((low - _SMOOTH).clamp(min=0), high + _SMOOTH)


def _derivative(op: Sigmoid | Tanh, x: Tensor) -> Tensor:
    value = op(x)
    return value * (1 - value) if isinstance(op, Sigmoid) else 1 - value * value


_STEEPNESS: Mapping[type[Op], Steepness] = {TwoSlope: _two_slope, Clip: _clip, Sigmoid: _bell, Tanh: _bell}
