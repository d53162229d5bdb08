"""Where to turn the free lines of a grid's activations: for every row and slope as plain CROWN turns them.

Any turn gives a proof, so nothing here is part of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.ops import TwoSlope
from leaktight.verify import relax
from leaktight.verify.bounds.optimise import Tilts, minimiser, towards
from leaktight.verify.bounds.rows import rows_on_outputs
from leaktight.verify.leak.grid import Grid


def turned(grid: Grid, objectives: Tensor, ahead: Tensor | None = None) -> Grid:
    """The grid with lines turned for each of the rows ``(regions, rows, output_size)`` at each slope.

    A first pass says where in the region a row is about least; see `leaktight.verify.bounds.optimise.turned_to`.
    ahead: about what such a pass would have on the inputs, ``(regions * slopes, rows, n)``.
    """
    first = _free(grid)
    if not first:
        return grid
    ahead = _on_inputs(grid, objectives) if ahead is None else ahead
    if ahead is None:  # no row depends on an input
        return grid
    rows = ahead.expand(grid.region.batch, objectives.shape[1], -1)
    points = minimiser(grid.region, rows).flatten(0, 1)
    network = grid.slopes.at(grid.at.flatten().repeat_interleave(objectives.shape[1]))
    values = network.values(*points.split([port.size for port in network.inputs], -1))
    tilts = {}
    for name, tilt in first.items():
        node = grid.network.by_name[name]
        op, z = grid.operator(node), values[node.inputs[0]].reshape(*rows.shape[:2], *node.shape)
        tilts[name] = towards(tilt, z, op.kink if isinstance(op, TwoSlope) else torch.zeros(()))
    return grid.turned(tilts)


def _on_inputs(grid: Grid, objectives: Tensor) -> Tensor | None:
    walk = grid.walk(*rows_on_outputs(grid.network, objectives.repeat_interleave(grid.count, 0)))
    return walk.on_inputs() if walk.pending else None


def _free(grid: Grid) -> Tilts:
    """The default turns of lines that are free, ``(batch, 1, *shape)``."""
    found = {}
    for node in grid.network:
        if relax.has_tilt(node.op) and node.inputs[0] in grid.known:
            z, op = grid.ahead_of(node), grid.operator(node)
            ends = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
            if not bool(relax.is_linear_on(op, *ends).all()):
                found[node.name] = relax.default_tilt(op, *ends)
    return found
