"""Interval bounds: one enclosing box for every value of the network, computed forwards.

For an affine operator and ``x`` within ``centre ± radius``,

    W x + b  in  W centre + b  ±  ( |W| radius  +  gamma (|W| (|centre| + radius) + |b|)  +  spread ),

the second term being the rounding of the first two (leaktight.verify.rounding), the third the operator's own spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Maximum
from leaktight.specs.region import Region
from leaktight.verify import relax
from leaktight.verify.clock import tick
from leaktight.verify.rounding import down, gamma, trusted_lower, trusted_upper, underflow, unit, up


@dataclass(frozen=True)
class Interval:
    """``lower <= value <= upper``, both ``(batch, *shape)``."""

    lower: Tensor
    upper: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value, entry by entry."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def meet(self, other: Interval) -> Interval:
        """The interval that both enclose. Two sound bounds always overlap; rounding cannot make them miss."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def trusted(self) -> Interval:
        return Interval(trusted_lower(self.lower), trusted_upper(self.upper))

    def select(self, index: Tensor | slice) -> Interval:
        return Interval(self.lower[index], self.upper[index])


def propagate(network: Network, region: Region) -> dict[str, Interval]:
    """Interval bounds of every node over the region (its bounding box), in the dtype of the region."""
    known = input_intervals(network, region)
    for node in network:
        if node.name not in known:
            known[node.name] = step(node, [known[name] for name in node.inputs], region.batch)
    return known


def input_intervals(network: Network, region: Region) -> dict[str, Interval]:
    """The bounding box of the region, cut into the network's inputs."""
    sizes = [port.size for port in network.inputs]
    ends = zip(region.lower.split(sizes, -1), region.upper.split(sizes, -1), strict=True)
    return {
        port.name: Interval(low.reshape(-1, *port.shape), high.reshape(-1, *port.shape))
        for port, (low, high) in zip(network.inputs, ends, strict=True)
    }


def step(node: Node, inputs: Sequence[Interval], batch: int) -> Interval:
    """Bounds of one node's value from bounds of its inputs."""
    tick()
    if isinstance(node.op, Affine):
        found = _affine(node.op, inputs)
    elif isinstance(node.op, Elementwise):
        found = Interval(*relax.image(node.op, inputs[0].lower, inputs[0].upper))
    elif isinstance(node.op, Maximum):
        found = Interval(node.op(inputs[0].lower), node.op(inputs[0].upper))
    else:
        raise MissingRule(
            f"interval bounds have no rule for {type(node.op).__name__} (node {node.origin or node.name!r})"
        )
    shape = (batch, *node.shape)
    return Interval(found.lower.expand(shape), found.upper.expand(shape)).trusted()


def _affine(op: Affine, inputs: Sequence[Interval]) -> Interval:
    if op.forward_terms == 0:  # entries only move
        value = Interval(op(*(x.lower for x in inputs)), op(*(x.upper for x in inputs)))
        spread = op.spread(*(x.magnitude for x in inputs))
        return value if spread is None else Interval(down(value.lower - spread), up(value.upper + spread))
    dtype = inputs[0].lower.dtype
    centres = [x.lower / 2 + x.upper / 2 for x in inputs]
    radii = [
        torch.maximum(x.upper - c, c - x.lower) * (1 + 4 * unit(dtype)) for x, c in zip(inputs, centres, strict=True)
    ]
    reach = [c.abs() + r for c, r in zip(centres, radii, strict=True)]
    centre, spread = op(*centres), op.spread(*reach)
    most = op.magnitude(*reach)
    if op.bias_value is not None:
        most = most + op.bias_value.abs()
    slack = gamma(op.forward_terms, dtype) * most + op.forward_terms * underflow(dtype)
    radius = op.magnitude(*radii) + slack
    if spread is not None:
        radius = radius + spread * (1 + 4 * unit(dtype) * op.forward_terms)
    return Interval(down(centre - radius), up(centre + radius))


def outputs(network: Network, known: Mapping[str, Interval]) -> Interval:
    """The bounds of all outputs, flattened and joined: ``(batch, output_size)``."""
    found = [known[port.name] for port in network.outputs]
    return Interval(
        *(
            torch.cat([end.flatten(1) for end in ends], 1)
            for ends in ([x.lower for x in found], [x.upper for x in found])
        )
    )


def lower_of_outputs(network: Network, known: Mapping[str, Interval], objectives: Tensor) -> Tensor:
    """What the outputs' intervals alone say: lower bounds ``(batch, rows)`` of ``objectives @ y``."""
    y = outputs(network, known)
    positive = objectives.clamp(min=0)
    value = (positive @ y.lower.unsqueeze(-1) + (objectives - positive) @ y.upper.unsqueeze(-1)).squeeze(-1)
    slack = (objectives.abs() @ y.magnitude.unsqueeze(-1)).squeeze(-1)
    return trusted_lower(down(value - gamma(y.lower.shape[1], value.dtype) * slack))
