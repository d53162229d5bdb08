"""The first layer of neurons as functions of the input, and rows that are carried as far as these neurons.

In front of the first layer everything is affine: a neuron's input, measured from its kink, is ``A y + middle`` up to
``lost``, where ``y`` in [-1, 1]^n runs over the box. Backward passes take a row as far as the outputs of these neurons,
and what bends there is left to whoever can bound a sum of bends better than by one line for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input, TwoSlope
from leaktight.specs.region import Box
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.rows import Rows, Units
from leaktight.verify.bounds.splits import bends
from leaktight.verify.bounds.walk import Walk
from leaktight.verify.rounding import down, gamma, underflow, up

_DTYPE = torch.float64


def first_layer(network: Network) -> dict[str, TwoSlope]:
    """The activations with two slopes, exactly known, in front of which everything is affine, by name."""
    straight, found = set[str](), dict[str, TwoSlope]()
    for node in network:
        ahead = all(name in straight for name in node.inputs)
        if isinstance(node.op, Input) or (isinstance(node.op, Affine) and ahead):
            straight.add(node.name)
        elif isinstance(node.op, TwoSlope) and ahead and node.op.precision == 0:
            found[node.name] = node.op
    return found


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The neurons of the first layer that bend, ``k`` of them, over a single box of ``n`` inputs; all float64.

    bending: which entries of each activation they are. slopes ``(k, n)``, middle and lost ``(k,)``: the input of a
    neuron, measured from its kink, is within `lost` of ``slopes @ y + middle`` where ``x = centre + radius y``, ``y``
    in [-1, 1]^n. lower, upper ``(k,)`` or ``(rows, k)``: where it lies, measured from the kink, perhaps on one side
    only. left, right, value ``(k,)``: the neuron's parameters.
    """

    bending: Mapping[str, Tensor]
    centre: Tensor
    radius: Tensor
    slopes: Tensor
    middle: Tensor
    lost: Tensor
    lower: Tensor
    upper: Tensor
    left: Tensor
    right: Tensor
    value: Tensor

    @classmethod
    def of(cls, backward: Backward) -> FirstLayer | None:
        """From passes over a network whose first layers' intervals are known; None where nothing bends there."""
        region, nodes = backward.region, backward.network.by_name
        if not isinstance(region, Box) or region.batch != 1 or backward.dtype != _DTYPE:
            return None
        ops, bending = first_layer(backward.network), dict[str, Tensor]()
        for name, op in ops.items():
            at = bends(op, backward.known[nodes[name].inputs[0]])[0].nonzero().flatten()
            if len(at):
                bending[name] = at
        if not bending:
            return None
        centre = region.lower[0] / 2 + region.upper[0] / 2
        radius = up(torch.maximum(up(region.upper[0] - centre), up(centre - region.lower[0])))
        parts = [_part(backward, nodes[name], ops[name], at, centre) for name, at in bending.items()]
        rows, *rest = (torch.cat(part) for part in zip(*parts, strict=True))
        slopes = rows * radius
        middle, lost, lower, upper, left, right, value = rest
        lost = up(lost + gamma(4, _DTYPE) * slopes.abs().sum(1) + 4 * slopes.shape[1] * underflow(_DTYPE))
        return cls(bending, centre, radius, slopes, middle, lost, lower, upper, left, right, value)

    def within(self, lower: Tensor, upper: Tensor) -> FirstLayer:
        """The same where the neurons' inputs are known to lie within these intervals ``(rows, k)`` as well."""
        return replace(self, lower=torch.maximum(self.lower, lower), upper=torch.minimum(self.upper, upper))

    def select(self, rows: slice) -> FirstLayer:
        """What is known of these rows."""
        if self.lower.dim() == 1:
            return self
        return replace(self, lower=self.lower[rows], upper=self.upper[rows])

    @property
    def reach(self) -> Tensor:
        """At most how far ``slopes @ y + middle`` comes from zero, ``(k,)``."""
        size = self.middle.abs() + self.slopes.abs().sum(1)
        return up(size * (1 + gamma(self.slopes.shape[1] + 1, _DTYPE)))


def _part(backward: Backward, node: Node, op: TwoSlope, at: Tensor, centre: Tensor) -> tuple[Tensor, ...]:
    """Of some neurons of a node: slopes in ``x``, middle, what is lost, interval, parameters; see `FirstLayer`."""
    source = node.inputs[0]
    (rows, floor), (turned, ceiling) = (_affine(backward, source, at, sign) for sign in (1.0, -1.0))
    size = backward.region.magnitude[0]
    # -z >= turned x + ceiling, and the two rows are each other's negatives, up to what is said here
    gap = (rows + turned).abs() @ size * (1 + gamma(len(size) + 2, _DTYPE))
    top = up(gap - ceiling)
    left, right, kink, value = (
        p.double().expand(node.shape).flatten()[at] for p in (op.left, op.right, op.kink, op.value)
    )
    half = floor / 2 + top / 2
    lost = torch.maximum(up(top - half), up(half - floor))
    middle = rows @ centre + half - kink
    sizes = rows.abs() @ centre.abs() + half.abs() + kink.abs()
    lost = up(lost + gamma(len(size) + 4, _DTYPE) * sizes + 4 * len(size) * underflow(_DTYPE))
    z = backward.known[source]
    low, high = z.lower.flatten()[at], z.upper.flatten()[at]
    return rows, middle, lost, down(low - kink), up(high - kink), left, right, value


def _affine(backward: Backward, name: str, at: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """Rows ``(k, n)`` and constants ``(k,)`` with ``sign z >= rows x + constant`` for these entries of a node."""
    walk = backward.walk(Units(name, at.unsqueeze(0), torch.full((1, len(at)), sign, dtype=_DTYPE)))
    rows = walk.on_inputs()[0].expand(len(at), -1)
    return rows, down(torch.as_tensor(walk.offset) - walk.whole_slack)[0]


class Halted(Walk):
    """A pass that leaves the bending neurons of the first layer as they are: their rows stay in `left_over`."""

    def __init__(self, backward: Backward, bending: Mapping[str, Tensor]) -> None:
        super().__init__(backward)
        self.bending = bending
        self.left_over: dict[str, Tensor] = {}

    def elementwise(self, node: Node, a: Tensor) -> None:
        at = self.bending.get(node.name)
        if at is None:
            return super().elementwise(node, a)
        flat = a.flatten(2)
        self.left_over[node.name] = flat[..., at]
        return super().elementwise(node, flat.index_fill(-1, at, 0.0).reshape(a.shape))


@dataclass(frozen=True, eq=False)
class Sums:
    """Functions ``offset + bends . phi(z) + ends . x`` that bound objectives from below; float64.

    bends ``(rows, k)`` on the outputs of the neurons of a `FirstLayer`, ends ``(rows, n)``, offset ``(rows,)``.
    """

    bends: Tensor
    ends: Tensor
    offset: Tensor

    def select(self, index: Tensor | slice) -> Sums:
        return Sums(self.bends[index], self.ends[index], self.offset[index])


def carried(backward: Backward, layer: FirstLayer, *starts: Rows | Units) -> Sums:
    """Rows carried as far as the neurons of the first layer: those of a single region, or one of each domain in it."""
    walk = backward.carry(Halted(backward, layer.bending), *starts)
    offset = down(torch.as_tensor(walk.offset) - walk.whole_slack).flatten()
    count, inputs = len(offset), backward.region.size
    ends = walk.on_inputs().flatten(0, 1).expand(count, -1) if walk.pending else offset.new_zeros(count, inputs)
    bends = [
        walk.left_over[name].flatten(0, 1).expand(count, -1)
        if name in walk.left_over
        else torch.zeros(count, len(at), dtype=_DTYPE)
        for name, at in layer.bending.items()
    ]
    return Sums(torch.cat(bends, 1), ends, offset)
