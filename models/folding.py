"""Rewrites that fold one affine operator, or an affine operator and an activation, into one.

All parameters are computed as enclosures: the folded operator's error terms bound its distance to the two operators
that it replaces. Nothing is folded where a value in between has another reader, or where a parameter would overflow.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from leaktight.models.draft import Draft
from leaktight.models.enclosure import Enclosure, enclosed, exactly
from leaktight.models.network import Node
from leaktight.models.ops import Conv, ConvTranspose, Leaky, Linear, Reshape, Scale, Shape, TwoSlope, Weighted

Signs = NDArray[np.bool_]
MAX_PRECISION = 2.0**-40  # the relative error up to which an activation's parameters may be rounded


def _weight(op: Weighted) -> Enclosure:
    return enclosed(op.weight, op.weight_error)


def _bias(op: Weighted) -> Enclosure | None:
    if op.bias is None:
        return None if op.bias_error is None else enclosed(op.bias_error * 0, op.bias_error)
    return enclosed(op.bias, op.bias_error)


def _shift(op: Weighted) -> Enclosure:
    return _bias(op) or exactly(0.0)


def _with(op: Weighted, weight: Enclosure, bias: Enclosure | None) -> Weighted | None:
    """The operator with other parameters; None: they overflow."""
    if not weight.finite or not (bias is None or bias.finite):
        return None
    shift, shift_error = (None, None) if bias is None else (bias.tensor, bias.error_tensor)
    return replace(op, weight=weight.tensor, weight_error=weight.error_tensor, bias=shift, bias_error=shift_error)


def _is_one(weight: Enclosure) -> bool:
    return weight.exact and bool((weight.value == 1).all())


def _plus(a: Enclosure | None, b: Enclosure | None) -> Enclosure | None:
    return a + b if a is not None and b is not None else a or b


def _times(a: Enclosure, b: Enclosure | None) -> Enclosure | None:
    return None if b is None else b if _is_one(a) else a * b


def _along(parameter: Enclosure | None, shape: Shape, axis: int) -> Enclosure | None:
    """The parameter as a vector along one axis (from the back) of a value.

    Raises: ValueError: it varies along another.
    """
    if parameter is None:
        return None
    padded = parameter.value.reshape((1,) * (len(shape) - parameter.value.ndim) + parameter.value.shape)
    others = padded.shape[:axis] + (padded.shape[axis + 1 :] if axis < -1 else ())
    if prod(others) != 1:
        raise ValueError("the parameter varies along another axis")
    return parameter.map(lambda p: np.broadcast_to(p.reshape(-1), (shape[axis],)))


def _channel_axis(op: Linear | Conv | ConvTranspose) -> int:
    return -1 if isinstance(op, Linear) else 1 - op.weight.dim()


def scale_into_scale(draft: Draft, node: Node) -> bool:
    """``s2 (s1 x + t1) + t2`` is one Scale."""
    first = draft.nodes[node.inputs[0]] if isinstance(node.op, Scale) else node
    if not (isinstance(first.op, Scale) and isinstance(node.op, Scale)) or draft.only_consumer(first.name) != node.name:
        return False
    factor = _weight(node.op)
    weight = _weight(first.op) if _is_one(factor) else factor * _weight(first.op)
    op = _with(node.op, weight, _plus(_times(factor, _bias(first.op)), _bias(node.op)))
    if op is None:
        return False
    draft.put(replace(node, op=op, inputs=first.inputs), instead_of=(first.name, node.name))
    return True


def scale_into_affine_before(draft: Draft, node: Node) -> bool:
    """A Scale goes into what is in front of it, past a Reshape too: ``s (W x + b) + t = (s W) x + (s b + t)``."""
    if not isinstance(node.op, Scale):
        return False
    given = draft.nodes[node.inputs[0]]
    between = given if isinstance(given.op, Reshape) and draft.only_consumer(given.name) == node.name else None
    before = draft.nodes[between.inputs[0]] if between else given
    if (
        not isinstance(before.op, Linear | Conv | ConvTranspose)
        or draft.only_consumer(before.name) != (between or node).name
    ):
        return False
    axis = _channel_axis(before.op)
    try:
        factor, shift = (
            _along(_reshaped(p, node.shape, before.shape), before.shape, axis)
            for p in (_weight(node.op), _bias(node.op))
        )
    except ValueError:
        return False
    if factor is None:
        return False
    weight = _weight(before.op) if _is_one(factor) else _scaled_rows(before.op, factor)
    op = _with(before.op, weight, _plus(_times(factor, _bias(before.op)), shift))
    if op is None:
        return False
    if between is None:
        draft.put(replace(before, name=node.name, op=op), instead_of=(before.name, node.name))
        return True
    scaled = replace(before, name=draft.fresh(f"{before.name}/scaled"), op=op)
    draft.put(scaled, instead_of=(before.name,))
    draft.put(replace(between, name=node.name, inputs=(scaled.name,)), instead_of=(between.name, node.name))
    return True


def _scaled_rows(op: Linear | Conv | ConvTranspose, factor: Enclosure) -> Enclosure:
    """The weight with every output channel multiplied by its factor."""
    weight = _weight(op)
    if not isinstance(op, ConvTranspose):
        return factor.map(lambda f: f.reshape(-1, *[1] * (weight.value.ndim - 1))) * weight
    inputs, outputs, *kernel = weight.value.shape
    grouped = weight.map(lambda w: w.reshape(op.groups, inputs // op.groups, outputs, *kernel))
    rows = factor.map(lambda f: f.reshape(op.groups, 1, outputs, *[1] * len(kernel)))
    return (rows * grouped).map(lambda w: w.reshape(inputs, outputs, *kernel))


def scale_into_affine_after(draft: Draft, node: Node) -> bool:
    """A Scale goes into what follows it, past a Reshape too: ``W (s x + t) + b = (W s) x + (W t + b)``."""
    if not isinstance(node.op, Linear | Conv | ConvTranspose):
        return False
    given = draft.nodes[node.inputs[0]]
    between = given if isinstance(given.op, Reshape) and draft.only_consumer(given.name) == node.name else None
    scale = draft.nodes[between.inputs[0]] if between else given
    if not isinstance(scale.op, Scale) or draft.only_consumer(scale.name) != (between or node).name:
        return False
    axis = _channel_axis(node.op)
    try:
        factor, shift = (
            _along(_reshaped(p, scale.shape, given.shape), given.shape, axis)
            for p in (_weight(scale.op), _bias(scale.op))
        )
    except ValueError:
        return False
    if factor is None or (shift is not None and not _takes_shift(node.op, shift)):
        return False
    carried = None if shift is None else _shift_through(node.op, shift)
    op = _with(node.op, _scaled_columns(node.op, factor), _plus(carried, _bias(node.op)))
    if op is None:
        return False
    if between is None:
        draft.put(replace(node, op=op, inputs=scale.inputs), instead_of=(scale.name, node.name))
        return True
    unscaled = replace(between, name=draft.fresh(f"{between.name}/unscaled"), inputs=scale.inputs)
    draft.put(unscaled, instead_of=(scale.name, between.name))
    draft.put(replace(node, op=op, inputs=(unscaled.name,)), instead_of=(node.name,))
    return True


def _reshaped(parameter: Enclosure | None, shape: Shape, target: Shape) -> Enclosure | None:
    """A parameter of a value of `shape` as one of the same value in the shape `target`."""
    if parameter is None or shape == target or parameter.value.size == 1:
        return parameter
    return parameter.map(lambda p: np.broadcast_to(p, shape).reshape(target))


def _takes_shift(op: Linear | Conv | ConvTranspose, shift: Enclosure) -> bool:
    """Whether a constant added in front of the operator is a constant behind it: padding would tell them apart."""
    if not shift.value.any() and shift.exact:
        return True
    return isinstance(op, Linear) or (isinstance(op, Conv) and not any(op.padding))


def _columns(op: Linear | Conv | ConvTranspose, weight: Enclosure) -> Enclosure:
    """The weight of a Linear or Conv as ``(groups, out, in, kernel)``, all of one group."""
    outputs, inputs = weight.value.shape[:2]
    groups = op.groups if isinstance(op, Conv) else 1
    return weight.map(lambda w: w.reshape(groups, outputs // groups, inputs, -1))


def _scaled_columns(op: Linear | Conv | ConvTranspose, factor: Enclosure) -> Enclosure:
    """The weight with every input channel multiplied by its factor."""
    weight = _weight(op)
    if _is_one(factor):
        return weight
    if isinstance(op, ConvTranspose):
        return factor.map(lambda f: f.reshape(-1, *[1] * (weight.value.ndim - 1))) * weight
    columns = _columns(op, weight)
    factors = factor.map(lambda f: f.reshape(columns.value.shape[0], 1, -1, 1))
    return (columns * factors).map(lambda w: w.reshape(weight.value.shape))


def _shift_through(op: Linear | Conv | ConvTranspose, shift: Enclosure) -> Enclosure | None:
    """``W t``, for a constant `t` per input channel."""
    if not shift.value.any() and shift.exact:
        return None
    columns = _columns(op, _weight(op))
    groups, outputs, inputs, kernel = columns.value.shape
    flat = columns.map(lambda w: w.reshape(groups, outputs, inputs * kernel))
    each = shift.map(lambda t: np.repeat(t.reshape(groups, inputs), kernel, 1)[..., None])
    return (flat @ each).map(lambda b: b.reshape(-1))


def linear_into_linear(draft: Draft, node: Node) -> bool:
    """``W2 (W1 x + b1) + b2`` is one Linear, where that is not larger than the two."""
    if not isinstance(node.op, Linear):
        return False
    first = draft.nodes[node.inputs[0]]
    if not isinstance(first.op, Linear) or draft.only_consumer(first.name) != node.name:
        return False
    outer, inner = node.op.weight, first.op.weight
    if outer.shape[0] * inner.shape[1] > outer.numel() + inner.numel():
        return False
    outer_weight, shift = _weight(node.op), _bias(first.op)
    carried = None if shift is None else outer_weight @ shift
    op = _with(node.op, outer_weight @ _weight(first.op), _plus(carried, _bias(node.op)))
    if op is None:
        return False
    draft.put(replace(node, op=op, inputs=first.inputs), instead_of=(first.name, node.name))
    return True


def pieces(op: TwoSlope) -> tuple[Enclosure, Enclosure, Enclosure, Enclosure]:
    """Left, right, kink and value of an activation, with its precision as error."""
    left, right, kink, value = (
        Enclosure(p.double().numpy(), np.abs(p.double().numpy()) * op.precision * (1 + 2.0**-50))
        for p in (op.left, op.right, op.kink, op.value)
    )
    return left, right, kink, value


def two_slope(
    left: Enclosure, right: Enclosure, kink: Enclosure, value: Enclosure, leak: Leaky | None
) -> TwoSlope | None:
    """The activation with these pieces; None: an error is not small against its parameter."""
    precision = 0.0
    for piece in (left, right, kink, value):
        if not piece.finite or (piece.error > MAX_PRECISION * np.abs(piece.value)).any():
            return None
        size = np.where(piece.value == 0, 1.0, np.abs(piece.value))
        precision = max(precision, float((piece.error / size).max()) * (1 + 2.0**-50))
    return TwoSlope(left.tensor, right.tensor, kink.tensor, value.tensor, precision, leak)


def scale_into_two_slope_after(draft: Draft, node: Node) -> bool:
    """``phi(w x + t)`` is an activation of x; where ``w < 0`` the sides change places. Zeros in w are left alone."""
    if not isinstance(node.op, TwoSlope):
        return False
    scale = draft.nodes[node.inputs[0]]
    if not isinstance(scale.op, Scale) or draft.only_consumer(scale.name) != node.name:
        return False
    weight = _weight(scale.op)
    if not (np.abs(weight.value) > weight.error).all():
        return False
    left, right, kink, value = pieces(node.op)
    kink = (kink - _shift(scale.op)) / weight
    rising = weight.value > 0
    left, right = left * weight, right * weight
    op = two_slope(chosen(rising, left, right), chosen(rising, right, left), kink, value, _turned(node.op.leak, rising))
    if op is None:
        return False
    draft.put(replace(node, op=op, inputs=scale.inputs), instead_of=(scale.name, node.name))
    return True


def scale_into_two_slope_before(draft: Draft, node: Node) -> bool:
    """``s phi(x) + t`` is an activation of x. It keeps the activation's name, so an output is left as it is."""
    if not isinstance(node.op, Scale) or node.name in draft.outputs:
        return False
    given = draft.nodes[node.inputs[0]]
    if not isinstance(given.op, TwoSlope) or draft.only_consumer(given.name) != node.name:
        return False
    left, right, kink, value = pieces(given.op)
    weight = _weight(node.op)
    op = two_slope(left * weight, right * weight, kink, value * weight + _shift(node.op), given.op.leak)
    if op is None:
        return False
    draft.put(replace(given, op=op), instead_of=(given.name,))
    draft.bypass(node.name, given.name)
    return True


def _turned(leak: Leaky | None, rising: Signs) -> Leaky | None:
    """The leak of ``phi(w x)``: its sides change places where `w` does not rise."""
    return None if leak is None else replace(leak, flipped=leak.flipped ^ ~torch.from_numpy(np.asarray(rising)))


def chosen(condition: Signs, yes: Enclosure, no: Enclosure) -> Enclosure:
    """The entries of `yes` where the condition holds, of `no` elsewhere."""
    return Enclosure(np.where(condition, yes.value, no.value), np.where(condition, yes.error, no.error))
