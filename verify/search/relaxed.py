"""The relaxation of a network for many domains at once, in quick arithmetic: values and their derivatives.

What is computed here proves nothing: it finds lines and multipliers, and points worth trying. A domain's bound is then
computed anew by `leaktight.verify.bounds.backward`, with all error terms.

For one row per domain a pass runs from the outputs to the inputs (`Relaxed.value`) and another one back, which carries
the point where the relaxed objective is smallest through the same lines (`Relaxed.replay`). By the envelope theorem
the values ``z`` that it meets are all that the derivatives need: an activation's coefficient ``a`` times ``z`` is how
the bound moves with the slope of the line that was taken, and ``z`` itself how it moves with a multiplier.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import tick
from leaktight.verify.search.activations import Activations
from leaktight.verify.search.lines import QUICK, Lines, Shape
from leaktight.verify.search.passes import Cuts, Pass, Replayed, corner, cut_here, plus


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
            part = self.activations.parts.get(node.name)
            if part is not None:
                self._activation(node, part, pending, found, shape, ray, pull, cuts)
            elif isinstance(node.op, Affine) and node.name in pending:
                self._affine(node, node.op, pending, found)
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

    def _affine(self, node: Node, op: Affine, pending: dict[str, Tensor], found: Pass) -> None:
        a = pending.pop(node.name)
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

    def replay(self, found: Pass) -> Replayed:
        """The values that the lines of the pass give at its point."""
        batch, lines = len(found.point), self.lines
        known = dict(self.network.parted(found.point, self.network.inputs))
        inputs = torch.empty_like(found.slopes)
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
            inputs[:, part] = z
            y = torch.addcmul(found.offsets[:, part], z, found.slopes[:, part])
            if lines.raised:
                y = y + lines.value_at_kink[part]
            known[node.name] = y.reshape(batch, *node.shape)
        outputs = torch.cat([known[port.name].reshape(-1, port.size) for port in self.network.outputs], 1)
        return Replayed(found, inputs, outputs)
