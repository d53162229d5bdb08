"""Attack: the search for inputs with the lowest margin, by sampling and projected gradient descent."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Box, Region
from leaktight.verify.search import starts as begin
from leaktight.verify.search.descent import Found, descend
from leaktight.verify.search.membership import grid
from leaktight.verify.search.objective import Objective, products, values
from leaktight.verify.search.surrogate import is_flat, leaking
from leaktight.verify.search.zoom import zoom

FEW_INPUTS = 20  # up to so many, random points cover a box well enough to be worth thousands of evaluations
FEWER_INPUTS = 8  # up to so many, zooming pays,
WORTH_ZOOMING = 256  # from so many random points on
EFFORT = 4e9  # multiplications that all descents of one region may cost together, unless `restarts` says otherwise
MEMORY = 512 * 2**20
LEAKS = (0.0, 0.1, 0.03)  # of the derivative, one round of descents each


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
    effort: float = EFFORT,
    deadline: float | None = None,
    starts: Tensor | None = None,
    keep: int = 4,
    memory: int = MEMORY,
) -> AttackResult:
    """Looks for inputs with a low margin ``min_i max_j (c_ij . y - d_ij)`` in each region of the case.

    First it evaluates the centre, random points (thousands where inputs are few), the corners that a linear model
    points at, and `starts` ``(rows, batch, n)``. From the best of them it descends: `restarts` times per region (by
    default 4 to 64 times, what `effort` multiplications afford), at least once for each disjunct while there are at
    most 1000; where activations have flat pieces twice more so, with derivatives that leak through them (see
    `leaktight.verify.search.surrogate`). At last, where inputs are few, it zooms (`leaktight.verify.search.zoom`).
    A region is left alone once a clearly unsafe point stands; `deadline` (of `time.monotonic`) ends everything.
    Computed in float32 where the network's inputs are float32. About `memory` bytes are used at once. The same seed
    gives the same result, unless the deadline cuts it short.

    Returns: the `keep` best points of each region (fewer where fewer were evaluated), inside boxes exactly, inside
    balls up to rounding: see `leaktight.verify.search.replay.confirm`.
    """
    dtype = torch.float32 if all(port.dtype == "float32" for port in network.inputs) else torch.float64
    net = network if network.dtype == dtype else network.to(dtype)
    region = searchable(network, case.region, dtype)
    if not case.unsafe.disjuncts:  # nothing is unsafe
        middle = begin.centre(region).transpose(0, 1).double()
        return AttackResult(middle, middle.new_full((region.batch, 1), torch.inf), 0)
    room = max(1, int(memory // (4 * dtype.itemsize * (values(net) + case.unsafe.weights[0].numel()))))
    rest = {"seed": seed, "deadline": deadline, "keep": keep, "room": room}
    plan = _plan(net, restarts, steps, effort, case.unsafe.disjuncts, **rest)
    group = max(1, room // plan.restarts)
    pools = []
    for first in range(0, region.batch, group):
        part = torch.arange(first, min(first + group, region.batch))
        given = None if starts is None else starts[:, part].to(dtype)
        pools.append(_attack_group(plan, Objective(net, case.unsafe.select(part), room), region.select(part), given))
    fewest = min(len(pool.best.points) for pool in pools)
    points = torch.cat([pool.best.points[:fewest].transpose(0, 1) for pool in pools])
    margins = torch.cat([pool.best.margins[:fewest].transpose(0, 1) for pool in pools])
    return AttackResult(points.double(), margins, sum(pool.evaluations for pool in pools))


def searchable(network: Network, region: Region, dtype: torch.dtype) -> Region:
    """The region that an attack in `dtype` walks: a box shrunk to numbers of the inputs' dtypes, a ball enclosed."""
    if isinstance(region, Ball):
        return region.to(dtype)
    lower, upper = grid(network, region)
    return Box(lower.to(dtype), upper.to(dtype))


@dataclass(frozen=True, eq=False)
class _Plan:
    """What an attack may spend on each region. `room` is the number of inputs that memory allows at once."""

    networks: tuple[Network, ...]  # the network, and as often as there are more rounds, one with leaking derivatives
    restarts: int
    steps: int
    samples: int
    zoomed: int
    seed: int
    deadline: float | None
    keep: int
    room: int

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def _plan(network: Network, restarts: int | None, steps: int, effort: float, disjuncts: int, **rest: Any) -> _Plan:
    flat = is_flat(network, min(leak for leak in LEAKS if leak))
    networks = tuple(leaking(network, leak) if leak else network for leak in (LEAKS if flat else LEAKS[:1]))
    cost = products(network)
    if restarts is None:
        restarts = min(max(int(effort / (3 * len(networks) * (steps + 1) * cost)), 4), 64)
    samples = min(max(int(effort / 16 / cost), 8), 8192 if network.input_size <= FEW_INPUTS else 64)
    zoomed = min(int(effort / 4 / cost), 65536) if network.input_size <= FEWER_INPUTS else 0
    return _Plan(networks, max(restarts, min(disjuncts, 1000)), steps, samples, zoomed, **rest)


@dataclass(frozen=True, eq=False)
class _Pool:
    """The best points ``(k, batch, n)`` so far, and how many inputs were evaluated for them."""

    best: Found
    evaluations: int


def _attack_group(plan: _Plan, objective: Objective, region: Region, given: Tensor | None) -> _Pool:
    """Attacks regions that fit into memory together."""
    generator = torch.Generator().manual_seed(plan.seed)
    slack = _slack(objective, region)
    points, losses = _survey(plan, objective, region, given, generator)
    pool = _merge(Found(points, losses.amin(-1)), None, plan.keep, points.shape[0] * points.shape[1])
    wave = max(1, min(plan.restarts, plan.room // region.batch))
    rounds = [(net, first) for net in plan.networks for first in range(0, plan.restarts, wave)]
    for turn, (network, first) in enumerate(rounds):
        active = _open(plan, pool, slack)
        if len(active):
            count = min(wave, plan.restarts - first)
            at, target = begin.deal(points[:, active], losses[:, active], range(turn * wave, turn * wave + count))
            part = replace(objective.select(active), network=network)
            done = _Done(plan, slack[active])
            found = descend(part, region.select(active), at, target, steps=plan.steps, done=done)
            pool = _merge(_scatter(found, active, pool), pool, plan.keep, count * len(active) * (plan.steps + 1))
    active = _open(plan, pool, slack)
    count = min(plan.zoomed, plan.room // max(len(active), 1))
    if count >= WORTH_ZOOMING and len(active):
        known = Found(pool.best.points[:, active], pool.best.margins[:, active])
        found = zoom(
            objective.select(active),
            region.select(active),
            known,
            count=count,
            generator=generator,
            done=_Done(plan, slack[active]),
        )
        pool = _merge(_scatter(found, active, pool), pool, plan.keep, 4 * count * len(active))
    return pool


@dataclass(frozen=True, eq=False)
class _Done:
    """Whether a search may end: every region has a clearly unsafe point, or the time is up."""

    plan: _Plan
    slack: Tensor

    def __call__(self, margins: Tensor) -> bool:
        return self.plan.late or bool((margins.amin(0) < -self.slack).all())


def _open(plan: _Plan, pool: _Pool, slack: Tensor) -> Tensor:
    """The regions that have no clearly unsafe point yet; none where the time is up."""
    waiting = (pool.best.margins.amin(0) >= -slack).nonzero().flatten()
    return waiting[:0] if plan.late else waiting


def _survey(
    plan: _Plan, objective: Objective, region: Region, given: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The points to start from and their losses: given ones, centre, random ones, corners for promising disjuncts."""
    count = max(1, min(plan.samples, plan.room // region.batch))
    parts = [] if given is None else [region.project(given)]
    parts += [begin.centre(region), begin.samples(region, count, generator)]
    points = region.project(torch.cat(parts))
    losses = objective.losses(objective.atoms(points))
    if plan.late or bool((losses.amin(-1).amin(0) < -_slack(objective, region)).all()):
        return points, losses
    few = max(1, min(plan.restarts, plan.room // region.batch))
    corner = begin.corners(objective, region, begin.promising(losses)[:few])
    return torch.cat([points, corner]), torch.cat([losses, objective.losses(objective.atoms(corner))])


def _slack(objective: Objective, region: Region) -> Tensor:
    """How far below zero a margin convinces: a few roundings of the atoms' largest terms, ``(batch,)``."""
    with torch.no_grad():
        outputs = objective.network.flat(begin.centre(region)[0]).double().abs()
    absolute = replace(objective.unsafe, weights=objective.unsafe.weights.abs(), bounds=-objective.unsafe.bounds.abs())
    unit = float(torch.finfo(region.lower.dtype).eps)
    return (16 * unit * absolute.atoms(outputs).amax(-1)).nan_to_num(0.0, 0.0, 0.0)


def _scatter(found: Found, active: Tensor, pool: _Pool) -> Found:
    """What was found for the `active` regions, at their places in the whole group; elsewhere nothing of worth."""
    points = pool.best.points[:1].repeat(len(found.points), 1, 1)
    margins = torch.full(points.shape[:2], torch.inf, dtype=torch.float64)
    points[:, active], margins[:, active] = found.points, found.margins
    return Found(points, margins)


def _merge(new: Found, pool: _Pool | None, keep: int, evaluations: int) -> _Pool:
    """The `keep` best points of each region, best first."""
    points = new.points if pool is None else torch.cat([pool.best.points, new.points])
    margins = new.margins if pool is None else torch.cat([pool.best.margins, new.margins])
    first = margins.argsort(stable=True, dim=0)[:keep]
    batch = torch.arange(points.shape[1]).expand(first.shape)
    before = 0 if pool is None else pool.evaluations
    return _Pool(Found(points[first, batch], margins[first, batch]), before + evaluations)
