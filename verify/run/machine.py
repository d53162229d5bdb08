"""What this machine offers: cores and memory, within the limits of the container that this runs in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LEAST = 1 << 30
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def cores() -> int:
    """How many processes can compute at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_of_each(workers: int) -> int:
    """Four fifths of the memory that is free now, divided among the workers; at least what one needs to start."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        free = min(free, int(_CONTAINER.read_text()))
    return max(_LEAST, free * 4 // 5 // workers)
