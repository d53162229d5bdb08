"""Domains: the inputs of a region for which chosen activations' arguments lie on chosen sides of their kinks."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Elementwise, TwoSlope
from leaktight.specs.region import Region
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.rounding import down, up

Splits = Mapping[str, Tensor]
"""By activation, ``(batch, size)``: 1 where its argument is at or above the kink, -1 at or below it, 0 undecided."""


def kink_between(op: TwoSlope) -> tuple[Tensor, Tensor]:
    """Bounds of the true kink, whose stored value is known up to the operator's precision."""
    if not op.precision:
        return op.kink, op.kink
    off = 2 * op.precision * op.kink.abs()
    return down(op.kink - off), up(op.kink + off)


def cut(network: Network, known: Mapping[str, Interval], splits: Splits) -> dict[str, Interval]:
    """`known` with the arguments of split activations cut at the kinks."""
    found = dict(known)
    for name, sides in splits.items():
        node = network.by_name[name]
        if not isinstance(node.op, TwoSlope):
            raise ValueError(f"only activations with two slopes are split; {name!r} is {type(node.op).__name__}")
        z, (left, right) = found[node.inputs[0]], kink_between(node.op)
        side = sides.reshape(-1, *node.shape)
        lower = torch.where(side > 0, torch.maximum(z.lower, left.to(z.lower.dtype)), z.lower)
        upper = torch.where(side < 0, torch.minimum(z.upper, right.to(z.upper.dtype)), z.upper)
        found[node.inputs[0]] = Interval(lower, upper)
    return found


def domain_bounds(
    network: Network,
    region: Region,
    known: Mapping[str, Interval],
    splits: Splits,
    memory: int,
    deadline: float | None = None,
) -> dict[str, Interval]:
    """Bounds of every node's value over each domain; `known`: bounds that hold on the domain already.

    Where ``lower > upper`` in some entry, the domain is empty (see `empty`).
    """
    floor = cut(network, known, splits)
    if deadline is not None and time.monotonic() > deadline:
        return floor
    found = intermediate_bounds(network, region, memory, floor=floor, deadline=deadline)
    return cut(network, found, splits)


def empty(known: Mapping[str, Interval]) -> Tensor:
    """Which domains ``(batch,)`` hold no input, because bounds of one value exclude each other.

    Every bound holds for every input of the domain, up to the first node where they do exclude each other.
    """
    crossed = [(z.lower > z.upper).flatten(1).any(1) for z in known.values()]
    return torch.stack(crossed).any(0)


def bends(op: TwoSlope, z: Interval) -> Tensor:
    """The entries ``(batch, size)`` whose side their bounds do not decide."""
    left, right = kink_between(op)
    return ((z.lower < right) & (z.upper > left) & (op.left != op.right)).expand(z.lower.shape).flatten(1)


def undecided_entries(network: Network, known: Mapping[str, Interval], splits: Splits) -> dict[str, Tensor]:
    """The entries ``(batch, size)`` of each `TwoSlope` whose side neither its bounds nor the splits decide."""
    found = {}
    for node in network:
        if isinstance(node.op, TwoSlope):
            open_ = bends(node.op, known[node.inputs[0]])
            found[node.name] = open_ & (splits[node.name] == 0) if node.name in splits else open_
    return found


def is_piecewise_linear(network: Network) -> bool:
    """Whether every activation has two slopes, so that a domain with every side decided is a linear program."""
    return all(isinstance(node.op, TwoSlope) or not isinstance(node.op, Elementwise) for node in network)
