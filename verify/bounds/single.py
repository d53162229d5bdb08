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

from collections.abc import Sequence

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Node
from leaktight.models.ops import Affine, Input
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.kinds import is_affine, is_elementwise
from leaktight.verify.bounds.references import SINGLE, TINY, References, SingleLines, outwards, picked
from leaktight.verify.bounds.rows import Rows, Units, dot
from leaktight.verify.clock import tick
from leaktight.verify.rounding import gamma, trusted_lower, unit, whole_products

_LONGEST = 2**18  # terms of a sum: beyond, shares of float32 are no longer small
_NARROW = 48  # values of the widest node: below, passes cost what calling operators costs, in any arithmetic


def worth_single(backward: Backward) -> bool:
    """Whether passes in float32 are sound for this network, and cheaper than those of `backward` in float64."""
    ops = (node.op for node in backward.network)
    fits = backward.dtype == torch.float64 and not backward.tilts and whole_products()
    fits = fits and _NARROW <= max(node.size for node in backward.network) <= _LONGEST
    return fits and all(isinstance(op, Input) or is_affine(op) or is_elementwise(op) for op in ops)


class Single:
    """Passes in float32 beside a `Backward` in float64, whose intervals and lines it reads.

    As there, `known` may gain nodes between calls and must not change the intervals of nodes that were there.
    """

    def __init__(self, backward: Backward) -> None:
        self.references = References(backward)

    @staticmethod
    def fits(backward: Backward) -> bool:
        """Whether passes of this kind can stand for those of `backward`."""
        return type(backward) is Backward and worth_single(backward)

    def prepare(self, last: Node) -> None:
        """Works out what every pass that starts at a node needs, for the whole batch at once."""
        self.references.prepare(last)

    def lower(self, regions: Tensor | slice, *starts: Rows | Units) -> Tensor:
        """Proven lower bounds ``(batch, k)`` of the sum of `starts` in these regions of the batch, in float64."""
        return Pass(self.references, regions, keeping=False).bound(starts)

    def walk(self, regions: Tensor | slice, *starts: Rows | Units) -> tuple[Tensor, Tensor]:
        """The same, and the rows on the inputs ``(batch, k, n)`` that it was concluded from."""
        walk = Pass(self.references, regions)
        return walk.bound(starts), walk.rows


class Pass:
    """Rows on their way to the inputs. The bound is the sum of `values` minus all `charges`.

    Charges are what products in float32 gave, which float64 holds exactly. `rows`: the rows on the inputs when it has
    concluded, if it is `keeping` them.
    """

    def __init__(self, references: References, regions: Tensor | slice, *, keeping: bool = True) -> None:
        self.s, self.regions, self.keeping = references, regions, keeping
        self.pending: dict[str, Tensor] = {}
        self.values: list[Tensor] = []  # in float64
        self.charges: list[Tensor] = []  # in float32, all ``(batch or 1, k)``
        self.lost: Tensor | float = 0.0  # in sums that are values

    def bound(self, starts: Sequence[Rows | Units]) -> Tensor:
        first = max(self.s.place[start.node] for start in starts)
        for start in starts:
            node = self.s.network.by_name[start.node]
            if isinstance(start, Rows):
                self._begin_rows(node, start.coefficients.flatten(2))
            else:
                self._begin(node, start)
        for node in reversed(self.s.network.nodes[: first + 1]):
            tick()
            if node.name in self.pending and not isinstance(node.op, Input):
                self._through(node, self.pending.pop(node.name))
        self._conclude()
        return self._sum(self.lost + picked(self.s.lost(self.s.network.nodes[first]), self.regions))

    def _sum(self, charged: Tensor) -> Tensor:
        """All that was found, minus what adding it up rounds: with each term and in the last difference no more than a
        unit of the sum of sizes. For their own sizes charges have a float32 unit to spare (`outwards`).
        """
        value = self.values[0]
        size = value.abs()
        for more in self.values[1:]:
            value, size = value + more, size + more.abs()
        for charge in self.charges:
            charged = charged + charge  # in float64
        terms = len(self.values) + len(self.charges)
        return trusted_lower(value - torch.add(charged, size, alpha=(2 * terms + 8) * unit(torch.float64)))

    def _begin_rows(self, node: Node, rows: Tensor) -> None:
        """Rows in float64; a row's value at the reference is a sum of n products."""
        at = self.s.reference(node).flatten(1)[self.regions].unsqueeze(1)
        self.values.append(dot(rows, at))
        self.lost = self.lost + TINY * self.s.spread(node.name)[self.regions]
        self.lost = self.lost + gamma(node.size, torch.float64) * dot(rows.abs(), at.abs())
        short = rows.to(SINGLE)
        self._charge(short, 2 * unit(SINGLE) * self.s.radius(node.name).flatten(1)[self.regions])
        self._give(node.name, short)

    def _begin(self, last: Node, units: Units) -> None:
        value = self._entries(self.s.reference(last).flatten(1), units) * units.sign
        if is_affine(last.op) and (matrix := self.s.matrix(last)) is not None:
            self.values.append(value.sub_(self._entries(self.s.start(last, last.op), units)))
            ahead = self.s.network.by_name[last.inputs[0]]
            if is_elementwise(ahead.op) and ahead.name not in self.pending:
                self.weights_through(ahead, last, matrix, units)
            else:
                self._give(ahead.name, units.of(matrix) * units.sign.to(SINGLE).unsqueeze(-1))
        else:
            self.values.append(value)
            rows = torch.zeros(*units.index.shape, last.size, dtype=SINGLE)
            rows.scatter_(-1, units.index.unsqueeze(-1), units.sign.to(SINGLE).unsqueeze(-1))
            self._give(last.name, rows)

    def _entries(self, vector: Tensor, units: Units) -> Tensor:
        some = picked(vector, self.regions)
        return some.gather(1, units.index) if units.span is None else some[:, units.span]

    def _give(self, name: str, rows: Tensor, charged: bool = False) -> None:
        """Adds rows ``(batch, k, n)`` on a node, and the cost of rewriting them there if the node is affine."""
        node = self.s.network.by_name[name]
        if not charged and is_affine(node.op) and (vector := self.s.charge(node, node.op)) is not None:
            self._charge(rows, picked(vector, self.regions))
        if name in self.pending:  # the sum of two is one rounding off
            rows = self.pending[name] + rows
            self._charge(rows, 2 * unit(SINGLE) * self.s.radius(name).flatten(1)[self.regions] + TINY)
        self.pending[name] = rows

    def _charge(self, rows: Tensor, vector: Tensor) -> None:
        self.charges.append(dot(rows.abs(), outwards(vector).unsqueeze(1)))

    def _through(self, node: Node, a: Tensor) -> None:
        if is_elementwise(node.op):
            self.elementwise(node, a, a.abs())
        elif is_affine(node.op):
            self._affine(node, node.op, a)
        else:
            raise InternalError(f"node {node.name!r} has no rule for passes in float32")

    def elementwise(self, node: Node, a: Tensor, size: Tensor) -> None:
        """Rows ``a`` of size ``|a|`` through an activation."""
        lines = self.s.lines(node).select(self.regions)
        self.hand_on(node, a, size, lines, dot(size, lines.charge))

    def hand_on(self, node: Node, a: Tensor, size: Tensor, lines: SingleLines, charged: Tensor) -> None:
        """Subtracts what an activation charges rows, ``size . charge``, and hands them on to its input.

        Sizes become the rows in front of it: two buffers stay in the caches.
        """
        self.charges.append(charged)
        self._give(node.inputs[0], size.mul_(lines.half).addcmul_(a, lines.slope), charged=True)

    def weights_through(self, node: Node, last: Node, matrix: Tensor, units: Units) -> None:
        """Rows ``± w`` of a matrix through the activation in front: all regions share ``w`` and ``|w|``."""
        lines, size = self.s.lines(node).select(self.regions), self.s.sizes(last, matrix)
        cost = lines.charge.squeeze(1) @ size.mT
        self.charges.append(cost.gather(1, units.index) if units.span is None else cost[:, units.span])
        if units.span is None:
            rows = units.signed(self.s.both(last, matrix))
            sizes = rows.abs()
            rows.mul_(lines.slope).addcmul_(sizes, lines.half)
        else:
            rows = (units.of(matrix) * lines.slope).mul_(units.sign.to(SINGLE).unsqueeze(-1))
            rows.addcmul_(units.of(size), lines.half)
        self._give(node.inputs[0], rows, charged=True)

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
            self.rows = torch.zeros(1, 1, self.s.region.size, dtype=SINGLE)
            return
        lead = next(iter(self.pending.values())).shape[:2]
        for port in self.s.network.inputs:
            if port.name not in self.pending:
                self.pending[port.name] = torch.zeros(1, dtype=SINGLE).expand(*lead, port.size)
        parts = [self.pending[port.name] for port in self.s.network.inputs]
        rows = self.rows = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        around = self.s.around()
        if isinstance(around, Tensor):
            sizes = rows.abs() if self.keeping else rows.abs_()
            self.charges.append(dot(sizes, picked(around, self.regions)))
        else:
            region = around.select(self.regions)
            self._charge(rows, gamma(region.size, SINGLE) * region.magnitude.double())
            self.values.append(region.minimum(rows).double())
