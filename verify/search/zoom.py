"""Zooming: repeated sampling around the best points, for regions with few inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leaktight.specs.region import Region
from leaktight.verify.search.descent import Found
from leaktight.verify.search.objective import Objective
from leaktight.verify.search.starts import samples

GENERATIONS = 12
ELITE = 512
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
    best = _elite(points, torch.cat([known.margins, objective.margins(points[len(known.points) :])]))
    width, copies = 0.5 * (region.upper - region.lower), max(1, count // (4 * ELITE))
    for _ in range(GENERATIONS):
        if done(best.margins):
            break
        width = SHRINK * width
        centres = best.points.repeat(copies, 1, 1)
        direction, share = (torch.rand(centres.shape, generator=generator, dtype=centres.dtype) for _ in range(2))
        near = region.project(centres + width * (2 * direction - 1) * share**2)
        best = _elite(torch.cat([best.points, near]), torch.cat([best.margins, objective.margins(near)]))
    return best


def _elite(points: Tensor, margins: Tensor) -> Found:
    first = margins.argsort(stable=True, dim=0)[:ELITE]
    batch = torch.arange(points.shape[1]).expand(first.shape)
    return Found(points[first, batch], margins[first, batch])
