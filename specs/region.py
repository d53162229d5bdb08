"""Regions: the sets of inputs that a statement is about.

A region lives in the flat space of all of a network's input entries, ``n`` of them, and comes in batches: one region
per input of a data set, say. All numbers are float64. `lower` and `upper` enclose the region; a box given in decimals
that float64 cannot hold is enclosed by its neighbours (`inner_lower`, `inner_upper` lie inside it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.support import euclidean, greatest_l1, greatest_l2


class Norm(Enum):
    """The norms that balls are measured in."""

    LINF = "inf"
    L2 = "2"
    L1 = "1"

    @classmethod
    def named(cls, name: object) -> Norm:
        """The norm called ``inf``, ``2`` or ``1`` (a number or a string)."""
        words = {
            "inf": cls.LINF,
            "linf": cls.LINF,
            "2": cls.L2,
            "2.0": cls.L2,
            "l2": cls.L2,
            "1": cls.L1,
            "1.0": cls.L1,
            "l1": cls.L1,
        }
        found = words.get(str(name.value if isinstance(name, Norm) else name).lower())
        if found is None:
            raise PropertyError(f"norm {name!r} is not known; allowed: inf, 2, 1")
        return found


class Region(ABC):
    """A batch of compact convex sets of inputs."""

    lower: Tensor
    upper: Tensor

    @property
    def batch(self) -> int:
        return self.lower.shape[0]

    @property
    def size(self) -> int:
        return self.lower.shape[1]

    @property
    @abstractmethod
    def magnitude(self) -> Tensor:
        """``(batch, n)``: the unit in which the rounding errors of `minimum` are measured; see there."""

    @abstractmethod
    def minimum(self, coefficients: Tensor) -> Tensor:
        """A lower bound of ``a . x`` over the region up to rounding, ``(batch, rows)`` for ``(batch, rows, n)``.

        It is the minimum itself, up to rounding. In real arithmetic it is a bound after subtracting
        ``gamma_(n+8) |a| . magnitude`` and ``n`` units of underflow (leaktight.verify.rounding): each class shows why.
        """

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Whether each of ``(batch, n)`` points lies in its region. Never true of a point outside.

        For boxes exact. A ball may leave out points whose distance from the sphere is within rounding (a relative
        ``n`` units in the last place, plus one of the centre).
        """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A near point for each of ``(..., batch, n)``, which `contains` accepts; differentiable almost everywhere."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """One point of each region, ``(batch, n)``."""

    @abstractmethod
    def select(self, index: Tensor | slice) -> Region:
        """The regions at `index` of the batch."""

    @abstractmethod
    def permuted(self, order: Tensor) -> Region:
        """The region whose entry ``i`` is this one's entry ``order[i]``."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Region:
        """A region in `dtype` that encloses this one."""


def toward(x: Tensor, dtype: torch.dtype, direction: float) -> Tensor:
    """`x` in `dtype`, rounded towards `direction` (an infinity) wherever it is not exact; differentiable as `x` is."""
    if dtype == x.dtype:
        return x
    near = x.to(dtype)
    wrong = near.to(x.dtype) > x if direction < 0 else near.to(x.dtype) < x
    beyond = torch.nextafter(near.detach(), near.new_tensor(direction))
    step = torch.where(torch.isfinite(near), near + (beyond - near.detach()), beyond)  # one unit: exact, where finite
    return torch.where(wrong, step, near)


def _check_walls(lower: Tensor, upper: Tensor) -> None:
    """Raises PropertyError: a bound is not finite, or a lower bound is above its upper bound."""
    if lower.dim() != 2 or lower.shape != upper.shape:
        raise ValueError(f"a region needs two (batch, n) tensors; got {tuple(lower.shape)}, {tuple(upper.shape)}")
    width = upper - lower
    if bool(((width >= 0) & (width < torch.inf)).all()):  # so both are finite, and in order
        return
    for name, wall in (("lower", lower), ("upper", upper)):
        if not torch.isfinite(wall).all():
            row, at = (~torch.isfinite(wall)).nonzero()[0].tolist()
            raise PropertyError(
                f"the input region is not bounded: the {name} bound of input entry {at} is "
                f"{float(wall[row, at])}; give a finite bound for every input"
            )
    if (lower > upper).any():
        row, at = (lower > upper).nonzero()[0].tolist()
        raise PropertyError(
            f"the input region is empty: input entry {at} has lower bound {float(lower[row, at])!r} "
            f"above its upper bound {float(upper[row, at])!r}; give a lower bound below the upper one"
        )


@dataclass(frozen=True, eq=False)
class Box(Region):
    """``lower <= x <= upper`` in every coordinate; tensors ``(batch, n)``.

    `inner_lower` and `inner_upper` (by default the same) are the tightest float64 box inside the one that was meant; in
    a coordinate that holds no float64 at all, ``inner_lower > inner_upper``.
    """

    lower: Tensor
    upper: Tensor
    inner_lower: Tensor | None = None
    inner_upper: Tensor | None = None

    def __post_init__(self) -> None:
        _check_walls(self.lower, self.upper)

    @property
    def inside(self) -> tuple[Tensor, Tensor]:
        """The tightest box in this dtype inside the one that was meant.

        A coordinate that holds no float64 (the constant 0.1) has its neighbours as walls: else nothing would be inside.
        """
        if self.inner_lower is None or self.inner_upper is None:
            return self.lower, self.upper
        none = self.inner_lower > self.inner_upper
        return torch.where(none, self.lower, self.inner_lower), torch.where(none, self.upper, self.inner_upper)

    @property
    def magnitude(self) -> Tensor:
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def minimum(self, coefficients: Tensor) -> Tensor:
        # a . centre - |a| . radius: two roundings in the radius, n in each sum, one at the end, all within
        # |a| . (|centre| + radius), which is |a| . magnitude; whatever the centre was rounded to, the box is around it
        centre, radius = self._around
        shift = coefficients @ centre.unsqueeze(1).mT
        return (shift - coefficients.abs() @ radius.unsqueeze(1).mT).squeeze(-1)

    @cached_property
    def _around(self) -> tuple[Tensor, Tensor]:
        centre = self.lower / 2 + self.upper / 2
        return centre, torch.maximum(self.upper - centre, centre - self.lower)

    def contains(self, x: Tensor) -> Tensor:
        low, high = self.inside
        return ((x >= low) & (x <= high)).all(-1)

    def project(self, x: Tensor) -> Tensor:
        low, high = self.inside
        return torch.maximum(torch.minimum(x, high), low)

    def sample(self, generator: torch.Generator) -> Tensor:
        share = _random(self.lower, generator)
        return self.project(self.lower + share * (self.upper - self.lower))

    def select(self, index: Tensor | slice) -> Box:
        inner = (None if b is None else b[index] for b in (self.inner_lower, self.inner_upper))
        return Box(self.lower[index], self.upper[index], *inner)

    def permuted(self, order: Tensor) -> Box:
        inner = (None if b is None else b[:, order] for b in (self.inner_lower, self.inner_upper))
        return Box(self.lower[:, order], self.upper[:, order], *inner)

    def to(self, dtype: torch.dtype) -> Box:
        if dtype == self.lower.dtype:
            return self
        return Box(toward(self.lower, dtype, -torch.inf), toward(self.upper, dtype, torch.inf))


@dataclass(frozen=True, eq=False)
class Ball(Region):
    """``|x - centre| <= radius`` in L2 or L1, cut with the box ``[lower, upper]``, which holds the centre.

    centre, lower, upper ``(batch, n)``, radius ``(batch,)``. (A ball in L-infinity is a `Box`: see `ball`.)

    The minimum of a linear function. No coordinate moves farther than `radius`, so neither do its walls stand farther
    off here. *L1*: moving coordinate ``i`` by one gains ``|a_i|``, so the budget goes to the largest ``|a_i|`` first,
    each until its wall: exact. *L2*: Lagrangian duality; for every ``lam > 0``

        min a.x  >=  a.centre - sum_i max over steps s up to the wall of (|a_i| s - lam s^2 / 2) - lam radius^2 / 2

    and the best ``lam`` solves one equation in one unknown, found here by bisection; the value is a bound for any.
    """

    centre: Tensor
    radius: Tensor
    norm: Norm
    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.norm is Norm.LINF:
            raise ValueError("a ball in L-infinity is a Box; see leaktight.specs.region.ball")
        _check_walls(self.lower, self.upper)
        if self.centre.shape != self.lower.shape or self.radius.shape != self.lower.shape[:1]:
            raise ValueError(
                f"a Ball needs a (batch, n) centre and a (batch,) radius; got {tuple(self.centre.shape)}, "
                f"{tuple(self.radius.shape)}"
            )
        if not (torch.isfinite(self.radius).all() and bool((self.radius >= 0).all())):
            raise PropertyError(f"the radius must be a finite number >= 0; got {self.radius.tolist()}")
        if not bool(((self.lower <= self.centre) & (self.centre <= self.upper)).all()):
            raise PropertyError("the centre of a ball lies outside the box that cuts it; move one of them")

    @property
    def magnitude(self) -> Tensor:
        return self.centre.abs() + 2 * self.radius.unsqueeze(-1)

    def minimum(self, coefficients: Tensor) -> Tensor:
        base = (coefficients @ self.centre.unsqueeze(-1)).squeeze(-1)
        # how far each coordinate may move in the direction that lowers a.x
        below, above = (self.centre - self.lower).unsqueeze(1), (self.upper - self.centre).unsqueeze(1)
        radius = self.radius.reshape(-1, 1)
        room = torch.minimum(torch.where(coefficients > 0, below, above), radius.unsqueeze(-1))
        gain = coefficients.abs()
        return base - (greatest_l1(gain, room, radius) if self.norm is Norm.L1 else greatest_l2(gain, room, radius))

    def contains(self, x: Tensor) -> Tensor:
        length = self._length(x - self.centre)  # off by less than a factor 1 + (n + 8) u
        near = length * (1 + (self.size + 8) * torch.finfo(length.dtype).eps) <= self.radius
        return near.logical_and(((x >= self.lower) & (x <= self.upper)).all(-1))

    def project(self, x: Tensor) -> Tensor:
        # shrinking towards the centre keeps to the box, which is convex and holds the centre; the last addition moves
        # each coordinate by at most half a unit in the last place of |centre| + radius
        precision = torch.finfo(self.centre.dtype).eps
        lost = precision * self._length(self.centre.abs() + self.radius.unsqueeze(-1))
        reach = (self.radius * (1 - 4 * (self.size + 8) * precision) - lost).clamp(min=0).unsqueeze(-1)
        move = torch.maximum(torch.minimum(x, self.upper), self.lower) - self.centre
        length = self._length(move).unsqueeze(-1)
        shrink = (reach / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1)
        return torch.maximum(torch.minimum(self.centre + shrink * move, self.upper), self.lower)

    def _length(self, move: Tensor) -> Tensor:
        return euclidean(move) if self.norm is Norm.L2 else move.abs().sum(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        wide = _random(self.centre, generator) * 2 - 1
        if self.norm is Norm.L1:  # few coordinates take most of the budget: the ball's corners are its far points
            wide = wide**9
        length = self._length(wide).unsqueeze(-1).clamp(min=torch.finfo(wide.dtype).tiny)
        return self.project(self.centre + wide / length * self.radius.unsqueeze(-1))

    def select(self, index: Tensor | slice) -> Ball:
        return Ball(self.centre[index], self.radius[index], self.norm, self.lower[index], self.upper[index])

    def permuted(self, order: Tensor) -> Ball:
        return Ball(self.centre[:, order], self.radius, self.norm, self.lower[:, order], self.upper[:, order])

    def to(self, dtype: torch.dtype) -> Ball:
        if dtype == self.centre.dtype:
            return self
        centre = self.centre.to(dtype)
        moved = (centre.to(self.centre.dtype) - self.centre).abs().sum(-1)  # the L1 distance exceeds the L2 distance
        slack = 1 + (self.size + 8) * torch.finfo(self.centre.dtype).eps
        radius = toward((self.radius + moved) * slack, dtype, torch.inf)
        lower = torch.minimum(toward(self.lower, dtype, -torch.inf), centre)
        upper = torch.maximum(toward(self.upper, dtype, torch.inf), centre)
        return Ball(centre, radius, self.norm, lower, upper)


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in [0, 1), the same ones in every dtype and on every device."""
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=generator.device).to(like)


def ball(
    centre: Tensor, radius: Tensor | float, norm: Norm = Norm.LINF, clip: tuple[float, float] | None = None
) -> Region:
    """The ball of `radius` around each of ``(batch, n)`` centres, cut with ``clip[0] <= x <= clip[1]``.

    Raises PropertyError: a centre, the radius or the clip range is negative, NaN or infinite where it must not be, or a
    centre lies outside the clip range.
    """
    centre = centre.double()
    size = torch.as_tensor(radius, dtype=torch.float64).reshape(-1).expand(len(centre))
    if not (torch.isfinite(size).all() and bool((size >= 0).all())):
        raise PropertyError(f"the radius (epsilon) must be a finite number >= 0; got {size.tolist()}")
    if not torch.isfinite(centre).all():
        raise PropertyError("the centre of a ball holds NaN or infinite values")
    lower, inner_lower = _shifted(centre, -size.unsqueeze(-1))
    inner_upper, upper = _shifted(centre, size.unsqueeze(-1))
    if clip is not None:
        low, high = clip
        if not low <= high:
            raise PropertyError(f"the clip range must have lower <= upper; got {low} {high}")
        outside = (centre < low) | (centre > high)
        if outside.any():
            row, at = outside.nonzero()[0].tolist()
            raise PropertyError(
                f"input {row} has value {float(centre[row, at])!r} at entry {at}, outside the clip "
                f"range [{low}, {high}]; scale the data or give another range"
            )
        lower, inner_lower, inner_upper, upper = (x.clamp(low, high) for x in (lower, inner_lower, inner_upper, upper))
    if norm is Norm.LINF:
        return Box(lower, upper, inner_lower, inner_upper)
    return Ball(centre, size, norm, lower, upper)


def _shifted(centre: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    """The float64 neighbours of the exact ``centre + move``, below and above; both are it where float64 holds it."""
    near = centre + move
    # what the addition rounded away, exactly (Knuth's two-sum)
    back = near - centre
    off = (centre - (near - back)) + (move - back)
    infinity = near.new_tensor(torch.inf)
    below = torch.where(off < 0, torch.nextafter(near, -infinity), near)
    return below, torch.where(off > 0, torch.nextafter(near, infinity), near)
