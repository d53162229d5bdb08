"""Affine operators as dense matrices, with bounds on their entries' errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import UnsupportedOperator
from leaktight.models.enclosure import Array, Enclosure, enclosed, exactly
from leaktight.models.network import Node
from leaktight.models.ops import Affine, Concat, Linear, Reshape, Scale, Select, Shape, Sum, Weighted
from leaktight.verify.clock import tick

LARGEST = 1 << 23  # entries of a dense matrix: 64 MB, and as much again for its error
_TOGETHER = 128  # columns of a matrix that go through an operator at once
_MOVES = Select | Reshape | Concat


def times(node: Node, op: Affine, shapes: Sequence[Shape], at: int, given: Enclosure | None) -> Enclosure:
    """``W given``, with ``W`` the weight of an affine node's `op` on its input `at`; ``W`` itself without `given`.

    shapes: of the node's inputs. given: ``(input size, d)``. Returns ``(node size, d)``, an enclosure of all true
    results. Raises UnsupportedOperator: the matrix would be too large.
    """
    width = prod(shapes[at]) if given is None else given.value.shape[1]
    _check_size(node, node.size * width)
    if isinstance(op, _MOVES):
        return (_unit(shapes[at]) if given is None else given).map(lambda x: _through(op, shapes, at, x))
    if isinstance(op, Sum):
        moved = _unit(shapes[at]) if given is None else given
        return moved if op.signs[at] > 0 else -moved
    if isinstance(op, Scale):
        factor = enclosed(op.weight, op.weight_error).map(lambda w: np.broadcast_to(w, node.shape).reshape(-1, 1))
        return factor * (_unit(shapes[at]) if given is None else given)
    _check_size(node, node.size * prod(shapes[at]))
    own = dense(op, shapes, at)
    return own if given is None else own @ given


def dense(op: Affine, shapes: Sequence[Shape], at: int) -> Enclosure:
    """The weight ``(node size, input size)`` of an affine node on its input `at`; shapes: of its inputs."""
    if isinstance(op, Linear) and prod(shapes[0]) == shapes[0][-1]:
        return enclosed(op.weight, op.weight_error)
    unit = _unit(shapes[at])
    value = _through(op, shapes, at, unit.value)  # a product with one, plus zeros: exact
    uncertain = _uncertainty(op)
    return exactly(value) if uncertain is None else Enclosure(value, _through(uncertain, shapes, at, unit.value))


def _uncertainty(op: Affine) -> Affine | None:
    """The operator whose weights are the errors of the given one's; None: there are none."""
    if not isinstance(op, Weighted) or op.weight_error is None:
        return None
    return replace(op, weight=op.weight_error.expand(op.weight.shape), weight_error=None, bias=None, bias_error=None)


def _through(op: Affine, shapes: Sequence[Shape], at: int, columns: Array) -> Array:
    """``W columns``, every column as one of a batch; some at a time, so that time limits are kept."""
    batch, rows = columns.shape[1], list[Tensor]()
    for begin in range(0, max(batch, 1), _TOGETHER):
        tick()
        part = columns[:, begin : begin + _TOGETHER].T
        inputs: list[Tensor] = [torch.zeros(len(part), *shape, dtype=torch.float64) for shape in shapes]
        inputs[at] = torch.from_numpy(np.ascontiguousarray(part)).reshape(len(part), *shapes[at])
        rows.append(op.linear(*inputs).reshape(len(part), -1))
    found: Array = torch.cat(rows).numpy().T
    return np.ascontiguousarray(found)


def _unit(shape: Shape) -> Enclosure:
    return exactly(np.eye(prod(shape)))


def _check_size(node: Node, entries: int) -> None:
    if entries > LARGEST:
        raise UnsupportedOperator(
            f"node {node.origin or node.name!r}: {type(node.op).__name__} as a matrix would have {entries} entries"
            f" (at most {LARGEST}); use a method that does not unroll it: --method fourier, for convolutional networks"
        )
