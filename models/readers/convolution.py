"""Readers of convolutions and transposed convolutions, 1-D to 3-D."""

from __future__ import annotations

import numpy as np

from leaktight.models.enclosure import Enclosure
from leaktight.models.ops import Conv, ConvTranspose
from leaktight.models.readers.lowering import ONE, places, scaled, select
from leaktight.models.readers.node import Operand, Reading, Value, reads
from leaktight.models.readers.windows import Windows, automatic, padding, spatial, windows


def _parameters(node: Reading, *, channels: int) -> tuple[Value, Enclosure, Enclosure | None, int]:
    """Input, weight, bias and groups; `channels` says which axis of the weight, times groups, counts input channels."""
    x, weight = node.value(0), node.weights(1)
    bias = node.weights(2) if node.has(2) else None
    groups, shape = node.attributes.integer("group", 1), weight.value.shape
    if len(shape) not in (3, 4, 5):
        raise node.refused(f"its weight has shape {list(shape)}; one, two or three spatial axes are allowed")
    inputs, outputs = (shape[0], shape[1] * groups) if channels == 0 else (shape[1] * groups, shape[0])
    if groups < 1 or x.rank != len(shape) or x.shape[1] != inputs or inputs % groups or outputs % groups:
        raise node.wrong(
            f"a weight of shape {list(shape)} in {groups} groups does not fit a value of shape {list(x.shape)}"
        )
    if bias is not None and bias.value.shape != (outputs,):
        raise node.wrong(f"a bias of shape {list(bias.value.shape)} does not fit {outputs} channels")
    kernel = node.attributes.integers("kernel_shape")
    if kernel is not None and tuple(kernel) != shape[2:]:
        raise node.wrong(f"kernel_shape {kernel} contradicts the weight's shape {list(shape)}")
    return x, weight, bias, groups


@reads("Conv")
def convolution(node: Reading) -> Operand:
    x, weight, bias, groups = _parameters(node, channels=1)
    found = windows(node, x.shape[2:], weight.value.shape[2:])
    x, pads = padded(node, x, found)
    op = Conv(
        weight.tensor,
        None if bias is None else bias.tensor,
        weight_error=weight.error_tensor,
        bias_error=None if bias is None else bias.error_tensor,
        stride=found.stride,
        padding=pads,
        dilation=found.dilation,
        groups=groups,
    )
    return node.emit(op, (x,), (x.shape[0], weight.value.shape[0], *found.result))


def padded(node: Reading, x: Value, found: Windows) -> tuple[Value, tuple[int, ...]]:
    """The value and the even padding that are left to the operator; uneven padding is done here.

    The padding behind an axis may be shorter than the last window needs (then it is made up) or longer (then it does
    not matter).
    """
    needed = tuple(
        (m - 1) * s + (k - 1) * d + 1 - n - b
        for m, s, k, d, n, b in zip(
            found.result, found.stride, found.kernel, found.dilation, x.shape[2:], found.begin, strict=True
        )
    )
    even = tuple(
        (n + 2 * b - (k - 1) * d - 1) // s + 1
        for n, b, k, d, s in zip(x.shape[2:], found.begin, found.kernel, found.dilation, found.stride, strict=True)
    )
    if even == found.result:
        return x, found.begin
    grow = [(0, 0), (0, 0), *((b, max(e, 0)) for b, e in zip(found.begin, needed, strict=True))]
    index = np.pad(places(x), grow, constant_values=-1)
    extents = [
        (m - 1) * s + (k - 1) * d + 1
        for m, s, k, d in zip(found.result, found.stride, found.kernel, found.dilation, strict=True)
    ]
    index = index[(slice(None), slice(None), *(slice(n) for n in extents))]
    return node.lifted(select(node, x, index, part="pad")), (0,) * len(found.kernel)


@reads("ConvTranspose")
def transposed_convolution(node: Reading) -> Operand:
    x, weight, bias, groups = _parameters(node, channels=0)
    axes = x.rank - 2
    stride, dilation = spatial(node, "strides", axes, 1), spatial(node, "dilations", axes, 1)
    extra = tuple(node.attributes.integers("output_padding") or (0,) * axes)
    if len(extra) != axes or any(n < 0 for n in extra):
        raise node.wrong(f"output_padding {list(extra)} does not fit {axes} spatial axes")
    full = tuple(
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], stride, weight.value.shape[2:], dilation, strict=True)
    )
    begin, result = _crop(node, x, full, extra, stride)
    channels = weight.value.shape[1] * groups
    shape = (x.shape[0], channels, *result)
    over = tuple(r + 2 * b - f for r, b, f in zip(result, begin, full, strict=True))
    if all(0 <= o < max(s, d) for o, s, d in zip(over, stride, dilation, strict=True)):
        shift, shift_error = (None, None) if bias is None else (bias.tensor, bias.error_tensor)
        op = ConvTranspose(
            weight.tensor,
            shift,
            weight_error=weight.error_tensor,
            bias_error=shift_error,
            stride=stride,
            padding=begin,
            output_padding=over,
            dilation=dilation,
            groups=groups,
        )
        return node.emit(op, (x,), shape)
    none = (0,) * axes
    op = ConvTranspose(
        weight.tensor,
        weight_error=weight.error_tensor,
        stride=stride,
        padding=none,
        output_padding=none,
        dilation=dilation,
        groups=groups,
    )
    whole = node.emit(op, (x,), (x.shape[0], channels, *full))
    grow = [(0, 0), (0, 0), *((0, max(b + r - f, 0)) for b, r, f in zip(begin, result, full, strict=True))]
    index = np.pad(places(whole), grow, constant_values=-1)
    index = index[(slice(None), slice(None), *(slice(b, b + r) for b, r in zip(begin, result, strict=True)))]
    cropped = node.lifted(select(node, whole, index, part="crop"))
    if bias is None:
        return cropped
    return scaled(node, cropped, ONE, bias.map(lambda b: b.reshape(channels, *[1] * axes)))


def _crop(
    node: Reading, x: Value, full: tuple[int, ...], extra: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much is cut off in front of every axis of the full result, and how much is left."""
    axes, mode = len(full), automatic(node)
    begin, end = padding(node, axes)
    wanted = node.attributes.integers("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        begin, end = (begin, end) if mode == "NOTSET" else ((0,) * axes, (0,) * axes)
        result = tuple(f + o - b - e for f, o, b, e in zip(full, extra, begin, end, strict=True))
    else:
        same = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        result = tuple(same if wanted is None else wanted[-axes:])
        spare = [f + o - r for f, o, r in zip(full, extra, result, strict=True)]
        if any(n < 0 for n in spare):
            raise node.refused(
                f"the output shape {list(result)} is larger than what the kernel covers; use output_padding"
            )
        begin = tuple(n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in spare)
    if any(n < 1 for n in result):
        raise node.wrong(f"the result would have the extents {list(result)}")
    return begin, result
