"""L2: lower bounds that are lines in the slope, each on a segment of slopes.

On a segment ``a = middle + t``, ``|t| <= half``, an activation's value is ``phi_a(z) = phi_middle(z) + t g(z)``, where
``g(z)`` is ``min(z, 0)`` (times a rate, where scales were folded in), known to lie within ``centre ± radius`` over the
region and the segment. So ``phi_a(z)`` is within ``half radius`` of ``phi_middle(z) + t centre``: a backward pass at
the middle carries one more number per row, the sum of ``A . centre`` over all chosen activations, and gives

    m(x; a)  >=  value + rate (a - middle)        for every x of the region and every a of the segment.

Where neurons are bounded on the way, the line's smaller end counts. All error terms are those of the backward pass
(`leaktight.verify.bounds.backward.Drift`). Segments are rows of a batch: region ``b`` of a batch has the segment
``[lo[b], hi[b]]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.centred import Drift
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.rows import Rows, Units
from leaktight.verify.leak.intervals import departure
from leaktight.verify.leak.pairs import Band, PairWalk, pairs_pass
from leaktight.verify.leak.segments import Lines, OverSegments
from leaktight.verify.rounding import down, trusted_lower, unit, up

if TYPE_CHECKING:
    from typing_extensions import Self


class Parametric(OverSegments):
    """One unknown slope for all chosen activations: bounds are lines in it."""

    def __init__(self, slopes: Slopes, region: Region, known: dict[str, Interval], lo: Tensor, hi: Tensor) -> None:
        super().__init__(slopes, region, known, lo, hi)
        self.middle = middle = lo / 2 + hi / 2
        self.ways = torch.stack([lo - middle, hi - middle], -1)  # to both ends, off by one rounding each
        self.half = up(self.ways.abs().amax(-1)) * (hi > lo)
        self.drifts: dict[str, Drift] = {}

    def select(self, regions: Tensor | slice) -> Self:
        other = super().select(regions)
        other.middle, other.ways, other.half = self.middle[regions], self.ways[regions], self.half[regions]
        other.drifts = {name: drift.select(regions) for name, drift in self.drifts.items()}
        return other

    def narrowed(self, regions: Tensor, known: Mapping[str, Interval], tilts: Mapping[str, Tensor]) -> Self:
        other = super().narrowed(regions, known, tilts)
        other.middle, other.ways, other.half = self.middle[regions], self.ways[regions], self.half[regions]
        other.drifts = {}
        return other

    def drift(self, node: Node) -> Drift | None:
        if node.name not in self.operators:
            return None
        if node.name not in self.drifts:
            moved = self.departure(node)
            centre = moved.lower / 2 + moved.upper / 2
            radius = torch.maximum(moved.upper - centre, centre - moved.lower)
            half = self.half.reshape(-1, *[1] * len(node.shape))
            self.drifts[node.name] = Drift(centre, up(radius * half) * (half > 0), half)
        return self.drifts[node.name]

    def departure(self, node: Node) -> Interval:
        """By how much the value of a chosen activation moves per unit of slope, ``(batch, *shape)``."""
        return departure(self.slopes, node.name, self.known)

    def bands(self, node: Node) -> tuple[Band, Band | None]:
        """Parallel lines around an activation at the middle, and around how it moves (None: it does not)."""
        z = self.known[node.inputs[0]]
        ends = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
        own = Band(self.operator(node), *ends)
        if node.name not in self.operators:
            return own, None
        op = self.operators[node.name].op
        left, right = self.slopes.rate(node.name)
        precision = max(self.slopes.rate_precision(node.name), op.precision)
        return own, Band(TwoSlope(left, right, op.kink, torch.zeros_like(left), precision), *ends)

    def plain_handed_on(self, node: Node) -> Tensor:
        """`handed_on` without a charge for the drift."""
        return self.handing(node, self.centred(node))

    def lower(self, *starts: Rows | Units) -> Tensor:
        """Lower bounds ``(batch, rows)`` over the whole segment: the smaller end of each line."""
        if self._in_pairs(starts):
            return torch.minimum(*self._pairs(starts)[:2])
        walk = self.walk(*starts)
        value = walk.conclude()
        fall = torch.as_tensor(walk.rate).abs() * self.half.unsqueeze(1)
        return trusted_lower(down(value - fall * (1 + 4 * unit(self.dtype))))

    def _in_pairs(self, starts: Sequence[Rows | Units]) -> TypeGuard[Sequence[Rows]]:
        return pairs_pass(self.network) and all(isinstance(start, Rows) for start in starts)

    def _pairs(self, starts: Sequence[Rows]) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds at both ends, and what they lose by the segment's width."""
        still = [Rows(s.node, torch.cat([s.coefficients, torch.zeros_like(s.coefficients)], 1)) for s in starts]
        walk = self.carry(PairWalk(self), *still)
        low, high = walk.at_ends()
        return low, high, walk.lost

    def ends(self, *starts: Rows | Units) -> Lines:
        """The lines of these rows."""
        if self._in_pairs(starts):
            low, high, lost = self._pairs(starts)
            return Lines(low, high, lost.detach().expand(low.shape))
        walk = self.walk(*starts)
        value = walk.conclude()
        rate = torch.as_tensor(walk.rate, dtype=self.dtype).expand(value.shape)
        at_ends = []
        for way in self.ways.unbind(-1):
            rise = rate * way.unsqueeze(1)
            at_ends.append(trusted_lower(down(value + rise - rise.abs() * (4 * unit(self.dtype)))))
        return Lines(at_ends[0], at_ends[1], torch.as_tensor(walk.spent, dtype=self.dtype).expand(value.shape))
