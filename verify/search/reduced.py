"""The same passes over the neurons that bend: what is linear on every region is multiplied out beforehand.

Where intervals show a neuron linear, it is no more than a factor, and layers of such neurons are matrices that can be
multiplied once for all domains. What is left reads a running vector: the inputs, then layer by layer the outputs of the
neurons that are kept, ``z = W v + b`` for each. A layer may keep its linear neurons as well (a *waist*): nothing behind
it reads what lies in front of it then, which is cheaper where most neurons bend. Which layers are waists is found by
counting multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Affine, Conv, Input, Scale
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import tick
from leaktight.verify.search.activations import Activations
from leaktight.verify.search.lines import QUICK, Lines, Shape
from leaktight.verify.search.passes import Cuts, Pass, Replayed, corner, cut_here, plus

_NEURON = 150  # multiplications that take as long as what is done for one neuron entry by entry
_CONVOLVED = 8  # how much slower the multiplications of a convolution are, measured on networks for CIFAR-10
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class _Layer:
    """Neurons side by side: `slot` their outputs' places in the running vector, `part` theirs among all that are kept.

    Their inputs are ``weight @ v[reads] + bias``; weight ``(neurons, reads)``.
    """

    slot: slice
    part: slice
    reads: slice
    weight: Tensor
    bias: Tensor


class Reduced:
    """Quick passes like those of `Relaxed`, over some of the neurons.

    places ``(width,)``: which of all neurons are kept. Coefficients, slopes, offsets and inputs of a pass are those.
    """

    def __init__(self, network: Network, activations: Activations, base: Interval, kept: Tensor) -> None:
        self.network, self.places = network.to(QUICK), kept.nonzero().flatten()
        self.lines = Lines(*(p[self.places] for p in activations.parameters))
        self._fold(network.to(torch.float64), activations, base, kept)

    def _fold(self, network: Network, activations: Activations, base: Interval, kept: Tensor) -> None:
        fold = _Fold(network, activations, base, kept)
        start, place, self.layers = network.input_size, 0, list[_Layer]()
        for node in activations.nodes:
            own = kept[activations.parts[node.name]].nonzero().flatten()
            if len(own):
                weight, bias = fold.rows(node.inputs[0], own)
                part = slice(place, place + len(own))
                slot = slice(start, start + len(own))
                self.layers.append(_Layer(slot, part, *_trimmed(weight, bias)))
                start, place = slot.stop, part.stop
        self.size, self.inputs = start, network.input_size
        found = [fold.rows(port.name, torch.arange(port.size)) for port in network.outputs]
        whole = slice(start, start)
        self.last = _Layer(whole, whole, *_trimmed(torch.cat([w for w, _ in found]), torch.cat([b for _, b in found])))

    @property
    def numbers(self) -> int:
        """About how many numbers a pass holds for each domain."""
        return self.size

    def shape(self, z: Interval) -> Shape:
        return self.lines.shape(Interval(z.lower[:, self.places], z.upper[:, self.places]))

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
        """See `Relaxed.value`."""
        tick()
        running = rows.new_zeros(*rows.shape[:-1], self.size)
        value = offset + rows @ self.last.bias
        _add(running, rows, self.last)
        free, slopes, offsets = (torch.empty_like(ray) for _ in range(3))
        for layer in reversed(self.layers):
            part = layer.part
            a, chord, sink = running[..., layer.slot], shape.chord[..., part], shape.sink[..., part]
            one = torch.gt(
                a if self.lines.convex else a * self.lines.bend[part], 0, out=torch.empty(a.shape, dtype=QUICK)
            )
            slope = torch.lerp(chord, ray[..., part], one)
            off = torch.addcmul(sink, one, sink, value=-1)
            below = torch.addcmul(pull[..., part], a, slope)
            value = value + (a * off).sum(-1)
            if cuts is not None:
                below, extra = cut_here(cuts, part, a, off, below)
                value = value - extra
                if below.shape[:-1] != running.shape[:-1]:
                    running = running.expand(*below.shape[:-1], -1).contiguous()
            else:
                for whole, x in ((free, one), (slopes, slope), (offsets, off)):
                    whole[..., part] = x
            value = value + below @ layer.bias
            if self.lines.raised:
                value = value + a @ self.lines.value_at_kink[part]
            if self.lines.shifted:
                value = value - below @ self.lines.kink[part]
            _add(running, below, layer)
        ends = running[..., : self.inputs]
        point = corner(region, ends)
        return Pass(value + (ends * point).sum(-1), ends, point, running[..., self.inputs :], free, slopes, offsets)

    def replay(self, found: Pass) -> Replayed:
        """See `Relaxed.replay`."""
        running = found.point.new_empty(len(found.point), self.size)
        running[:, : self.inputs] = found.point
        inputs = torch.empty_like(found.slopes)
        for layer in self.layers:
            part = layer.part
            z = torch.addmm(layer.bias, running[:, layer.reads], layer.weight.mT)
            if self.lines.shifted:
                z = z - self.lines.kink[part]
            inputs[:, part] = z
            y = torch.addcmul(found.offsets[:, part], z, found.slopes[:, part])
            running[:, layer.slot] = y + self.lines.value_at_kink[part] if self.lines.raised else y
        outputs = torch.addmm(self.last.bias, running[:, self.last.reads], self.last.weight.mT)
        return Replayed(found, inputs, outputs)


def _add(running: Tensor, coefficients: Tensor, layer: _Layer) -> None:
    """Adds what coefficients of a layer's inputs come to in the running vector, in place."""
    flat = running.view(-1, running.shape[-1])[:, layer.reads]
    flat.addmm_(coefficients.reshape(-1, coefficients.shape[-1]), layer.weight)


def _trimmed(weight: Tensor, bias: Tensor) -> tuple[slice, Tensor, Tensor]:
    """The places that are read at all, and quick weights for them."""
    used = weight.ne(0).any(0).nonzero().flatten()
    reads = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
    return reads, weight[:, reads].to(QUICK).contiguous(), bias.to(QUICK)


class _Fold:
    """Rows on a node's value, carried back through neurons that are not kept to the running vector."""

    def __init__(self, network: Network, activations: Activations, base: Interval, kept: Tensor) -> None:
        self.network, self.activations, self.kept = network, activations, kept
        self.slope = torch.where(base.lower[0] >= activations.kink, activations.right, activations.left)
        self.level = activations.value - self.slope * activations.kink
        before = kept.cumsum(0) - 1 + network.input_size
        self.at = torch.where(kept, before, -1)
        self.size = network.input_size + int(kept.sum())
        self.starts, start = {}, 0
        for port in network.inputs:
            self.starts[port.name] = slice(start, start + port.size)
            start += port.size

    def rows(self, name: str, entries: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix ``(entries, size)`` and the offsets ``(entries,)`` of these entries of a node's value."""
        found = [self._chunk(name, some) for some in entries.split(_CHUNK)]
        return torch.cat([w for w, _ in found]), torch.cat([b for _, b in found])

    def _chunk(self, name: str, entries: Tensor) -> tuple[Tensor, Tensor]:
        tick()
        count, node = len(entries), self.network.by_name[name]
        weight, bias = (torch.zeros(count, n, dtype=torch.float64) for n in (self.size, 1))
        unit = torch.zeros(count, node.size, dtype=torch.float64)
        unit[torch.arange(count), entries] = 1.0
        pending = {name: unit.reshape(count, *node.shape)}
        for node in reversed(self.network.nodes):
            if node.name not in pending:
                continue
            a = pending.pop(node.name)
            if isinstance(node.op, Input):
                weight[:, self.starts[node.name]] += a.flatten(1)
            elif isinstance(node.op, Affine):
                if node.op.bias_value is not None:
                    bias += (a * node.op.bias_value).flatten(1).sum(1, keepdim=True)
                shapes = [self.network.by_name[parent].shape for parent in node.inputs]
                for parent, given in zip(node.inputs, node.op.adjoint(a, shapes), strict=True):
                    plus(pending, parent, given)
            else:
                part, a = self.activations.parts[node.name], a.flatten(1)
                kept = self.kept[part].nonzero().flatten()
                weight[:, self.at[part][kept]] += a[:, kept]
                a = a.index_fill(1, kept, 0.0)
                bias += a @ self.level[part].unsqueeze(1)
                plus(pending, node.inputs[0], (a * self.slope[part]).reshape(count, *node.shape))
        return weight, bias.squeeze(1)


def kept_neurons(network: Network, activations: Activations, base: Interval) -> tuple[Tensor, bool]:
    """Which neurons ``(width,)`` to keep, and whether that is cheaper than passes through the whole network."""
    right, left = base.lower >= activations.kink, base.upper <= activations.kink
    flat = activations.left == activations.right
    same = right.all(0) | left.all(0) | flat
    slope = torch.where(right[0], activations.right, activations.left)
    carried = same & (slope != 0)
    parts = [activations.parts[node.name] for node in activations.nodes]
    bent = [int((~same[part]).sum()) for part in parts]
    whole = [count + int(carried[part].sum()) for count, part in zip(bent, parts, strict=True)]
    cost, waists = _waists(network.input_size, bent, whole, network.output_size)
    kept = ~same
    for layer in waists:
        kept[parts[layer]] |= carried[parts[layer]]
    return kept, cost < _cost(network) + _NEURON * activations.width


def _waists(inputs: int, bent: list[int], whole: list[int], outputs: int) -> tuple[float, list[int]]:
    """The least cost of a pass through layers in a chain, and which of them keep their linear neurons."""
    sizes = [inputs, *whole, outputs]
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(sizes)):
        options = []
        for start in range(end):
            width, cost = sizes[start], best[start][0]
            for count in bent[start : end - 1]:
                cost += count * (width + _NEURON)
                width += count
            options.append((cost + sizes[end] * (width + _NEURON), [*best[start][1], end - 1]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][0], best[-1][1][:-1]


def _cost(network: Network) -> float:
    slow = {Conv: _CONVOLVED, Scale: 1}
    return float(
        sum(
            node.size * node.op.forward_terms * slow.get(type(node.op), 1)
            for node in network
            if isinstance(node.op, Affine)
        )
    )
