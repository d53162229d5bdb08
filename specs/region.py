"""Regions: the sets of inputs that a statement is about.

A region lives in the flat space of all of a network's input entries, ``n`` of them, and comes in batches: one region
per input of a data set, say. All numbers are float64. `lower` and `upper` enclose the region; a box given in decimals
that float64 cannot hold is enclosed by its neighbours (`inner_lower`, `inner_upper` lie inside it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from leaktight.errors import PropertyError


class Norm(Enum):
    """The norms that balls are measured in."""

    LINF = "inf"
    L2 = "2"
    L1 = "1"

    @classmethod
    def named(cls, name: object) -> Norm:
        """The norm called ``inf``, ``2`` or ``1`` (a number or a string)."""
        found = {"inf": cls.LINF, "linf": cls.LINF, "2": cls.L2, "2.0": cls.L2, "l2": cls.L2, "1": cls.L1, "1.0": cls.L1,
                 "l1": cls.L1}.get(str(name.value if isinstance(name, Norm) else name).lower())
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
        """``(batch, n)``: no closed form behind `minimum` adds up more than ``|a| . magnitude`` in absolute value."""

    @abstractmethod
    def minimum(self, coefficients: Tensor) -> Tensor:
        """A lower bound of ``a . x`` over the region up to rounding, ``(batch, rows)`` for ``(batch, rows, n)``.

        It is attained unless the class says otherwise. Whoever needs a bound in real arithmetic subtracts
        ``gamma * |a| . magnitude`` (leaktight.verify.rounding).
        """

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Whether each of ``(batch, n)`` points lies in its region; exact for boxes, within 1e-12 for balls."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A nearby point inside the region for each of ``(..., batch, n)`` points; differentiable almost everywhere."""

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
    return torch.where(wrong, near + (beyond - near.detach()), near)


def _finite(name: str, x: Tensor) -> None:
    if not torch.isfinite(x).all():
        where = int((~torch.isfinite(x)).nonzero()[0, -1])
        raise PropertyError(f"the input region is not bounded: {name} of input entry {where} is {x[..., where].flatten()[0]};"
                            " give a finite bound for every input")


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
        if self.lower.dim() != 2 or self.lower.shape != self.upper.shape:
            raise ValueError(f"a Box needs two (batch, n) tensors; got {tuple(self.lower.shape)}, {tuple(self.upper.shape)}")
        _finite("the lower bound", self.lower)
        _finite("the upper bound", self.upper)
        empty = self.lower > self.upper
        if empty.any():
            at = int(empty.nonzero()[0, 1])
            row = int(empty.nonzero()[0, 0])
            raise PropertyError(f"the input region is empty: input entry {at} has lower bound {float(self.lower[row, at])!r}"
                                f" above its upper bound {float(self.upper[row, at])!r}")

    @property
    def magnitude(self) -> Tensor:
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def minimum(self, coefficients: Tensor) -> Tensor:
        positive = coefficients.clamp(min=0)
        ends = positive @ self.lower.unsqueeze(-1) + (coefficients - positive) @ self.upper.unsqueeze(-1)
        return ends.squeeze(-1)

    def contains(self, x: Tensor) -> Tensor:
        low = self.lower if self.inner_lower is None else self.inner_lower
        high = self.upper if self.inner_upper is None else self.inner_upper
        return ((x >= low) & (x <= high)).all(-1)

    def project(self, x: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(x, self.upper), self.lower)

    def sample(self, generator: torch.Generator) -> Tensor:
        share = torch.rand(self.lower.shape, generator=generator, dtype=torch.float64).to(self.lower.dtype)
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

    The minimum of a linear function. *L1*: moving coordinate ``i`` by one gains ``|a_i|``, so the budget goes to the
    largest ``|a_i|`` first, each until its wall: exact. *L2*: Lagrangian duality; for every ``lam > 0``

        min a.x  >=  a.centre + sum_i min over the walls of (a_i t + lam t^2 / 2) - lam radius^2 / 2

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
        _finite("the lower bound", self.lower)
        _finite("the upper bound", self.upper)

    @property
    def magnitude(self) -> Tensor:
        return self.centre.abs() + 2 * self.radius.unsqueeze(-1)

    def minimum(self, coefficients: Tensor) -> Tensor:
        base = (coefficients @ self.centre.unsqueeze(-1)).squeeze(-1)
        # how far each coordinate may move in the direction that lowers a.x
        room = torch.where(coefficients > 0, (self.centre - self.lower).unsqueeze(1), (self.upper - self.centre).unsqueeze(1))
        gain = coefficients.abs()
        radius = self.radius.reshape(-1, 1)
        if self.norm is Norm.L1:
            order = gain.argsort(-1, descending=True)
            walls = room.gather(-1, order).cumsum(-1)
            used = torch.minimum(walls, radius.unsqueeze(-1))
            spent = torch.diff(used, dim=-1, prepend=used.new_zeros(*used.shape[:-1], 1))
            return base - (gain.gather(-1, order) * spent).sum(-1)
        unbounded = gain.norm(dim=-1)
        low = torch.zeros_like(unbounded)
        high = unbounded / radius.clamp(min=torch.finfo(radius.dtype).tiny)
        best = -(unbounded * radius)  # the plain ball's answer, at the multiplier `high`
        if bool((room >= radius.unsqueeze(-1)).all()):
            return base + best
        with torch.no_grad():
            for _ in range(60):
                middle = (low + high) / 2
                step = torch.minimum(gain / middle.unsqueeze(-1).clamp(min=torch.finfo(gain.dtype).tiny), room)
                short = step.norm(dim=-1) < radius
                high, low = torch.where(short, middle, high), torch.where(short, low, middle)
        for multiplier in (low, high):
            lam = multiplier.unsqueeze(-1)
            step = torch.minimum(gain / lam.clamp(min=torch.finfo(gain.dtype).tiny), room)
            value = (-gain * step + lam * step**2 / 2).sum(-1) - multiplier * radius**2 / 2
            best = torch.maximum(best, value)
        return base + best

    def contains(self, x: Tensor) -> Tensor:
        order = 2 if self.norm is Norm.L2 else 1
        near = (x - self.centre).norm(p=order, dim=-1) <= self.radius * (1 + 1e-12)
        return near & ((x >= self.lower) & (x <= self.upper)).all(-1)

    def project(self, x: Tensor) -> Tensor:
        # shrinking towards the centre keeps to the box, which is convex and holds the centre
        order = 2 if self.norm is Norm.L2 else 1
        boxed = torch.maximum(torch.minimum(x, self.upper), self.lower)
        move = boxed - self.centre
        length = move.norm(p=order, dim=-1, keepdim=True)
        shrink = (self.radius.unsqueeze(-1) / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1)
        return torch.maximum(torch.minimum(self.centre + shrink * move, self.upper), self.lower)

    def sample(self, generator: torch.Generator) -> Tensor:
        wide = torch.rand(self.centre.shape, generator=generator, dtype=torch.float64).to(self.centre.dtype) * 2 - 1
        if self.norm is Norm.L1:  # few coordinates take most of the budget: the ball's corners are its far points
            wide = wide**9
        order = 2 if self.norm is Norm.L2 else 1
        length = wide.norm(p=order, dim=-1, keepdim=True)
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
        radius = toward((self.radius + moved) * (1 + 1e-12), dtype, torch.inf)
        lower = torch.minimum(toward(self.lower, dtype, -torch.inf), centre)
        upper = torch.maximum(toward(self.upper, dtype, torch.inf), centre)
        return Ball(centre, radius, self.norm, lower, upper)


def ball(centre: Tensor, radius: Tensor | float, norm: Norm = Norm.LINF, clip: tuple[float, float] | None = None) -> Region:
    """The ball of `radius` around each of ``(batch, n)`` centres, cut with ``clip[0] <= x <= clip[1]``.

    Raises PropertyError: a centre, the radius or the clip range is negative, NaN or infinite where it must not be, or a
    centre lies outside the clip range.
    """
    centre = centre.double()
    size = torch.as_tensor(radius, dtype=torch.float64).reshape(-1).expand(len(centre))
    if not (torch.isfinite(size).all() and bool((size >= 0).all())):
        raise PropertyError(f"the radius (epsilon) must be a finite number >= 0; got {float(size.flatten()[0])}")
    if not torch.isfinite(centre).all():
        raise PropertyError("the centre of a ball holds NaN or infinite values")
    lower, upper = _outward(centre, size.unsqueeze(-1))
    if clip is not None:
        low, high = clip
        if not low <= high:
            raise PropertyError(f"the clip range must have lower <= upper; got {low} {high}")
        outside = (centre < low) | (centre > high)
        if outside.any():
            at = outside.nonzero()[0]
            raise PropertyError(f"input {int(at[0])} has value {float(centre[tuple(at)])!r} at entry {int(at[1])}, outside the clip"
                                f" range [{low}, {high}]; scale the data or give another range")
        lower, upper = lower.clamp(min=low), upper.clamp(max=high)
    if norm is Norm.LINF:
        return Box(lower, upper)
    return Ball(centre, size, norm, lower, upper)


def _outward(centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """``centre -+ radius`` rounded outwards; exactly the centre where the radius is zero."""
    infinity = torch.tensor(torch.inf, dtype=centre.dtype)
    lower, upper = torch.nextafter(centre - radius, -infinity), torch.nextafter(centre + radius, infinity)
    still = radius == 0
    return torch.where(still, centre, lower), torch.where(still, centre, upper)
