"""Readers of activations and other functions of single entries."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import torch

from leaktight.models.enclosure import Array, Enclosure, exactly
from leaktight.models.ops import Clip, Sigmoid, Tanh, TwoSlope, leaky_relu
from leaktight.models.readers.affine import reduced, reduced_axes
from leaktight.models.readers.lowering import added, expanded, fitting, joint_shape, largest, places, reshape, scaled
from leaktight.models.readers.node import Known, Operand, Reading, Value, reads


@reads("Relu")
def relu(node: Reading) -> Operand:
    x = node.value(0)
    return node.emit(leaky_relu(0.0), (x,), x.shape)


@reads("LeakyRelu")
def leaky(node: Reading) -> Operand:
    x = node.value(0)
    return node.emit(leaky_relu(node.attributes.number("alpha", 0.01)), (x,), x.shape)


@reads("PRelu")
def parametric(node: Reading) -> Operand:
    x, slope = node.value(0), node.weights(1)
    if not slope.exact:
        raise node.refused("its slopes are computed from constants with rounding; store them as numbers")
    if joint_shape(node, x.shape, slope.value.shape) != x.shape:
        raise node.wrong(f"slopes of shape {list(slope.value.shape)} do not fit a value of shape {list(x.shape)}")
    return node.emit(leaky_relu(fitting(slope, x.rank).tensor), (x,), x.shape)


@reads("Abs")
def absolute(node: Reading) -> Operand:
    x = node.value(0)
    return node.emit(replace(leaky_relu(-1.0), leak=None), (x,), x.shape)


@reads("Sigmoid")
def sigmoid(node: Reading) -> Operand:
    x = node.value(0)
    return node.emit(Sigmoid(), (x,), x.shape)


@reads("Tanh")
def tanh(node: Reading) -> Operand:
    x = node.value(0)
    return node.emit(Tanh(), (x,), x.shape)


@reads("HardSigmoid")
def hard_sigmoid(node: Reading) -> Operand:
    x = node.value(0)
    alpha, beta = node.attributes.number("alpha", 0.2), node.attributes.number("beta", 0.5)
    return clipped(node, scaled(node, x, exactly(alpha), exactly(beta)), 0.0, 1.0)


@reads("Clip")
def clip(node: Reading) -> Operand:
    x = node.value(0)
    if node.opset < 11:
        lower, upper = node.attributes.unchecked_number("min"), node.attributes.unchecked_number("max")
    else:
        lower, upper = _bound(node, 1), _bound(node, 2)
    return clipped(node, x, -np.inf if lower is None else lower, np.inf if upper is None else upper)


def _bound(node: Reading, index: int) -> float | None:
    if not node.has(index):
        return None
    found = node.known(index)
    if found.array.size != 1 or not found.floating or found.error is not None:
        raise node.wrong(f"the bound {found.name!r} is not one floating-point number")
    return float(found.array.item())


def clipped(node: Reading, x: Value, lower: float, upper: float) -> Value:
    """``min(max(x, lower), upper)``; a bound at the end of the element type's range is no bound."""
    end = float(np.finfo(x.dtype).max)
    if np.isnan(lower) or np.isnan(upper) or lower > upper or lower == np.inf or upper == -np.inf:
        raise node.wrong(f"the bounds {lower} and {upper} leave nothing; lower <= upper is allowed")
    if lower > -end and upper < end:
        return node.emit(Clip(lower, upper), (x,), x.shape)
    if lower > -end:
        return larger(node, x, np.asarray(lower))
    return smaller(node, x, np.asarray(upper)) if upper < end else x


def larger(node: Reading, x: Value, constant: Array) -> Value:
    """``max(x, constant)``."""
    return _hinge(node, x, constant, left=0.0, right=1.0)


def smaller(node: Reading, x: Value, constant: Array) -> Value:
    """``min(x, constant)``."""
    return _hinge(node, x, constant, left=1.0, right=0.0)


def _hinge(node: Reading, x: Value, constant: Array, left: float, right: float) -> Value:
    x = expanded(node, x, joint_shape(node, x.shape, constant.shape))
    kink = fitting(exactly(constant), x.rank).tensor
    slopes = (torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64))
    return node.emit(TwoSlope(*slopes, kink, kink), (x,), x.shape)


@reads("Max", "Min")
def extremum(node: Reading) -> Operand:
    operands = [node.operand(i) for i in range(node.count)]
    values = list({x.name: x for x in operands if isinstance(x, Value)}.values())
    constants = [node.finite(x) for x in operands if isinstance(x, Known)]
    if not all(c.exact for c in constants):
        raise node.refused("its constants are computed with rounding; store them as numbers")
    choose = np.maximum if node.kind == "Max" else np.minimum
    joint_shape(node, *(x.shape for x in operands))
    if not values:
        return Known("", reduce(choose, [x.array for x in operands if isinstance(x, Known)]))
    found = _tree(node, values)
    if not constants:
        return found
    bound = reduce(choose, [c.value for c in constants])
    return (larger if node.kind == "Max" else smaller)(node, found, bound)


def _tree(node: Reading, values: list[Value]) -> Value:
    """The largest or smallest of several values, by halves."""
    if len(values) == 1:
        return values[0]
    a, b = _tree(node, values[: len(values) // 2]), _tree(node, values[len(values) // 2 :])
    sign = 1 if node.kind == "Max" else -1
    above = added(node, [a, b], [sign, -sign])
    # max(a, b) = b + relu(a - b), min(a, b) = b - relu(b - a)
    excess = node.emit(replace(leaky_relu(0.0), leak=None), (above,), above.shape)
    return added(node, [b, excess], [1, sign])


@reads("ReduceMax", "ReduceMin")
def reduce_extremum(node: Reading) -> Operand:
    x = node.value(0)
    axes = reduced_axes(node, x.rank)
    if axes is None:
        node.attributes.integer("keepdims", 1)
        return x
    kept, result, order = reduced(node, x, axes)
    index = places(x).transpose(order).reshape(*kept, -1)
    if node.kind == "ReduceMax":
        return reshape(node, largest(node, x, index, part="rows"), result)
    negated: Enclosure = exactly(-1.0)
    found = largest(node, scaled(node, x, negated), index, part="rows")
    return reshape(node, scaled(node, found, negated), result)
