"""Adam (Kingma and Ba 2014, arXiv:1412.6980): steps uphill by means of slopes over roots of means of their squares."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST, _SECOND = 0.9, 0.999
_NOTHING = 1e-24  # under the root, so that nothing is divided by zero

Moments = tuple[Tensor, Tensor]
"""Running means of slopes, and of their squares."""


def moments(like: Tensor) -> Moments:
    """Those of no slopes yet."""
    return torch.zeros_like(like), torch.full_like(like, _NOTHING)


def direction(known: Moments, slope: Tensor) -> Tensor:
    """Where to go, in entries of about one once `warmed`; `known` takes the slope in."""
    mean, square = known
    mean.lerp_(slope, 1 - _FIRST)
    square.mul_(_SECOND).addcmul_(slope, slope, value=1 - _SECOND)
    return square.rsqrt().mul_(mean)


def warmed(size: float, step: int) -> float:
    """The size of a step, from 0 on, corrected for means that began at zero."""
    return float(size * (1 - _SECOND ** (step + 1)) ** 0.5 / (1 - _FIRST ** (step + 1)))
