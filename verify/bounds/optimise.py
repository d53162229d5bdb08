"""Optimised slopes (alpha-CROWN, Xu et al. 2021, arXiv:2011.13824).

Wherever a kink leaves a line free to turn, any turn gives a proof; gradient ascent looks for the turns that give the
best one. Every value that is kept was computed with all error terms, so a poor search loosens it and never breaks it.

Two stages. The first turns the lines of the last pass alone, one set of turns a row, against fixed intermediate bounds:
cheap. The second turns the lines behind the intermediate bounds too (one set for all neurons of a layer), for the
regions that are still open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Region
from leaktight.verify import relax
from leaktight.verify.bounds.backward import Backward, Rows
from leaktight.verify.bounds.interval import Interval


@dataclass(frozen=True)
class Schedule:
    """How long and how boldly to search: `steps` ascent steps of size `rate`, decaying by `decay` each."""

    steps: int = 20
    rate: float = 0.25
    decay: float = 0.93


class Ascent:
    """Adam on tensors that stay in [0, 1]; moves each parameter to raise the sum of what is asked."""

    def __init__(self, parameters: Mapping[str, Tensor], schedule: Schedule) -> None:
        self.values = dict(parameters)
        for value in self.values.values():
            value.requires_grad_(True)
        self.optimiser = torch.optim.Adam(list(self.values.values()), lr=schedule.rate, maximize=True)
        self.decay = torch.optim.lr_scheduler.ExponentialLR(self.optimiser, schedule.decay)

    def step(self, gain: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        gain.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.decay.step()
        with torch.no_grad():
            for value in self.values.values():
                value.clamp_(0, 1)


def start_tilts(network: Network, known: Mapping[str, Interval], rows: int) -> dict[str, Tensor]:
    """The default turn of every free line, once for each row: ``(batch, rows, *shape)`` by activation."""
    tilts = {}
    for node in network:
        if relax.has_tilt(node.op) and node.inputs[0] in known:
            z = known[node.inputs[0]]
            if not bool(relax.is_linear_on(node.op, z.lower, z.upper).all()):  # type: ignore[arg-type]
                first = relax.default_tilt(node.op, z.lower, z.upper).unsqueeze(1)  # type: ignore[arg-type]
                tilts[node.name] = first.expand(-1, rows, *node.shape).contiguous()
    return tilts


def optimised(network: Network, region: Region, starts: list[Rows], known: Mapping[str, Interval], floor: Tensor,
              *, schedule: Schedule, target: Tensor | None, deadline: float | None) -> Tensor:
    """Lower bounds ``(batch, rows)`` of the rows, at least `floor`, by turning the lines of the last pass.

    Stops early when every row is above `target` (same shape), or when `deadline` (time.monotonic) has passed.
    """
    tilts = start_tilts(network, known, floor.shape[1])
    if not tilts:
        return floor
    ascent, best = Ascent(tilts, schedule), floor
    with torch.enable_grad():
        for _ in range(schedule.steps):
            value = Backward(network, region, known, ascent.values).lower(*starts)
            best = torch.maximum(best, value.detach())
            done = best > target if target is not None else torch.zeros_like(best, dtype=torch.bool)
            if bool(done.all()) or (deadline is not None and time.monotonic() > deadline):
                break
            useful = torch.isfinite(value) & ~done
            if not bool(useful.any()):
                break
            ascent.step(value[useful].sum())
    return best
