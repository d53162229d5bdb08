"""About what rows lose by neurons that were bounded at a few slopes alone; no part of any bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import TwoSlope
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.rounding import underflow

if TYPE_CHECKING:
    from leaktight.verify.leak.grid import Grid


def sagging(grid: Grid, node: Node) -> Tensor:
    """About what a unit coefficient loses in a chord where neurons were not bounded, ``(batch, 1, *shape)``.

    Between slopes bounds of neurons are lower by a quarter of their dips. A chord over ``[l, u]`` whose sides
    differ by ``bent`` moves with ``l`` by ``bent u^2 / (u - l)^2``, and with ``u`` likewise.
    """
    name, op = node.inputs[0], grid.operator(node)
    if not isinstance(op, TwoSlope) or name not in grid.tracked:
        return torch.zeros(1, 1, *node.shape, dtype=grid.dtype)
    own = grid.tracked[name]
    sunk = grid.sunk.get(name) or Interval(grid.along(own.below), grid.along(own.above))
    low, high = own.lower.clamp(max=0), own.upper.clamp(min=0)
    wide = (high - low).clamp(min=underflow(grid.dtype))
    lost = ((high / wide) ** 2 * sunk.lower + (low / wide) ** 2 * sunk.upper) / 4
    lost = torch.where((own.lower < 0) & (own.upper > 0), lost, 0.0)
    return lost.unsqueeze(1) * (op.right - op.left).abs()
