"""Readers of pooling and of nearest-neighbour resizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil, floor, inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaktight.models.enclosure import exactly
from leaktight.models.ops import Conv
from leaktight.models.readers.convolution import padded
from leaktight.models.readers.lowering import ONE, largest, moved, places, reshape, scaled
from leaktight.models.readers.node import Operand, Reading, reads
from leaktight.models.readers.windows import Windows, spatial, windows


def _pooling(node: Reading, shape: tuple[int, ...]) -> Windows:
    if len(shape) not in (3, 4, 5):
        raise node.refused(f"it pools a value of shape {list(shape)}; one, two or three spatial axes are allowed")
    kernel = spatial(node, "kernel_shape", len(shape) - 2, 1)
    found = windows(node, shape[2:], kernel, ceil=bool(node.attributes.integer("ceil_mode", 0)))
    for length, size in zip(found.result, kernel, strict=True):
        node.affordable(length * size)
    return found


@reads("MaxPool")
def max_pool(node: Reading) -> Operand:
    x = node.value(0)
    node.attributes.integer("storage_order", 0)  # of the indices, which are not read
    found = _pooling(node, x.shape)
    channels, extents = x.shape[:2], x.shape[2:]
    node.affordable(prod(channels) * prod(found.result) * prod(found.kernel))
    place = np.zeros((1,) * (2 * len(extents)), np.int64)
    for axis, extent in enumerate(extents):
        inside = _inside(node, found.positions(axis), extent)
        shape = [1] * (2 * len(extents))
        shape[axis], shape[len(extents) + axis] = inside.shape
        place = place * extent + inside.reshape(shape)
    window = place.reshape(*found.result, prod(found.kernel))
    starts = np.arange(prod(channels)).reshape(*channels, *[1] * window.ndim) * prod(extents)
    return largest(node, x, starts + window, part="windows")


def _inside(node: Reading, positions: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    """The positions, where one in the padding repeats a position of its window inside the axis."""
    valid = (positions >= 0) & (positions < extent)
    if not valid.any(1).all():
        raise node.refused(
            "a window lies in the padding altogether, where the maximum is not defined; use less padding"
        )
    first = positions[np.arange(len(positions)), valid.argmax(1)]
    return np.where(valid, positions, first[:, None])


@reads("AveragePool")
def average_pool(node: Reading) -> Operand:
    x = node.value(0)
    whole = bool(node.attributes.integer("count_include_pad", 0))
    found = _pooling(node, x.shape)
    counts = np.ones((), np.int64)
    for axis, extent in enumerate(x.shape[2:]):
        positions = found.positions(axis)
        low, high = (-found.begin[axis], extent + found.end[axis]) if whole else (0, extent)
        number = ((positions >= low) & (positions < high)).sum(1)
        counts = counts[..., None] * number
    if not counts.all():
        raise node.refused("a window lies in the padding altogether, where the mean is not defined; use less padding")
    x, pads = padded(node, x, found)
    ones = exactly(np.ones((x.shape[1], 1, *found.kernel)))
    op = Conv(ones.tensor, stride=found.stride, padding=pads, dilation=found.dilation, groups=x.shape[1])
    total = node.emit(op, (x,), (*x.shape[:2], *found.result))
    share = counts.reshape(-1)[:1].reshape(()) if (counts == counts.flat[0]).all() else counts
    return scaled(node, total, ONE / exactly(share)) if prod(found.kernel) > 1 else total


@reads("GlobalMaxPool")
def global_max(node: Reading) -> Operand:
    x = node.value(0)
    found = largest(node, x, places(x).reshape(*x.shape[:2], -1), part="windows")
    return reshape(node, found, (*x.shape[:2], *[1] * (x.rank - 2)))


@reads("Upsample")
def upsample(node: Reading) -> Operand:
    x = node.operand(0)
    scales = node.weights(1).value.reshape(-1).tolist() if node.has(1) else node.attributes.numbers("scales")
    _nearest_only(node, "nearest")
    return _resized(node, x, scales, None, "asymmetric", "floor")


@reads("Resize")
def resize(node: Reading) -> Operand:
    x, attributes = node.operand(0), node.attributes
    _nearest_only(node, "nearest")
    if node.opset < 11:
        return _resized(node, x, node.weights(1).value.reshape(-1).tolist(), None, "asymmetric", "floor", shrink=False)
    attributes.number("cubic_coeff_a", -0.75)
    attributes.integer("exclude_outside", 0)
    attributes.number("extrapolation_value", 0.0)
    if attributes.integer("antialias", 0) or attributes.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refused(
            "antialias and keep_aspect_ratio_policy have no rule; plain nearest-neighbour resizing is allowed"
        )
    axes = attributes.integers("axes")
    node.has(1)  # the region of interest, which nearest-neighbour resizing of the whole does not look at
    given = [node.known(i).enclosure.value.reshape(-1).tolist() if node.has(i) else [] for i in (2, 3)]
    scales = _of_all_axes(given[0], axes, [1] * len(x.shape))
    sizes = _of_all_axes(given[1], axes, x.shape)
    coordinates = attributes.text("coordinate_transformation_mode", "half_pixel")
    return _resized(
        node,
        x,
        scales,
        None if sizes is None else [int(n) for n in sizes],
        coordinates,
        attributes.text("nearest_mode", "round_prefer_floor"),
    )


def _of_all_axes(values: list[float], axes: list[int] | None, rest: Sequence[int]) -> list[float] | None:
    """Scales or sizes of all axes, where the file may give those of some; None where none are given."""
    if not values:
        return None
    found = [float(n) for n in rest]
    for axis, value in zip(range(len(rest)) if axes is None else axes, values, strict=True):
        found[axis] = value
    return found


def _nearest_only(node: Reading, default: str) -> None:
    mode = node.attributes.text("mode", default)
    if mode != "nearest":
        raise node.refused(f"mode {mode!r} has no rule; 'nearest' is allowed")


def _resized(
    node: Reading,
    x: Operand,
    scales: list[float] | None,
    sizes: list[int] | None,
    coordinates: str,
    rounding: str,
    *,
    shrink: bool = True,
) -> Operand:
    if scales is None and sizes is not None:
        scales = [float(np.float32(n) / np.float32(m)) for n, m in zip(sizes, x.shape, strict=True)]
    if scales is None or len(scales) != len(x.shape) or not all(0 < s < inf for s in scales):
        raise node.wrong(f"scales {scales} do not fit a value of shape {list(x.shape)}")
    if not shrink and any(s < 1 for s in scales):
        raise node.refused("shrinking is defined from operator set 11 on; convert the model")
    shape = sizes or [floor(np.float32(n) * np.float32(s)) for n, s in zip(x.shape, scales, strict=True)]
    node.affordable(prod(shape))
    if any(n < 1 for n in shape):
        raise node.wrong(f"the result would have the shape {shape}")
    picks = [_sampled(node, *each, coordinates, rounding) for each in zip(x.shape, shape, scales, strict=True)]
    return moved(node, x, lambda a: a[np.ix_(*picks)])


def _sampled(
    node: Reading, extent: int, result: int, scale: float, coordinates: str, rounding: str
) -> NDArray[np.int64]:
    """The position that each entry of an axis is taken from.

    Computed in exact arithmetic and in the float32 arithmetic of runtimes. Raises UnsupportedOperator: they differ.
    """
    if extent == result:
        return np.arange(extent)
    if coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise node.refused(
            f"coordinate_transformation_mode {coordinates!r} with nearest_mode {rounding!r} has no "
            "rule; allowed: "
            f"{', '.join(_COORDINATES)} with {', '.join(_ROUNDINGS)}"
        )
    exact, single = (
        [
            _ROUNDINGS[rounding](_COORDINATES[coordinates](*map(number, (i, extent, result, scale, 0.5))))
            for i in range(result)
        ]
        for number in (Fraction, np.float32)
    )
    if exact != single:
        raise node.refused(
            f"with scale {scale} float32 rounding decides which entries are copied; a scale that is a "
            "whole "
            "number is allowed"
        )
    return np.asarray(exact, np.int64).clip(0, extent - 1)


# The place in the input of entry i of the result, given (i, extent, result, scale, 1/2) in one kind of number.
_COORDINATES: dict[str, Callable[..., Any]] = {
    "half_pixel": lambda i, _extent, _result, scale, half: (i + half) / scale - half,
    "pytorch_half_pixel": lambda i, _extent, result, scale, half: (i + half) / scale - half if result > 1 else i * 0,
    "align_corners": lambda i, extent, result, _scale, _half: i * (extent - 1) / (result - 1) if result > 1 else i * 0,
    "asymmetric": lambda i, _extent, _result, scale, _half: i / scale,
}
_ROUNDINGS: dict[str, Callable[[Any], int]] = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda x: floor(x) + (1 if x - floor(x) > 0.5 else 0),
    "round_prefer_ceil": lambda x: floor(x) + (1 if x - floor(x) >= 0.5 else 0),
}
