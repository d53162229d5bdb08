"""A network over a domain as rows ``lower <= g . v <= upper`` on the values ``v`` of its nodes.

Coefficients and right-hand sides are the floats that they are; where the network's true values satisfy a row only up to
rounding or up to what is known of a parameter, the row has a `slack` for that. Every input of the domain gives values
that satisfy every row up to its slack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leaktight.errors import MissingRule, UsageError
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Input, Maximum, TwoSlope
from leaktight.verify import relax
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.splits import kink_between
from leaktight.verify.rounding import underflow, unit

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_U, _TINY = unit(torch.float64), underflow(torch.float64)
_CHUNK = 2**22  # entries of an affine node's matrix that are looked at together
_MOST = 2**24  # entries of all matrices together


@dataclass(frozen=True)
class Rows:
    """Sparse rows: entry ``value[k]`` at ``(row[k], column[k])``; the others one number a row."""

    row: Indices
    column: Indices
    value: Floats
    lower: Floats
    upper: Floats
    slack: Floats

    def __len__(self) -> int:
        return len(self.lower)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        starts = np.cumsum([0, *(len(part) for part in parts)])
        moved = [part.row + start for part, start in zip(parts, starts[:-1], strict=True)]
        rest = (np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)[1:])
        return cls(np.concatenate(moved), *rest)


@dataclass(frozen=True)
class Places:
    """Where each node's entries lie among the variables."""

    start: Mapping[str, int]
    count: int

    @classmethod
    def of(cls, network: Network) -> Places:
        ends = np.cumsum([0, *(node.size for node in network)]).tolist()
        return cls({node.name: start for node, start in zip(network, ends[:-1], strict=True)}, ends[-1])

    def __getitem__(self, name: str) -> int:
        return self.start[name]


def affine_rows(network: Network, places: Places, known: Mapping[str, Interval]) -> Rows:
    """``z - W x = b`` for every affine node; `known` holds on every domain that the rows are used for."""
    made = [_affine(network, places, known, node, node.op) for node in network if isinstance(node.op, Affine)]
    return Rows.joined(made or [_nothing()])


def _nothing() -> Rows:
    none = np.zeros(0)
    return Rows(none.astype(np.int64), none.astype(np.int64), none, none, none, none)


def _affine(network: Network, places: Places, known: Mapping[str, Interval], node: Node, op: Affine) -> Rows:
    own = np.arange(node.size)
    parts = [(own, places[node.name] + own, np.ones(node.size))]
    for i, name in enumerate(node.inputs):
        row, column, value = _matrix(network, node, op, i)
        parts.append((row, places[name] + column, -value))
    bias = _flat(op.bias_value, node)
    spread = op.spread(*(known[name].magnitude for name in node.inputs))
    slack = _flat(None if spread is None else spread.expand(1, *node.shape)[0], node) * (1 + 2**-30)
    row, column, value = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Rows(row, column, value, bias, bias, slack)


def _flat(value: Tensor | None, node: Node) -> Floats:
    entries = torch.zeros(node.shape) if value is None else value.detach().expand(node.shape)
    found: Floats = entries.double().reshape(-1).numpy()
    return found


def _matrix(network: Network, node: Node, op: Affine, at: int) -> tuple[Indices, Indices, Floats]:
    """The nonzero weights on one input. The adjoint of unit vectors moves weights to their places, exactly."""
    shapes = [network.by_name[name].shape for name in node.inputs]
    width = network.by_name[node.inputs[at]].size
    step, parts, total = max(1, _CHUNK // max(node.size, width)), [], 0
    for first in range(0, node.size, step):
        count = min(step, node.size - first)
        units = torch.zeros(count, node.size, dtype=torch.float64)
        units[torch.arange(count), first + torch.arange(count)] = 1.0
        found = op.adjoint(units.reshape(count, *node.shape), shapes)[at].reshape(count, width).numpy()
        row, column = found.nonzero()
        total += len(row)
        if total > _MOST:
            raise UsageError(f"node {node.origin or node.name!r} is too large for a linear program; use engine auto")
        parts.append((row + first, column, found[row, column]))
    row, column, value = (np.concatenate(x) for x in zip(*parts, strict=True))
    return row, column, value


def activation_rows(
    network: Network, places: Places, known: Mapping[str, Interval], splits: Mapping[str, Tensor]
) -> Rows:
    """Rows around every activation on the single domain that `known` and `splits` describe.

    One equation where the side of a kink is decided; else the two sides, which lie on the same side of the graph, and
    the chord; for other operators the lines of `leaktight.verify.relax`.
    """
    made = []
    for node in network:
        if isinstance(node.op, TwoSlope):
            sides = splits.get(node.name, torch.zeros(node.size, dtype=torch.int8))
            made.append(_two_slope(places, node, node.op, known[node.inputs[0]], sides.reshape(node.shape)))
        elif isinstance(node.op, Elementwise):
            made.append(_lines(places, node, node.op, known[node.inputs[0]]))
        elif isinstance(node.op, Maximum):
            made.append(_maximum(places, node, known[node.inputs[0]]))
        elif not isinstance(node.op, (Affine, Input)):
            raise MissingRule(f"linear programs have no rule for {type(node.op).__name__} (node {node.name!r})")
    return Rows.joined(made or [_nothing()])


def _pairs(places: Places, node: Node, at: Indices, slope: Floats, lower: Floats, upper: Floats, slack: Floats) -> Rows:
    """``lower <= a - slope z <= upper`` for the entries `at` of an activation ``a`` of ``z``."""
    own = np.arange(len(at))
    return Rows(
        np.concatenate([own, own]),
        np.concatenate([places[node.name] + at, places[node.inputs[0]] + at]),
        np.concatenate([np.ones(len(at)), -slope]),
        lower,
        upper,
        slack,
    )


def _two_slope(places: Places, node: Node, op: TwoSlope, z: Interval, sides: Tensor) -> Rows:
    low_kink, high_kink = kink_between(op)
    is_right = ((z.lower[0] >= high_kink) | (sides > 0) | (op.left == op.right)).reshape(-1)
    is_left = (((z.upper[0] <= low_kink) | (sides < 0)).reshape(-1)) & ~is_right
    left, right, kink, value = (_flat(p, node) for p in (op.left, op.right, op.kink, op.value))
    reach = z.magnitude[0].reshape(-1).numpy()
    decided = (is_right | is_left).numpy().nonzero()[0]
    open_ = (~(is_right | is_left)).numpy().nonzero()[0]
    made = []
    for at, slopes, kind in (
        (decided, np.where(is_right.numpy(), right, left), "equal"),
        (open_, right, "side"),
        (open_, left, "side"),
    ):
        slope, offset = slopes[at], value[at] - slopes[at] * kink[at]
        # the offset's two roundings, and what the parameters may be off by (see relax: image of TwoSlope)
        exact = (kink[at] == 0) & (value[at] == 0) & (op.precision == 0)
        wide = np.abs(value[at]) + np.abs(slope) * (reach[at] + 2 * np.abs(kink[at]))
        slack = np.where(exact, 0.0, (8 * _U + 4 * op.precision) * wide + 4 * _TINY)
        convex = right[at] >= left[at]
        below = offset if kind == "equal" else np.where(convex, offset, -np.inf)
        above = offset if kind == "equal" else np.where(convex, np.inf, offset)
        made.append(_pairs(places, node, at, slope, below, above, slack))
    lines = relax.envelope(op, z.lower, z.upper)
    low_slope, low_offset, high_slope, high_offset = (
        x.expand(1, *node.shape).reshape(-1).numpy()[open_]
        for x in (lines.lower_slope, lines.lower_offset, lines.upper_slope, lines.upper_offset)
    )
    convex, none = right[open_] >= left[open_], np.full(len(open_), np.inf)
    made.append(
        _pairs(
            places,
            node,
            open_,
            np.where(convex, high_slope, low_slope),
            np.where(convex, -none, low_offset),
            np.where(convex, high_offset, none),
            np.zeros(len(open_)),
        )
    )
    return Rows.joined(made)


def _lines(places: Places, node: Node, op: Elementwise, z: Interval) -> Rows:
    tilts = (None, 0.0, 1.0) if relax.has_tilt(op) else (None,)
    made, at, none = [], np.arange(node.size), np.full(node.size, np.inf)
    for tilt in tilts:
        turned = None if tilt is None else torch.full_like(z.lower, tilt)
        lines = relax.envelope(op, z.lower, z.upper, turned)
        low_slope, low_offset, high_slope, high_offset = (
            x.expand(1, *node.shape).reshape(-1).numpy()
            for x in (lines.lower_slope, lines.lower_offset, lines.upper_slope, lines.upper_offset)
        )
        made.append(_pairs(places, node, at, low_slope, low_offset, none, np.zeros(node.size)))
        made.append(_pairs(places, node, at, high_slope, -none, high_offset, np.zeros(node.size)))
    return Rows.joined(made)


def _maximum(places: Places, node: Node, z: Interval) -> Rows:
    """``y >= x_i`` for every entry, and the upper line of `relax.maximum_lines`."""
    width, own = z.lower.shape[-1], np.arange(node.size)
    lines = relax.maximum_lines(z.lower, z.upper)
    each = np.arange(node.size * width)
    zero, none = np.zeros(len(each)), np.full(len(each), np.inf)
    above = Rows(
        np.concatenate([each, each]),
        np.concatenate([places[node.name] + each // width, places[node.inputs[0]] + each]),
        np.concatenate([np.ones(len(each)), -np.ones(len(each))]),
        zero,
        none,
        zero,
    )
    slope, offset, at = (x[0].reshape(-1).numpy() for x in (lines.upper_slope, lines.upper_offset, lines.upper_at))
    below = Rows(
        np.concatenate([own, own]),
        np.concatenate([places[node.name] + own, places[node.inputs[0]] + own * width + at]),
        np.concatenate([np.ones(node.size), -slope]),
        -none[: node.size],
        offset,
        zero[: node.size],
    )
    return Rows.joined([above, below])
