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
from dataclasses import dataclass, field
from functools import cached_property

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


def splittable(network: Network) -> bool:
    """Whether all that bends in the network are neurons that can be split, and there are some."""
    fitting = all(isinstance(node.op, (Affine, TwoSlope, Input)) for node in network)
    return fitting and any(isinstance(node.op, TwoSlope) for node in network)


def _parameters(node: Node) -> tuple[Tensor, ...]:
    op = node.op
    assert isinstance(op, TwoSlope)
    return tuple(p.double().expand(node.shape).reshape(-1) for p in (op.left, op.right, op.kink, op.value))


@dataclass(frozen=True, eq=False)
class Shape:
    """What the neurons of a batch of domains look like, all ``(batch, width)``, measured from the kink.

    On the free side of a neuron (below it where it is convex) lies a line through the kink, of a slope between `least`
    and `most`; on the other side one of slope `chord`, `sink` above the kink. Where a neuron is linear, all slopes are
    the same.
    """

    chord: Tensor
    sink: Tensor
    least: Tensor
    most: Tensor

    def select(self, index: Tensor) -> Shape:
        return Shape(*(x.index_select(0, index) for x in (self.chord, self.sink, self.least, self.most)))

    @cached_property
    def turn(self) -> Tensor:
        """How far the free slopes can turn."""
        return self.most - self.least


@dataclass(eq=False)
class Pass:
    """What one pass met: `value` ``(batch,)``, and by activation coefficients, 1 where the free line was taken, the
    slopes and offsets of the lines taken, and (after `Relaxed.replay`) the inputs, all ``(batch, size)``.

    `ends`: the coefficients at the network's inputs ``(batch, n)``; `point`: where they are smallest.
    """

    value: Tensor
    ends: Tensor
    point: Tensor
    coefficients: dict[str, Tensor]
    free: dict[str, Tensor]
    slopes: dict[str, Tensor]
    offsets: dict[str, Tensor]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: Tensor | None = None

    def select(self, index: Tensor) -> Pass:
        """The pass of some of the domains."""
        outputs = None if self.outputs is None else self.outputs[index]
        parts = {
            name: {node: x.index_select(0, index) for node, x in getattr(self, name).items()}
            for name in ("coefficients", "free", "slopes", "offsets", "inputs")
        }
        return Pass(self.value[index], self.ends[index], self.point[index], outputs=outputs, **parts)


@dataclass(frozen=True)
class Cuts:
    """One more decision for each row: column and slope ``(batch, rows, 1)``, the neuron and how steep it then is."""

    column: Tensor
    slope: Tensor


class Relaxed:
    """Quick passes through one network.

    Selections by masks (`torch.where`, `masked_fill`) cost ten times as much as products on a processor: hence ones and
    zeros as factors.
    """

    def __init__(self, network: Network, activations: Activations) -> None:
        self.network = network.to(QUICK)
        self.activations = activations
        quick = (p.to(QUICK) for p in (activations.left, activations.right, activations.kink, activations.value))
        self.left, self.right, self.kink, self.value_at_kink = quick
        self.gap = self.right - self.left
        self.bend = torch.where(self.gap >= 0, 1.0, -1.0)
        self.shifted = {name: bool(self.kink[part].any()) for name, part in activations.parts.items()}
        self.raised = {name: bool(self.value_at_kink[part].any()) for name, part in activations.parts.items()}
        self.convex = {name: bool((self.bend[part] > 0).all()) for name, part in activations.parts.items()}
        self.bias = {
            node.name: node.op.bias_value.to(QUICK).expand(node.shape).reshape(-1)
            for node in self.network
            if isinstance(node.op, Affine) and node.op.bias_value is not None
        }

    def shape(self, z: Interval) -> Shape:
        """The neurons' lines for intervals ``(batch, width)`` of their inputs."""
        low, high = (z.lower - self.activations.kink).to(QUICK), (z.upper - self.activations.kink).to(QUICK)
        active, inactive = low >= 0, high <= 0
        fixed = active | inactive
        chord = (self.right * high - self.left * low) / (high - low).clamp(min=1e-30)
        sink = ((self.right - chord) * high).masked_fill_(fixed, 0.0)
        chord = torch.where(active, self.right, torch.where(inactive, self.left, chord))
        least = torch.where(fixed, chord, torch.minimum(self.left, self.right))
        most = torch.where(fixed, chord, torch.maximum(self.left, self.right))
        return Shape(chord, sink, least, most)

    def value(
        self,
        rows: Tensor,
        offset: Tensor,
        shape: Shape,
        ray: Tensor,
        pull: Tensor,
        region: Region,
        cuts: Cuts | None = None,
    ) -> Pass:
        """The relaxed objectives' smallest values over the region.

        rows ``(batch, outputs)`` and offset ``(batch,)`` of the objective, ray ``(batch, width)`` the free slopes, pull
        ``(batch, width)``: what multipliers add to the coefficients of the neurons' inputs. With `cuts` everything has
        an axis for rows behind the batch, of length one but for the cuts'.
        """
        lead = rows.shape[:-1]
        pending: dict[str, Tensor] = {}
        start = 0
        for port in self.network.outputs:
            _give(pending, port.name, rows[..., start : start + port.size].reshape(*lead, *port.shape))
            start += port.size
        found = Pass(offset, offset, offset, {}, {}, {}, {})
        for node in reversed(self.network.nodes):
            if isinstance(node.op, Input):
                continue
            part = self.activations.parts.get(node.name)
            if part is not None:
                self._activation(node, part, pending, found, shape, ray, pull, cuts)
            elif node.name in pending:
                self._affine(node, pending, found)
        ends = [
            pending[p.name].flatten(-len(p.shape)) if p.name in pending else rows.new_zeros(*lead, p.size)
            for p in self.network.inputs
        ]
        # where cuts reach some inputs only, the rows of the others are all the same
        lead = torch.broadcast_shapes(*(end.shape[:-1] for end in ends))
        found.ends = ends[0] if len(ends) == 1 else torch.cat([end.expand(*lead, -1) for end in ends], -1)
        found.point = corner(region, found.ends)
        found.value = found.value + (found.ends * found.point).sum(-1)
        return found

    def _affine(self, node: Node, pending: dict[str, Tensor], found: Pass) -> None:
        a, op = pending.pop(node.name), node.op
        assert isinstance(op, Affine)
        if node.name in self.bias:
            found.value = found.value + a.flatten(-len(node.shape)) @ self.bias[node.name]
        shapes = [self.network.by_name[name].shape for name in node.inputs]
        for name, given in zip(node.inputs, op.adjoint(a, shapes), strict=True):
            _give(pending, name, given)

    def _activation(
        self,
        node: Node,
        part: slice,
        pending: dict[str, Tensor],
        found: Pass,
        shape: Shape,
        ray: Tensor,
        pull: Tensor,
        cuts: Cuts | None,
    ) -> None:
        given = pending.pop(node.name, None)
        chord, sink = shape.chord[..., part], shape.sink[..., part]
        a = torch.zeros_like(chord) if given is None else given.flatten(-len(node.shape))
        free = torch.gt(a if self.convex[node.name] else a * self.bend[part], 0, out=torch.empty_like(a))
        slope = torch.lerp(chord, ray[..., part], free)
        offset = torch.addcmul(sink, free, sink, value=-1)
        below = torch.addcmul(pull[..., part], a, slope)
        total = (a * offset).sum(-1)
        if cuts is not None:
            below, extra = _cut(cuts, part, a, offset, below)
            total = total - extra
        if self.raised[node.name]:
            total = total + a @ self.value_at_kink[part]
        if self.shifted[node.name]:
            total = total - below @ self.kink[part]
        found.value = found.value + total
        _give(pending, node.inputs[0], below.reshape(*below.shape[:-1], *node.shape))
        for kept, x in ((found.coefficients, a), (found.free, free), (found.slopes, slope), (found.offsets, offset)):
            kept[node.name] = x

    def replay(self, found: Pass) -> Pass:
        """Adds the values that the lines of the pass give at its point."""
        batch, known, start = len(found.point), dict[str, Tensor](), 0
        for port in self.network.inputs:
            known[port.name] = found.point[:, start : start + port.size].reshape(batch, *port.shape)
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
            found.inputs[node.name] = z
            y = torch.addcmul(found.offsets[node.name], z, found.slopes[node.name])
            if self.raised[node.name]:
                y = y + self.value_at_kink[part]
            known[node.name] = y.reshape(batch, *node.shape)
        found.outputs = torch.cat([known[port.name].flatten(1) for port in self.network.outputs], 1)
        return found

    def joined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """What a pass met at each activation, side by side: ``(batch, width)``."""
        found = [parts[node.name] for node in self.activations.nodes]
        return found[0] if len(found) == 1 else torch.cat(found, -1)


def _give(pending: dict[str, Tensor], name: str, rows: Tensor) -> None:
    pending[name] = pending[name] + rows if name in pending else rows


def _cut(cuts: Cuts, part: slice, a: Tensor, offset: Tensor, below: Tensor) -> tuple[Tensor, Tensor | float]:
    """The coefficients `below` with the neurons exact at which rows are cut, and what offsets were too many.

    Above the first activation with a cut all rows are the same, and have an axis of length one.
    """
    here = (cuts.column >= part.start) & (cuts.column < part.stop)
    if not bool(here.any()):
        return below, 0.0
    lead = (*cuts.column.shape[:2], -1)
    a, offset, below = (x.expand(lead) for x in (a, offset, below))
    at = (cuts.column - part.start).clamp(0, part.stop - part.start - 1)
    size = a.gather(-1, at)
    below = below.scatter(-1, at, torch.where(here, size * cuts.slope, below.gather(-1, at)))
    return below, (size * offset.gather(-1, at) * here).squeeze(-1)


def corner(region: Region, coefficients: Tensor) -> Tensor:
    """A point of each region where ``a . x`` is lowest, for `coefficients` ``(batch, n)`` or ``(batch, rows, n)``."""
    if isinstance(region, Box):
        middle, radius = region.lower / 2 + region.upper / 2, (region.upper - region.lower) / 2
        if coefficients.dim() == 3:
            middle, radius = middle.unsqueeze(1), radius.unsqueeze(1)
        return torch.addcmul(middle, coefficients.sign(), radius, value=-1)
    if coefficients.dim() == 3:
        return lowest_point(region, coefficients.transpose(0, 1)).transpose(0, 1)
    return lowest_point(region, coefficients.unsqueeze(0))[0]
