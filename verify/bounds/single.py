"""Backward passes in float32 for the intervals of neurons: rigorous, and nearly as tight as in float64.

Rounding errors of a plain pass are shares of ``|z|``, and in float32 these shares cost more than a slope can gain. So
every value is measured from a reference ``z*`` that float64 works out going forwards: the inputs' centre, ``W y* + b``
behind an affine node, and behind an activation the middle of its two lines at ``z*`` (a reference need not be a value
that the network takes). With ``|z - z*| <= rho`` from the known interval, and ``a`` the coefficients:

* affine, ``z = W y + b``: ``a (z - z*) = (a W)(y - y*)`` without a constant. Rounding ``a W`` and ``W`` itself costs
  ``gamma |a| (|W| rho_y)``, a share of the radii.
* an activation between the lines ``(c + h) z + o + g`` and ``(c - h) z + o - g``, with ``y* = c z* + o``:
  ``a (y - y*) >= (a c + |a| h)(z - z*) - |a| (-h z* - g)``, where the last bracket is half the lines' distance at
  ``z*``. Where the neuron is stable nothing is subtracted.
* at the inputs ``- |a| radius``.

The value at the start's reference is a number of float64. A row is then off by a few float32 units of its own width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Node
from leaktight.models.ops import Affine, Conv, ConvTranspose, Input, Linear
from leaktight.specs.region import Ball, Region, toward
from leaktight.verify.bounds.backward import Backward, Units, is_affine, is_elementwise
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit

_SINGLE, _DOUBLE = torch.float32, torch.float64
_U = unit(_DOUBLE)
_TINY = underflow(_SINGLE)
_LONGEST = 2**18  # terms of a sum: beyond, shares of float32 are no longer small
_DENSE = 2**18  # entries of a matrix that is faster than the convolution it stands for


def share(terms: int) -> float:
    """``gamma_k`` in float32 for sums of `terms` products of which one factor was itself rounded to float32.

    ``(1 + u)^(k + 1) - 1 <= (k + 1) u / (1 - (k + 1) u)``, and one more ``u`` for the sum of rows that it multiplies.
    """
    off = (terms + 2) * unit(_SINGLE)
    return off / (1 - off)


@dataclass(frozen=True)
class _Lines:
    """An activation as a pass applies it: ``slope``, ``half`` ``(batch, 1, n)`` and ``charge`` ``(batch, n, 1)``."""

    slope: Tensor
    half: Tensor
    charge: Tensor

    def select(self, regions: Tensor | slice) -> _Lines:
        return _Lines(self.slope[regions], self.half[regions], self.charge[regions])


class Single:
    """Passes in float32 beside a `Backward` in float64, whose intervals and lines it reads.

    As there, `known` may gain nodes between calls and must not change the intervals of nodes that were there.
    """

    def __init__(self, backward: Backward) -> None:
        self.b, self.network, self.region = backward, backward.network, backward.region
        self._place = {node.name: i for i, node in enumerate(self.network.nodes)}
        self._references: dict[str, Tensor] = {}
        self._off: dict[str, Tensor | None] = {}
        self._lines: dict[str, _Lines] = {}
        self._charges: dict[str, Tensor | None] = {}
        self._starts: dict[str, Tensor] = {}
        self._lost: dict[str, Tensor] = {}
        self._matrices: dict[str, Tensor | None] = {}
        self._operators: dict[str, Affine] = {}
        self._around: Region | Tensor | None = None

    @staticmethod
    def fits(backward: Backward) -> bool:
        """Whether passes of this kind can stand for those of `backward`."""
        ops = (node.op for node in backward.network)
        plain = type(backward) is Backward and backward.dtype == _DOUBLE and not backward.tilts
        plain = plain and max(node.size for node in backward.network) <= _LONGEST
        return plain and all(isinstance(op, Input) or is_affine(op) or is_elementwise(op) for op in ops)

    # ---- what does not depend on rows; float64 --------------------------------------------------------------------

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
            return centre(self.region).split(sizes, -1)[at].reshape(-1, *node.shape)
        ahead = [self.reference(self.network.by_name[name]) for name in node.inputs]
        if is_affine(node.op):
            return node.op(*ahead)
        lines = self.b.centred(node)
        return lines.slope.squeeze(1) * ahead[0] + lines.offset.squeeze(1)

    def radius(self, name: str) -> Tensor:
        """At least ``|z - z*|`` for every value of a node, ``(batch, *shape)``."""
        z, at = self.b.known[name], self.reference(self.network.by_name[name])
        return torch.maximum(z.upper - at, at - z.lower) * (1 + 4 * _U)

    def off(self, node: Node, op: Affine) -> Tensor | None:
        """How far ``W y* + b`` may be from its computed value, for any ``W``, ``b`` within the spread; None for zero.

        Twice the spread, over all values of the inputs: it also covers what the spread does to ``a W (y - y*)``.
        """
        if node.name not in self._off:
            parts = []
            if op.forward_terms:
                sizes = [self.reference(self.network.by_name[name]).abs() for name in node.inputs]
                most = op.magnitude(*sizes)
                most = most if op.bias_value is None else most + op.bias_value.abs()
                parts.append(gamma(op.forward_terms, _DOUBLE) * most + op.forward_terms * underflow(_DOUBLE))
            if (spread := op.spread(*(self._magnitude(name) for name in node.inputs))) is not None:
                parts.append(4 * spread)
            total = sum(parts[1:], parts[0]) if parts else None
            self._off[node.name] = None if total is None else total.expand(self.region.batch, *node.shape).flatten(1)
        return self._off[node.name]

    def _magnitude(self, name: str) -> Tensor:
        """At least ``|z|`` and ``|z*|``."""
        return torch.maximum(self.b.known[name].magnitude, self.reference(self.network.by_name[name]).abs())

    def _rounding(self, node: Node, op: Affine, each: float) -> Tensor:
        """``each |W| rho_y`` ``(batch, n)``, and what weights that underflow to float32 may add."""
        reach = [self.radius(name) for name in node.inputs]
        tiny = _TINY * sum((x.flatten(1).sum(1, keepdim=True) for x in reach), torch.zeros(()))
        wide = op.magnitude(*reach).expand(self.region.batch, *node.shape).flatten(1)
        return each * (1 + gamma(op.forward_terms, _DOUBLE)) * wide + tiny

    def charge(self, node: Node, op: Affine) -> Tensor | None:
        """``|a| . charge`` is what rewriting an affine node with coefficients ``a`` costs, ``(batch, n)``."""
        if node.name not in self._charges:
            total = self.off(node, op)
            if op.adjoint_terms:
                rounding = self._rounding(node, op, share(op.adjoint_terms))
                total = rounding if total is None else total + rounding
            self._charges[node.name] = None if total is None else total * (1 + 4 * unit(_SINGLE)) + _TINY
        return self._charges[node.name]

    def start(self, node: Node, op: Affine) -> Tensor:
        """What one entry's row costs where it is taken from the weights: their conversion, ``(batch, n)``."""
        found = self._starts.get(node.name)
        if found is None:
            found, off = self._rounding(node, op, 2 * unit(_SINGLE)), self.off(node, op)
            found = self._starts[node.name] = found if off is None else found + off
        return found

    def lines(self, node: Node) -> _Lines:
        found = self._lines.get(node.name)
        if found is None:
            exact, (name,) = self.b.centred(node), node.inputs
            slope, half, offset, gap = (
                x.flatten(2) for x in (exact.slope, exact.half_slope, exact.offset, exact.half_offset)
            )
            at, rho = self.reference(self.network.by_name[name]).flatten(1), self.radius(name).flatten(1)
            steep = (slope.abs() + half.abs()).squeeze(1)
            # half the distance of the lines at z*; halving them, and evaluating them there, rounds in float64
            reach = steep * self._magnitude(name).flatten(1) + (offset.abs() + gap.abs()).squeeze(1)
            charge = (-half * at.unsqueeze(1) - gap).squeeze(1).clamp(min=0) + 16 * _U * reach
            # the slopes' conversion and three roundings of ``a c + |a| h``
            charge = charge + (8 * unit(_SINGLE) * steep + 4 * _TINY) * rho + _TINY
            source = self.network.by_name[name]
            if is_affine(source.op) and (vector := self.charge(source, source.op)) is not None:
                charge = charge + (1 + 8 * unit(_SINGLE)) * (steep + _TINY) * vector
            found = _Lines(slope.to(_SINGLE), half.to(_SINGLE), outwards(charge).unsqueeze(2))
            self._lines[node.name] = found
        return found

    def lost(self, last: Node) -> Tensor:
        """What products that underflow may add up to in a pass that starts at a node, ``(batch, 1)``."""
        found = self._lost.get(last.name)
        if found is None:
            total = torch.zeros(self.region.batch, dtype=_DOUBLE)
            for node in self.network.nodes[: self._place[last.name] + 1]:
                terms = node.op.adjoint_terms if is_affine(node.op) else 1
                for name in node.inputs:
                    total = total + 4 * (terms * self.radius(name).flatten(1).sum(1) + node.size) * _TINY
                if is_affine(node.op) and (vector := self.charge(node, node.op)) is not None:  # rows that underflowed
                    total = total + 4 * vector.sum(1) * _TINY
            total = total + 4 * self.region.size * _TINY
            found = self._lost[last.name] = total.unsqueeze(1)
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
            self._matrices[node.name] = None if exact is None else exact.to(_SINGLE)
        return self._matrices[node.name]

    def operator(self, node: Node, op: Affine) -> Affine:
        """An affine node's operator in float32."""
        if node.name not in self._operators:
            self._operators[node.name] = op.to(_SINGLE)
        return self._operators[node.name]

    def around(self) -> Region | Tensor:
        """The region about its centre: of a box the radii ``(batch, n, 1)``, ready for ``|a| . radius``."""
        if self._around is None:
            at, region = centre(self.region), self.region
            if isinstance(region, Ball):
                low, high = down(region.lower - at).clamp(max=0), -down(at - region.upper).clamp(max=0)
                self._around = Ball(torch.zeros_like(at), region.radius, region.norm, low, high).to(_SINGLE)
            else:
                radius = torch.maximum(region.upper - at, at - region.lower) * (1 + 4 * _U) + _TINY
                self._around = outwards(radius).unsqueeze(2)
        return self._around

    def prepare(self, last: Node) -> None:
        """Works out what every pass that starts at a node needs, for the whole batch at once."""
        for node in self.network.nodes[: self._place[last.name]]:
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

    # ---- a pass ---------------------------------------------------------------------------------------------------

    def lower(self, regions: Tensor | slice, units: Units) -> Tensor:
        """Proven lower bounds ``(batch, k)`` of these entries in these regions of the batch, in float64."""
        return _Pass(self, regions).bound(units)


def centre(region: Region) -> Tensor:
    return region.centre if isinstance(region, Ball) else region.lower / 2 + region.upper / 2


def outwards(vector: Tensor) -> Tensor:
    """A nonnegative ``(batch, n)`` in float32 with which ``|a| . vector``, computed in float32, is large enough."""
    return toward(vector * (1 + 1.5 * share(vector.shape[1])), _SINGLE, torch.inf)


class _Pass:
    """Rows on their way to the inputs; ``total`` is the part of the bound that is known already."""

    def __init__(self, single: Single, regions: Tensor | slice) -> None:
        self.s, self.regions = single, regions
        self.pending: dict[str, Tensor] = {}
        self.total = torch.zeros(())
        self.size = torch.zeros(())

    def bound(self, units: Units) -> Tensor:
        last = self.s.network.by_name[units.node]
        self._begin(last, units)
        for node in reversed(self.s.network.nodes[: self.s._place[last.name] + 1]):
            if node.name in self.pending and not isinstance(node.op, Input):
                self._through(node, self.pending.pop(node.name))
        self._conclude()
        terms = 4 * len(self.s.network.nodes) + 8
        found = self.total - self.s.lost(last)[self.regions]
        return trusted_lower(down(found - terms * unit(_DOUBLE) * (self.size + found.abs())))

    def _begin(self, last: Node, units: Units) -> None:
        self._add(self._entries(self.s.reference(last).flatten(1), units) * units.sign)
        if is_affine(last.op) and (matrix := self.s.matrix(last)) is not None:
            rows = matrix[units.entries] * units.sign.to(_SINGLE).unsqueeze(-1)
            self._add(-self._entries(self.s.start(last, last.op), units))
            self._give(last.inputs[0], rows)
        else:
            rows = torch.zeros(*units.index.shape, last.size, dtype=_SINGLE)
            rows.scatter_(-1, units.index.unsqueeze(-1), units.sign.to(_SINGLE).unsqueeze(-1))
            self._give(last.name, rows)

    def _entries(self, vector: Tensor, units: Units) -> Tensor:
        some = vector[self.regions]
        return some.gather(1, units.index) if units.span is None else some[:, units.span]

    def _add(self, term: Tensor) -> None:
        self.total = self.total + term
        self.size = self.size + term.abs()

    def _give(self, name: str, rows: Tensor, charged: bool = False) -> None:
        """Adds rows ``(batch, k, n)`` on a node, and the cost of rewriting them there if the node is affine."""
        node = self.s.network.by_name[name]
        if not charged and is_affine(node.op) and (vector := self.s.charge(node, node.op)) is not None:
            self._charge(rows, vector[self.regions])
        if name in self.pending:  # the sum of two is one rounding off
            rows = self.pending[name] + rows
            self._charge(rows, 2 * unit(_SINGLE) * self.s.radius(name).flatten(1)[self.regions] + _TINY)
        self.pending[name] = rows

    def _charge(self, rows: Tensor, vector: Tensor) -> None:
        self._add(-(rows.abs() @ outwards(vector).unsqueeze(2)).squeeze(2).double())

    def _through(self, node: Node, a: Tensor) -> None:
        if is_elementwise(node.op):
            lines = self.s.lines(node).select(self.regions)
            size = a.abs()
            self._add(-(size @ lines.charge).squeeze(2).double())
            self._give(node.inputs[0], (a * lines.slope).addcmul_(size, lines.half), charged=True)
        elif is_affine(node.op):
            self._affine(node, node.op, a)
        else:
            raise InternalError(f"node {node.name!r} has no rule for passes in float32")

    def _affine(self, node: Node, op: Affine, a: Tensor) -> None:
        if (matrix := self.s.matrix(node)) is not None:
            self._give(node.inputs[0], a @ matrix)
            return
        shapes = [self.s.network.by_name[name].shape for name in node.inputs]
        rows = self.s.operator(node, op).adjoint(a.reshape(*a.shape[:2], *node.shape), shapes)
        for name, part in zip(node.inputs, rows, strict=True):
            self._give(name, part.flatten(2))

    def _conclude(self) -> None:
        """Subtracts what the rows on the inputs can lose within the region."""
        if not self.pending:  # no row depends on an input
            return
        lead = next(iter(self.pending.values())).shape[:2]
        parts = [
            self.pending.get(port.name, torch.zeros(1, dtype=_SINGLE).expand(*lead, port.size))
            for port in self.s.network.inputs
        ]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        around = self.s.around()
        if isinstance(around, Tensor):
            self._add(-(rows.abs() @ around[self.regions]).squeeze(2).double())
        else:
            region = around.select(self.regions)
            self._charge(rows, gamma(region.size, _SINGLE) * region.magnitude.double())
            self._add(region.minimum(rows).double())

