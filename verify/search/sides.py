"""Which input a box is halved at: the one whose move from wall to wall changes the margin most."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.search.objective import Objective
from leaktight.verify.search.starts import random

_SAMPLES = 5  # points of a box at which derivatives are taken, the same shares of every box
_FLAT = 0.02  # of the steepest input's derivative: what every input's is taken for at least


class Sides:
    """The choice of a side, by the margin's derivatives at a few points of a box.

    room: how many points may be evaluated at once.
    """

    def __init__(self, network: Network, case: Case, room: int) -> None:
        self.network, self.case, self.room = network, case, room
        generator, inputs = torch.Generator().manual_seed(0), case.region.size
        scattered = random((_SAMPLES - 1, inputs), generator, case.region.lower.double())
        self.shares = torch.cat([torch.full((1, inputs), 0.5, dtype=torch.float64), scattered])

    def __call__(self, boxes: Boxes) -> Tensor:
        """The input ``(batch,)`` of each box. A flat margin says nothing of what the bounds depend on: there the width
        counts."""
        width = boxes.upper - boxes.lower
        points = boxes.lower + self.shares.unsqueeze(1) * width
        objective = Objective(self.network, self.case.unsafe.select(boxes.owner), self.room)
        losses = objective.losses(objective.atoms(points))
        alone = torch.zeros_like(losses[..., 0], dtype=torch.bool)
        steep = objective.gradient(points, losses.argmin(-1), alone)[2].abs().nan_to_num(0.0).mean(0)
        steep = steep + _FLAT * steep.amax(1, keepdim=True) + torch.finfo(steep.dtype).tiny
        return (steep * width).argmax(1)
