"""The best inputs found of each region at each slope: what the smallest margin is at most there."""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.verify.leak.attack import along, search
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.plan import LIGHT, Plan

_ATTACKED = 4  # each so-manieth of many slopes is attacked


class Incumbents:
    """For each region by slope an upper bound of the smallest margin there, and the input ``(n,)`` that attains it."""

    def __init__(self, slopes: Slopes, case: Case, plan: Plan) -> None:
        self.slopes, self.case = slopes, case
        self._effort: dict[str, Any] = {**LIGHT, "seed": plan.seed, "deadline": plan.deadline}
        self.known: list[dict[float, tuple[float, Tensor]]] = [{} for _ in range(case.region.batch)]

    def keep(self, owner: int, slope: float, upper: float, point: Tensor) -> None:
        """Keeps an input of a region if none is known at the slope that attains as little."""
        if slope not in self.known[owner] or upper < self.known[owner][slope][0]:
            self.known[owner][slope] = (upper, point)

    def uppers(self, owner: Tensor, at: Tensor) -> Tensor:
        """What is attained in these regions at these slopes, both ``(batch,)``; infinite where nothing is known."""
        each = zip(owner.tolist(), at.tolist(), strict=True)
        return torch.tensor([self.known[i].get(a, (inf,))[0] for i, a in each], dtype=torch.float64)

    def begin(self, ends: Tensor, *, many: bool) -> None:
        """Attacks all regions at these slopes; of `many` at some, what is found is tried at those next to them."""
        every, regions = _ATTACKED if many else 1, self.case.region.batch
        at = ends[::every].unique()
        found = along(self.slopes, self.case, at.expand(regions, -1), **self._effort)
        for owner in range(regions):
            for place, slope in enumerate(at.tolist()):
                self.keep(owner, slope, float(found.upper[owner, place]), found.points[owner, place])
        between = [k for k in range(len(ends)) if k % every]
        for step in (0, 1) if between else ():
            points = found.points[:, [k // every + step for k in between]].flatten(0, 1)
            self._try(points, torch.arange(regions).repeat_interleave(len(between)), ends[between].repeat(regions))

    def _try(self, points: Tensor, owners: Tensor, slopes: Tensor) -> None:
        """Keeps these inputs of these regions where they are the best at these slopes."""
        case = Case(self.case.region.select(owners), self.case.unsafe.select(owners))
        upper = attained(self.slopes, case, points, slopes).tolist()
        for owner, slope, value, x in zip(owners.tolist(), slopes.tolist(), upper, points, strict=True):
            self.keep(owner, slope, value, x)

    def attack(self, owner: Tensor, at: Tensor) -> None:
        """Looks for low margins of these regions at these slopes, from what was found at the slopes next to them."""
        pairs = sorted({(i, a) for i, a in zip(owner.tolist(), at.tolist(), strict=True) if a not in self.known[i]})
        if not pairs:
            return
        pick = torch.tensor([i for i, _ in pairs])
        slopes = torch.tensor([a for _, a in pairs], dtype=torch.float64)
        near = [self._nearest(i, a) for i, a in pairs]
        starts = torch.stack([torch.stack([both[k] for both in near]) for k in range(2)])
        case = Case(self.case.region.select(pick), self.case.unsafe.select(pick))
        found = search(self.slopes, case, slopes, slopes, starts=starts, **self._effort)
        for place, (i, a) in enumerate(pairs):
            self.keep(i, a, float(found.upper[place]), found.points[place])

    def _nearest(self, owner: int, slope: float) -> tuple[Tensor, Tensor]:
        """The inputs found at the two slopes that are nearest; one of them twice where there is only one."""
        near = sorted(self.known[owner], key=lambda known: abs(known - slope))[:2]
        return self.known[owner][near[0]][1], self.known[owner][near[-1]][1]
