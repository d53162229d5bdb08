"""Lower bounds for slopes that differ from neuron to neuron, each anywhere in a segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Node
from leaktight.models.ops import Elementwise
from leaktight.verify import relax
from leaktight.verify.leak.segments import OverSegments, Rowed

if TYPE_CHECKING:
    from typing_extensions import Self


class Sandwich(OverSegments):
    """Every neuron has a slope of its own, anywhere in the segment: bounds hold for all of them at once.

    An activation lies between the lower and the upper one of its values at the segment's ends; either is an activation
    with two slopes again.
    """

    def envelope(self, op: Elementwise, node: Node, lower: Tensor, upper: Tensor) -> relax.Lines:
        if node.name not in self.operators:
            return super().envelope(op, node, lower, upper)
        first, last = (Rowed.of(net.by_name[node.name]).op for net in (self.first, self.last))
        low, high = (
            replace(first, left=one(first.left, last.left), right=other(first.right, last.right), precision=precision)
            for one, other in ((torch.maximum, torch.minimum), (torch.minimum, torch.maximum))
            for precision in (max(first.precision, last.precision),)
        )
        below, above = relax.envelope(low, lower, upper), relax.envelope(high, lower, upper)
        return relax.Lines(below.lower_slope, below.lower_offset, above.upper_slope, above.upper_offset)

    def turned(self, tilts: Mapping[str, Tensor]) -> Self:
        raise InternalError("lines around a range of activations cannot be turned as those around one of them")
