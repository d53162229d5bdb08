"""Reference values for backward passes in float32, and what a row is charged for each rewriting (see `single`).

All of this is float64 and independent of the rows; `lines`, `around` and the matrices are what float32 rows meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Affine, Conv, ConvTranspose, Input, Linear
from leaktight.specs.region import Ball, Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.interval import certain, rounding_below
from leaktight.verify.bounds.kinds import is_affine, is_elementwise
from leaktight.verify.rounding import down, gamma, unit

SINGLE, _DOUBLE = torch.float32, torch.float64
_U = unit(_DOUBLE)
# More than an operation that underflows loses (2^-126): processors take a hundred times as long for a product that
# underflows, and charges multiply this by coefficients. Those above 2^-30 leave it a normal number.
TINY = 2.0**-96
_FLAT = 4 * TINY / (8 * unit(SINGLE))  # a slope of which a float32 unit is 4 TINY
_DENSE = 2**18  # entries of a matrix that is faster than the convolution it stands for


def share(terms: int) -> float:
    """``gamma_k`` in float32 for sums of `terms` products of which one factor was itself rounded to float32.

    ``(1 + u)^(k + 1) - 1 <= (k + 1) u / (1 - (k + 1) u)``, and one more ``u`` for the sum of rows that it multiplies.
    """
    off = (terms + 2) * unit(SINGLE)
    return off / (1 - off)


@dataclass(frozen=True)
class SingleLines:
    """An activation as a pass applies it: ``slope``, ``half`` and ``charge``, all ``(batch, 1, n)``."""

    slope: Tensor
    half: Tensor
    charge: Tensor

    def select(self, regions: Tensor | slice) -> SingleLines:
        return SingleLines(*(picked(x, regions) for x in (self.slope, self.half, self.charge)))


def picked(x: Tensor, regions: Tensor | slice) -> Tensor:
    """``x[regions]``; that takes twice as long where they are no slice."""
    return x[regions] if isinstance(regions, slice) else x.index_select(0, regions)


class References:
    """Reference values, radii and costs for float32 passes beside a `Backward`, whose intervals and lines it reads.

    As there, `known` may gain nodes between calls and must not change the intervals of nodes that were there.
    """

    def __init__(self, backward: Backward) -> None:
        self.b, self.network, self.region = backward, backward.network, backward.region
        self.place = {node.name: i for i, node in enumerate(self.network.nodes)}
        self._references: dict[str, Tensor] = {}
        self._radii: dict[str, Tensor] = {}
        self._moves: dict[str, Tensor] = {}
        self._off: dict[str, Tensor | None] = {}
        self._lines: dict[str, SingleLines] = {}
        self._charges: dict[str, Tensor | None] = {}
        self._bases: dict[str, Tensor] = {}
        self._starts: dict[str, Tensor] = {}
        self._lost: dict[str, Tensor] = {}
        self._matrices: dict[str, Tensor | None] = {}
        self._spreads: dict[str, Tensor] = {}
        self._sizes: dict[str, Tensor] = {}
        self._both: dict[str, Tensor] = {}
        self._operators: dict[str, Affine] = {}
        self._around: Region | Tensor | None = None

    def reference(self, node: Node) -> Tensor:
        """``z*`` of a node, ``(batch, *shape)``."""
        found = self._references.get(node.name)
        if found is None:
            found = self._reference(node).expand(self.region.batch, *node.shape)
            self._references[node.name] = found
        return found

    def _reference(self, node: Node) -> Tensor:
        if isinstance(node.op, Input):
            sizes = [port.size for port in self.network.inputs]
            at = [port.name for port in self.network.inputs].index(node.name)
            split: tuple[Tensor, ...] = centre(self.region).split(sizes, -1)
            return split[at].reshape(-1, *node.shape)
        ahead = [self.reference(self.network.by_name[name]) for name in node.inputs]
        if is_affine(node.op):
            return node.op(*ahead)
        lines = self.b.centred(node)
        return torch.addcmul(lines.offset.squeeze(1), lines.slope.squeeze(1), ahead[0])

    def radius(self, name: str) -> Tensor:
        """At least ``|z - z*|`` for every value of a node, ``(batch, *shape)``."""
        found = self._radii.get(name)
        if found is None:
            z, at = self.b.known[name], self.reference(self.network.by_name[name])
            found = self._radii[name] = torch.maximum(z.upper - at, at - z.lower).mul_(1 + 4 * _U)
        return found

    def off(self, node: Node, op: Affine) -> Tensor | None:
        """How far ``W y* + b`` may be from its computed value, for any ``W``, ``b`` within the spread; None for zero.

        Twice the spread, over all values of the inputs: it also covers what the spread does to ``a W (y - y*)``.
        """
        if node.name not in self._off:
            total: Tensor | None = None
            if op.forward_terms:
                most = gamma(op.forward_terms, _DOUBLE)
                shapes = [self.network.by_name[name].shape for name in node.inputs]
                total = rounding_below(op, most, most, shapes, self._largest(node))
            if not certain(op, [self.b.known[name] for name in node.inputs]):
                spread = op.spread(*(self._magnitude(name) for name in node.inputs))
                total = total if spread is None else 4 * spread if total is None else total + 4 * spread
            self._off[node.name] = None if total is None else total.expand(self.region.batch, *node.shape).flatten(1)
        return self._off[node.name]

    def _largest(self, node: Node) -> Tensor:
        """At least ``|y*|`` of any entry of any input, ``(batch,)``: as the radius reaches to both ends of an interval,
        a reference lies no farther than that outside of it.
        """
        sizes = [self.b.known[name].largest + self.spread(name).squeeze(1) for name in node.inputs]
        return sizes[0] if len(sizes) == 1 else torch.stack(sizes).amax(0)

    def _magnitude(self, name: str) -> Tensor:
        """At least ``|z|`` and ``|z*|``."""
        return torch.maximum(self.b.known[name].magnitude, self.reference(self.network.by_name[name]).abs())

    def _cost(self, node: Node, op: Affine, each: float) -> Tensor:
        """``each |W| rho_y + off`` ``(batch, n)``, what weights that underflow to float32 may add, and four units for
        products with it.
        """
        each = each * (1 + gamma(op.forward_terms, _DOUBLE)) * (1 + 4 * unit(SINGLE))
        return torch.add(self._base(node, op), self._moved(node, op), alpha=each)

    def _base(self, node: Node, op: Affine) -> Tensor:
        """The part of a cost that is the same whatever a share of ``|W| rho_y`` it has; ``(batch, n)`` or less."""
        if node.name not in self._bases:
            off, tiny = self.off(node, op), self._spread_in_front(node) * (2 * TINY) + TINY
            self._bases[node.name] = tiny if off is None else torch.add(tiny, off, alpha=1 + 4 * unit(SINGLE))
        return self._bases[node.name]

    def _moved(self, node: Node, op: Affine) -> Tensor:
        """``|W| rho_y`` ``(batch, n)``."""
        if node.name not in self._moves:
            wide = op.magnitude(*(self.radius(name) for name in node.inputs))
            self._moves[node.name] = wide.expand(self.region.batch, *node.shape).flatten(1)
        return self._moves[node.name]

    def charge(self, node: Node, op: Affine) -> Tensor | None:
        """``|a| . charge`` is what rewriting an affine node with coefficients ``a`` costs, ``(batch, n)``."""
        if node.name not in self._charges:
            moves = not op.adjoint_terms and self.off(node, op) is None
            found = self._base(node, op) if not op.adjoint_terms else self._cost(node, op, share(op.adjoint_terms))
            self._charges[node.name] = None if moves else found
        return self._charges[node.name]

    def start(self, node: Node, op: Affine) -> Tensor:
        """What one entry's row costs where it is taken from the weights: their conversion, ``(batch, n)``."""
        found = self._starts.get(node.name)
        if found is None:
            found = self._starts[node.name] = self._cost(node, op, 2 * unit(SINGLE))
        return found

    def lines(self, node: Node) -> SingleLines:
        found = self._lines.get(node.name)
        if found is None:
            exact, (name,) = self.b.centred(node), node.inputs
            slope, half, gap, steep, reach = (
                x.flatten(2) for x in (exact.slope, exact.half_slope, exact.half_offset, exact.steep, exact.reach)
            )
            at, rho = self.reference(self.network.by_name[name]).flatten(1), self.radius(name).flatten(1)
            # half the distance of the lines at z*; halving them, and evaluating them there, rounds in float64
            charge = torch.addcmul(gap, half, at.unsqueeze(1)).neg_().add_(reach, alpha=16 * _U)
            # a coefficient c + h multiplies |z*| there; the slopes' conversion and three roundings of ``a c + |a| h``
            weight = (rho * (8 * unit(SINGLE) + 16 * _U)).add_(at.abs(), alpha=16 * _U)
            source = self.network.by_name[name]
            if is_affine(source.op) and (vector := self.charge(source, source.op)) is not None:
                weight.add_(vector, alpha=1 + 8 * unit(SINGLE))
            # slopes that underflow to float32, or products with them: four units of TINY on rho, one on the vector
            charge = charge.addcmul_(steep + _FLAT, weight.unsqueeze(1)).add_(TINY)
            found = self._lines[node.name] = SingleLines(slope.to(SINGLE), half.to(SINGLE), outwards(charge))
        return found

    def lost(self, last: Node) -> Tensor:
        """What products that underflow may add up to in a pass that starts at a node, ``(batch, 1)``."""
        total: Tensor | None = None
        for node in self.network.nodes[: self.place[last.name] + 1]:
            if node.name not in self._lost:
                own = self._products(node)
                self._lost[node.name] = own if total is None else total + own
            total = self._lost[node.name]
        return self._lost[last.name]

    def _products(self, node: Node) -> Tensor:
        """``TINY`` times the sum of what products with a node's rows multiply, and times how many there are."""
        terms = node.op.adjoint_terms if is_affine(node.op) else 1
        total = self._spread_in_front(node) * (4 * terms * TINY) + 4 * max(1, len(node.inputs)) * node.size * TINY
        if is_affine(node.op) and (vector := self.charge(node, node.op)) is not None:  # rows that underflowed
            total = torch.add(total, vector.sum(1, keepdim=True), alpha=4 * TINY)
        return total

    def _spread_in_front(self, node: Node) -> Tensor:
        """The sum of the radii of all inputs of a node, ``(batch, 1)``."""
        if not node.inputs:
            return self.region.lower.new_zeros(self.region.batch, 1)
        first, *others = (self.spread(name) for name in node.inputs)
        return sum(others, first)

    def spread(self, name: str) -> Tensor:
        """The sum of a node's radii, ``(batch, 1)``."""
        found = self._spreads.get(name)
        if found is None:
            found = self._spreads[name] = self.radius(name).flatten(1).sum(1, keepdim=True)
        return found

    def matrix(self, node: Node) -> Tensor | None:
        """An affine node of one input as a matrix in float32, where products with it are worth it."""
        if node.name not in self._matrices:
            exact = None
            if isinstance(node.op, (Linear, Conv, ConvTranspose)):
                source = self.network.by_name[node.inputs[0]]
                whole = isinstance(node.op, Linear) and node.size == node.op.weight.shape[0]
                if whole or node.size * source.size <= _DENSE:
                    exact = self.b.matrix(node, node.size)
            self._matrices[node.name] = None if exact is None else exact.to(SINGLE)
        return self._matrices[node.name]

    def sizes(self, node: Node, matrix: Tensor) -> Tensor:
        """``|W|`` of a node's matrix in float32."""
        found = self._sizes.get(node.name)
        if found is None:
            found = self._sizes[node.name] = matrix.abs()
        return found

    def both(self, node: Node, matrix: Tensor) -> Tensor:
        """A node's matrix in float32, and its negative below it."""
        found = self._both.get(node.name)
        if found is None:
            found = self._both[node.name] = torch.cat([matrix, -matrix])
        return found

    def operator(self, node: Node, op: Affine) -> Affine:
        """An affine node's operator in float32."""
        if node.name not in self._operators:
            self._operators[node.name] = op.to(SINGLE)
        return self._operators[node.name]

    def around(self) -> Region | Tensor:
        """The region about its centre: of a box the radii ``(batch, 1, n)``, ready for ``|a| . radius``."""
        if self._around is None:
            at, region = centre(self.region), self.region
            if isinstance(region, Ball):
                low, high = down(region.lower - at).clamp(max=0), -down(at - region.upper).clamp(max=0)
                self._around = Ball(torch.zeros_like(at), region.radius, region.norm, low, high).to(SINGLE)
            else:
                radius = torch.maximum(region.upper - at, at - region.lower) * (1 + 4 * _U) + TINY
                self._around = outwards(radius).unsqueeze(1)
        return self._around

    def prepare(self, last: Node) -> None:
        """Works out what every pass that starts at a node needs, for the whole batch at once."""
        for node in self.network.nodes[: self.place[last.name]]:
            if is_elementwise(node.op):
                self.lines(node)
            elif is_affine(node.op):
                self.charge(node, node.op)
        if is_affine(last.op):
            self.start(last, last.op)
            self.charge(last, last.op)
        self.reference(last)
        self.lost(last)
        self.around()


def centre(region: Region) -> Tensor:
    return region.centre if isinstance(region, Ball) else region.lower * 0.5 + region.upper * 0.5


def outwards(vector: Tensor) -> Tensor:
    """``(..., n)`` in float32 with which ``|a| . vector``, computed in float32, is at least what it was.

    The sum is off by ``gamma |a| . |result|``, and ``gamma |result| <= 1.5 gamma |vector|`` where ``gamma <= 1/3``. Of
    entries below zero (a reference may lie outside the known interval, where lines cross) that takes some away. The
    conversion is one more rounding; two of four units are left for what becomes of the result.
    """
    off = 1.5 * share(vector.shape[-1]) + 4 * unit(SINGLE)
    return torch.add(vector, vector.abs(), alpha=off).add_(TINY).to(SINGLE)
