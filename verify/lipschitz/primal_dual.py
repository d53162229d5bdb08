"""LipSDP with one multiplier for each neuron, by a primal-dual interior point method: some fifteen steps.

The first steps are made in float32, which costs half as much, until the gap is as small as that can tell. Nothing here
is trusted: the multipliers go to leaktight.verify.lipschitz.certificate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import Problem, Progress, problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.primal_dual_step import Newton, Point, begun, sharpened
from leaktight.verify.lipschitz.unrolled import Matrices

_GAP = 2e-6  # relatively, of the bound's square, at which the search ends: a millionth of the bound
_STEPS = 60
_SHORT = 1e-4  # a step after which nothing is expected any more
_SURELY = 1 - 1e-6  # of a square that is enough
_USUAL = 16  # steps
_ROUGH = 2e-3  # relatively, of the bound's square: a gap that float32 can tell
_KEPT = 3  # points from which the search goes on in float64, where the last is none there


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
    enough: float = 0.0,
    gap: float = _GAP,
) -> list[Array]:
    """Multipliers whose bound is the least, from feasible ones with the bound ``square ** 0.5``.

    After `deadline` (of time.monotonic) the best that was found so far. enough: a square of a bound; once it is
    reached, or as far as duality says never will be, no better multipliers are looked for. gap: of the bound's square,
    relatively, at which the search ends.
    """
    asked = problem(network, multipliers, square)
    return asked.multipliers(least(asked, deadline, progress=progress, enough=enough / square, gap=gap)[1])


def least(
    asked: Problem,
    deadline: float | None = None,
    *,
    progress: Progress | None = None,
    enough: float = 0.0,
    gap: float = _GAP,
) -> tuple[float, Tensor]:
    """``rho`` and ``mu`` where ``rho`` is the least; no worse than the given multipliers, which are ones."""
    search = _Search(Matrices.of(asked), enough, gap, deadline, progress)
    here = begun(search.matrices)
    here = None if here is None else search.ended(search.rough(here))
    if here is None or here.rho >= 1:
        return 1.0, torch.ones(sum(asked.sizes), dtype=torch.float64)
    return here.rho, here.mu


@dataclass
class _Search:
    """Steps until the gap is small, the bound's square at most `wanted`, or the time over."""

    matrices: Matrices
    wanted: float
    gap: float
    deadline: float | None
    progress: Progress | None
    steps: int = 0
    began: float | None = None  # the last step

    def ended(self, here: Point) -> Point:
        length = 1.0
        while self._goes_on(here, self.gap, length):
            newton = Newton(self.matrices, here)
            found = None if newton.least > self.wanted > 0 else newton.moved()
            if found is None:
                break
            here, length = self._told(found)
        return here

    def rough(self, here: Point) -> Point:
        """A point with a gap that numbers of half the length still see, for half the cost; feasible in full length."""
        matrices, points, length = self.matrices.to(torch.float32), [here.to(torch.float32)], 1.0
        while self._goes_on(points[-1], max(_ROUGH, self.gap), length):
            newton = Newton(matrices, points[-1])
            found = None if newton.least * (1 - _ROUGH) > self.wanted > 0 else newton.moved()
            if found is None:
                break
            point, length = self._told(found)
            points = [*points[-_KEPT:], point]
        sharp = (sharpened(self.matrices, point) for point in reversed(points))
        return next((point for point in sharp if point is not None), here)

    def _told(self, found: tuple[Point, float]) -> tuple[Point, float]:
        self.steps += 1
        if self.progress is not None:
            self.progress(self.steps, max(_USUAL, self.steps + 1))
        return found

    def _goes_on(self, here: Point, gap: float, length: float) -> bool:
        began, self.began = self.began, time.monotonic()
        if self.deadline is not None and 2 * self.began - (began or self.began) > self.deadline:  # a step more
            return False
        if self.steps == _STEPS:
            return False
        return length >= _SHORT and here.gap >= gap * here.rho and here.rho >= self.wanted * _SURELY
