"""How a question about the leak is to be answered: what users may choose, checked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from leaktight.errors import UsageError
from leaktight.models.slopes import check_range
from leaktight.verify.device import CPU, Device
from leaktight.verify.leak.plan import Plan, Progress
from leaktight.verify.leak.signs import Branching

ENGINES = ("auto", "crown", "alpha-crown", "branch")
MEANINGS = ("shared", "independent")
SEARCHES = {
    "auto": {"boxes": Branching(2.0**-9, 8192), "neurons": Branching(2.0**-6, 512)},
    "branch": {"boxes": Branching(2.0**-12, raises=200_000), "neurons": Branching(2.0**-12)},
}
TOLERANCE = 0.05


@dataclass(frozen=True)
class Ways:
    """How a leak question is answered; see `leak`."""

    slopes: tuple[float, float]
    tolerance: float = TOLERANCE
    nodes: Iterable[str] | None = None
    meaning: str = "shared"
    engine: str = "auto"
    timeout: float | None = None
    memory: int | None = None
    seed: int = 0
    progress: Progress | None = None
    lipschitz: bool | None = None
    device: str | Device = CPU

    def __post_init__(self) -> None:
        check_range(self.slopes)
        if not (isfinite(self.tolerance) and self.tolerance > 0):
            raise UsageError(f"--tolerance must be a positive number; got {self.tolerance}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"--timeout must be a positive number of seconds; got {self.timeout}")
        for option, word, allowed in (("--leak", self.meaning, MEANINGS), ("--engine", self.engine, ENGINES)):
            if word not in allowed:
                raise UsageError(f"{option}: {word!r} is not known; allowed: {', '.join(allowed)}")
        if self.meaning == "independent" and self.engine == "branch":
            raise UsageError("--engine branch: it searches for one slope that all neurons share; leave --leak out")

    def plan(self) -> Plan:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        return Plan(
            tolerance=self.tolerance,
            optimise=self.engine != "crown",
            boxes=self.engine == "auto",
            memory=self.memory,
            deadline=deadline,
            seed=self.seed,
        )
