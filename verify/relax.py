"""Facts about the nonlinear operators; every engine draws them from here.

`image` encloses an operator's values over intervals, `envelope` encloses its graph between two lines. Both are proofs
in real arithmetic: they are computed in float64 from exact interval ends and then rounded outwards.

How `envelope` stays sound: a line's slope ``d`` is a free choice, so it may be rounded in any way. Its offset is the
largest (smallest) value of ``f(x) - d x`` on the interval, which a piecewise linear ``f`` takes at an end or at a kink,
and a smooth one at an end or where ``f' = d``. Evaluating there, plus the evaluation's own error, is a bound whatever
``d`` is. Chords and tangents only make it a good one.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from leaktight.errors import InternalError, MissingRule
from leaktight.models.ops import Clip, Elementwise, Op, Sigmoid, Tanh, TwoSlope
from leaktight.specs.region import toward
from leaktight.verify.lasting import lasting
from leaktight.verify.rounding import down, underflow, unit, up

_U = unit(torch.float64)
_TINY = underflow(torch.float64)
_LEAST = 2.0**-900  # a slope whose units in the last place are numbers, too
# torch's sigmoid and tanh are within 4 ulp in float64; the margin is four times that, and absolute near zero
_SMOOTH = 16 * _U


@dataclass(frozen=True)
class Lines:
    """``lower_slope z + lower_offset <= f(z) <= upper_slope z + upper_offset`` on the interval it was made for.

    through_origin: the lower offsets are all zero.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    through_origin: bool = field(default=False, kw_only=True)

    def select(self, regions: Tensor | slice) -> Lines:
        """The lines at these places of the batch."""
        whole = (self.lower_slope, self.lower_offset, self.upper_slope, self.upper_offset)
        return Lines(*(x[regions] for x in whole), through_origin=self.through_origin)


Image = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
Envelope = Callable[[Any, Tensor, Tensor, "Tensor | None", torch.dtype], Lines]
_IMAGES: dict[type[Op], Image] = {}
_LEAKY: MutableMapping[TwoSlope, _Leaky | None] = WeakKeyDictionary()
_ENVELOPES: dict[type[Op], Envelope] = {}


def image(op: Elementwise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of ``op(z)`` for ``lower <= z <= upper``, in the dtype of `lower`."""
    rule = _IMAGES.get(type(op))
    if rule is None:
        raise MissingRule(f"interval bounds have no rule for {type(op).__name__}")
    low, high = rule(op, lower.double(), upper.double())
    return toward(low, lower.dtype, -torch.inf), toward(high, lower.dtype, torch.inf)


def envelope(op: Elementwise, lower: Tensor, upper: Tensor, tilt: Tensor | None = None) -> Lines:
    """Lines around ``op`` on ``[lower, upper]``, in the dtype of `lower`.

    `tilt` in [0, 1], broadcast against the interval ends, turns the line that is free to turn (at a kink, between the
    slopes to its left and right); without it, the line that encloses the smaller area is taken.
    """
    rule = _ENVELOPES.get(type(op))
    if rule is None:
        raise MissingRule(f"linear bounds have no rule for {type(op).__name__}")
    return rule(op, lower.double(), upper.double(), tilt, lower.dtype)


def turn(op: Elementwise, lines: Lines, lower: Tensor, upper: Tensor, tilt: Tensor) -> Lines:
    """`envelope` with a tilt, from the `lines` that it gave without one; cheap for a plain Leaky ReLU."""
    if isinstance(op, TwoSlope) and _through_origin(op, lower.dtype):
        return _turned(op, lines, lower, upper, tilt)
    return envelope(op, lower, upper, tilt)


def has_tilt(op: Op) -> bool:
    """Whether a line of this operator can be turned."""
    return isinstance(op, (TwoSlope, Clip))


def default_tilt(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """The turn of the free line that encloses the smaller area: 1 where the interval reaches further right."""
    if isinstance(op, Clip):
        return torch.full_like(lower, 0.5)
    if not isinstance(op, TwoSlope) or is_leaky(op):
        return (upper + lower).sign_().clamp_(min=0)  # a comparison takes longer
    return ((upper - op.kink) + (lower - op.kink)).to(lower.dtype).sign_().clamp_(min=0)


def other_tilt(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """A second turn to try: towards the steeper side where the chord has more than half its slope.

    That is `default_tilt` for a ReLU, and what is usual whatever the leak. With a leak it encloses more area, yet some
    bounds come out better.
    """
    tilt = default_tilt(op, lower, upper)
    if not isinstance(op, TwoSlope):
        return tilt
    chord = (op(upper) - op(lower)) / (upper - lower).clamp(min=underflow(lower.dtype))
    right = op.right.abs() >= op.left.abs()
    steep = torch.where(right, op.right, op.left)
    turned = (chord / steep > 0.5) == right  # where both slopes are zero there is nothing to turn
    return torch.where((lower < op.kink) & (upper > op.kink), turned.to(tilt.dtype), tilt)


def parallel_tilt(op: TwoSlope, lower: Tensor, upper: Tensor) -> Tensor:
    """The turn that makes the free line parallel to the chord, which brings the two as close as they can be."""
    chord = (op(upper) - op(lower)) / (upper - lower).clamp(min=underflow(lower.dtype))
    bend = op.right - op.left
    return ((chord - op.left) / torch.where(bend == 0, 1.0, bend)).clamp(0, 1)


def is_linear_on(op: Elementwise, lower: Tensor, upper: Tensor) -> Tensor:
    """Where the operator is affine on the interval, so that better interval ends would not help."""
    if isinstance(op, TwoSlope):
        if is_leaky(op):
            return torch.minimum(-lower, upper) <= _leaky(op).linear
        kink = op.kink.double() * (
            1 + op.precision * torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, *[1] * lower.dim())
        )
        one_side = (lower.double() >= kink.amax(0)) | (upper.double() <= kink.amin(0))
        return one_side | (op.left == op.right).expand(lower.shape)
    if isinstance(op, Clip):
        return (upper <= op.lower) | (lower >= op.upper) | ((lower >= op.lower) & (upper <= op.upper))
    return lower == upper


def _offsets(
    low_slope: Tensor, high_slope: Tensor, points: list[tuple[Tensor, Tensor, Tensor]], dtype: torch.dtype
) -> Lines:
    """Lines with these slopes around a graph known at `points`, each ``(place, value, error of the value)``.

    Between the points the graph minus a line must have no extremum (see the module's docstring).
    """
    low_slope, high_slope = low_slope.to(dtype), high_slope.to(dtype)
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    for place, value, error in points:
        for slope, found, sign in ((low_slope.double(), lows, -1.0), (high_slope.double(), highs, 1.0)):
            product = slope * place
            tiny = 4 * _TINY * ((slope != 0) & (place != 0)).double()  # also where the product underflows to zero
            slack = error + 4 * _U * (value.abs() + product.abs()) + tiny
            found.append(value - product + sign * slack)
    low, high = lows[0], highs[0]
    for a, b in zip(lows[1:], highs[1:], strict=True):
        low, high = torch.minimum(low, a), torch.maximum(high, b)
    return Lines(low_slope, toward(low, dtype, -torch.inf), high_slope, toward(high, dtype, torch.inf))


# ---- two slopes (every Leaky ReLU) ----------------------------------------------------------------------------------


def _value_and_error(op: TwoSlope, x: Tensor) -> tuple[Tensor, Tensor]:
    """``f(x)`` and a bound on its error: three roundings and the parameters' own uncertainty."""
    reach = torch.maximum(op.left.abs(), op.right.abs()) * (x.abs() + 2 * op.kink.abs())
    exact = ((op.kink == 0) & (op.value == 0)).expand(x.shape)
    slope = torch.where(x >= op.kink, op.right, op.left)
    plain = exact & ((slope == 0) | (slope.abs() == 1))
    error = (8 * _U + 4 * op.precision) * (op.value.abs() + reach) + 4 * _TINY
    return op(x), torch.where(plain & (op.precision == 0), 0.0, error)


def _two_slope_image(op: TwoSlope, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    if is_leaky(op):
        return _leaky_image(op, lower, upper)
    middle = torch.minimum(torch.maximum(op.kink.expand(lower.shape), lower), upper)
    ends = [_value_and_error(op, x) for x in (lower, upper, middle)]
    low = torch.stack([value - error for value, error in ends]).amin(0)
    high = torch.stack([value + error for value, error in ends]).amax(0)
    rounded = torch.stack([error for _, error in ends]).amax(0) > 0
    return torch.where(rounded, down(low), low), torch.where(rounded, up(high), high)


def _two_slope_envelope(op: TwoSlope, lower: Tensor, upper: Tensor, tilt: Tensor | None, dtype: torch.dtype) -> Lines:
    left, right = op.left, op.right
    if is_leaky(op) and dtype == torch.float64:
        lines = _leaky_envelope(op, lower, upper)
        return lines if tilt is None else _turned(op, lines, lower, upper, tilt)
    if tilt is not None and _through_origin(op, dtype):
        return _turned(op, _two_slope_envelope(op, lower, upper, None, dtype), lower, upper, tilt)
    at_lower, at_upper = op(lower), op(upper)
    steep, flat = torch.maximum(left, right), torch.minimum(left, right)
    chord = ((at_upper - at_lower) / (upper - lower).clamp(min=_TINY)).clamp(min=flat, max=steep)
    if tilt is None:
        tilt = default_tilt(op, lower, upper)
    ray = left + tilt.double() * (right - left)
    convex = right >= left
    low, high = torch.where(convex, ray, chord), torch.where(convex, chord, ray)
    for side, slope in ((lower >= op.kink, right), (upper <= op.kink, left)):
        low, high = torch.where(side, slope, low), torch.where(side, slope, high)
    middle = torch.minimum(torch.maximum(op.kink.expand(lower.shape), lower), upper)
    return _offsets(low, high, [(x, *_value_and_error(op, x)) for x in (lower, upper, middle)], dtype)


def is_leaky(op: Op) -> TypeGuard[TwoSlope]:
    """Whether it is a plain Leaky ReLU with slopes in [0, 1], exactly, and none so small that it has fewer digits."""
    if not isinstance(op, TwoSlope):
        return False
    if op not in _LEAKY:
        plain = op.precision == 0 and not any(bool(x) for x in (op.kink.any(), op.value.any(), (op.right != 1).any()))
        fits = (op.left == 0) | (op.left >= _LEAST) & (op.left <= 1)
        with lasting():
            _LEAKY[op] = _Leaky.of(op.left) if plain and bool(fits.all()) else None
    return _LEAKY[op] is not None


def _leaky(op: TwoSlope) -> _Leaky:
    found = _LEAKY[op] if is_leaky(op) else None
    if found is None:
        raise InternalError("the activation is no plain Leaky ReLU")
    return found


@dataclass(frozen=True)
class _Leaky:
    """What is kept of a plain Leaky ReLU: its slope rounded up and down, and where images and lines are exact.

    inexact: a unit of underflow, zero for the slopes 0 and 1. linear: how far an interval may reach to both sides of
    the kink without a bend, which is any distance for the slope 1.
    """

    high: Tensor
    low: Tensor
    inexact: Tensor
    linear: Tensor

    @classmethod
    def of(cls, slope: Tensor) -> _Leaky:
        """Eight units make up for three roundings: of the slope itself, and of two products."""
        straight = slope == 1
        return cls(
            (slope * (1 + 8 * _U)).clamp(max=1),
            torch.where(straight, 1.0, slope * (1 - 8 * _U)),
            torch.where((slope == 0) | straight, 0.0, torch.full_like(slope, _TINY)),
            torch.where(straight, torch.inf, torch.zeros_like(slope)),
        )


def _leaky_image(op: TwoSlope, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """``max(x, slope x)`` at both ends, rounded outwards by moving the slope; exact to the right, and for 0 and 1.

    What underflows is less than ``|x|`` too, so nothing is added at zero.
    """
    kept = _leaky(op)
    return (
        torch.maximum(lower, lower * kept.high - torch.minimum(-lower.clamp(max=0), kept.inexact)),
        torch.maximum(upper, upper * kept.low + torch.minimum(-upper.clamp(max=0), kept.inexact)),
    )


def _leaky_envelope(op: TwoSlope, lower: Tensor, upper: Tensor) -> Lines:
    """The lines around ``max(x, slope x)``, without a tilt: a special case that is worth being fast.

    With the interval's parts left and right of the kink, ``low <= 0 <= high``, the chord turns from the slope to 1 as
    the right part's share of the interval grows; on one side of the kink `lerp` gives the activation's own slope
    exactly, and the offset is zero. Else the offset is that of the end where it is larger, for the chord as it was
    rounded: a difference and a product round once each. What underflows there is less than either part.

    Below the ray that `default_tilt` chooses, exactly through the kink; on one side that is the activation itself.
    """
    slope, one = op.left, op.right
    low, high = lower.clamp(max=0), upper.clamp(min=0)
    chord = torch.lerp(slope, one, high / (high - low).clamp_(min=_TINY))
    offset = torch.maximum((slope - chord).mul_(low), (one - chord).mul_(high))
    offset = torch.add(offset * (1 + 8 * _U), torch.minimum(-low, high).clamp_(max=4 * _TINY))
    ray = torch.lerp(slope, one, default_tilt(op, lower, upper))
    return Lines(ray, torch.zeros_like(offset), chord, offset, through_origin=True)


def _through_origin(op: TwoSlope, dtype: torch.dtype) -> bool:
    """Whether every line through the origin with a slope between the two, in `dtype`, is exactly on one side."""
    plain = op.precision == 0 and not bool(op.kink.any()) and not bool(op.value.any())
    return plain and bool((op.left.to(dtype) == op.left).all()) and bool((op.right.to(dtype) == op.right).all())


def _turned(op: TwoSlope, lines: Lines, lower: Tensor, upper: Tensor, tilt: Tensor) -> Lines:
    """The lines with the free one replaced by the ray through the kink at the origin that `tilt` says.

    A ray needs no offset: ``f(x) - d x`` is ``(right - d) x`` to the right of zero and ``(left - d) x`` to its left,
    which have the same sign for ``d`` between the slopes. The clamp keeps a rounded ``d`` there.
    """
    dtype = lines.lower_slope.dtype
    left, right = op.left.to(dtype), op.right.to(dtype)
    ray = (left + tilt.to(dtype) * (right - left)).clamp(torch.minimum(left, right), torch.maximum(left, right))
    free = (lower < 0) & (upper > 0)
    below, above = free & (right >= left), free & (right < left)
    low_slope, low_offset, high_slope, high_offset = (
        lines.lower_slope,
        lines.lower_offset,
        lines.upper_slope,
        lines.upper_offset,
    )
    if bool(below.any()):
        low_slope, low_offset = torch.where(below, ray, low_slope), low_offset.masked_fill(below, 0.0)
    if bool(above.any()):
        high_slope, high_offset = torch.where(above, ray, high_slope), high_offset.masked_fill(above, 0.0)
    return Lines(low_slope, low_offset, high_slope, high_offset)


_IMAGES[TwoSlope], _ENVELOPES[TwoSlope] = _two_slope_image, _two_slope_envelope


# ---- clip -----------------------------------------------------------------------------------------------------------


def _clip_image(op: Clip, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return op(lower), op(upper)


def _clip_envelope(op: Clip, lower: Tensor, upper: Tensor, tilt: Tensor | None, dtype: torch.dtype) -> Lines:
    floor, ceiling = lower.new_tensor(op.lower), lower.new_tensor(op.upper)
    chord = ((op(upper) - op(lower)) / (upper - lower).clamp(min=_TINY)).clamp(0, 1)
    first, last = torch.maximum(floor, lower), torch.minimum(ceiling, upper)  # the part with slope one
    turn = (upper - first > first - lower).double() if tilt is None else tilt
    turn_high = (last - lower > upper - last).double() if tilt is None else tilt
    cut_low, cut_high = lower < floor, upper > ceiling
    # cut below only: convex; cut above only: concave; cut twice: the lines over and under the S
    rise = ceiling - floor
    over, under = rise / (ceiling - lower).clamp(min=_TINY), rise / (upper - floor).clamp(min=_TINY)
    low = torch.where(cut_low & cut_high, turn * under, torch.where(cut_low, turn, chord))
    high = torch.where(cut_low & cut_high, turn_high * over, torch.where(cut_high, turn_high, chord))
    flat = (upper <= floor) | (lower >= ceiling)
    low, high = torch.where(flat, 0.0, low.clamp(0, 1)), torch.where(flat, 0.0, high.clamp(0, 1))
    exact = torch.zeros_like(lower)
    kinks = [torch.minimum(torch.maximum(kink.expand(lower.shape), lower), upper) for kink in (floor, ceiling)]
    return _offsets(low, high, [(x, op(x), exact) for x in (lower, upper, *kinks)], dtype)


_IMAGES[Clip], _ENVELOPES[Clip] = _clip_image, _clip_envelope


# ---- sigmoid and tanh: odd around zero, convex to the left, concave to the right ------------------------------------


def _sigmoid_place(slope: Tensor) -> Tensor:
    """The ``x >= 0`` where the sigmoid's derivative is `slope` (0 where it never is): ``s(1-s) = d``."""
    root = (1 - 4 * slope).clamp(min=0).sqrt()
    return torch.log((1 + root) ** 2 / (4 * slope).clamp(min=_TINY)).clamp(min=0)


def _tanh_place(slope: Tensor) -> Tensor:
    """The ``x >= 0`` where tanh's derivative ``1 - tanh^2`` is `slope` (0 where it never is)."""
    root = (1 - slope).clamp(min=0).sqrt()
    return (torch.log((1 + root) ** 2 / slope.clamp(min=_TINY)) / 2).clamp(min=0)


def _smooth_image(op: Sigmoid | Tanh, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
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


def _smooth_envelope(
    op: Sigmoid | Tanh,
    lower: Tensor,
    upper: Tensor,
    tilt: Tensor | None,  # noqa: ARG001
    dtype: torch.dtype,
) -> Lines:
    chord = ((op(upper) - op(lower)) / (upper - lower).clamp(min=_TINY)).clamp(min=0)
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
    return _offsets(low, high, points, dtype)


for _kind in (Sigmoid, Tanh):
    _IMAGES[_kind], _ENVELOPES[_kind] = _smooth_image, _smooth_envelope


# ---- the maximum of several -----------------------------------------------------------------------------------------


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
    slope = torch.where(rest > bottom, ((top - rest) / (top - bottom).clamp(min=_TINY)).clamp(0, 1), 1.0).to(
        lower.dtype
    )
    exact = torch.zeros_like(top)
    lines = _offsets(slope, slope, [(bottom, rest, exact), (top, top, exact)], lower.dtype)
    return MaximumLines(lower_at, upper_at, slope, torch.where(rest > bottom, lines.upper_offset, 0.0).to(lower.dtype))
