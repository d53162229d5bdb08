"""Values cut off below and above."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.ops import Clip
from leaktight.verify.relax.lines import TINY, Lines, offsets


def image(op: Clip, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return op(lower), op(upper)


def envelope(op: Clip, lower: Tensor, upper: Tensor, tilt: Tensor | None, dtype: torch.dtype) -> Lines:
    floor, ceiling = lower.new_tensor(op.lower), lower.new_tensor(op.upper)
    chord = ((op(upper) - op(lower)) / (upper - lower).clamp(min=TINY)).clamp(0, 1)
    first, last = torch.maximum(floor, lower), torch.minimum(ceiling, upper)  # the part with slope one
    turn = (upper - first > first - lower).double() if tilt is None else tilt
    turn_high = (last - lower > upper - last).double() if tilt is None else tilt
    cut_low, cut_high = lower < floor, upper > ceiling
    # cut below only: convex; cut above only: concave; cut twice: the lines over and under the S
    rise = ceiling - floor
    over, under = rise / (ceiling - lower).clamp(min=TINY), rise / (upper - floor).clamp(min=TINY)
    low = torch.where(cut_low & cut_high, turn * under, torch.where(cut_low, turn, chord))
    high = torch.where(cut_low & cut_high, turn_high * over, torch.where(cut_high, turn_high, chord))
    flat = (upper <= floor) | (lower >= ceiling)
    low, high = torch.where(flat, 0.0, low.clamp(0, 1)), torch.where(flat, 0.0, high.clamp(0, 1))
    exact = torch.zeros_like(lower)
    kinks = [torch.minimum(torch.maximum(kink.expand(lower.shape), lower), upper) for kink in (floor, ceiling)]
    return offsets(low, high, [(x, op(x), exact) for x in (lower, upper, *kinks)], dtype)
