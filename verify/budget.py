"""What an answer may use: time, memory, the arithmetic of bounds and where it runs, and how much attacks may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from leaktight.errors import UsageError
from leaktight.verify.device import CPU, Device
from leaktight.verify.search.attack import EFFORT


@dataclass(frozen=True)
class Budget:
    """What a proof may use. `deadline`: time.monotonic() after which to stop, or None; `effort`: the attack's."""

    deadline: float | None
    dtype: torch.dtype
    memory: int | None
    seed: int
    effort: float = EFFORT
    device: Device = CPU

    @classmethod
    def starting_now(
        cls, timeout: float | None, dtype: torch.dtype, memory: int | None, seed: int, device: str | Device = CPU
    ) -> Budget:
        """Raises UsageError: the timeout or the memory cap is not a positive number, or there is no such device."""
        if timeout is not None and not timeout > 0:
            raise UsageError(f"--timeout must be a positive number of seconds; got {timeout}")
        if memory is not None and memory <= 0:
            raise UsageError(f"--memory must be a positive number of bytes; got {memory}")
        found = Device.named(device)
        return cls(None if timeout is None else time.monotonic() + timeout, dtype, memory, seed, device=found)

    def first_part(self) -> Budget:
        """The same with a third of the time that is left: what a first stage may use before others have had a turn."""
        now = time.monotonic()
        return self if self.deadline is None else replace(self, deadline=now + (self.deadline - now) / 3)

    def share(self, parts: int) -> float | None:
        """The deadline of the first of so many parts that share what time is left."""
        now = time.monotonic()
        return None if self.deadline is None else now + (self.deadline - now) / parts

    @property
    def spent(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline
