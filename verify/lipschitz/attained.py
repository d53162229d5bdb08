"""Lower bounds: two inputs whose outputs are provably that far apart."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.region import Box, Norm, Region
from leaktight.verify.bounds import interval
from leaktight.verify.clock import TimeUp, left
from leaktight.verify.rounding import gamma

_WIDEST = 256  # outputs up to which whole Jacobians are worth their time
_TOGETHER = 32  # of them at once


def attained(network: Network, norm: Norm, region: Region | None = None, *, samples: int = 8, seed: int = 0) -> float:
    """A number that the Lipschitz constant is not below (in `region`, one of a batch of one; else everywhere).

    At random inputs the direction in which the Jacobian stretches most is tried: ``|f(x + h p) - f(x)| / |h p|``, with
    both outputs enclosed by interval arithmetic and everything rounded downwards.
    """
    generator = torch.Generator().manual_seed(seed)
    best = 0.0
    for _ in range(samples if network.output_size <= _WIDEST else 0):
        x = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
        x = x if region is None else region.sample(generator)
        try:
            direction = _steepest(network, x, norm)
            for size in (1e-2, 1e-4):
                moved = x + size * direction * max(1.0, float(x.abs().max()))
                if region is None or bool(region.contains(moved).all()):
                    best = max(best, _quotient(network, x, moved, norm))
        except TimeUp:
            break
        if left() < 0:  # one is tried in any case
            break
    return best


def _steepest(network: Network, x: Tensor, norm: Norm) -> Tensor:
    """A direction ``(1, n)`` of length about one in which the network moves most at `x`; none where it overflows."""
    jacobian = _jacobian(network, x)
    if not bool(torch.isfinite(jacobian).all()):
        return torch.zeros_like(x).reshape(1, -1)
    if norm is Norm.L2:
        _, _, directions = torch.linalg.svd(jacobian, full_matrices=False)
        return directions[:1]  # type: ignore[no-any-return]
    if norm is Norm.LINF:
        return jacobian[jacobian.abs().sum(1).argmax()].sign().unsqueeze(0)
    at = jacobian.abs().sum(0).argmax()
    return torch.nn.functional.one_hot(at, jacobian.shape[1]).double().unsqueeze(0)


def _jacobian(network: Network, x: Tensor) -> Tensor:
    """``(outputs, inputs)`` at `x` ``(1, n)``; some outputs at a time, each from a row of a batch of the same point."""
    rows = []
    for places in torch.arange(network.output_size).split(_TOGETHER):
        points = x.expand(len(places), -1).clone().requires_grad_()
        own = network.flat(points).gather(1, places.unsqueeze(1)).sum()
        known = own.requires_grad  # else it depends on no input
        rows.append(torch.autograd.grad(own, points, materialize_grads=True)[0] if known else torch.zeros_like(points))
    return torch.cat(rows)


def _quotient(network: Network, x: Tensor, moved: Tensor, norm: Norm) -> float:
    """At most ``|f(moved) - f(x)| / |moved - x|``."""
    both = torch.cat([x, moved])
    ends = interval.outputs(network, interval.propagate(network, Box(both, both)))
    low, high = ends.lower[1] - ends.upper[0], ends.upper[1] - ends.lower[0]
    apart = torch.where(low > 0, low, torch.where(high < 0, -high, 0.0)) * (1 - 2.0**-50)
    moved_by = (moved - x)[0].abs() * (1 + 2.0**-50)
    if not bool(moved_by.any()):
        return 0.0
    slack = gamma(max(len(apart), len(moved_by)), torch.float64) + 2.0**-48
    found = _length(apart, norm) * (1 - slack) / (_length(moved_by, norm) * (1 + slack))
    return found if found < torch.inf else 0.0


def _length(x: Tensor, norm: Norm) -> float:
    if norm is Norm.L2:
        return sqrt(float(x.square().sum()))
    return float(x.max()) if norm is Norm.LINF else float(x.sum())
