"""Interval bounds: one enclosing box for every value of the network, computed forwards.

For an affine operator and ``x`` within ``centre ± radius``,

    W x + b  in  W centre + b  ±  ( |W| radius  +  gamma (|W| (|centre| + radius) + |b|)  +  spread ),

the second term being the rounding of the first two (leaktight.verify.rounding), the third the operator's own spread.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Maximum
from leaktight.specs.region import Region
from leaktight.verify import relax
from leaktight.verify.clock import tick
from leaktight.verify.lasting import lasting
from leaktight.verify.rounding import down, gamma, trusted_lower, trusted_upper, underflow, unit, up

_CERTAIN: MutableMapping[Affine, bool] = WeakKeyDictionary()
_TERMS: MutableMapping[Affine, dict[tuple[Any, ...], tuple[Tensor, Tensor]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Interval:
    """``lower <= value <= upper``, both ``(batch, *shape)``."""

    lower: Tensor
    upper: Tensor

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.lower, self.upper

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value, entry by entry."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @cached_property
    def largest(self) -> Tensor:
        """The largest absolute value of any entry, ``(batch,)``."""
        entries = self.lower.shape[1:].numel()
        if not entries:
            return self.lower.new_zeros(len(self.lower))
        lower, upper = (x.reshape(-1, entries) for x in (self.lower, self.upper))
        return torch.maximum(upper.amax(1), -lower.amin(1))

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
    lower, upper = (network.parted(end, network.inputs) for end in (region.lower, region.upper))
    return {name: Interval(low, high) for (name, low), (_, high) in zip(lower, upper, strict=True)}


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
        spread = spread_of(op, inputs)
        return value if spread is None else Interval(down(value.lower - spread), up(value.upper + spread))
    dtype = inputs[0].lower.dtype
    centres = [torch.add(x.lower * 0.5, x.upper, alpha=0.5) for x in inputs]
    radii = [
        torch.maximum(x.upper - c, c - x.lower).mul_(1 + 4 * unit(dtype)) for x, c in zip(inputs, centres, strict=True)
    ]
    # |c| + r <= the magnitude (1 + 8 u): two roundings of those that gamma has to spare
    centre, spread = op(*centres), spread_of(op, inputs)
    # both sums round gamma_k of (|W| (|c| + r) + |b|); the other half of the share is for the ends' own rounding
    share = gamma(op.forward_terms, dtype)
    slack = rounding(op, share, share, inputs)
    if spread is not None:
        slack = slack + spread * (1 + 4 * unit(dtype) * (op.forward_terms + 4))
    radius = op.magnitude(*radii) + slack
    return Interval(centre - radius, centre + radius)


def spread_of(op: Affine, inputs: Sequence[Interval]) -> Tensor | None:
    """How far the operator's value may be off because of uncertain parameters, for all values of the inputs."""
    return None if certain(op, inputs) else op.spread(*(x.magnitude for x in inputs))


def certain(op: Affine, inputs: Sequence[Interval]) -> bool:
    """Whether the operator's parameters are exact, so that nobody needs to know how large its inputs are."""
    if op not in _CERTAIN:
        _CERTAIN[op] = op.spread(*(x.lower[:1] for x in inputs)) is None
    return _CERTAIN[op]


def rounding(op: Affine, share: float, bias_share: float, inputs: Sequence[Interval]) -> Tensor:
    """At least ``share |W| |y| + bias_share |b|`` for all values ``y`` of the inputs, up to two roundings, and what
    underflows in one sum of the operator's.

    In float64 shares are so small that ``|W| |y| <= |W| 1 max |y|`` is close enough, and needs no product.
    """
    if inputs and inputs[0].lower.dtype == torch.float64:
        largest = inputs[0].largest if len(inputs) == 1 else torch.stack([x.largest for x in inputs]).amax(0)
        return rounding_below(op, share, bias_share, [x.lower.shape[1:] for x in inputs], largest)
    found = share * op.magnitude(*(x.magnitude for x in inputs))
    found = found + op.forward_terms * underflow(found.dtype)
    return found if op.bias_value is None else found + bias_share * op.bias_value.abs()


def rounding_below(
    op: Affine, share: float, bias_share: float, shapes: Sequence[Sequence[int]], largest: Tensor
) -> Tensor:
    """The same in float64, for inputs of these shapes with no entry above `largest` ``(batch,)``."""
    rows, bias = _rounding_terms(op, share, bias_share, tuple(map(tuple, shapes)), largest.device)
    return torch.addcmul(bias, largest.reshape(-1, *[1] * (rows.dim() - 1)), rows)


def _rounding_terms(op: Affine, *key: Any) -> tuple[Tensor, Tensor]:
    """``share |W| 1`` and ``bias_share |b|`` for inputs of these shapes, kept as long as the operator.

    What underflows in sums of the operator's values is counted with the bias.
    """
    kept = _TERMS.setdefault(op, {})
    if key not in kept:
        share, bias_share, shapes, where = key
        with lasting():
            rows = share * op.magnitude(*(torch.ones(1, *shape, dtype=torch.float64, device=where) for shape in shapes))
            bias = rows.new_zeros(()) if op.bias_value is None else bias_share * op.bias_value.abs()
            bias = bias + op.forward_terms * underflow(torch.float64)
        kept[key] = rows, bias
    return kept[key]


def outputs(network: Network, known: Mapping[str, Interval]) -> Interval:
    """The bounds of all outputs, flattened and joined: ``(batch, output_size)``."""
    ends = [[end.reshape(-1, port.size) for end in known[port.name].ends] for port in network.outputs]
    lower, upper = (torch.cat(found, 1) for found in zip(*ends, strict=True))
    return Interval(lower, upper)


def lower_of_outputs(network: Network, known: Mapping[str, Interval], objectives: Tensor) -> Tensor:
    """What the outputs' intervals alone say: lower bounds ``(batch, rows)`` of ``objectives @ y``."""
    y = outputs(network, known)
    positive = objectives.clamp(min=0)
    value = (positive @ y.lower.unsqueeze(-1) + (objectives - positive) @ y.upper.unsqueeze(-1)).squeeze(-1)
    slack = (objectives.abs() @ y.magnitude.unsqueeze(-1)).squeeze(-1)
    return trusted_lower(down(value - gamma(y.lower.shape[1], value.dtype) * slack))
