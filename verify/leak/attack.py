"""The search for inputs and slopes with a low margin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box, Product
from leaktight.verify.leak.attained import Lowest, attained
from leaktight.verify.leak.joint import with_slope_input
from leaktight.verify.search import starts as begin
from leaktight.verify.search.descent import Found, descend
from leaktight.verify.search.objective import Objective, values

MEMORY = 256 * 2**20
LEAK = 0.1  # of the derivative in every second descent, where slopes below it are searched


def search(
    slopes: Slopes,
    case: Case,
    lo: Tensor,
    hi: Tensor,
    *,
    starts: Tensor | None = None,
    restarts: int = 4,
    samples: int = 16,
    steps: int = 30,
    seed: int = 0,
    deadline: float | None = None,
    memory: int = MEMORY,
) -> Lowest:
    """Inputs and slopes with a low margin: for each region of the case, an input in it and a slope in ``[lo, hi]``.

    The slope is one more input, and projected gradients move all of them together; where ``lo == hi`` it stands still.
    Of the centre, `samples` random points, the corners that a linear model points at and `starts` ``(rows, batch, n)``,
    each tried at both ends of the slopes as well, the best `restarts` descend, towards the most promising disjuncts in
    turn. Computed in float32 where the network's inputs are float32. `deadline` (of time.monotonic) ends the descents.
    The same seed gives the same result unless the deadline cuts it short.

    Returns: the best of what was found, by rigorous bounds (`attained`) of the few best candidates.
    """
    if not case.unsafe.disjuncts:  # nothing is unsafe
        middle = case.region.project(begin.centre(case.region)[0].double())
        return Lowest(middle, lo.double(), attained(slopes, case, middle, lo.double()))
    dtype = torch.float32 if all(port.dtype == "float32" for port in slopes.network.inputs) else torch.float64
    nets = _networks(slopes, float(torch.minimum(lo.abs(), hi.abs()).amin()), dtype)
    room = max(1, int(memory // (4 * dtype.itemsize * values(nets[0]))))
    group = max(1, room // max(restarts, samples))
    found = []
    for first in range(0, case.region.batch, group):
        part = slice(first, first + group)
        some = Case(case.region.select(part), case.unsafe.select(part))
        given = None if starts is None else starts[:, part]
        plan = _Plan(nets, restarts, samples, steps, seed, deadline, room)
        found.append(_searched(slopes, some, lo[part].double(), hi[part].double(), given, plan, dtype))
    return _joined(found)


def _joined(parts: list[Lowest]) -> Lowest:
    return Lowest(*(torch.cat(x) for x in zip(*((p.points, p.slopes, p.upper) for p in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class _Plan:
    networks: tuple[Network, ...]
    restarts: int
    samples: int
    steps: int
    seed: int
    deadline: float | None
    room: int

    def done(self, margins: Tensor) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def _networks(slopes: Slopes, least: float, dtype: torch.dtype) -> tuple[Network, ...]:
    leaks = (0.0, LEAK) if least < LEAK else (0.0,)
    return tuple(with_slope_input(slopes, leak).to(dtype) for leak in leaks)


def _searched(
    slopes: Slopes, case: Case, lo: Tensor, hi: Tensor, given: Tensor | None, plan: _Plan, dtype: torch.dtype
) -> Lowest:
    low, high = lo.to(dtype).unsqueeze(-1), hi.to(dtype).unsqueeze(-1)
    region = Product(case.region.to(dtype), Box(torch.minimum(low, high), torch.maximum(low, high)))
    objective = Objective(plan.networks[0], case.unsafe, plan.room)
    generator = torch.Generator().manual_seed(plan.seed)
    points = _survey(objective, region, given, plan.samples, generator)
    losses = objective.losses(objective.atoms(points))
    best = [Found(points, losses.amin(-1))]
    many = plan.restarts
    for turn, network in enumerate(plan.networks):
        if plan.done(losses):
            break
        at, target = begin.deal(points, losses, range(turn * many, (turn + 1) * many))
        moving = Objective(network, case.unsafe, plan.room)
        best.append(descend(moving, region, at, target, steps=plan.steps, done=plan.done))
    return _settled(slopes, case, lo, hi, best)


def _survey(
    objective: Objective, region: Product, given: Tensor | None, samples: int, generator: torch.Generator
) -> Tensor:
    """Where to start: ``(rows, batch, n + 1)``."""
    low, high = region.second.lower, region.second.upper
    rows = [region.project(begin.centre(region)), begin.samples(region, samples, generator)]
    if given is not None:
        rows.append(torch.cat([given.to(low.dtype), (low / 2 + high / 2).expand(len(given), -1, -1)], -1))
    if not bool((low < high).any()):
        return torch.cat([*rows, _corners(objective, region)])
    for a in (low, high):  # everything at both ends of the slopes as well
        still = Product(region.first, Box(a, a))
        rows.append(_corners(objective, still))
        rows += [still.project(x) for x in rows[: 2 + (given is not None)]]
    return torch.cat(rows)


def _corners(objective: Objective, region: Product) -> Tensor:
    """The inputs that linear models of the most promising disjuncts point at, from the middle."""
    losses = objective.losses(objective.atoms(region.project(begin.centre(region))))
    return begin.corners(objective, region, begin.promising(losses)[:4])


def _settled(slopes: Slopes, case: Case, lo: Tensor, hi: Tensor, found: list[Found], few: int = 2) -> Lowest:
    """The best by rigorous bounds, of the `few` best candidates of each region, moved into region and range."""
    points, margins = torch.cat([f.points for f in found]).double(), torch.cat([f.margins for f in found])
    order = margins.argsort(stable=True, dim=0)[: min(few, len(margins))]
    batch = torch.arange(points.shape[1])
    best: Lowest | None = None
    for row in order:
        x, a = points[row, batch, :-1], points[row, batch, -1]
        x, a = case.region.project(x), torch.minimum(torch.maximum(a, lo), hi)
        candidate = Lowest(x, a, attained(slopes, case, x, a))
        best = candidate if best is None else best.better(candidate)
    if best is None:
        raise ValueError("a search that keeps no candidate finds nothing")
    return best


def along(slopes: Slopes, case: Case, at: Tensor, *, starts: Tensor | None = None, **effort: Any) -> Lowest:
    """Inputs with a low margin at several slopes ``(batch, k)`` in rising order, in one batch; `effort`: as `search`.

    What is found at one slope is tried at its neighbours: once as a start of further descents, and once as it stands.
    `starts` ``(rows, batch, n)`` are tried at every slope.

    Returns: tensors with two leading axes, ``(batch, k, ...)``.
    """
    regions, count = at.shape
    pick = torch.arange(regions).repeat_interleave(count)
    many = Case(case.region.select(pick), case.unsafe.select(pick))
    flat = at.double().flatten()
    given = None if starts is None else starts[:, pick]
    found = search(slopes, many, flat, flat, starts=given, **effort)
    if count > 1:
        shared = torch.stack([_neighbour(found.points, regions, count, step) for step in (-1, 1)])
        own = torch.cat([found.points.unsqueeze(0), shared])
        found = found.better(search(slopes, many, flat, flat, starts=own, **{**effort, "samples": 0}))
        for step in (-1, 1):
            near = _neighbour(found.points, regions, count, step)
            found = found.better(Lowest(near, flat, attained(slopes, many, near, flat)))
    shape = (regions, count)
    return Lowest(found.points.reshape(*shape, -1), found.slopes.reshape(shape), found.upper.reshape(shape))


def _neighbour(points: Tensor, regions: int, count: int, step: int) -> Tensor:
    """The points of the slope one place to the left or right; at the ends, of the slope itself."""
    place = (torch.arange(count) + step).clamp(0, count - 1)
    return points.reshape(regions, count, -1)[:, place].reshape(points.shape)
