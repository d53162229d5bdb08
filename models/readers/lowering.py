"""The building blocks of readers: affine maps and rearrangements of one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from leaktight.models.enclosure import Enclosure, exactly
from leaktight.models.ops import Conv, Linear, Maximum, Reshape, Scale, Select, Shape, Sum
from leaktight.models.readers.node import Known, Operand, Reading, Value, index_tensor

Move = Callable[[NDArray[np.generic]], NDArray[np.generic]]
ONE = exactly(1.0)


def select(node: Reading, x: Value, index: NDArray[np.int64], *, part: str = "") -> Operand:
    """The entries of `x` at `index` (-1: zero), as cheaply as possible; an empty selection is a constant."""
    if index.size == 0:
        return Known(x.name, np.zeros(index.shape, x.dtype))
    if index.size == x.size and np.array_equal(index.reshape(-1), np.arange(x.size)):
        return reshape(node, x, index.shape)
    node.affordable(index.size)
    return node.emit(Select(index_tensor(index), x.shape), (x,), index.shape, part=part)


def reshape(node: Reading, x: Value, shape: Sequence[int]) -> Value:
    """`x` in another shape of the same size."""
    return x if tuple(shape) == x.shape else node.emit(Reshape(x.shape, tuple(shape)), (x,), shape)


def places(x: Value) -> NDArray[np.int64]:
    """The flat place of every entry, in the value's shape."""
    return np.arange(x.size, dtype=np.int64).reshape(x.shape)


def moved(node: Reading, x: Operand, move: Move, *, part: str = "") -> Operand:
    """`x` rearranged by a function that moves entries of an array without looking at them."""
    if isinstance(x, Known):
        return Known(x.name, move(x.array), None if x.error is None else np.asarray(move(x.error), np.float64))
    return select(node, x, np.asarray(move(places(x)), np.int64), part=part)


def moved_value(node: Reading, x: Value, move: Move, *, part: str = "") -> Value:
    """Like `moved`, for a rearrangement that leaves something."""
    return node.lifted(moved(node, x, move, part=part))


def joint_shape(node: Reading, *shapes: Shape) -> Shape:
    """What the shapes broadcast to."""
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise node.wrong(f"operands of shapes {', '.join(map(str, map(list, shapes)))} do not fit together") from None


def expanded(node: Reading, x: Value, shape: Shape) -> Value:
    """`x` broadcast to `shape`."""
    node.affordable(prod(shape))
    return x if x.shape == shape else moved_value(node, x, lambda a: np.broadcast_to(a, shape), part="broadcast")


def scaled(node: Reading, x: Value, weight: Enclosure, bias: Enclosure | None = None, *, part: str = "") -> Value:
    """``weight * x + bias`` entry by entry, with broadcasting."""
    shape = joint_shape(node, x.shape, *(p.value.shape for p in (weight, bias) if p is not None and p.value.ndim))
    x = expanded(node, x, shape)
    op = Scale(
        fitting(weight, len(shape)).tensor,
        None if bias is None else (bias := fitting(bias, len(shape))).tensor,
        weight_error=weight.error_tensor,
        bias_error=None if bias is None else bias.error_tensor,
    )
    return node.emit(op, (x,), shape, part=part)


def fitting(parameter: Enclosure, rank: int) -> Enclosure:
    """The parameter without leading axes of length one that the value does not have."""
    while parameter.value.ndim > rank:
        parameter = parameter.map(lambda a: a[0])
    return parameter


def linear(node: Reading, x: Value, weight: Enclosure, bias: Enclosure | None = None, *, part: str = "") -> Value:
    """``weight @ x + bias`` over the last axis; weight ``(out, in)``."""
    op = Linear(
        weight.tensor,
        None if bias is None else bias.tensor,
        weight_error=weight.error_tensor,
        bias_error=None if bias is None else bias.error_tensor,
    )
    return node.emit(op, (x,), (*x.shape[:-1], weight.value.shape[0]), part=part)


def batched_product(node: Reading, weight: Enclosure, x: Value) -> Value:
    """``weight @ x`` over the last two axes, one matrix ``(m, k)`` for each entry of the leading axes of both."""
    lead = joint_shape(node, weight.value.shape[:-2], x.shape[:-2])
    rows, inner, columns = *weight.value.shape[-2:], x.shape[-1]
    groups = 1 if prod(weight.value.shape[:-2]) == 1 else prod(lead)
    if groups > 1:
        x = expanded(node, x, (*lead, inner, columns))
        weight = weight.map(lambda a: np.broadcast_to(a, (*lead, rows, inner)))
    batch = prod(lead) // groups
    flat = reshape(node, x, (batch, groups * inner, columns))
    kernel = weight.map(lambda a: a.reshape(groups * rows, inner, 1))
    op = Conv(kernel.tensor, weight_error=kernel.error_tensor, groups=groups)
    return reshape(node, node.emit(op, (flat,), (batch, groups * rows, columns)), (*lead, rows, columns))


def transposed(node: Reading, x: Value) -> Value:
    """The last two axes exchanged."""
    return moved_value(node, x, lambda a: np.swapaxes(a, -1, -2), part="transpose")


def added(node: Reading, terms: Sequence[Value], signs: Sequence[int], *, part: str = "") -> Value:
    """``sum_i sign_i x_i`` with broadcasting; a value that occurs several times is scaled instead."""
    shape = joint_shape(node, *(x.shape for x in terms))
    counts: dict[str, int] = {}
    for x, sign in zip(terms, signs, strict=True):
        counts[x.name] = counts.get(x.name, 0) + sign
    parts = []
    for x in {x.name: x for x in terms}.values():
        times = counts[x.name]
        repeated = x if abs(times) == 1 else scaled(node, x, exactly(times))
        parts.append((expanded(node, repeated, shape), -1 if times == -1 else 1))
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    return node.emit(Sum(tuple(sign for _, sign in parts)), [x for x, _ in parts], shape, part=part)


def largest(node: Reading, x: Value, index: NDArray[np.int64], *, part: str) -> Value:
    """The maximum over the last axis of ``x.flat[index]``."""
    windows = node.lifted(select(node, x, index, part=part))
    if index.shape[-1] == 1:
        return reshape(node, windows, index.shape[:-1])
    return node.emit(Maximum(), (windows,), index.shape[:-1])


def normalized_axes(node: Reading, axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front. Raises ModelError: one is out of range or occurs twice."""
    found = [axis + rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) != len(found):
        raise node.wrong(
            f"the axes {list(axes)} do not fit a value of {rank} axes; each lies in [{-rank}, "
            f"{rank - 1}] and occurs once"
        )
    return found
