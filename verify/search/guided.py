"""Where to look for a counterexample: the point at which a mixed-integer program says that the margin is least."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.linear_program import Linearised

if TYPE_CHECKING:
    from leaktight.verify.bounds.mixed_integer import Guide

PATIENCE, LEAST = 10.0, 1.0  # seconds for it, at most, and what makes it worth asking
_CLAIMED = 1e-6  # a margin that is claimed to be so small may be none


def claimed_unsafe(
    linear: Linearised, known: Mapping[str, Interval], unsafe: Unsafe, *, seconds: float, seed: int
) -> Tensor | None:
    """A point ``(1, n)`` that a solver takes for unsafe: nothing is proved. None: it has none in time.

    linear and known: the network over one region, and bounds of its nodes there. unsafe: of a single disjunct.
    """
    from leaktight.verify.bounds.mixed_integer import guide

    within = min(seconds, PATIENCE)
    found = _in_time(lambda: guide(linear, known, unsafe, 0, seconds=within, seed=seed), seconds + 0.1)
    if found is None or found.point is None or found.claimed is None or found.claimed > _CLAIMED:
        return None
    return torch.from_numpy(found.point).unsqueeze(0)


def _in_time(work: Callable[[], Guide], seconds: float) -> Guide | None:
    """What `work` returns, if it does so in time: a thread that is late is left alone, so that Ctrl-C is heard too."""
    found: list[Guide] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)  # the end of the process does not wait
    end = time.monotonic() + seconds
    thread.start()
    while thread.is_alive() and time.monotonic() < end:
        thread.join(0.05)
    return found[0] if found else None
