"""Passes in float32 at the slopes of a grid, about reference values (see `leaktight.verify.bounds.single`).

At the slope ``a_i`` a value is measured from its reference ``z*_i``; at the mixture of two slopes from the mixture of
their references. Rewriting a mixed row ``r`` with mixed lines then adds, to what `leaktight.verify.leak.grid` counts
``q`` times, for every node with rows the products of differences ``(r_1 - r_0)(z*_1 - z*_0)``: zero where a pass
starts, where the rows are the same, zero at the inputs, where the references are, and each step hands on what it takes
but for what it rounds. So it is enough that what rounding errors multiply,

    |z - z*|  <=  radius  +  |z*_1 - z*_0|,

is the same at all slopes of a region: ``q (e_0 + e_1) <= (1 - w) e_0 + w e_1``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Affine
from leaktight.verify.bounds.references import SINGLE, TINY, References, outwards, share
from leaktight.verify.bounds.rows import Units, dot, dots
from leaktight.verify.bounds.single import Pass, worth_single
from leaktight.verify.leak.grid import Grid
from leaktight.verify.rounding import gamma, unit


@dataclass(frozen=True)
class SingleCharges:
    """`leaktight.verify.leak.charges.Charges` for rows in float32, as vectors of each slope or segment.

    sizes, signed ``(regions * slopes, 2, n)``: ``|p| . size - p . signed`` is what coefficients ``p`` at a slope add to
    the dips of the segment on its left, and on its right. change ``(regions * segments, 1, n)``: of rows' differences.
    """

    sizes: Tensor
    signed: Tensor
    change: Tensor


class GridReferences(References):
    """References at all slopes of a grid; what rounding errors multiply is the same at all slopes of a region."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.grid = grid
        self._wide_radii: dict[str, Tensor] = {}
        self._wide: dict[str, Tensor | None] = {}
        self._dip_columns: dict[str, SingleCharges] = {}
        self._first_columns: dict[str, tuple[Tensor, Tensor]] = {}

    def radius(self, name: str) -> Tensor:
        found = self._wide_radii.get(name)
        if found is None:
            own = self._each(super().radius(name))
            at = self._each(self.reference(self.network.by_name[name]))
            wide = own.amax(1, keepdim=True) + (at.amax(1, keepdim=True) - at.amin(1, keepdim=True))
            found = self._wide_radii[name] = (wide * (1 + 8 * unit(torch.float64))).expand(own.shape).flatten(0, 1)
        return found

    def off(self, node: Node, op: Affine) -> Tensor | None:
        if node.name not in self._wide:
            own = super().off(node, op)
            self._wide[node.name] = None if own is None else self._widest(own)
        return self._wide[node.name]

    def _widest(self, off: Tensor) -> Tensor:
        each = self._each(off)
        return 3 * each.amax(1, keepdim=True).expand(each.shape).flatten(0, 1)

    def _each(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.grid.count, *x.shape[1:])

    def charges(self, node: Node) -> SingleCharges:
        found = self._dip_columns.get(node.name)
        if found is None:
            found = self._dip_columns[node.name] = self._columns(node)
        return found

    def starts(self, node: Node, last: Node, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """What `sizes` and `signed` give for the weights of all entries of a node, ``(batch, 2, entries)``."""
        found = self._first_columns.get(last.name)
        if found is None:
            charges, width = self.charges(node), self.sizes(last, matrix)
            found = self._first_columns[last.name] = (charges.sizes @ width.mT, charges.signed @ matrix.mT)
        return found

    def _columns(self, node: Node) -> SingleCharges:
        """Roundings of differences, of vectors and of their signed products are shares of the sizes."""
        exact, off = self.grid.charges(node), 8 * share(node.size)
        left, right, both = exact.ends.flatten(2).unbind(1)
        less = exact.signed.flatten(2).unbind(1)
        # (p_1 - p_0) . bend, one end each
        before, behind = self.grid.apart(exact.bend.flatten(1))
        signed = torch.stack([less[0] - before, less[1] + behind], 1)
        sizes = torch.stack([left + both + off * before.abs(), right + both + off * behind.abs()], 1)
        sizes = (sizes + off * signed.abs()) * (1 + off) + TINY
        change = exact.change.flatten(2) * (1 + off) + TINY
        return SingleCharges(_outwards(sizes), signed.to(SINGLE), _outwards(change))

    def prepare(self, last: Node) -> None:
        super().prepare(last)
        for name in self.grid.tracked_activations(last):
            self.charges(self.network.by_name[name])


def _outwards(vectors: Tensor) -> Tensor:
    """`outwards` for several vectors ``(batch, k, n)``."""
    return outwards(vectors.flatten(0, 1)).reshape(vectors.shape)


class DipPass(Pass):
    """A pass at every slope of some regions of a grid; `dips` ``(regions, segments, rows)`` when it has concluded."""

    def __init__(self, references: GridReferences, regions: Tensor) -> None:
        grid = references.grid
        self.grid, self.columns = grid, references
        self.segments = grid.between(regions)
        self.sunk = torch.zeros((), dtype=torch.float64)
        self.summed = torch.zeros((), dtype=torch.float64)  # the sizes of its terms
        super().__init__(references, (regions.unsqueeze(1) * grid.count + torch.arange(grid.count)).flatten())

    @staticmethod
    def fits(grid: Grid) -> bool:
        """Whether passes of this kind can stand for those of the grid."""
        return worth_single(grid)

    def elementwise(self, node: Node, a: Tensor, size: Tensor) -> None:
        if not self.grid.carries(node):
            super().elementwise(node, a, size)
            return
        charges, lines = self.columns.charges(node), self.s.lines(node).select(self.regions)
        sizes = dots(size, torch.cat([charges.sizes[self.regions], lines.charge], 1))
        self._ends(node, sizes[..., :2], dots(a, charges.signed[self.regions]))
        rows = a.reshape(-1, self.grid.count, *a.shape[1:])
        change = (rows[:, 1:] - rows[:, :-1]).flatten(0, 1).abs_()
        sunk = dot(change, charges.change[self.segments]).double()
        self._sink(sunk.reshape(-1, self.grid.count - 1, a.shape[1]))
        self.hand_on(node, a, size, lines, sizes[..., 2])

    def weights_through(self, node: Node, last: Node, matrix: Tensor, units: Units) -> None:
        if self.grid.carries(node):  # the rows are the same at all slopes
            sizes, signed = self._start(node, last, matrix, units)
            self._ends(node, sizes, signed * units.sign.to(SINGLE).unsqueeze(-1))
        super().weights_through(node, last, matrix, units)

    def _start(self, node: Node, last: Node, matrix: Tensor, units: Units) -> tuple[Tensor, Tensor]:
        """What `sizes` and `signed` give for the entries' weights, ``(batch, rows, 2)``."""
        whole = (x[self.regions] for x in self.columns.starts(node, last, matrix))
        if units.span is not None:
            sizes, signed = (x[:, :, units.span].mT for x in whole)
        else:
            sizes, signed = (x.gather(2, units.index.unsqueeze(1).expand(-1, 2, -1)).mT for x in whole)
        return sizes, signed

    def _ends(self, node: Node, sizes: Tensor, signed: Tensor) -> None:
        """What the coefficients at both ends of each segment add to it."""
        each = [x.double().reshape(-1, self.grid.count, *x.shape[1:]) for x in (sizes, signed)]
        sunk, summed = each[0] - each[1], each[0].abs() + each[1].abs() + 64 * node.size * TINY
        self._sink(*(x[:, :-1, :, 1] + x[:, 1:, :, 0] for x in (sunk + 64 * node.size * TINY, summed)))

    def _sink(self, sunk: Tensor, size: Tensor | None = None) -> None:
        self.sunk, self.summed = self.sunk + sunk, self.summed + (sunk if size is None else size)

    @property
    def dips(self) -> Tensor:
        """Nonnegative; infinite where nothing can be said."""
        terms = gamma(16 * len(self.grid.network.nodes), torch.float64)
        total = (self.sunk + terms * self.summed).clamp(min=0)
        return torch.where(total.isfinite(), total, torch.inf)
