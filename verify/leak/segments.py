"""Backward passes over segments of slopes: a batch in which each region has a segment, and so operators, of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Network, Node
from leaktight.models.ops import Elementwise, TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.rows import Rows, Units
from leaktight.verify.leak.intervals import hull

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Lines:
    """Proven lower bounds at the two ends of each segment, ``(batch, rows)`` in float64; the chord is one in between.

    `loss`: by how much at most a shorter segment would raise them, at the same lines.
    """

    at_lo: Tensor
    at_hi: Tensor
    loss: Tensor

    def select(self, index: Tensor | slice) -> Lines:
        return Lines(self.at_lo[index], self.at_hi[index], self.loss[index])

    def where_higher(self, other: Lines) -> Lines:
        """Row by row the line that is higher in the middle."""
        better = other.at_lo + other.at_hi > self.at_lo + self.at_hi
        return Lines(
            torch.where(better, other.at_lo, self.at_lo),
            torch.where(better, other.at_hi, self.at_hi),
            torch.where(better, other.loss, self.loss),
        )


class OverSegments(Backward):
    """Backward bounds of a network whose slope is anywhere in a segment, a segment for each region.

    Lines are those of the slopes `at`, by default the middles.
    """

    def __init__(
        self,
        slopes: Slopes,
        region: Region,
        known: dict[str, Interval],
        lo: Tensor,
        hi: Tensor,
        at: Tensor | None = None,
    ) -> None:
        # the operators of the chosen nodes are replaced below; the graph needs some slope at which they are not linear
        super().__init__(slopes.bent, region, known)
        self.slopes, self.lo, self.hi = slopes, lo, hi
        there = slopes.at(lo / 2 + hi / 2 if at is None else at)
        self.operators = {name: Rowed.of(there.by_name[name]) for name in slopes.nodes}

    @cached_property
    def first(self) -> Network:
        """The network at the lower ends of the whole batch's segments."""
        return self.slopes.at(self.lo)

    @cached_property
    def last(self) -> Network:
        return self.slopes.at(self.hi)

    def select(self, regions: Tensor | slice) -> Self:
        other = super().select(regions)
        other.operators = {name: rowed.select(regions) for name, rowed in self.operators.items()}
        return other

    def narrowed(self, regions: Tensor, known: Mapping[str, Interval], tilts: Mapping[str, Tensor]) -> Self:
        other = super().narrowed(regions, known, tilts)
        other.operators = {name: rowed.select(regions) for name, rowed in self.operators.items()}
        return other

    def step(self, node: Node) -> Interval:
        if node.name not in self.operators:
            return super().step(node)
        return hull(*(super(OverSegments, self).step(net.by_name[node.name]) for net in (self.first, self.last)))

    def ends(self, *starts: Rows | Units) -> Lines:
        """Bounds of these rows at both ends of the segments."""
        found = self.lower(*starts)
        return Lines(found, found, torch.zeros_like(found))

    def operator(self, node: Node) -> Elementwise:
        return self.operators[node.name].op if node.name in self.operators else super().operator(node)


@dataclass(frozen=True)
class Rowed:
    """An activation whose parameters differ between the regions of a batch, with an axis for rows behind the batch."""

    op: TwoSlope
    varying: tuple[str, ...]

    @classmethod
    def of(cls, node: Node) -> Rowed:
        op = node.op
        if not isinstance(op, TwoSlope):
            raise InternalError(f"node {node.name!r} is no Leaky ReLU, and its slope was to move")
        sides = {name: getattr(op, name) for name in ("left", "right", "kink", "value")}
        wide = {name: side.unsqueeze(1) for name, side in sides.items() if side.dim() > len(node.shape)}
        return cls(replace(op, leak=None, **wide), tuple(wide))

    def select(self, regions: Tensor | slice) -> Rowed:
        return replace(self, op=replace(self.op, **{name: getattr(self.op, name)[regions] for name in self.varying}))
