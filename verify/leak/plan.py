"""How a curve is traced, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.stages import PIECES

_TRACING = 0.85  # of the time: to trace; the rest is for replays, the shift and constants
_HALVING = 0.85  # of the time to trace: to halve; the rest is for what inputs attain between slopes
LIGHT: dict[str, Any] = {"restarts": 2, "samples": 4, "steps": 10}
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a curve is traced.

    tolerance: of the gap, in units of the margin. optimise: turn the lines of relaxations where the sign is open.
    boxes: halve boxes too where inputs are few. first: segments to begin with. most: domains of one region. deadline:
    of time.monotonic(). attack: look for what inputs attain; without it, what halving may gain counts as the gap.
    """

    tolerance: float = 0.05
    optimise: bool = True
    boxes: bool = True
    first: int = PIECES
    most: int = 4096
    memory: int | None = None
    deadline: float | None = None
    seed: int = 0
    attack: bool = True

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @property
    def tracing(self) -> Plan:
        """The plan of tracing alone, from now on: some of the time is for what follows from the curve."""
        return self._part(_TRACING)

    @property
    def halving(self) -> Plan:
        """The plan of halving segments alone, from now on."""
        return self._part(_HALVING)

    def _part(self, share: float) -> Plan:
        now = time.monotonic()
        return self if self.deadline is None else replace(self, deadline=now + share * (self.deadline - now))

    def effort(self, optimise: bool) -> Effort:
        return Effort(optimise, self.memory, self.deadline)
