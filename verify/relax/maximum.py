"""The maximum of several values between an entry and a line over one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.relax.lines import TINY, offsets


@dataclass(frozen=True)
class MaximumLines:
    """``x[lower_at] <= max_i x_i <= upper_slope x[upper_at] + upper_offset``; all shaped like the maximum."""

    lower_at: Tensor
    upper_at: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


def maximum_lines(lower: Tensor, upper: Tensor) -> MaximumLines:
    """Bounds of the maximum over the last axis of values in ``[lower, upper]``.

    Below: the entry with the largest lower bound. Above: let ``i`` have the largest upper bound and ``r`` the largest
    of the others'. Then ``max <= max(x_i, r)``, whose chord over ``[l_i, u_i]`` is the line (``x_i`` if ``l_i >= r``).
    """
    low, high = lower.double(), upper.double()
    lower_at, upper_at = low.argmax(-1), high.argmax(-1)
    top = high.gather(-1, upper_at.unsqueeze(-1)).squeeze(-1)
    bottom = low.gather(-1, upper_at.unsqueeze(-1)).squeeze(-1)
    rest = high.scatter(-1, upper_at.unsqueeze(-1), -torch.inf).amax(-1)
    rest = torch.maximum(rest, bottom)
    slope = torch.where(rest > bottom, ((top - rest) / (top - bottom).clamp(min=TINY)).clamp(0, 1), 1.0).to(lower.dtype)
    exact = torch.zeros_like(top)
    lines = offsets(slope, slope, [(bottom, rest, exact), (top, top, exact)], lower.dtype)
    return MaximumLines(lower_at, upper_at, slope, torch.where(rest > bottom, lines.upper_offset, 0.0).to(lower.dtype))
