"""Question: what a bounding engine is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Region
from leaktight.verify.bounds.rows import Rows, is_whole, rows_on_outputs


@dataclass(frozen=True)
class Question:
    """Lower bounds are wanted of ``objectives @ y`` over the regions: ``(batch, rows, outputs)``.

    memory: a cap in bytes. target ``(batch, rows)``: rows above it are good enough. deadline: time.monotonic() after
    which to stop. every: nothing is gained before every row of a region is above its target.
    """

    network: Network
    region: Region
    objectives: Tensor
    memory: int
    target: Tensor | None = None
    deadline: float | None = None
    every: bool = False

    def starts(self) -> list[Rows]:
        """The objectives as rows on the output nodes."""
        return rows_on_outputs(self.network, self.objectives)

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def still_open(self, bounds: Tensor) -> Tensor:
        """Which rows are not above the target (all, where there is none)."""
        return torch.ones_like(bounds, dtype=torch.bool) if self.target is None else bounds <= self.target

    def select(self, index: Tensor | slice) -> Question:
        """The question about the regions at `index` of the batch."""
        if is_whole(index, self.region.batch):
            return self
        target = None if self.target is None else self.target[index]
        return replace(self, region=self.region.select(index), objectives=self.objectives[index], target=target)

    def rows(self, part: slice) -> Question:
        """The question about some of the rows."""
        target = None if self.target is None else self.target[:, part]
        return replace(self, objectives=self.objectives[:, part], target=target)
