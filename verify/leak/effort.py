"""What bounding over segments of slopes may use, and what it need not find again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from leaktight.verify.bounds.interval import Interval


@dataclass(frozen=True)
class Effort:
    """What bounding may use: `optimise` turns the lines of relaxations; deadline of time.monotonic()."""

    optimise: bool = False
    memory: int | None = None
    deadline: float | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline


PLAIN = Effort()


@dataclass(frozen=True)
class Floor:
    """Bounds that are known already, of nodes in front of activations over larger regions and ranges of slopes.

    Neurons that they show stable need no bounds of their own any more. `owner` ``(batch,)``: which row of `known` holds
    for each region that is asked about.
    """

    known: Mapping[str, Interval]
    owner: Tensor

    def select(self, part: slice) -> Mapping[str, Interval]:
        return {name: interval.select(self.owner[part]) for name, interval in self.known.items()}
