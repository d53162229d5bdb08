"""LipSDP with one multiplier for each neuron, by Newton's method along the central path.

Nothing here is trusted: the multipliers go to leaktight.verify.lipschitz.certificate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import exp, log

import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import Point, Problem, Progress, derivatives, point, problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.descent import scaled

_GAP = 3e-7  # of the bound's square, relative, at which the path ends
_CENTRED = 0.3  # the square of the Newton decrement that is near enough to the path
_SURELY = 1 - 1e-6  # of a square that is enough
_DEEP = 8  # stages from which the scales of the stages are worth a search of their own
_BOLD = 2.0  # times as long as a step that is sure to fall
_USUAL = 15  # values of t
_STEPS = 60  # of Newton's method at one value of t, at most


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
    enough: float = 0.0,
) -> list[Array]:
    """Multipliers whose bound is the least, from feasible ones with the bound ``square ** 0.5``.

    After `deadline` (of time.monotonic) the best that was found so far. enough: a square of a bound; once it is
    reached, or as far as duality says never will be, no better multipliers are looked for.
    """
    asked = problem(network, multipliers, square)
    return asked.multipliers(least(asked, deadline, progress=progress, enough=enough / square)[1])


def least(
    asked: Problem,
    deadline: float | None = None,
    *,
    progress: Progress | None = None,
    enough: float = 0.0,
    gap: float = _GAP,
    scales: bool = True,
) -> tuple[float, Tensor]:
    """``rho`` and ``mu`` where ``rho`` is the least; no worse than the given multipliers, which are ones.

    gap: relatively, of ``rho``, at which the path ends. scales: of the stages, whether to search for them first.
    """
    best, found = torch.ones(sum(asked.sizes), dtype=torch.float64), 1.0
    if scales and len(asked.sizes) >= _DEEP:  # the path begins far from there
        rho, mu = scaled(asked, deadline)
        best, found = (mu, rho) if rho < found else (best, found)
    for place, (here, t) in enumerate(path(asked, deadline, gap)):
        if here.rho < found:
            best, found = here.mu, here.rho
        if found < _SURELY * enough or here.rho - asked.parameter / t > enough > 0:
            break
        if progress is not None:
            progress(place + 1, max(_USUAL, place + 2))
    return found, best


def path(asked: Problem, deadline: float | None = None, gap: float = _GAP) -> Iterator[tuple[Point, float]]:
    """Points near the central path and their ``t``, each closer to the optimum than the one before.

    From a point of the path, Newton's step for ``factor t`` points along the path and is ``factor`` times too long, as
    the path is about a straight line in ``1 / t``. The factor follows how many steps the last one took.
    """
    here: Point | None = point(asked, 2.0, torch.full((sum(asked.sizes),), 2.0, dtype=torch.float64))
    t, factor, spent = asked.parameter / 6.0, 1.0, 0.0
    while here is not None:
        length, steps = 1 / factor, 0
        while steps < _STEPS:
            began = time.monotonic()
            if deadline is not None and began + spent > deadline:
                yield here, t
                return
            here, decrement = newton(asked, here, t, length)
            spent = time.monotonic() - began
            steps, length = steps + 1, 1.0
            if decrement < _CENTRED:
                break
        yield here, t
        if asked.parameter / t < gap * here.rho:
            return
        factor = min(12.0, max(1.5, 5.0 if factor == 1.0 else factor * (1.5 if steps < 5 else 0.6 if steps > 8 else 1)))
        t *= factor


def newton(asked: Problem, here: Point, t: float, length: float = 1.0) -> tuple[Point, float]:
    """The point after one step of at most this length, and the square of the Newton decrement before it.

    Zero where no step helps.
    """
    gradient, hessian = derivatives(asked, here, t)
    unit = hessian.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(hessian * unit * unit.unsqueeze(1))
    if bool(failed):
        return here, 0.0
    step = -unit * torch.cholesky_solve((unit * gradient).unsqueeze(1), factor).squeeze(1)
    moved, decrement = _searched(asked, here, t, step, float(-(gradient @ step)), length)
    if length < 1:  # along the path
        other = _along(asked, here, step, length)
        if other is not None and t * other.rho + other.barrier < t * moved.rho + moved.barrier:
            moved = other
    return moved, decrement


def _along(asked: Problem, here: Point, step: Tensor, length: float) -> Point | None:
    """Where the path would lead if it were a straight line in logarithms: in deep networks it is nearer to one."""
    share = length * log(1 / length) / (1 - length)
    return point(asked, here.rho * exp(share * float(step[0]) / here.rho), here.mu * (share * step[1:] / here.mu).exp())


def _searched(
    asked: Problem, here: Point, t: float, step: Tensor, decrement: float, longest: float
) -> tuple[Point, float]:
    """A point along `step` where the function has fallen, not much farther than Newton's method is sure of.

    The barrier is self-concordant: a step of ``1 / (1 + decrement^(1/2))`` stays inside, and falls (Nesterov and
    Nemirovskii 1994). A few times as long is tried first. What goes farther may gain more at once, and ends in a corner
    from which Newton's method needs many steps, each of which would have to be looked for again.
    """
    now, length = t * here.rho + here.barrier, min(longest, _BOLD / (1 + max(decrement, 0.0) ** 0.5))
    while length > 1e-12:
        moved = point(asked, here.rho + length * float(step[0]), here.mu + length * step[1:])
        if moved is not None and t * moved.rho + moved.barrier < now:
            return moved, decrement
        length *= 0.5
    return here, 0.0
