"""Zooming: repeated sampling around the best points, for regions with few inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leaktight.specs.region import Region
from leaktight.verify.search.descent import Found
from leaktight.verify.search.objective import Objective
from leaktight.verify.search.starts import random, samples

GENERATIONS = 12
ELITE = 512  # at most so many points survive a generation
SHRINK = 0.6


def zoom(
    objective: Objective,
    region: Region,
    known: Found,
    *,
    count: int,
    generator: torch.Generator,
    done: Callable[[Tensor], bool],
) -> Found:
    """The best of `count` random points, then of points around the best ones in ever smaller neighbourhoods.

    It needs no gradient, so neither flat pieces nor the ridges of a conjunction stop it, and it keeps hundreds of
    basins alive at once. `known` ``(rows, batch, n)`` take part. `done` sees the best margins ``(rows, batch)`` after
    each generation and may end the search.
    """
    points = torch.cat([known.points, samples(region, count, generator)])
    elite = max(1, min(ELITE, count // 16))
    best = _best(points, torch.cat([known.margins, objective.margins(points[len(known.points) :])]), elite)
    width, copies = 0.5 * (region.upper - region.lower), max(1, count // (4 * elite))
    for _ in range(GENERATIONS):
        if done(best.margins):
            break
        width = SHRINK * width
        centres = best.points.repeat(copies, 1, 1)
        direction, share = (random(centres.shape, generator, centres) for _ in range(2))
        near = region.project(centres + width * (2 * direction - 1) * share**2)
        best = _best(torch.cat([best.points, near]), torch.cat([best.margins, objective.margins(near)]), elite)
    return best


def _best(points: Tensor, margins: Tensor, count: int) -> Found:
    first = margins.argsort(stable=True, dim=0)[:count]
    batch = torch.arange(points.shape[1]).expand(first.shape)
    return Found(points[first, batch], margins[first, batch])
