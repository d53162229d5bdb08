"""Bounds of neurons from parabolas over the first layer, behind it layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.first_layer import FirstLayer, Sums, carried, first_layer
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.optimise import Tilts, ascend, default_tilts
from leaktight.verify.bounds.parabolas import proven
from leaktight.verify.bounds.question import Question
from leaktight.verify.bounds.rows import Rows, Units
from leaktight.verify.bounds.vectors import Descent, found
from leaktight.verify.device import on_processor

MOST_INPUTS = 1024  # a step of the search for parabolas multiplies them by the neurons that bend, for every row
_BYTES = 128 << 20  # of rows that are looked at together, where memory does not say less
NEURONS, OUTPUTS = Descent(25, rate=0.2, decay=0.93), Descent(100)
_TURNS = (0.5, 0.3, 0.2, 0.1)
_LAST_TURNS = tuple(0.5 * 0.85**k for k in range(20))


def curvable(network: Network, region: Region) -> bool:
    """Whether parabolas can say more than lines: a single box of not too many inputs, neurons behind others."""
    deep = sum(isinstance(node.op, TwoSlope) for node in network) > 1
    return (
        isinstance(region, Box)
        and region.batch == 1
        and region.size <= MOST_INPUTS
        and deep
        and bool(first_layer(network))
    )


def concluded(layer: FirstLayer, sums: Sums, descent: Descent, memory: int) -> Tensor:
    """Lower bounds ``(rows,)`` of sums of bends; `memory` in bytes is for all that is alive meanwhile.

    How many rows are looked at together moves their bounds by last places of single precision only.
    """
    count, inputs = layer.slopes.shape
    most = min(_BYTES, memory // 4) if on_processor() else memory // 4
    size = max(1, most // (8 * (4 * min(inputs, count) ** 2 + 60 * (count + inputs))))
    best = []
    for start in range(0, len(sums.offset), size):
        some = slice(start, start + size)
        part, own = sums.select(some), layer.select(some)
        best.append(proven(own, part, *found(own, part, descent)))
    return torch.cat(best)


def _best(
    backward: Backward,
    layer: FirstLayer | None,
    starts: Sequence[Rows | Units],
    tilts: Tilts,
    steps: Sequence[float],
    late: Callable[[], bool],
    descent: Descent,
    memory: int,
) -> Tensor:
    """Lower bounds ``(1, rows)`` by lines, turned from `tilts` as is best for lines, and by parabolas with these."""
    best = ascend(
        lambda: backward.turned(tilts).lower(*starts),
        tilts,
        steps,
        lambda best: torch.full_like(best, not late(), dtype=torch.bool),
    )
    if layer is None or late():
        return best
    curves = concluded(layer, carried(backward.turned(tilts), layer, *starts), descent, memory)
    return torch.maximum(best, curves.unsqueeze(0))


def curved_bounds(
    network: Network,
    region: Region,
    known: Mapping[str, Interval],
    *,
    memory: int,
    deadline: float | None,
    late: Callable[[], bool],
) -> dict[str, Interval]:
    """Bounds of all nodes within `known`, those of neurons that bend by parabolas over the first layer."""
    layer, room = FirstLayer.of(Backward(network, region, known)), memory // torch.get_num_threads()

    def refine(backward: Backward, units: Units) -> Tensor:
        tilts = default_tilts(network, backward.known, units.index.shape[1], before=units.node)
        return _best(backward, layer, [units], tilts, _TURNS, late, NEURONS, room)

    return intermediate_bounds(network, region, memory, floor=known, refine=refine, deadline=deadline)


def curved_outputs(question: Question, known: Mapping[str, Interval]) -> Tensor:
    """Lower bounds ``(1, rows)`` of the question's rows, by lines and by parabolas over the first layer."""
    backward, starts = Backward(question.network, question.region, known), question.starts()
    tilts = default_tilts(question.network, known, question.objectives.shape[1])
    layer = FirstLayer.of(backward)
    return _best(backward, layer, starts, tilts, _LAST_TURNS, lambda: question.late, OUTPUTS, question.memory)
