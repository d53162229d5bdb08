"""Projected gradient descent for many starts, regions and disjuncts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.specs.region import Ball, Norm, Product, Region
from leaktight.verify.search.objective import Objective

PATIENCE = 4  # steps without a better loss before a row's step is halved
IDLE = 10  # steps without a notably better margin in any region before a descent ends


@dataclass(frozen=True, eq=False)
class Found:
    """The best point of each row, ``(rows, batch, n)``, and its margin ``(rows, batch)``."""

    points: Tensor
    margins: Tensor


def descend(
    objective: Objective,
    region: Region,
    starts: Tensor,
    targets: Tensor,
    *,
    steps: int,
    done: Callable[[Tensor], bool],
) -> Found:
    """Lowers the loss of disjunct ``targets (rows, batch)`` from ``starts (rows, batch, n)`` for so many steps.

    The schedule is that of Auto-PGD (Croce and Hein, 2020, arXiv:2003.01690), simplified: momentum, and per row a step
    that is halved, back at the row's best point, whenever the loss stagnates. The rows differ in how they move (see
    `displacement`) and in how they join the atoms of a conjunction (see `Objective.gradient`). After each evaluation
    `done` sees the best margins ``(rows, batch)`` so far and may end the descent; so does a lack of progress.
    """
    rows, batch, _ = starts.shape
    x, previous = starts, starts
    summed = (torch.arange(rows) // 2 % 2 == 1).unsqueeze(1).expand(rows, batch)
    power = torch.where(torch.arange(rows) % 2 == 1, 0.5, 0.0).to(x.dtype).reshape(-1, 1, 1)
    best = Found(x, x.new_full((rows, batch), torch.inf, dtype=torch.float64))
    anchor, lowest = x, best.margins  # the point with the lowest loss: what the row goes back to
    size = x.new_full((rows, batch, 1), 0.25)
    stale = torch.zeros(rows, batch, dtype=torch.long)
    idle = torch.zeros(batch, dtype=torch.long)
    for step in range(steps + 1):
        loss, margin, gradient = objective.gradient(x, targets, summed)
        idle = torch.where(margin.amin(0) < _notably_below(best.margins.amin(0)), 0, idle + 1)
        best = Found(_pick(margin < best.margins, x, best.points), torch.minimum(margin, best.margins))
        if step == steps or bool((idle >= IDLE).all()) or done(best.margins):
            break
        better = loss < lowest
        anchor, lowest = _pick(better, x, anchor), torch.minimum(loss, lowest)
        stale = torch.where(better, 0, stale + 1)
        tired = stale >= PATIENCE
        size = torch.where(tired.unsqueeze(-1), size / 2, size)
        stale = torch.where(tired, 0, stale)
        moved = region.project(x + displacement(region, x, gradient, size, power))
        moved = region.project(x + 0.75 * (moved - x) + 0.25 * (x - previous))
        previous, x = x, _pick(tired, anchor, moved)
        previous = _pick(tired, anchor, previous)
    return best


def _notably_below(margins: Tensor) -> Tensor:
    return (margins - 1e-3 * margins.abs()).nan_to_num(nan=torch.inf)  # nothing yet: infinity


def _pick(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(condition.unsqueeze(-1), one, other)


def displacement(region: Region, x: Tensor, gradient: Tensor, size: Tensor, power: Tensor | float) -> Tensor:
    """A step against the gradient, of relative length `size` in the region's own geometry.

    Box: each coordinate moves ``size * width * |g_i w_i / max_j g_j w_j|^power``: the sign step for power 0. L2 ball:
    ``size`` diameters along the gradient. L1 ball: a `size` part of the way to the vertex that the gradient points at
    (Frank and Wolfe), which moves few coordinates, the steepest ones, each up to its wall. A product: both its parts,
    each in its own geometry.
    """
    if isinstance(region, Product):
        parts = zip((region.first, region.second), region.split(x), region.split(gradient), strict=True)
        return torch.cat([displacement(part, at, downhill, size, power) for part, at, downhill in parts], -1)
    if isinstance(region, Ball) and region.norm is Norm.L1:
        return size * (lowest_point(region, gradient) - x)
    if isinstance(region, Ball):
        blocked = ((gradient > 0) & (x <= region.lower)) | ((gradient < 0) & (x >= region.upper))
        free = gradient.masked_fill(blocked, 0)
        return -2 * size * region.radius.unsqueeze(-1) * free / _at_least_tiny(free.norm(dim=-1, keepdim=True))
    width = region.upper - region.lower
    slope = gradient * width
    steepness = (slope.abs() / _at_least_tiny(slope.abs().amax(-1, keepdim=True))) ** power
    return -size * width * slope.sign() * steepness


def lowest_point(region: Region, coefficients: Tensor) -> Tensor:
    """A point where the linear function ``a . x`` is lowest over each region, ``(rows, batch, n)`` like `coefficients`.

    By the envelope theorem it is the gradient of the minimum as a function of the coefficients.
    """
    a = coefficients.detach().transpose(0, 1).clone().requires_grad_()
    with torch.enable_grad():
        (point,) = torch.autograd.grad(region.minimum(a).sum(), a)
    return region.project(point.transpose(0, 1))


def _at_least_tiny(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
