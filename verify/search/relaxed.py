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
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input, TwoSlope
from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import tick
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

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.left, self.right, self.kink, self.value

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
    """What one pass met: `value` ``(batch,)``, and by neuron coefficients, 1 where the free line was taken, the slopes
    and offsets of the lines taken, and (after a replay) the inputs, measured from the kink, all ``(batch, width)``.

    `ends`: the coefficients at the network's inputs ``(batch, n)``; `point`: where they are smallest. `outputs` (after
    a replay): the network's.
    """

    value: Tensor
    ends: Tensor
    point: Tensor
    coefficients: Tensor
    free: Tensor
    slopes: Tensor
    offsets: Tensor
    inputs: Tensor | None = None
    outputs: Tensor | None = None

    @property
    def met(self) -> Tensor:
        """The inputs of a pass that was replayed."""
        assert self.inputs is not None
        return self.inputs

    def select(self, index: Tensor) -> Pass:
        """The pass of some of the domains."""
        some = (self.value, self.ends, self.point, self.coefficients, self.free, self.slopes, self.offsets)
        value, ends, point, coefficients, free, slopes, offsets = (x.index_select(0, index) for x in some)
        met, outputs = (None if x is None else x.index_select(0, index) for x in (self.inputs, self.outputs))
        return Pass(value, ends, point, coefficients, free, slopes, offsets, met, outputs)


@dataclass(frozen=True)
class Cuts:
    """One more decision for each row: column and slope ``(batch, rows, 1)``, the neuron and how steep it then is."""

    column: Tensor
    slope: Tensor


class Lines:
    """The parameters of neurons side by side in quick arithmetic, ``(width,)`` each, and the lines that they have."""

    def __init__(self, left: Tensor, right: Tensor, kink: Tensor, value: Tensor) -> None:
        self.exact = (left, right, kink)
        self.left, self.right, self.kink, self.value_at_kink = (p.to(QUICK) for p in (left, right, kink, value))
        self.gap = self.right - self.left
        self.bend = torch.where(self.gap >= 0, 1.0, -1.0)
        self.shifted, self.raised = bool(self.kink.any()), bool(self.value_at_kink.any())
        self.convex = bool((self.bend > 0).all())

    def shape(self, z: Interval) -> Shape:
        """The neurons' lines for intervals ``(batch, width)`` of their inputs."""
        left, right, kink = self.exact
        low, high = (z.lower - kink).to(QUICK), (z.upper - kink).to(QUICK)
        active, inactive = low >= 0, high <= 0
        fixed = active | inactive
        chord = (right * high - left * low) / (high - low).clamp(min=1e-30)
        sink = ((right - chord) * high).masked_fill_(fixed, 0.0)
        chord = torch.where(active, right, torch.where(inactive, left, chord))
        least = torch.where(fixed, chord, torch.minimum(left, right))
        most = torch.where(fixed, chord, torch.maximum(left, right))
        return Shape(*(x.to(QUICK) for x in (chord, sink, least, most)))


class Relaxed:
    """Quick passes through one network, over all of its neurons: `places` ``(width,)`` are all places.

    Selections by masks (`torch.where`, `masked_fill`) cost ten times as much as products on a processor: hence ones and
    zeros as factors.
    """

    def __init__(self, network: Network, activations: Activations) -> None:
        self.network, self.activations = network.to(QUICK), activations
        self.lines, self.places = Lines(*activations.parameters), torch.arange(activations.width)
        self.bias = {
            node.name: node.op.bias_value.to(QUICK).expand(node.shape).reshape(-1)
            for node in self.network
            if isinstance(node.op, Affine) and node.op.bias_value is not None
        }

    @property
    def numbers(self) -> int:
        """About how many numbers a pass holds for each domain."""
        return sum(node.size for node in self.network)

    def shape(self, z: Interval) -> Shape:
        return self.lines.shape(z)

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
        for name, own in self.network.parted(rows, self.network.outputs):
            plus(pending, name, own)
        found = Pass(offset, offset, offset, *(torch.empty_like(ray) for _ in range(4)))
        for node in reversed(self.network.nodes):
            tick()
            if isinstance(node.op, Input):
                continue
            part = self.activations.parts.get(node.name)
            if part is not None:
                self._activation(node, part, pending, found, shape, ray, pull, cuts)
            elif node.name in pending:
                self._affine(node, pending, found)
        first = [self.network.by_name[port.name] for port in self.network.inputs]
        ends = [
            pending[n.name].flatten(-len(n.shape)) if n.name in pending else rows.new_zeros(*lead, n.size)
            for n in first
        ]
        wide = np.broadcast_shapes(*(a.shape[:-1] for a in ends))  # cuts may lie behind one of several inputs only
        found.ends = ends[0] if len(ends) == 1 else torch.cat([a.expand(*wide, -1) for a in ends], -1)
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
            plus(pending, name, given)

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
        given, lines = pending.pop(node.name, None), self.lines
        chord, sink = shape.chord[..., part], shape.sink[..., part]
        a = torch.zeros_like(chord) if given is None else given.flatten(-len(node.shape))
        free = torch.gt(a if lines.convex else a * lines.bend[part], 0, out=torch.empty_like(a))
        slope = torch.lerp(chord, ray[..., part], free)
        offset = torch.addcmul(sink, free, sink, value=-1)
        below = torch.addcmul(pull[..., part], a, slope)
        total = (a * offset).sum(-1)
        if cuts is not None:
            below, extra = cut_here(cuts, part, a, offset, below)
            total = total - extra
        else:
            wholes = (found.coefficients, found.free, found.slopes, found.offsets)
            for whole, x in zip(wholes, (a, free, slope, offset), strict=True):
                whole[..., part] = x
        if lines.raised:
            total = total + a @ lines.value_at_kink[part]
        if lines.shifted:
            total = total - below @ lines.kink[part]
        found.value = found.value + total
        plus(pending, node.inputs[0], below.reshape(*below.shape[:-1], *node.shape))

    def replay(self, found: Pass) -> Pass:
        """Adds the values that the lines of the pass give at its point."""
        batch, lines = len(found.point), self.lines
        known = dict(self.network.parted(found.point, self.network.inputs))
        found.inputs = torch.empty_like(found.slopes)
        for node in self.network:
            if isinstance(node.op, Input):
                continue
            part = self.activations.parts.get(node.name)
            if part is None:
                known[node.name] = node.op(*(known[name] for name in node.inputs)).expand(batch, *node.shape)
                continue
            z = known[node.inputs[0]].flatten(1)
            if lines.shifted:
                z = z - lines.kink[part]
            found.inputs[:, part] = z
            y = torch.addcmul(found.offsets[:, part], z, found.slopes[:, part])
            if lines.raised:
                y = y + lines.value_at_kink[part]
            known[node.name] = y.reshape(batch, *node.shape)
        found.outputs = torch.cat([known[port.name].reshape(-1, port.size) for port in self.network.outputs], 1)
        return found


def plus(pending: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Adds rows to those that wait at a node."""
    pending[name] = pending[name] + rows if name in pending else rows


def cut_here(cuts: Cuts, part: slice, a: Tensor, offset: Tensor, below: Tensor) -> tuple[Tensor, Tensor | float]:
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
