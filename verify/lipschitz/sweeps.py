"""LipSDP with one multiplier for each neuron in deep networks: some stages at a time, in sweeps from first to last.

With the multipliers of all other stages fixed, what comes before some stages is an ellipsoid ``Q`` of their first state
(leaktight.verify.lipschitz.ellipsoid; its ``T``, which is ``rho`` over the multipliers, is what stays fixed there),
what comes behind is a form ``P`` of their last one (leaktight.verify.lipschitz.certificate), and LipSDP is the same
problem about these stages alone: the least ``rho`` with ``rho Q^(-1) - P_0 >= 0``, where ``P_0`` is what their
multipliers make of ``P``. So no window makes the bound larger, and a sweep costs as much as the network is deep, where
a method for all neurons at once costs a power of it.

Sweeps might end in a corner, where no window can do anything alone (the largest eigenvalue is not smooth). Windows
overlap, and the first sweeps solve them roughly, from a point far inside, so that all multipliers come down together:
with gaps from three of the bound's square on 64 stages end within 1e-4 of the optimum, and with a gap of 0.03 at once
at 2.6 times it. Nothing here is trusted: the multipliers go to leaktight.verify.lipschitz.certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz import primal_dual
from leaktight.verify.lipschitz.barrier import Problem, Progress, problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.ellipsoid import NotContained

_SWEEPS = ((3.0, 256), (1.0, 256), (0.3, 256), (0.1, 256), (0.03, 256), (0.01, 256), (1e-3, 512), (1e-4, 512))
"""Of every sweep the gap to which a window is solved, of the bound's square, relatively, and about its neurons."""
_LEAST, _MOST = 2, 16  # stages of a window; its matrices multiply all of them out, which ends in roundings
_ROUGH = 0.1  # a gap from which it may be that a sweep gains nothing, and the next one does
_ENOUGH = 1e-6  # of the bound's square, relatively: a sweep that gains less is the last


Plan = Sequence[tuple[float, int]]
Solve = Callable[..., tuple[float, Tensor]]
"""From a problem, a deadline and ``gap`` to ``rho`` and ``mu``, as leaktight.verify.lipschitz.primal_dual.least."""


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> list[Array]:
    """Multipliers with a smaller bound, from feasible ones with the bound ``square ** 0.5``.

    After `deadline` (of time.monotonic) the best that was found so far.
    """
    asked = problem(network, multipliers, square)
    return asked.multipliers(least(asked, _SWEEPS, primal_dual.least, deadline, progress)[1])


def least(
    asked: Problem, plan: Plan, solve: Solve, deadline: float | None = None, progress: Progress | None = None
) -> tuple[float, Tensor]:
    """``rho`` and ``mu`` after the sweeps of a plan; no worse than the given multipliers, which are ones."""
    search = _Search(asked, solve, deadline, progress)
    search.steps = sum(len(windows(asked.sizes, together)) for _, together in plan)
    for gap, together in plan:
        before = search.rho
        try:
            search.sweep(gap, together)
        except NotContained:  # by a rounding; what stands there was feasible
            break
        if search.late or (gap < _ROUGH and search.rho > before * (1 - _ENOUGH)):
            break
    if search.rho >= 1:
        return 1.0, torch.ones(sum(asked.sizes), dtype=torch.float64)
    return search.rho, torch.cat(search.mu)


def windows(sizes: Sequence[int], together: int) -> list[slice]:
    """Stages that are solved for at once, with so many neurons if these are a few; half are in the next window, too."""
    found, begin = list[slice](), 0
    while True:
        end = min(begin + _LEAST, len(sizes))
        while end < min(begin + _MOST, len(sizes)) and sum(sizes[begin : end + 1]) <= together:
            end += 1
        found.append(slice(begin, end))
        if end == len(sizes):
            return found
        begin += (end - begin) // 2


class _Search:
    """A feasible point, window by window a better one: the bound's square `rho`, and all multipliers, by stage."""

    def __init__(self, asked: Problem, solve: Solve, deadline: float | None, progress: Progress | None) -> None:
        self.asked, self.solve, self.deadline, self.progress = asked, solve, deadline, progress
        self.rho, self.mu = 2.0, [torch.full((size,), 2.0, dtype=torch.float64) for size in asked.sizes]
        self.done = self.steps = 0

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def sweep(self, gap: float, together: int) -> None:
        """Every window once, from the first to the last. Raises NotContained."""
        forms, spread, at = self._forms(), self.asked.root @ self.asked.root.mH, 0
        for place in windows(self.asked.sizes, together):
            if self.late:
                return
            while at < place.start:
                spread, at = self._behind(at, spread), at + 1
            part = self._part(place, spread, forms[place.stop])
            factor, own = self.solve(part, self.deadline, gap=gap)
            if factor < 1:
                self._take(place, factor, own.split(part.sizes))
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.steps)

    def _take(self, place: slice, factor: float, own: Sequence[Tensor]) -> None:
        """In front of the window ``T`` stays, so the multipliers fall with ``rho``; behind it they stay themselves."""
        self.rho *= factor
        self.mu[: place.start] = [mu * factor for mu in self.mu[: place.start]]
        self.mu[place] = [mu * by for mu, by in zip(self.mu[place], own, strict=True)]

    def _forms(self) -> list[Tensor]:
        """``P`` behind every number of stages."""
        found = [self.asked.end]
        for (weight, through, feed), mu in zip(reversed(self.asked.stages), reversed(self.mu), strict=True):
            across = found[-1] @ feed
            spill = _halved(torch.diag(mu) - feed.mH @ across, across.mH @ through)
            form = through.mH @ found[-1] @ through + spill.mH @ spill + weight.mH @ (mu.unsqueeze(1) * weight)
            found.append((form + form.mH) / 2)
        return found[::-1]

    def _behind(self, k: int, spread: Tensor) -> Tensor:
        """``Q`` behind stage `k`, from what it is in front of it."""
        (weight, through, feed), scale = self.asked.stages[k], self.rho / self.mu[k]
        seen = spread @ weight.mH
        spill = _halved(torch.diag(scale) - weight @ seen, (through @ seen).mH)
        found = through @ spread @ through.mH + spill.mH @ spill + (feed * scale) @ feed.mH
        return (found + found.mH) / 2

    def _part(self, place: slice, spread: Tensor, form: Tensor) -> Problem:
        """The problem about some stages, in units that make their multipliers and `rho` ones."""
        values, vectors = torch.linalg.eigh(spread)
        root = vectors * values.clamp(min=1e-15 * float(values.max())).sqrt().unsqueeze(-2)
        units = [(mu / self.rho).sqrt() for mu in self.mu[place]]
        stages = tuple(
            (weight * unit.unsqueeze(1), through, feed / unit)
            for (weight, through, feed), unit in zip(self.asked.stages[place], units, strict=True)
        )
        return Problem(root, stages, form / self.rho, tuple(mu.numpy() for mu in self.mu[place]), self.rho)


def _halved(gap: Tensor, right: Tensor) -> Tensor:
    """``G^(-1) right`` with ``G G^T = gap``. Raises NotContained: the gap is not positive, or out of range."""
    lower, failed = torch.linalg.cholesky_ex(gap)
    found: Tensor = torch.linalg.solve_triangular(lower, right, upper=False)
    if bool(failed.any()) or not bool(torch.isfinite(found).all()):
        raise NotContained
    return found
