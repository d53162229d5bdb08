"""Passes over a grid of slopes that add up how far bounds dip in between (see `leaktight.verify.leak.grid`).

`DipWalk` is a pass whose rows are bounds at the slopes, with one dip for each segment. The last pass, of few rows, can
afford to carry the curvature instead of charging it at each activation (`BentWalk`): a row in between is the mixture of
both ends' minus ``q`` times a third one, ``B``, made of what activations add,

    p f_a(z)  in  (mixture)  -  q (k g(z) + B f_a(z)),      k = (p_1 - p_0) (a_1 - a_0),

with ``g`` and ``f_a`` between parallel lines over the segment. The dip of such a bound has a sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.verify.bounds.rows import dot, dots
from leaktight.verify.bounds.walk import Walk
from leaktight.verify.leak.sagging import sagging
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.leak.bands import Curved
    from leaktight.verify.leak.charges import Charges
    from leaktight.verify.leak.grid import Grid


class DipWalk(Walk):
    """A pass at every slope of a grid; `dips` ``(regions, segments, rows)`` when it has concluded."""

    def __init__(self, backward: Grid) -> None:
        super().__init__(backward)
        self.grid = backward
        self.deep: Tensor = torch.zeros((), dtype=backward.dtype)  # at least what was lost, nonnegative terms
        self.bend: Tensor = torch.zeros((), dtype=backward.dtype)  # what has a sign

    def elementwise(self, node: Node, a: Tensor) -> None:
        lines, size = self.grid.centred(node), a.abs()
        self.charge(node, a, size)
        rows = (a * lines.slope).addcmul_(size, lines.half_slope)
        self.give(node.inputs[0], rows, charged=True)

    def charge(self, node: Node, a: Tensor, size: Tensor) -> None:
        """Adds an activation's part to offset, slack and dips."""
        shift, sink, slack = self.weighed(node, a, size)
        self.shift(shift)
        self.shift(sink)
        self.slack = self.slack + slack
        if self.grid.carries(node):
            self.moved(a, self.grid.charges(node))

    def weighed(self, node: Node, a: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, sink and slack of an activation; the part of both ends of each segment goes to the dips."""
        grid = self.grid
        lines, handed_on = grid.centred(node), grid.handed_on(node).unsqueeze(1)
        charges = grid.charges(node) if grid.carries(node) else None
        flat = lines.half_offset.shape[1] == 1  # else turned about a kink beside 0: an offset for every row
        sizes, signs = [handed_on], list[Tensor]()
        if charges is not None:
            sizes, signs = [handed_on, charges.ends], [charges.signed]
        if flat:
            sizes, signs = [*sizes, lines.half_offset], [*signs, lines.offset]
        weighed = dots(size, torch.cat(sizes, 1))
        signed = dots(a, torch.cat(signs, 1)) if signs else weighed
        if charges is not None:
            left, right = (x.reshape(-1, grid.count, x.shape[-1]) for x in weighed[..., 1:3].unbind(-1))
            both = weighed[..., 3].reshape(left.shape)
            less = [x.reshape(left.shape) for x in signed[..., :2].unbind(-1)]
            self.deep = self.deep + (right - less[1] + both)[:, :-1] + (left - less[0] + both)[:, 1:]
            self.deep = self.deep + 32 * node.size * underflow(grid.dtype)
        if flat:
            return signed[..., -1], weighed[..., -1], weighed[..., 0]
        return dot(a, lines.offset), dot(size, lines.half_offset), weighed[..., 0]

    def moved(self, a: Tensor, charges: Charges) -> None:
        """What the change of coefficients from slope to slope adds to the dips."""
        grid = self.grid
        first, last = grid.pairs(a)
        change = (last - first).flatten(0, 1)
        self.bend = self.bend + self._segments(dot(change, charges.bend))
        self.deep = self.deep + 4 * unit(grid.dtype) * self.bend.abs()
        self.deep = self.deep + self._segments(dot(change.abs_(), charges.change))

    def _segments(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.grid.count - 1, x.shape[-1])

    @property
    def lost(self) -> Tensor:
        """At least the dips' part that has no sign: the sums of its nonnegative terms, and what they rounded."""
        widest = max(node.size for node in self.grid.network)
        return self.deep * (1 + gamma(widest + 16 * len(self.grid.network.nodes), self.grid.dtype))

    @property
    def dips(self) -> Tensor:
        """Nonnegative; infinite where nothing can be said."""
        total = (self.bend + self.lost * (1 + 4 * unit(self.grid.dtype))).clamp(min=0)
        return torch.where(total.isfinite(), total, torch.inf)


class BentWalk(DipWalk):
    """A last pass: the first half of its rows are those of `DipWalk`, the second half their curvature ``B``.

    The curvature of a segment stands at the slope on its left; at the last slope it is zero.
    """

    sagged: Tensor = torch.zeros(())  # about what rows lose by neurons' bounds between slopes, no part of the bounds

    def elementwise(self, node: Node, a: Tensor) -> None:
        values, bends = a.chunk(2, 1)
        lines = self.grid.centred(node)
        size = values.abs()
        shift, sink, slack = self.weighed(node, values, size)
        curved = self._bends(node, values, bends)
        self.sagged = self.sagged + dot(size, sagging(self.grid, node))
        self.shift(torch.cat([shift, curved.turn], 1))
        self.shift(torch.cat([sink, torch.zeros_like(sink)], 1))
        self.slack = self.slack + torch.cat([slack, curved.noise], 1)
        rows = (values * lines.slope).addcmul_(size, lines.half_slope)
        self.give(node.inputs[0], torch.cat([rows, curved.rows], 1), charged=True)

    def _bends(self, node: Node, values: Tensor, bends: Tensor) -> Curved:
        """The curvature in front of an activation; what it may be off goes to the dips."""
        grid, change = self.grid, self._change(values)
        width = grid.along(grid.widths).reshape(-1, 1, *[1] * len(node.shape))
        curved = grid.bands(node).curved(bends, change, width)
        self.deep = self.deep + self._first(curved.lost)
        if grid.carries(node):
            beyond = grid.along(grid.charges(node).beyond)
            self.deep = self.deep + self._first(dot(change.abs_(), beyond))
        return curved

    def _change(self, values: Tensor) -> Tensor:
        """From each slope to the next how the coefficients change; at the last slope zero."""
        first, last = self.grid.pairs(values)
        return torch.cat([last - first, torch.zeros_like(first[:, :1])], 1).flatten(0, 1)

    def _first(self, x: Tensor) -> Tensor:
        """Of what stands at slopes, what belongs to segments, by their left ends."""
        return grid_shaped(x, self.grid.count)[:, :-1]

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds at the slopes ``(regions, slopes, rows)``, and the dips ``(regions, segments, rows)``.

        Let ``F(w, v)`` be the minimum over the region of the mixture's row minus ``v / 4`` times the curvature's. It is
        concave in ``w`` and ``v``, so at ``v = 4 q`` in [0, 1] it is at least the mixture of its four corners.
        """
        grid, u = self.grid, unit(self.grid.dtype)
        region, size = grid.region, grid.region.size
        offset = [grid_shaped(x, grid.count) for x in torch.as_tensor(self.offset).chunk(2, 1)]
        slack = [grid_shaped(x, grid.count) for x in self.whole_slack.chunk(2, 1)]
        low, bend = offset[0] - slack[0], (offset[1] + slack[1])[:, :-1]
        off = 4 * u * (offset[0].abs() + slack[0])
        if self.pending:
            values, bends = self.on_inputs().chunk(2, 1)
            reach = region.magnitude.unsqueeze(-1)
            error = gamma(size, grid.dtype) * (values.abs() @ reach).squeeze(-1)
            tiny = 4 * underflow(grid.dtype) * (size + region.magnitude.sum(-1, keepdim=True))
            least = region.minimum(values)
            whole = grid_shaped(least, grid.count)
            off = off + grid_shaped((error + tiny) * (1 + 16 * u), grid.count) + 4 * u * whole.abs()
            low = low + whole
            bend = bend + self._bent(values, bends, whole)
        lower = trusted_lower(down(low - off * (1 + 8 * u)))
        dips = bend + self.lost * (1 + 4 * u) + 16 * u * bend.abs()
        return lower, torch.where(dips.isfinite(), dips, torch.inf)

    def _bent(self, values: Tensor, bends: Tensor, least: Tensor) -> Tensor:
        """At least how far the corners with curvature are below those without, times four."""
        grid, u = self.grid, unit(self.grid.dtype)
        here = (torch.arange(len(values)) % grid.count < grid.count - 1).nonzero().flatten()
        region, quarter = grid.region.select(here), bends[here] / 4
        reach, size = region.magnitude.unsqueeze(-1), region.size
        found = []
        for end, known in ((values[here], least[:, :-1]), (values[here + 1], least[:, 1:])):
            error = gamma(size + 8, grid.dtype) * ((end.abs() + quarter.abs()) @ reach).squeeze(-1)
            error = error + 4 * underflow(grid.dtype) * (size + region.magnitude.sum(-1, keepdim=True))
            corner = region.minimum(end - quarter)
            corner = grid_shaped(corner - (error * (1 + 16 * u) + 4 * u * corner.abs()), grid.count - 1)
            fall = known - corner
            found.append(4 * (fall + 4 * u * (known.abs() + corner.abs())))
        return torch.maximum(*found)


def grid_shaped(x: Tensor, count: int) -> Tensor:
    """``(regions * count, rows)`` as ``(regions, count, rows)``."""
    return x.reshape(-1, count, x.shape[-1])
