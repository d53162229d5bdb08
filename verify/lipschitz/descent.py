"""LipSDP with one multiplier for each neuron, by L-BFGS: for networks whose Hessian would be too large.

A step costs one elimination and one way back, linear in the depth, where Newton's method needs a matrix of neurons by
neurons. Nothing here is trusted: the multipliers go to leaktight.verify.lipschitz.certificate.

What falls is the potential ``k log rho + barrier`` in the logarithms of ``rho`` and of all multipliers. Where it is
least, the point lies on the central path at ``t = k / rho``, so the bound's square is within ``parameter / k`` of the
optimum, relatively: the scale of the constant, which shrinks by orders of magnitude in deep networks, is no matter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf, log

import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import Problem, Progress, gradient, point, problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.quasi_newton import Function, descend

_SHARPNESS = (1.5, 4.0, 16.0, 64.0, 256.0, 1024.0)  # k, in units of the barrier's parameter
_ITERATIONS = 250
_MEMORY = 40
_ENOUGH = 1e-5  # of the potential, in units of k, in ten iterations


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> list[Array]:
    """Multipliers whose bound is about the least, from feasible ones with the bound ``square ** 0.5``.

    After `deadline` (of time.monotonic) the best that was found so far.
    """
    asked = problem(network, multipliers, square)
    best, least = torch.ones(sum(asked.sizes), dtype=torch.float64), 1.0  # the given ones, in their units
    at = _scaled(asked, deadline)
    for place, sharpness in enumerate(_SHARPNESS):
        weight = sharpness * asked.parameter
        at = descend(_potential(asked, weight), at, _ITERATIONS, deadline, enough=_ENOUGH * weight, memory=_MEMORY)
        rho, mu = _place(asked, at)
        if rho < least:
            best, least = mu, rho
        if progress is not None:
            progress(place + 1, len(_SHARPNESS))
        if deadline is not None and time.monotonic() > deadline:
            break
    return asked.multipliers(best)


def scaled(asked: Problem, deadline: float | None = None) -> tuple[float, Tensor]:
    """``rho`` and ``mu`` where each stage's multipliers are the given ones with a factor: quick, also where deep."""
    return _place(asked, _scaled(asked, deadline))


def _scaled(asked: Problem, deadline: float | None) -> Tensor:
    at = torch.cat([torch.zeros(len(asked.sizes) + 1), torch.full((sum(asked.sizes),), 2.0).log()]).double()
    at[0] = log(2.0)
    weight = _SHARPNESS[2] * asked.parameter
    return descend(_potential(asked, weight, of_stages=True), at, _ITERATIONS, deadline, enough=_ENOUGH * weight)


def _place(asked: Problem, at: Tensor) -> tuple[float, Tensor]:
    """``rho`` and ``mu``. The first variables are steps from stage to stage: each moves all that comes before it."""
    stages = len(asked.sizes)
    scale = at[: stages + 1].flip(0).cumsum(0).flip(0)
    own = at[stages + 1 :].split(asked.sizes)
    each = [part + shift for part, shift in zip(own, scale[1:], strict=True)]
    return float(scale[0].exp()), torch.cat(each).exp()


def _potential(asked: Problem, weight: float, of_stages: bool = False) -> Function:
    """of_stages: as if only the steps from stage to stage could move."""

    def function(at: Tensor) -> tuple[float, Tensor]:
        rho, mu = _place(asked, at)
        here = point(asked, rho, mu)
        if here is None:
            return inf, torch.zeros_like(at)
        by_rho, by_mu = gradient(asked, here)
        own = mu * by_mu
        steps = torch.stack([own.new_tensor(weight + rho * by_rho), *(part.sum() for part in own.split(asked.sizes))])
        return weight * log(rho) + here.barrier, torch.cat([steps.cumsum(0), 0 * own if of_stages else own])

    return function
