"""L-BFGS: minima of functions of many variables from their gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import isfinite

from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]
"""A value and its gradient; the value is infinite where the function is not defined."""

_MEMORY = 20
_ENOUGH = 1e-6  # of the value, in ten iterations


def descend(
    function: Function,
    point: Tensor,
    iterations: int,
    deadline: float | None = None,
    *,
    enough: float = _ENOUGH,
    memory: int = _MEMORY,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """A point with a smaller value, by L-BFGS with steps halved until the value falls.

    It ends after so many iterations, at the deadline (of time.monotonic), or where ten of them gain less than `enough`;
    at once where the function is not defined at the point.
    progress: told how many iterations are done.
    """
    here, slope = function(point)
    if not isfinite(here):
        return point
    pairs: list[tuple[Tensor, Tensor]] = []
    history = [here]
    for done in range(iterations):
        if progress is not None:
            progress(done)
        if deadline is not None and time.monotonic() > deadline:
            break
        direction = -_turned(slope, pairs)
        if float(direction @ slope) >= 0:
            pairs.clear()
            direction = -slope
        size = min(1.0, 1.0 / max(1e-300, float(direction.abs().max())))
        for _ in range(25):
            if deadline is not None and time.monotonic() > deadline:
                return point
            then, its_slope = function(point + size * direction)
            if then <= here + 1e-4 * size * float(direction @ slope):
                break
            size /= 2
        else:
            break
        change, bend = size * direction, its_slope - slope
        if float(change @ bend) > 1e-12 * float(change.norm() * bend.norm()):
            pairs = [*pairs[1 - memory :], (change, bend)]
        point, here, slope = point + change, then, its_slope
        history.append(here)
        if len(history) > 10 and history[-11] - here < enough:
            break
    return point


def _turned(slope: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The two loops of L-BFGS (Nocedal 1980): an approximate inverse Hessian times `slope`."""
    kept, found = list[float](), slope
    for change, bend in reversed(pairs):
        kept.append(float(change @ found) / float(change @ bend))
        found = found - kept[-1] * bend
    if pairs:
        change, bend = pairs[-1]
        found = found * (float(change @ bend) / float(bend @ bend))
    for (change, bend), share in zip(pairs, reversed(kept), strict=True):
        found = found + change * (share - float(bend @ found) / float(change @ bend))
    return found
