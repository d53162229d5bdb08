"""Where an attack starts: random points, corners that a linear model points at, and a share for each disjunct."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.specs.region import Ball, Box, Region
from leaktight.verify.search.descent import lowest_point
from leaktight.verify.search.objective import Objective


def centre(region: Region) -> Tensor:
    """The middle of each region, ``(1, batch, n)``."""
    middle = region.centre if isinstance(region, Ball) else region.lower + (region.upper - region.lower) / 2
    return middle.unsqueeze(0)


def random(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Random numbers in [0, 1), the same ones on every device, in the dtype of `like` and where that is."""
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


def samples(region: Region, count: int, generator: torch.Generator) -> Tensor:
    """Random points of each region, ``(count, batch, n)``; in boxes every fourth is a corner."""
    if not isinstance(region, Box):
        many = region.select(torch.arange(region.batch).repeat(count))
        return many.sample(generator).reshape(count, *region.lower.shape)
    share = random((count, *region.lower.shape), generator, region.lower)
    share[::4] = share[::4].round()
    return region.project(region.lower + share * (region.upper - region.lower))


def corners(objective: Objective, region: Region, disjuncts: Tensor) -> Tensor:
    """Where in the region the linear model of each loss at the centre is lowest, for `disjuncts` ``(rows, batch)``."""
    middle = centre(region).expand(len(disjuncts), -1, -1)
    _, _, gradient = objective.gradient(middle, disjuncts, torch.zeros_like(disjuncts, dtype=torch.bool))
    return lowest_point(region, gradient)


def promising(losses: Tensor) -> Tensor:
    """The disjuncts ``(disjuncts, batch)`` by their lowest loss over all points, given ``(rows, batch, disjuncts)``."""
    return losses.amin(0).argsort(stable=True, dim=-1).mT


def deal(points: Tensor, losses: Tensor, slots: range) -> tuple[Tensor, Tensor]:
    """Starts and target disjuncts for the numbered slots of an attack: ``(slots, batch, n)`` and ``(slots, batch)``.

    The disjuncts take turns, the most promising first; each gets the points ``(rows, batch, n)`` in the order of its
    own losses ``(rows, batch, disjuncts)``.
    """
    order = promising(losses)
    ranked = losses.argsort(stable=True, dim=0)  # (rows, batch, disjuncts): point numbers
    slot = torch.arange(slots.start, slots.stop)
    target = order[slot % len(order)]
    rank = (slot // len(order) % len(points)).unsqueeze(1).expand(target.shape)
    batch = torch.arange(points.shape[1]).expand(target.shape)
    return points[ranked[rank, batch, target], batch], target
