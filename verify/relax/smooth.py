"""Sigmoid and tanh: odd around zero (or a half), convex to the left, concave to the right."""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.ops import Sigmoid, Tanh
from leaktight.verify.relax.lines import TINY, Lines, U, offsets

# torch's sigmoid and tanh are within 4 ulp in float64; the margin is four times that, and absolute near zero
_SMOOTH = 16 * U


def _sigmoid_place(slope: Tensor) -> Tensor:
    """The ``x >= 0`` where the sigmoid's derivative is `slope` (0 where it never is): ``s(1-s) = d``."""
    root = (1 - 4 * slope).clamp(min=0).sqrt()
    return torch.log((1 + root) ** 2 / (4 * slope).clamp(min=TINY)).clamp(min=0)


def _tanh_place(slope: Tensor) -> Tensor:
    """The ``x >= 0`` where tanh's derivative ``1 - tanh^2`` is `slope` (0 where it never is)."""
    root = (1 - slope).clamp(min=0).sqrt()
    return (torch.log((1 + root) ** 2 / slope.clamp(min=TINY)) / 2).clamp(min=0)


def image(op: Sigmoid | Tanh, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    floor = 0.0 if isinstance(op, Sigmoid) else -1.0
    return (op(lower) - _SMOOTH).clamp(min=floor), (op(upper) + _SMOOTH).clamp(max=1.0)


def _slope_at(op: Sigmoid | Tanh, x: Tensor) -> Tensor:
    value = op(x)
    return value * (1 - value) if isinstance(op, Sigmoid) else 1 - value**2


def _touching(op: Sigmoid | Tanh, anchor: Tensor) -> Tensor:
    """Where the line from the graph at ``anchor <= 0`` touches the graph on its concave side ``x >= 0``."""
    low, high = torch.zeros_like(anchor), torch.full_like(anchor, 40.0)
    value = op(anchor)
    for _ in range(50):
        middle = (low + high) / 2
        before = op(middle) - value < _slope_at(op, middle) * (middle - anchor)
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    return high


def _slope_above(op: Sigmoid | Tanh, lower: Tensor, upper: Tensor, chord: Tensor) -> Tensor:
    """The slope of a good upper line: the chord, if a line from the lower end would touch beyond the upper end; else
    the tangent in the middle, or where that line touches if this is further right."""
    touch = _touching(op, lower.clamp(max=0))
    return torch.where(touch >= upper, chord, _slope_at(op, torch.maximum(touch, (lower + upper) / 2)))


def envelope(
    op: Sigmoid | Tanh,
    lower: Tensor,
    upper: Tensor,
    tilt: Tensor | None,  # noqa: ARG001
    dtype: torch.dtype,
) -> Lines:
    chord = ((op(upper) - op(lower)) / (upper - lower).clamp(min=TINY)).clamp(min=0)
    chord = torch.where(upper - lower > 1e-8, chord, _slope_at(op, (lower + upper) / 2))
    # the lower line is the upper line of the mirrored interval: f(-x) = f's top + bottom - f(x)
    high, low = _slope_above(op, lower, upper, chord), _slope_above(op, -upper, -lower, chord)
    place = _sigmoid_place if isinstance(op, Sigmoid) else _tanh_place
    error = torch.full_like(lower, _SMOOTH)
    # where the derivative equals the slope (of the rounded line): the graph minus the line has its extrema there; an
    # error e in the place costs at most e^2 / 2 times the second derivative (below 1), far below the error above
    points = [(x, op(x), error) for x in (lower, upper)]
    for slope in (low, high):
        x = place(slope.to(dtype).double())
        for stationary in (x, -x):
            inside = torch.minimum(torch.maximum(stationary, lower), upper)
            points.append((inside, op(inside), error))
    return offsets(low, high, points, dtype)
