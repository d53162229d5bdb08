"""Balls cut with a box, and the regions that "within epsilon of an input" means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.errors import PropertyError
from leaktight.specs.region.box import Box
from leaktight.specs.region.norm import Norm
from leaktight.specs.region.region import Region, check_walls, toward, uniform
from leaktight.specs.region.support import euclidean, greatest_l1, greatest_l2


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
        check_walls(self.lower, self.upper)
        if self.centre.shape != self.lower.shape or self.radius.shape != self.lower.shape[:1]:
            raise ValueError(
                f"a Ball needs a (batch, n) centre and a (batch,) radius; got {tuple(self.centre.shape)}, "
                f"{tuple(self.radius.shape)}"
            )
        _check_radius(self.radius)
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
        wide = uniform(self.centre, generator) * 2 - 1
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


def ball(
    centre: Tensor, radius: Tensor | float, norm: Norm = Norm.LINF, clip: tuple[float, float] | None = None
) -> Region:
    """The ball of `radius` around each of ``(batch, n)`` centres, cut with ``clip[0] <= x <= clip[1]``.

    Raises PropertyError: a centre, the radius or the clip range is negative, NaN or infinite where it must not be, or a
    centre lies outside the clip range.
    """
    centre = centre.double()
    size = torch.as_tensor(radius, dtype=torch.float64).reshape(-1).expand(len(centre))
    _check_radius(size)
    if not torch.isfinite(centre).all():
        raise PropertyError("the centre of a ball holds NaN or infinite values")
    lower, inner_lower = _shifted(centre, -size.unsqueeze(-1))
    inner_upper, upper = _shifted(centre, size.unsqueeze(-1))
    if clip is not None:
        _check_clip(centre, *clip)
        lower, inner_lower, inner_upper, upper = (x.clamp(*clip) for x in (lower, inner_lower, inner_upper, upper))
    if norm is Norm.LINF:
        return Box(lower, upper, inner_lower, inner_upper)
    return Ball(centre, size, norm, lower, upper)


def _check_radius(radius: Tensor) -> None:
    if not (torch.isfinite(radius).all() and bool((radius >= 0).all())):
        raise PropertyError(f"the radius (epsilon) must be a finite number >= 0; got {radius.tolist()}")


def _check_clip(centre: Tensor, low: float, high: float) -> None:
    if not low <= high:
        raise PropertyError(f"the clip range must have lower <= upper; got {low} {high}; give the lower number first")
    outside = (centre < low) | (centre > high)
    if outside.any():
        row, at = outside.nonzero()[0].tolist()
        raise PropertyError(
            f"input {row} has value {float(centre[row, at])!r} at entry {at}, outside the clip "
            f"range [{low}, {high}]; scale the data or give another range"
        )


def _shifted(centre: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    """The float64 neighbours of the exact ``centre + move``, below and above; both are it where float64 holds it."""
    near = centre + move
    # what the addition rounded away, exactly (Knuth's two-sum)
    back = near - centre
    off = (centre - (near - back)) + (move - back)
    infinity = near.new_tensor(torch.inf)
    below = torch.where(off < 0, torch.nextafter(near, -infinity), near)
    return below, torch.where(off > 0, torch.nextafter(near, infinity), near)
