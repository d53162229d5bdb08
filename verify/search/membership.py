"""Points that lie inside a region in exact arithmetic, in numbers that the network's inputs can hold."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Ball, Box, Norm, Region, toward
from leaktight.specs.region.support import euclidean

_FLOATS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_FULL = 1e-290  # numbers above have all their digits, and so have their products with 2^-53


def settle(network: Network, region: Region, points: Tensor) -> Tensor:
    """The points moved strictly inside the region, as float64.

    For one region (a batch of one) and points ``(k, n)`` in any float dtype. Every coordinate of the result is a number
    of its input's dtype, except where the region's range holds none (a constant like 0.1): there it is a float64
    inside the range, or the nearest one where even float64 has none. A ball too small to hold any point of the
    inputs' dtypes yields float64 points. Membership is exact: decided in rational arithmetic where float64 cannot.
    """
    if isinstance(region, Ball):
        return torch.stack([_settle_in_ball(network, region, point) for point in points.double()])
    lower, upper = inner(region)
    return _clamp(representable(network, points), *_choices(network, lower, upper))


def grid(network: Network, region: Region) -> tuple[Tensor, Tensor]:
    """The walls ``(batch, n)`` between which `settle` places points: numbers of the inputs' dtypes where possible."""
    lower, upper = _choices(network, *inner(region))
    return torch.minimum(lower, upper), upper


def inner(region: Region) -> tuple[Tensor, Tensor]:
    """The walls of the region (for a ball: of the box that cuts it), rounded inwards where they had to be."""
    lower, upper = region.lower, region.upper
    if isinstance(region, Box):
        lower = lower if region.inner_lower is None else region.inner_lower
        upper = upper if region.inner_upper is None else region.inner_upper
    return lower.double(), upper.double()


def representable(network: Network, points: Tensor) -> Tensor:
    """The points ``(..., n)`` with every coordinate rounded to the nearest number of its input's dtype, as float64."""
    parts = torch.split(points.double(), [port.size for port in network.inputs], -1)
    return torch.cat([_nearest(x, port.dtype) for x, port in zip(parts, network.inputs, strict=True)], -1)


def _nearest(x: Tensor, dtype: str) -> Tensor:
    return x.to(_FLOATS[dtype]).double() if dtype in _FLOATS else x.round()


def _choices(network: Network, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest number of each input's dtype in ``[lower, upper]``; of float64 where there is none.

    Where not even a float64 lies between (then ``lower > upper``, and they are neighbours), both are `upper`.
    """
    low, high = _inwards(network, lower, torch.inf), _inwards(network, upper, -torch.inf)
    none = low > high
    low, high = torch.where(none, lower, low), torch.where(none, upper, high)
    return torch.where(low > high, high, low), high


def _inwards(network: Network, x: Tensor, direction: float) -> Tensor:
    parts = torch.split(x, [port.size for port in network.inputs], -1)
    pairs = zip(parts, network.inputs, strict=True)
    return torch.cat([_toward(part, port.dtype, direction) for part, port in pairs], -1)


def _toward(x: Tensor, dtype: str, direction: float) -> Tensor:
    if dtype in _FLOATS:
        return toward(x, _FLOATS[dtype], direction).double()
    return x.ceil() if direction > 0 else x.floor()


def _clamp(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(x, upper), lower)


def _settle_in_ball(network: Network, ball: Ball, point: Tensor) -> Tensor:
    """The first point on the way from `point` to the centre that is inside: a representable one, else any float64."""
    centre, walls = ball.centre[0].double(), [wall[0] for wall in _choices(network, *inner(ball))]
    move = _clamp(ball.project(point.unsqueeze(0))[0].double(), *walls) - centre
    shares = (1, 1 - 1e-15, 1 - 1e-9, 1 - 1e-7, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3, 0.99, 0.9, 0.5, 0)
    for rounded in (True, False):
        for share in shares:
            near = centre + share * move if share else centre
            if rounded:
                near = torch.where(walls[0] == walls[1], walls[0], representable(network, near))
            near = _clamp(near, ball.lower[0].double(), ball.upper[0].double())
            if lies_inside(ball, near):
                return near
    return centre


def lies_inside(region: Region, point: Tensor) -> bool:
    """Whether the float64 point ``(n,)`` lies in the region (a batch of one), in exact arithmetic."""
    lower, upper = inner(region)
    if not bool(((point >= lower[0]) & (point <= upper[0])).all()):
        return False
    return not isinstance(region, Ball) or _within_radius(region, point)


def _within_radius(ball: Ball, point: Tensor) -> bool:
    centre, radius = ball.centre[0].double(), float(ball.radius[0])
    move = point - centre
    length = float(euclidean(move) if ball.norm is Norm.L2 else move.abs().sum())
    # far more than float64 can be off for fewer than 10^6 coordinates, but where digits are lost to underflow
    if radius > _FULL and abs(length - radius) > 1e-9 * radius:
        return length < radius
    moves = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point.tolist(), centre.tolist(), strict=True) if a != b]
    if ball.norm is Norm.L1:
        return sum(moves, Fraction(0)) <= Fraction(radius)
    return sum((move * move for move in moves), Fraction(0)) <= Fraction(radius) ** 2
