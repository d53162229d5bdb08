"""Readers of affine operators without windows: products, sums, normalisation, means."""

from __future__ import annotations

from math import prod

import numpy as np

from leaktight.models.enclosure import Enclosure, exactly
from leaktight.models.ops import Shape
from leaktight.models.readers.lowering import (
    ONE,
    added,
    batched_product,
    joint_shape,
    linear,
    moved_value,
    normalized_axes,
    reshape,
    scaled,
    transposed,
)
from leaktight.models.readers.node import Known, Operand, Reading, Value, reads


@reads("Gemm")
def gemm(node: Reading) -> Operand:
    alpha, beta = exactly(node.attributes.number("alpha", 1.0)), exactly(node.attributes.number("beta", 1.0))
    flip_a, flip_b = bool(node.attributes.integer("transA", 0)), bool(node.attributes.integer("transB", 0))
    a, b = node.operand(0), node.operand(1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise node.wrong(f"operands of shapes {list(a.shape)} and {list(b.shape)} are not matrices")
    bias = _gemm_bias(node, beta)
    if isinstance(b, Known):
        left = node.lifted(a)
        left = transposed(node, left) if flip_a else left
        weight = _times(node.finite(b).map(lambda w: w if flip_b else w.T), alpha)
        _check_inner(node, left.shape[1], weight.value.shape[1])
        if isinstance(bias, Enclosure) and _is_row(bias, weight.value.shape[0]):
            return linear(node, left, weight, bias.map(lambda c: c.reshape(-1)))
        product = linear(node, left, weight)
    elif isinstance(a, Known):
        right = transposed(node, b) if flip_b else b
        weight = _times(node.finite(a).map(lambda w: w.T if flip_a else w), alpha)
        _check_inner(node, right.shape[0], weight.value.shape[1])
        product = batched_product(node, weight, right)
    else:
        raise node.refused("it multiplies two computed values, which is not linear; one constant is needed")
    if bias is None:
        return product
    return scaled(node, product, ONE, bias) if isinstance(bias, Enclosure) else added(node, [product, bias], [1, 1])


def _gemm_bias(node: Reading, beta: Enclosure) -> Enclosure | Value | None:
    if not node.has(2):
        return None
    found = node.operand(2)
    if isinstance(found, Known):
        return _times(node.finite(found), beta)
    return found if beta.value == 1 else scaled(node, found, beta)


def _times(weight: Enclosure, factor: Enclosure) -> Enclosure:
    return weight if factor.value == 1 and factor.exact else weight * factor


def _is_row(bias: Enclosure, columns: int) -> bool:
    shape = bias.value.shape
    return bias.value.size == columns and (len(shape) == 0 or shape[-1] == columns)


def _check_inner(node: Reading, given: int, wanted: int) -> None:
    if given != wanted:
        raise node.wrong(f"a matrix with {wanted} columns meets a value with {given} rows")


@reads("MatMul")
def matmul(node: Reading) -> Operand:
    a, b = node.operand(0), node.operand(1)
    if not a.shape or not b.shape:
        raise node.wrong("a scalar cannot be multiplied as a matrix")
    _check_inner(node, a.shape[-1], b.shape[-2] if len(b.shape) > 1 else b.shape[0])
    lead = joint_shape(node, a.shape[:-2], b.shape[:-2])
    shape = (*lead, *a.shape[-2:-1], *(b.shape[-1:] if len(b.shape) > 1 else ()))
    if isinstance(b, Known):
        return _times_matrix(node, node.lifted(a), node.finite(b), shape)
    if isinstance(a, Known):
        weight = node.finite(a).map(lambda w: w if w.ndim > 1 else w[None])
        if b.rank == 1 and weight.value.ndim == 2:
            return reshape(node, linear(node, b, weight), shape)
        column = b if b.rank > 1 else reshape(node, b, (b.size, 1))
        return reshape(node, batched_product(node, weight, column), shape)
    raise node.refused("it multiplies two computed values, which is not linear; one constant is needed")


def _times_matrix(node: Reading, x: Value, weight: Enclosure, shape: tuple[int, ...]) -> Operand:
    """``x @ weight`` of the given result shape."""
    if weight.value.ndim == 1:
        weight = weight.map(lambda w: w[:, None])
    if prod(weight.value.shape[:-2]) == 1:
        return reshape(node, linear(node, x, weight.map(lambda w: w.reshape(w.shape[-2:]).T)), shape)
    rows = x if x.rank > 1 else reshape(node, x, (1, x.size))
    product = batched_product(node, weight.map(lambda w: np.swapaxes(w, -1, -2)), transposed(node, rows))
    return reshape(node, transposed(node, product), shape)


@reads("Add", "Sub")
def sum_or_difference(node: Reading) -> Operand:
    a, b = node.operand(0), node.operand(1)
    sign = 1 if node.kind == "Add" else -1
    if isinstance(a, Value) and isinstance(b, Value):
        return added(node, [a, b], [1, sign])
    if isinstance(a, Value):
        shift = node.weights(1)
        return scaled(node, a, ONE, shift if sign == 1 else -shift)
    return scaled(node, node.value(1), exactly(sign), node.weights(0))


@reads("Sum", "Mean")
def total(node: Reading) -> Operand:
    operands = [node.operand(i) for i in range(node.count)]
    values = [x for x in operands if isinstance(x, Value)]
    constants = [node.finite(x) for x in operands if isinstance(x, Known)]
    share = exactly(1.0) / exactly(node.count) if node.kind == "Mean" else ONE
    shift = None
    for x in constants:
        shift = x if shift is None else shift + x
    if not values:
        values, shift = [node.value(0)], sum((node.weights(i) for i in range(1, node.count)), exactly(0.0))
    found = values[0] if len(values) == 1 else added(node, values, [1] * len(values))
    if shift is not None:
        found = scaled(node, found, ONE, shift)
    return found if node.kind == "Sum" else scaled(node, found, share)


@reads("Mul")
def product(node: Reading) -> Operand:
    a, b = node.operand(0), node.operand(1)
    if isinstance(b, Known):
        return scaled(node, node.lifted(a), node.finite(b))
    if isinstance(a, Known):
        return scaled(node, b, node.finite(a))
    raise node.refused("it multiplies two computed values, which is not linear; one constant is needed")


@reads("Div")
def quotient(node: Reading) -> Operand:
    divisor = node.operand(1)
    if isinstance(divisor, Value):
        raise node.refused(
            f"it divides by the computed value {divisor.name!r}, which is not linear; a constant is needed"
        )
    try:
        return scaled(node, node.value(0), ONE / node.finite(divisor))
    except ZeroDivisionError:
        raise node.wrong(f"it divides by {divisor.name!r}, which has zeros; only other numbers are allowed") from None


@reads("Neg")
def negative(node: Reading) -> Operand:
    return scaled(node, node.value(0), exactly(-1.0))


@reads("BatchNormalization")
def batch_normalization(node: Reading) -> Operand:
    x = node.value(0)
    node.attributes.number("momentum", 0.9)
    if node.attributes.integer("training_mode", 0) or node.attributes.integer("spatial", 1) != 1:
        raise node.refused(
            "it is in training mode or not spatial; inference over channels is allowed; export the "
            "model in evaluation mode"
        )
    gain, shift, mean, variance = (node.weights(i) for i in range(1, 5))
    channels = x.shape[1] if x.rank > 1 else 1
    if any(p.value.shape != (channels,) for p in (gain, shift, mean, variance)):
        raise node.wrong(f"its parameters do not have one entry for each of the {channels} channels")
    try:
        weight = gain / (variance + exactly(node.attributes.number("epsilon", 1e-5))).sqrt()
    except ValueError:
        raise node.wrong("its variance plus epsilon is not positive") from None
    shape = (channels, *[1] * (x.rank - 2)) if x.rank > 1 else (1,)
    weight, bias = (p.map(lambda a: a.reshape(shape)) for p in (weight, shift - mean * weight))
    return scaled(node, x, weight, bias)


def reduced_axes(node: Reading, rank: int) -> list[int] | None:
    """The axes of a reduction, as attribute or input; None: it is the identity."""
    given = node.attributes.integers("axes")
    if given is None and node.has(1):
        given = node.whole(1)
    nothing = node.attributes.integer("noop_with_empty_axes", 0)
    if given:
        return normalized_axes(node, given, rank)
    return None if nothing else list(range(rank))


def reduced(node: Reading, x: Value, axes: list[int]) -> tuple[Shape, Shape, list[int]]:
    """The shape of what is kept, the result's shape, and the order of axes that brings the reduced ones to the end."""
    kept = [axis for axis in range(x.rank) if axis not in axes]
    keep = node.attributes.integer("keepdims", 1)
    result = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape) if keep or axis not in axes)
    return tuple(x.shape[axis] for axis in kept), result, [*kept, *axes]


@reads("ReduceSum", "ReduceMean")
def reduce_sum(node: Reading) -> Operand:
    x = node.value(0)
    axes = reduced_axes(node, x.rank)
    if axes is None:
        node.attributes.integer("keepdims", 1)
        return x
    kept, result, order = reduced(node, x, axes)
    return summed(node, x, kept, result, order, mean=node.kind == "ReduceMean")


@reads("GlobalAveragePool")
def global_average(node: Reading) -> Operand:
    x = node.value(0)
    return summed(node, x, x.shape[:2], (*x.shape[:2], *[1] * (x.rank - 2)), list(range(x.rank)), mean=True)


def summed(node: Reading, x: Value, kept: Shape, result: Shape, order: list[int], *, mean: bool) -> Value:
    """The sum or mean over all axes after the kept ones, once the axes are in `order`."""
    count = x.size // prod(kept)
    rows = moved_value(node, x, lambda a: a.transpose(order).reshape(*kept, count), part="rows")
    total = linear(node, rows, exactly(np.ones((1, count))))
    total = reshape(node, total, result)
    return scaled(node, total, ONE / exactly(float(count))) if mean and count > 1 else total
