"""Sectors of activations: between which two slopes every chord of their graph lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leaktight.errors import InternalError, UnsupportedOperator
from leaktight.models.network import Node
from leaktight.models.ops import Clip, Elementwise, Op, Sigmoid, Tanh, TwoSlope
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.rounding import down, up

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sector:
    """For all ``u``, ``u'`` that a neuron can have, ``f(u) - f(u') = d (u - u')`` with ``low <= d <= high``.

    One entry for each neuron, ``(n,)`` in float64; the true sector may be smaller, never larger.
    """

    low: Array
    high: Array

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise UnsupportedOperator(
                "slopes of activations, or products of them with what stands beside them, are beyond the numbers of"
                " float64, and no method of lipschitz knows what to do with them; divide a layer's weights by what they"
                " are multiplied with elsewhere"
            )
        if not bool((self.low <= self.high).all()):
            raise InternalError("a sector has its lower slope first")

    @property
    def steepest(self) -> Array:
        """The largest absolute slope of each neuron: its own Lipschitz constant."""
        found: Array = np.maximum(np.abs(self.low), np.abs(self.high))
        return found

    @property
    def size(self) -> int:
        return len(self.low)


Rule = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]


def sector(node: Node, before: Interval | None = None) -> Sector:
    """The sector of an elementwise node.

    Without `before` it holds for all inputs. With it, ``(1, *shape)`` bounds of the node's input over a convex region,
    it holds for inputs of the region: a neuron that stays on one side of its kink has one slope.

    Raises UnsupportedOperator: no rule knows the operator.
    """
    rule = _RULES.get(type(node.op))
    if rule is None:
        raise UnsupportedOperator(
            f"node {node.origin or node.name!r}: {type(node.op).__name__} has no sector of slopes, which every method"
            f" of lipschitz needs ({', '.join(sorted(kind.__name__ for kind in _RULES))} have one); what works on this"
            " network is bounds over a region: leaktight bounds, certify and leak"
        )
    everywhere = torch.full(node.shape, torch.inf, dtype=torch.float64)
    low, high = (-everywhere, everywhere) if before is None else (before.lower[0].double(), before.upper[0].double())
    found = (end.expand(node.shape).reshape(-1).contiguous().numpy() for end in rule(node.op, low, high))
    return Sector(*found)


def has_sector(op: Op) -> bool:
    """Whether `sector` has a rule for the operator."""
    return isinstance(op, Elementwise) and type(op) in _RULES


def _two_slope(op: TwoSlope, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The two slopes; one of them where the interval lies on one side of the kink, wherever exactly that is."""
    left, right, kink = (_around(p, op.precision) for p in (op.left, op.right, op.kink))
    only_right, only_left = low >= kink[1], high <= kink[0]
    ends = torch.minimum(left[0], right[0]), torch.maximum(left[1], right[1])
    return tuple(  # type: ignore[return-value]
        torch.where(only_right, r, torch.where(only_left, s, end)) for r, s, end in zip(right, left, ends, strict=True)
    )


def _around(parameter: Tensor, precision: float) -> tuple[Tensor, Tensor]:
    value = parameter.double()
    if not precision:
        return value, value
    off = up(value.abs() * precision)
    return down(value - off), up(value + off)


def _clip(op: Clip, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    constant = (high <= op.lower) | (low >= op.upper) | torch.tensor(op.lower == op.upper)
    inside = (low >= op.lower) & (high <= op.upper) & ~constant
    return inside.double(), (~constant).double()


def _smooth(derivative: Callable[[Tensor], Tensor], top: float) -> Rule:
    """Of an odd function (up to a constant) whose derivative is largest at zero, and falls on both sides of it.

    A chord's slope is the derivative somewhere between its ends. The derivatives here are off by less than 1e-14.
    """

    def rule(_: Op, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        farthest = torch.maximum(low.abs(), high.abs())
        nearest = torch.where((low <= 0) & (high >= 0), 0.0, torch.minimum(low.abs(), high.abs()))
        return (derivative(farthest) - 1e-14).clamp(min=0.0), (derivative(nearest) + 1e-14).clamp(max=top)

    return rule


def _of_sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _of_tanh(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x) ** 2


_RULES: dict[type[Op], Rule] = {
    TwoSlope: _two_slope,
    Clip: _clip,
    Sigmoid: _smooth(_of_sigmoid, 0.25),
    Tanh: _smooth(_of_tanh, 1.0),
}
