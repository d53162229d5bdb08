"""What a decision about one neuron implies for the others: bounds that hold where a neuron lies on one side.

Backward passes give, for neurons ``i`` and ``j``, linear functions of the input: ``s_i z_i(x) >= a_i . x + c_i``, for
either sign ``s``. Let ``f_i`` be at most its minimum over the box, and ``d_k`` in [0, 1] how far input ``k`` is from
the wall where the row is least, in units of the box's width. Then, with ``g_ik = a_ik width_k``,

    s_i z_i >= f_i + sum_k |g_ik| d_k.

Where ``s_j z_j <= 0``, the row of ``j`` is at most zero. With any multiplier ``m >= 0`` the row of ``i`` plus ``m``
times that of ``j`` bounds ``s_i z_i`` from below there; its minimum, coordinate by coordinate, is

    f_i + m f_j + sum over k where g_ik g_jk < 0 of min(|g_ik|, m |g_jk|),

concave in ``m``, with kinks where two of the sizes agree: a sum of nonnegative numbers and two products. What rounding
takes from it is easily said, whatever ``m`` was found. Linear constraints from splits tighten bounds in Clip-and-Verify
(Zhou et al. 2025); here each pair of neurons is worked out once, and domains look it up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.specs.region import Box, Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.rows import Units
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, up
from leaktight.verify.search.activations import Activations

_CHUNK = 1 << 22  # numbers at once
_FLAT = 1e-150  # what is flatter counts as flat: products of it would underflow


@dataclass(frozen=True, eq=False)
class Implied:
    """Bounds of ``k`` neurons' inputs under each of ``2 k`` decisions, float32 ``(2 k + 1, 2 k)``.

    Decision ``j`` puts neuron ``j`` at or below its kink, decision ``k + j`` at or above it; the last row is of none. A
    row holds what the neurons' inputs are at least, then what they are at least with their signs turned. Where these
    exclude each other, no input of the region lies there.
    """

    table: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor) -> Implied:
        """From float64 bounds ``(2 k, k)``."""
        exact = torch.cat([lower, -upper], 1)
        table = exact.float()
        table = torch.where(table.double() > exact, torch.nextafter(table, torch.tensor(-torch.inf)), table)
        return cls(torch.cat([table, torch.full_like(table[:1], -torch.inf)]))

    @property
    def count(self) -> int:
        return self.table.shape[1] // 2

    def narrowed(self, z: Interval, neuron: Tensor, sign: Tensor) -> Interval:
        """Intervals ``(batch, k)`` under decisions ``(batch, depth)``; what has sign 0 is none."""
        row = torch.where(sign == 0, 2 * self.count, neuron + self.count * (sign > 0))
        least = self.table.index_select(0, row[:, 0])
        for i in range(1, row.shape[1]):
            torch.maximum(least, self.table.index_select(0, row[:, i]), out=least)
        low, high = least.double().split(self.count, 1)
        return Interval(torch.maximum(z.lower, low), torch.minimum(z.upper, -high))


def implied(
    region: Region, activations: Activations, columns: Tensor, base: Interval, backward: Backward
) -> Implied | None:
    """The bounds of some neurons ``columns`` ``(k,)`` under decisions about each other; None where there are none.

    region: a single box. base ``(1, width)``: proven intervals of all neurons' inputs. backward: passes over it.
    """
    if not isinstance(region, Box) or region.batch != 1 or not len(columns):
        return None
    kink = activations.kink[columns]
    slopes, floors = _rows(activations, columns, backward)
    floors = down(floors - torch.cat([kink, -kink]))
    width = (region.upper - region.lower)[0] * (1 - gamma(4, slopes.dtype))
    sizes = slopes * width
    least = _least(sizes.masked_fill(sizes.abs() < _FLAT, 0.0), floors)
    low, high = base.lower[0, columns], base.upper[0, columns]
    below, above = least.split(len(columns), 1)
    lower = torch.maximum(down(below + kink), low)
    upper = torch.minimum(up(kink - above), high)
    return Implied.of(lower, upper)


def _rows(activations: Activations, columns: Tensor, backward: Backward) -> tuple[Tensor, Tensor]:
    """Slopes ``(2 k, n)`` and proven minima ``(2 k,)`` of rows below ``z``, then of rows below ``-z``."""
    slopes, floors = [], []
    for sign in (1.0, -1.0):
        for node in activations.nodes:
            part = activations.parts[node.name]
            own = columns[(columns >= part.start) & (columns < part.stop)] - part.start
            if len(own):
                units = Units(node.inputs[0], own.unsqueeze(0), torch.full((1, len(own)), sign, dtype=backward.dtype))
                found, rows = backward.ended(units)
                slopes.append(rows[0].expand(len(own), -1))
                floors.append(found[0])
    return torch.cat(slopes), torch.cat(floors)


def _least(sizes: Tensor, floors: Tensor) -> Tensor:
    """For decisions ``c`` and rows ``i`` lower bounds ``(2 k, 2 k)`` of row ``i`` where row ``c`` is at most zero."""
    count, inputs = sizes.shape
    plus, minus = sizes.clamp(min=0), (-sizes).clamp(min=0)
    least = floors.expand(count, count).clone()
    for some in torch.arange(count).split(max(1, _CHUNK // (2 * count * inputs))):
        mine = torch.where(sizes > 0, plus, minus).expand(len(some), -1, -1)
        theirs = torch.where(sizes > 0, minus[some].unsqueeze(1), plus[some].unsqueeze(1))  # (some, rows, n)
        fall = floors[some].clamp(max=0).unsqueeze(1)
        best = _multiplier(mine, theirs, fall)
        gain = torch.minimum(mine, theirs * best.unsqueeze(-1)).sum(-1) * (1 - gamma(2 * inputs, sizes.dtype))
        gain = gain - (inputs + 4) * underflow(sizes.dtype)
        found = down(down(floors + down(best * fall)) + gain)
        least[some] = torch.maximum(least[some], trusted_lower(found))
    return least


def _multiplier(mine: Tensor, theirs: Tensor, fall: Tensor) -> Tensor:
    """The ``m`` for which ``m fall + sum of min(mine, m theirs)`` is largest, ``(some, rows)``, about: any is sound."""
    ratio = (mine / theirs).nan_to_num(nan=0.0, posinf=0.0)  # kinks; where `theirs` is zero nothing bends
    order = ratio.argsort(-1, descending=True)
    ratio, slope = ratio.gather(-1, order), theirs.gather(-1, order).cumsum(-1) + fall.unsqueeze(-1)
    # left of a kink the slope is `fall` and what belongs to this kink and larger ones: the first where that rises
    rises = slope > 0
    first = rises.to(torch.uint8).argmax(-1, keepdim=True)
    return torch.where(rises.any(-1), ratio.gather(-1, first).squeeze(-1), 0.0)
