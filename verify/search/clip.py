"""Clipping: what linear bounds of a box say of where in it unsafe points can lie.

Let ``atom(x) >= a . x + c`` on a box and ``floor <= min over the box of a . x + c``. The minimum is taken where every
coordinate is at the wall that ``a`` points away from, so moving coordinate ``k`` by ``d`` from that wall raises
``a . x + c`` to at least ``floor + |a_k| d``. Points farther from it than ``(target - floor) / |a_k|`` have an atom of
at least `target`: they are proved, and may be cut off. On what is left the minimum is the same, so one row cuts all
coordinates at once; the rows of a conjunction raise each other's minima, so going round again may cut more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.rounding import down, gamma, trusted_lower, up

ROUNDS = 2


@dataclass(frozen=True)
class LinearRows:
    """For every box of a batch and every atom, ``atom(x) >= slopes . x + c`` with a ``c`` for which `floors` is below
    ``min slopes . x + c`` over the box; minus infinity where nothing is known. slopes ``(batch, atoms, n)``, floors
    ``(batch, atoms)``, both float64."""

    slopes: Tensor
    floors: Tensor

    def select(self, index: Tensor) -> LinearRows:
        return LinearRows(self.slopes[index], self.floors[index])


def floors_on(rows: LinearRows, lower: Tensor, upper: Tensor, inner_lower: Tensor, inner_upper: Tensor) -> Tensor:
    """The rows' floors on boxes inside the ones that the rows are about: each wall that moves in raises its minimum."""
    a = rows.slopes
    gain = (a.clamp(min=0) @ (inner_lower - lower).unsqueeze(-1)).squeeze(-1)
    gain = gain + ((-a).clamp(min=0) @ (upper - inner_upper).unsqueeze(-1)).squeeze(-1)
    # differences, products and sums of nonnegative numbers: too large by less than this factor
    return trusted_lower(down(rows.floors + gain * (1 - gamma(2 * a.shape[-1] + 8, gain.dtype))))


def clip(
    lower: Tensor, upper: Tensor, rows: LinearRows, conjunction: Tensor, standing: Tensor, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that hold every point at which some disjunct has no atom that is known to be at least `target`.

    Args: lower, upper ``(batch, n)``: the boxes that `rows` are about. conjunction ``(atoms,)``: the disjunct of each
    atom. standing ``(batch, disjuncts)``: which disjuncts are open still; the others rule no point in.
    Returns: lower and upper, and which boxes have no such point at all ``(batch,)`` (their walls mean nothing).
    """
    low, high = torch.full_like(lower, torch.inf), torch.full_like(upper, -torch.inf)
    some = torch.zeros(len(lower), dtype=torch.bool)
    for i in range(standing.shape[1]):
        mine = (conjunction == i).nonzero().flatten()
        own = LinearRows(rows.slopes[:, mine], rows.floors[:, mine])
        first, last, empty = _clip_one(lower, upper, own, target)
        kept = standing[:, i] & ~empty
        low = torch.where(kept.unsqueeze(1), torch.minimum(low, first), low)
        high = torch.where(kept.unsqueeze(1), torch.maximum(high, last), high)
        some |= kept
    return torch.where(some.unsqueeze(1), low, lower), torch.where(some.unsqueeze(1), high, upper), ~some


def _clip_one(lower: Tensor, upper: Tensor, rows: LinearRows, target: float) -> tuple[Tensor, Tensor, Tensor]:
    """`clip` for a single conjunction."""
    low, high, empty = lower, upper, torch.zeros(len(lower), dtype=torch.bool)
    floors = rows.floors
    for turn in range(ROUNDS if rows.floors.shape[1] > 1 else 1):
        if turn:
            floors = floors_on(rows, lower, upper, low, high)
        empty = empty | (floors >= target).any(1)
        reach = _reach(rows.slopes, floors, target)
        rising = rows.slopes > 0
        ceiling = up(low.unsqueeze(1) + torch.where(rising, reach, torch.inf)).amin(1)
        bottom = down(high.unsqueeze(1) - torch.where(rows.slopes < 0, reach, torch.inf)).amax(1)
        new_low, new_high = torch.maximum(low, bottom), torch.minimum(high, ceiling)
        empty = empty | (new_low > new_high).any(1)
        low = torch.where(empty.unsqueeze(1), low, new_low)
        high = torch.where(empty.unsqueeze(1), high, new_high)
    return low, high, empty


def _reach(slopes: Tensor, floors: Tensor, target: float) -> Tensor:
    """At least ``(target - floor) / |slope|``, ``(batch, atoms, n)``; infinite where the row says nothing."""
    wanted = up((target - floors).clamp(min=0)).unsqueeze(-1)
    return up(wanted / slopes.abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
