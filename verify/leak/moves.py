"""How fast every node's value moves with the slope: bounds carried forwards from the activations that move.

Let a node's inputs have moved by ``(a - lo) d`` when the slope has gone from ``lo`` to ``a``, with ``d`` in known
intervals. An affine operator makes ``(a - lo) W d`` of it, without its bias. An activation whose slope moves makes

    phi_a(z') - phi_lo(z)  =  (a - lo) (s d + g(z))   =   (a - lo) (t d + g(z')),

``s`` the slope of a secant of ``phi_a`` and ``t`` that of one of ``phi_lo``, ``g`` as in leaktight.verify.leak.local:
its rate lies in what both say. The others' graphs do not move. Nothing here depends on how far ``a`` is from ``lo``, so
the bounds are rates for the whole range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Maximum, Weighted
from leaktight.verify.bounds.interval import Interval, step
from leaktight.verify.leak.intervals import Known, product
from leaktight.verify.leak.jacobian import possible, steepness_between
from leaktight.verify.rounding import down, up


@dataclass(frozen=True)
class Form:
    """One way to write what an activation adds: secants of a network's graphs, and departures of what moves.

    networks: one network at both ends of the slopes that the secants' graphs may have. departures: the bounds of
    ``g``, by name (`leaktight.verify.leak.intervals.departures`).
    """

    networks: tuple[Network, Network]
    departures: Mapping[str, Interval]


def moves(forms: Sequence[Form], known: Known, start: Known) -> dict[str, Interval]:
    """Bounds of the rates ``(batch, *shape)`` of all nodes that move, by name.

    known: bounds of all values over region and range. start: of those at the slope that rates are counted from.
    Raises: MissingRule: an operator has no rule.
    """
    found: dict[str, Interval] = {}
    for node in forms[0].networks[0]:
        if node.name in forms[0].departures or any(name in found for name in node.inputs):
            given = [found[name] if name in found else _still(known[name]) for name in node.inputs]
            found[node.name] = _moved(node, given, forms, known, start)
    return found


def _still(value: Interval) -> Interval:
    nothing = torch.zeros_like(value.lower)
    return Interval(nothing, nothing)


def _moved(node: Node, given: Sequence[Interval], forms: Sequence[Form], known: Known, start: Known) -> Interval:
    if isinstance(node.op, Affine):
        return step(_without_bias(node), given, len(given[0].lower))
    if isinstance(node.op, Maximum):  # it moves by a mean of what entries move by that may be the largest
        may = possible(known[node.inputs[0]])
        lower, upper = given[0].lower.masked_fill(~may, torch.inf), given[0].upper.masked_fill(~may, -torch.inf)
        return Interval(lower.amin(-1), upper.amax(-1))
    each = [_through(node, given[0], form, known, start) for form in forms]
    found = each[0]
    for other in each[1:]:
        found = found.meet(other)
    return found


def _through(node: Node, given: Interval, form: Form, known: Known, start: Known) -> Interval:
    first, last = (network.by_name[node.name] for network in form.networks)
    found = product(given, steepness_between(first, last, known[node.inputs[0]], start[node.inputs[0]]))
    own = form.departures.get(node.name)
    return found if own is None else Interval(down(found.lower + own.lower), up(found.upper + own.upper))


def _without_bias(node: Node) -> Node:
    if isinstance(node.op, Weighted) and node.op.bias is not None:
        return replace(node, op=replace(node.op, bias=None, bias_error=None))
    return node
