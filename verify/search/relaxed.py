"""The relaxation of a network for many domains at once, in quick arithmetic: values and their derivatives.

What is computed here proves nothing: it finds lines and multipliers, and points worth trying. A domain's bound is then
computed anew by `leaktight.verify.bounds.backward`, with all error terms.

For one row per domain a pass runs from the outputs to the inputs (`Relaxed.value`) and another one back, which carries
the point where the relaxed objective is smallest through the same lines (`Relaxed.replay`). By the envelope theorem
the values ``z`` that it meets are all that the derivatives need: an activation's coefficient ``a`` times ``z`` is how
the bound moves with the slope of the line that was taken, and ``z`` itself how it moves with a multiplier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input, TwoSlope
from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.search.descent import lowest_point

QUICK = torch.float32


@dataclass(frozen=True, eq=False)
class Activations:
    """All activations of a network, each a `TwoSlope`; their entries, the neurons, are joined to one axis.

    left, right, kink, value ``(width,)`` float64: the operators' parameters. `parts`: the places of each activation.
    """

    nodes: tuple[Node, ...]
    parts: Mapping[str, slice]
    left: Tensor
    right: Tensor
    kink: Tensor
    value: Tensor

    @classmethod
    def of(cls, network: Network) -> Activations:
        """Raises MissingRule: a nonlinear operator is no `TwoSlope`, or there is none at all."""
        for node in network:
            if not isinstance(node.op, (Affine, TwoSlope, Input)):
                raise MissingRule(f"neurons are not split beside {type(node.op).__name__} (node {node.name!r})")
        nodes = tuple(node for node in network if isinstance(node.op, TwoSlope))
        if not nodes:
            raise MissingRule("the network has no neurons to split")
        parts, start = {}, 0
        for node in nodes:
            parts[node.name] = slice(start, start + node.size)
            start += node.size
        columns = zip(*(_parameters(node) for node in nodes), strict=True)
        return cls(nodes, parts, *(torch.cat(column) for column in columns))

    @property
    def width(self) -> int:
        return len(self.kink)

    def joined(self, known: Mapping[str, Interval]) -> Interval:
        """The intervals of all activations' inputs side by side, ``(batch, width)``."""
        found = [known[node.inputs[0]] for node in self.nodes]
        return Interval(
            torch.cat([z.lower.flatten(1) for z in found], 1), torch.cat([z.upper.flatten(1) for z in found], 1)
        )

    def parted(self, z: Interval) -> dict[str, Interval]:
        """The reverse: intervals by the names of the activations' inputs."""
        known: dict[str, Interval] = {}
        for node in self.nodes:
            part, name = self.parts[node.name], node.inputs[0]
            own = Interval(*(end[:, part].reshape(-1, *node.shape) for end in (z.lower, z.upper)))
            known[name] = known[name].meet(own) if name in known else own
        return known


def _parameters(node: Node) -> tuple[Tensor, ...]:
    op = node.op
    assert isinstance(op, TwoSlope)
    return tuple(p.double().expand(node.shape).reshape(-1) for p in (op.left, op.right, op.kink, op.value))


@dataclass(frozen=True, eq=False)
class Shape:
    """What the neurons of a batch of domains look like, all ``(batch, width)``, measured from the kink.

    On the free side of a neuron (below it where it is convex) lies a line of slope `ray` between `least` and `most`
    through the kink; on the other side one of slope `chord`, `sink` higher at the kink. Where a neuron is linear all
    slopes are the same.
    """

    chord: Tensor
    sink: Tensor
    least: Tensor
    most: Tensor

    def select(self, index: Tensor) -> Shape:
        return Shape(self.chord[index], self.sink[index], self.least[index], self.most[index])


@dataclass(eq=False)
class Pass:
    """What one pass met: `value` ``(batch,)``, and ``(batch, width)`` coefficients, lines taken, and inputs.

    `free`: whether a neuron's free line was taken. `ends`: the coefficients at the network's inputs ``(batch, n)``.
    """

    value: Tensor
    ends: Tensor
    coefficients: Tensor
    free: Tensor
    slopes: Tensor
    inputs: Tensor | None = None
    outputs: Tensor | None = None
    point: Tensor | None = None


class Relaxed:
    """Quick passes through one network. `region` ``(batch 1)`` is where its inputs lie."""

    def __init__(self, network: Network, activations: Activations) -> None:
        self.network = network.to(QUICK)
        self.activations = activations
        quick = (p.to(QUICK) for p in (activations.left, activations.right, activations.kink, activations.value))
        self.left, self.right, self.kink, self.value_at_kink = quick
        self.gap = self.right - self.left
        self.convex = self.gap >= 0
        self.all_convex = bool(self.convex.all())
        self.shifted = {name: bool(self.kink[part].any()) for name, part in activations.parts.items()}
        self.raised = {name: bool(self.value_at_kink[part].any()) for name, part in activations.parts.items()}
        self.bias = {
            node.name: node.op.bias_value.to(QUICK).expand(node.shape).reshape(-1)
            for node in self.network
            if isinstance(node.op, Affine) and node.op.bias_value is not None
        }

    def shape(self, z: Interval) -> Shape:
        """The neurons' lines for intervals ``(batch, width)`` of their inputs."""
        low, high = (z.lower - self.activations.kink).to(QUICK), (z.upper - self.activations.kink).to(QUICK)
        active, inactive = low >= 0, high <= 0
        chord = (self.right * high - self.left * low) / (high - low).clamp(min=1e-30)
        sink = ((self.right - chord) * high).masked_fill_(active | inactive, 0.0)
        chord = torch.where(active, self.right, torch.where(inactive, self.left, chord))
        fixed = active | inactive
        least = torch.where(fixed, chord, torch.minimum(self.left, self.right))
        most = torch.where(fixed, chord, torch.maximum(self.left, self.right))
        return Shape(chord, sink, least, most)

    def value(self, rows: Tensor, offset: Tensor, shape: Shape, ray: Tensor, pull: Tensor, region: Region) -> Pass:
        """The relaxed objective's smallest value over the region.

        rows ``(batch, outputs)`` and offset ``(batch,)`` of the objective, ray ``(batch, width)`` the free slopes, pull
        ``(batch, width)``: what multipliers add to the coefficients of the neurons' inputs.
        """
        batch = len(rows)
        pending: dict[str, Tensor] = {}
        start = 0
        for port in self.network.outputs:
            _give(pending, port.name, rows[:, start : start + port.size].reshape(batch, *port.shape))
            start += port.size
        total = offset.clone()
        size = self.activations.width
        coefficients, slopes = ray.new_zeros(batch, size), ray.new_zeros(batch, size)
        free = torch.zeros(batch, size, dtype=torch.bool)
        for node in reversed(self.network.nodes):
            part = self.activations.parts.get(node.name)
            if isinstance(node.op, Input) or (node.name not in pending and part is None):
                continue
            a = pending.pop(node.name, None)
            if part is None:
                assert a is not None and isinstance(node.op, Affine)
                if node.name in self.bias:
                    total += a.flatten(1) @ self.bias[node.name]
                shapes = [self.network.by_name[name].shape for name in node.inputs]
                for name, given in zip(node.inputs, node.op.adjoint(a, shapes), strict=True):
                    _give(pending, name, given)
                continue
            flat = ray.new_zeros(batch, node.size) if a is None else a.flatten(1)
            coefficients[:, part] = flat
            pick = flat >= 0
            if not self.all_convex:
                pick = pick == self.convex[part]
            free[:, part] = pick
            slope = torch.where(pick, ray[:, part], shape.chord[:, part])
            slopes[:, part] = slope
            total += (flat.masked_fill(pick, 0.0) * shape.sink[:, part]).sum(1)
            if self.raised[node.name]:
                total += flat @ self.value_at_kink[part]
            given = torch.addcmul(pull[:, part], flat, slope)
            if self.shifted[node.name]:
                total -= given @ self.kink[part]
            _give(pending, node.inputs[0], given.reshape(batch, *node.shape))
        ends = torch.cat(
            [
                pending[p.name].flatten(1) if p.name in pending else ray.new_zeros(batch, p.size)
                for p in self.network.inputs
            ],
            1,
        )
        return Pass(total + region.minimum(ends.unsqueeze(1)).squeeze(1), ends, coefficients, free, slopes)

    def replay(self, found: Pass, shape: Shape, region: Region) -> Pass:
        """The pass with the point where it is smallest, and the values that its lines give there."""
        point = corner(region, found.ends)
        batch = len(point)
        inputs = torch.zeros_like(found.slopes)
        known: dict[str, Tensor] = {}
        start = 0
        for port in self.network.inputs:
            known[port.name] = point[:, start : start + port.size].reshape(batch, *port.shape)
            start += port.size
        for node in self.network:
            if isinstance(node.op, Input):
                continue
            part = self.activations.parts.get(node.name)
            if part is None:
                known[node.name] = node.op(*(known[name] for name in node.inputs)).expand(batch, *node.shape)
                continue
            z = known[node.inputs[0]].flatten(1)
            if self.shifted[node.name]:
                z = z - self.kink[part]
            inputs[:, part] = z
            y = z * found.slopes[:, part] + shape.sink[:, part].masked_fill(found.free[:, part], 0.0)
            if self.raised[node.name]:
                y = y + self.value_at_kink[part]
            known[node.name] = y.reshape(batch, *node.shape)
        outputs = torch.cat([known[port.name].flatten(1) for port in self.network.outputs], 1)
        return replace(found, inputs=inputs, outputs=outputs, point=point)


def _give(pending: dict[str, Tensor], name: str, rows: Tensor) -> None:
    pending[name] = pending[name] + rows if name in pending else rows


def corner(region: Region, coefficients: Tensor) -> Tensor:
    """A point of each region where the linear function ``a . x`` is lowest, ``(batch, n)`` like `coefficients`."""
    if isinstance(region, Box):
        return torch.where(coefficients > 0, region.lower, region.upper)
    return lowest_point(region, coefficients.unsqueeze(0))[0]
