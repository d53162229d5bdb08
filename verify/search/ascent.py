"""The ascent: lines are turned and multipliers raised until a domain's quick value is above zero.

Adam (Kingma and Ba 2014, arXiv:1412.6980) on the turns of the free lines, the multipliers of the decisions and the
weights of a conjunction's atoms. A turn moves in units of the angle between the two slopes, a multiplier in units of
the decided neurons' coefficients. Every domain goes its own way: what else is in the batch changes nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify import adam
from leaktight.verify.search.batch import Batch
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.passes import Pass, Replayed

_CROWDED = 0.75  # the share of a batch below which those that are done are left out


@dataclass(frozen=True)
class Schedule:
    """How many steps, the first one's size, and by what each is smaller than the one before."""

    steps: int
    rate: float = 0.5
    decay: float = 0.9


@dataclass(eq=False)
class _Moments:
    """Running means of the derivatives and of their squares."""

    ray: tuple[Tensor, Tensor]
    multiplier: tuple[Tensor, Tensor]
    mix: tuple[Tensor, Tensor]
    scale: Tensor

    @classmethod
    def none(cls, batch: Batch, found: Pass) -> _Moments:
        ray, multiplier, mix = map(adam.moments, (batch.ray, batch.multiplier, batch.mix))
        if not batch.column.shape[1]:
            return cls(ray, multiplier, mix, batch.multiplier)
        used = batch.sign.abs()
        size = found.coefficients.gather(1, batch.column).abs() * used
        mean = size.sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp(min=1)
        return cls(ray, multiplier, mix, mean.clamp(min=1e-12))

    def select(self, index: Tensor) -> _Moments:
        ray, multiplier, mix = (
            (mean.index_select(0, index), square.index_select(0, index))
            for mean, square in (self.ray, self.multiplier, self.mix)
        )
        return _Moments(ray, multiplier, mix, self.scale.index_select(0, index))


def ascend(bounding: Bounding, batch: Batch, schedule: Schedule, late: Callable[[], bool]) -> Tensor:
    """Moves the batch's variables, in place, as long as the quick value is not above zero.

    Returns the quick values ``(batch,)``: where they are above the question's tolerance, those of the variables that
    are left in the batch. Stops after the schedule's steps, or when `late` says so.
    """
    whole, index = batch, torch.arange(len(batch))
    value = torch.full((len(batch),), -torch.inf)
    done = torch.zeros(len(batch), dtype=torch.bool)
    moments = None
    for step in range(schedule.steps + 1):
        found = bounding.glance(batch)
        value[index] = torch.where(done, value[index], found.path.value)
        fresh = ~done & (found.path.value > bounding.tolerance[batch.owner])
        _keep(whole, batch, index, fresh)
        done = done | fresh
        left = int((~done).sum())
        if not left or step == schedule.steps or late():
            break
        if left < _CROWDED * len(done):
            kept = (~done).nonzero().flatten()
            batch, index, done, found = batch.select(kept), index[kept], done[kept], found.select(kept)
            moments = None if moments is None else moments.select(kept)
        elif batch is whole:
            batch = batch.select(torch.arange(len(batch)))
        moments = moments or _Moments.none(batch, found.path)
        _move(bounding, batch, found, moments, schedule, step)
    _keep(whole, batch, index, ~done)
    return value


def _keep(whole: Batch, batch: Batch, index: Tensor, which: Tensor) -> None:
    """Puts the variables of some domains back where they came from."""
    if batch is not whole and bool(which.any()):
        some, to = which.nonzero().flatten(), index[which]
        for name in ("ray", "multiplier", "mix"):
            getattr(whole, name)[to] = getattr(batch, name)[some]


def _move(bounding: Bounding, batch: Batch, found: Replayed, moments: _Moments, schedule: Schedule, step: int) -> None:
    """One step uphill. The derivatives are the module `relaxed`'s."""
    size = adam.warmed(schedule.rate * schedule.decay**step, step)
    shape, inputs, path = batch.shape, found.inputs, found.path
    uphill = (path.coefficients * path.free).mul_(inputs)
    batch.ray.addcmul_(adam.direction(moments.ray, uphill), shape.turn, value=size)
    torch.clamp(batch.ray, shape.least, shape.most, out=batch.ray)
    if batch.column.shape[1]:
        uphill = -batch.sign * inputs.gather(1, batch.column)
        batch.multiplier.addcmul_(adam.direction(moments.multiplier, uphill), moments.scale, value=size).clamp_(min=0)
    if batch.mix.shape[1] > 1:
        _remix(bounding, batch, found, moments, size)


def _remix(bounding: Bounding, batch: Batch, found: Replayed, moments: _Moments, size: float) -> None:
    """A step of the atoms' weights, which stay nonnegative and add up to one."""
    owner = batch.owner
    atoms = (bounding.quick_weights[owner] @ found.outputs.unsqueeze(-1)).squeeze(-1) - bounding.quick_bounds[owner]
    atoms = atoms - (batch.mix * atoms).sum(1, keepdim=True)
    real = bounding.questions.real[owner]
    mix = batch.mix + 0.5 * size * adam.direction(moments.mix, atoms.masked_fill(~real, 0.0))
    mix = mix.clamp(min=0).masked_fill(~real, 0.0) + 1e-6 * real
    batch.mix.copy_(mix / mix.sum(1, keepdim=True))
