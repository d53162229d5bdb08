"""Attack: the search for inputs with the lowest margin, by sampling and projected gradient descent."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Box, Region
from leaktight.verify.search import starts as begin
from leaktight.verify.search.descent import Found, descend
from leaktight.verify.search.membership import grid
from leaktight.verify.search.objective import Objective, products, values

FEW_INPUTS = 20  # up to so many, random points cover a box well enough to be worth thousands of evaluations
EFFORT = 4e9  # multiplications that the default numbers of samples and of restarts may cost for each region
MEMORY = 512 * 2**20


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The best points found, float64 ``(batch, k, n)``, best first, and their margins ``(batch, k)``.

    The margins are computed in the network's own dtype: hints that await replay. `evaluations` counts the inputs that
    were evaluated.
    """

    points: Tensor
    margins: Tensor
    evaluations: int


def attack(
    network: Network,
    case: Case,
    *,
    seed: int = 0,
    restarts: int | None = None,
    steps: int = 60,
    deadline: float | None = None,
    starts: Tensor | None = None,
    keep: int = 4,
    memory: int = MEMORY,
) -> AttackResult:
    """Looks for inputs with a low margin ``min_i max_j (c_ij . y - d_ij)`` in each region of the case.

    First it evaluates the centre, random points (thousands where inputs are few), the corners that a linear model
    points at, and `starts` ``(rows, batch, n)``. From the best of them it descends, `restarts` times per region (by
    default what a fixed effort affords), at least once for each disjunct while there are at most 1000. A region is left
    alone once an unsafe point stands; `deadline` (of `time.monotonic`) ends everything. Computed in float32 where the
    network's inputs are float32. No more than about `memory` bytes are used at once. The same seed gives the same
    result, unless the deadline cuts it short.

    Returns: the `keep` best points of each region (fewer where fewer were evaluated), inside boxes exactly, inside
    balls up to rounding: see `leaktight.verify.search.replay.confirm`.
    """
    dtype = torch.float32 if all(port.dtype == "float32" for port in network.inputs) else torch.float64
    net = network if network.dtype == dtype else network.to(dtype)
    room = max(1, int(memory // (4 * dtype.itemsize * (values(net) + case.unsafe.weights[0].numel()))))
    plan = _Plan(net, seed, steps, _restarts(net, restarts, steps, case.unsafe.disjuncts), deadline, keep, room)
    region = searchable(network, case.region, dtype)
    group = max(1, room // plan.restarts)
    found = []
    for first in range(0, region.batch, group):
        part = torch.arange(first, min(first + group, region.batch))
        objective = Objective(net, case.unsafe.select(part), room)
        given = None if starts is None else starts[:, part].to(dtype)
        found.append(_attack_group(plan, objective, region.select(part), given))
    fewest = min(len(pool.points) for pool, _ in found)
    points = torch.cat([pool.points[:fewest].transpose(0, 1) for pool, _ in found])
    margins = torch.cat([pool.margins[:fewest].transpose(0, 1) for pool, _ in found])
    return AttackResult(points.double(), margins, sum(count for _, count in found))


def searchable(network: Network, region: Region, dtype: torch.dtype) -> Region:
    """The region that an attack in `dtype` walks: a box shrunk to numbers of the inputs' dtypes, a ball enclosed."""
    if isinstance(region, Ball):
        return region.to(dtype)
    lower, upper = grid(network, region)
    return Box(lower.to(dtype), upper.to(dtype))


@dataclass(frozen=True, eq=False)
class _Plan:
    network: Network
    seed: int
    steps: int
    restarts: int
    deadline: float | None
    keep: int
    room: int

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def _restarts(network: Network, restarts: int | None, steps: int, disjuncts: int) -> int:
    if restarts is None:
        affordable = int(EFFORT / (3 * (steps + 1) * products(network)))
        restarts = min(max(affordable, 4), 64)
    return max(restarts, min(disjuncts, 1000))


def _samples(network: Network, inputs: int) -> int:
    """How many random points to evaluate before the first descent."""
    most = 8192 if inputs <= FEW_INPUTS else 64
    return min(max(int(EFFORT / 16 / products(network)), 8), most)


def _attack_group(plan: _Plan, objective: Objective, region: Region, given: Tensor | None) -> tuple[Found, int]:
    """The best points ``(k, batch, n)`` and the number of evaluations, for regions that fit into memory together."""
    generator = torch.Generator().manual_seed(plan.seed)
    points, losses = _survey(plan, objective, region, given, generator)
    pool = _merge(Found(points, losses.amin(-1)), None, plan.keep)
    evaluations = points.shape[0] * points.shape[1]
    slack = _slack(objective, region)
    wave = max(1, min(plan.restarts, plan.room // region.batch))
    for first in range(0, plan.restarts if objective.unsafe.disjuncts else 0, wave):
        active = (pool.margins.amin(0) >= -slack).nonzero().flatten()
        if not len(active) or plan.late:
            break
        slots = range(first, min(first + wave, plan.restarts))
        at, target = begin.deal(points[:, active], losses[:, active], slots)
        limit = slack[active]

        def done(margins: Tensor, limit: Tensor = limit) -> bool:
            return plan.late or bool((margins.amin(0) < -limit).all())

        found = descend(objective.select(active), region.select(active), at, target, steps=plan.steps, done=done)
        evaluations += at.shape[0] * at.shape[1] * (plan.steps + 1)
        pool = _merge(_scatter(found, active, pool), pool, plan.keep)
    return pool, evaluations


def _survey(
    plan: _Plan, objective: Objective, region: Region, given: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The points to start from and their losses: given ones, centre, random ones, corners for promising disjuncts."""
    count = _samples(plan.network, region.size)
    parts = [] if given is None else [region.project(given)]
    parts += [begin.centre(region), begin.samples(region, count, generator)]
    points = region.project(torch.cat(parts))
    losses = objective.losses(objective.atoms(points))
    if not objective.unsafe.disjuncts or plan.late:
        return points, losses
    few = max(1, min(plan.restarts, plan.room // region.batch))
    corner = begin.corners(objective, region, begin.promising(losses)[:few])
    return torch.cat([points, corner]), torch.cat([losses, objective.losses(objective.atoms(corner))])


def _slack(objective: Objective, region: Region) -> Tensor:
    """How far below zero a margin convinces: a few roundings of the atoms' largest terms, ``(batch,)``."""
    with torch.no_grad():
        outputs = objective.network.flat(begin.centre(region)[0]).double().abs()
    absolute = replace(objective.unsafe, weights=objective.unsafe.weights.abs(), bounds=-objective.unsafe.bounds.abs())
    if not absolute.disjuncts:
        return outputs.new_zeros(len(outputs))
    unit = float(torch.finfo(region.lower.dtype).eps)
    return (16 * unit * absolute.atoms(outputs).amax(-1)).nan_to_num(0.0, 0.0, 0.0)


def _scatter(found: Found, active: Tensor, pool: Found) -> Found:
    """What was found for the `active` regions, at their places in the whole group."""
    rows, batch, n = len(found.points), pool.points.shape[1], pool.points.shape[2]
    points, margins = found.points.new_zeros(rows, batch, n), found.margins.new_full((rows, batch), torch.inf)
    points[:, active], margins[:, active] = found.points, found.margins
    return Found(points, margins)


def _merge(new: Found, pool: Found | None, keep: int) -> Found:
    """The `keep` best points of each region, best first."""
    points = new.points if pool is None else torch.cat([pool.points, new.points])
    margins = new.margins if pool is None else torch.cat([pool.margins, new.margins])
    best = margins.argsort(stable=True, dim=0)[:keep]
    batch = torch.arange(points.shape[1]).expand(best.shape)
    return Found(points[best, batch], margins[best, batch])
