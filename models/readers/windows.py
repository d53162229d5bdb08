"""Windows of convolutions and poolings: kernel, stride, dilation, padding and the extent of the result."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from leaktight.models.readers.node import Reading

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """One entry per spatial axis; `begin` and `end` are the padding on both sides of each axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    result: tuple[int, ...]

    def positions(self, axis: int) -> NDArray[np.int64]:
        """``(result, kernel)`` positions along one axis; below zero or beyond the extent: padding."""
        starts = np.arange(self.result[axis]) * self.stride[axis] - self.begin[axis]
        return starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]


def spatial(node: Reading, name: str, axes: int, default: int) -> tuple[int, ...]:
    """An attribute with one positive number per spatial axis."""
    found = node.attributes.integers(name)
    found = [default] * axes if found is None else found
    if len(found) != axes or any(n < 1 for n in found):
        raise node.wrong(f"{name} {found} does not fit {axes} spatial axes; one positive number for each is allowed")
    return tuple(found)


def padding(node: Reading, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The attribute pads as (begins, ends)."""
    found = node.attributes.integers("pads")
    found = [0] * (2 * axes) if found is None else found
    if len(found) != 2 * axes or any(n < 0 for n in found):
        raise node.wrong(f"pads {found} do not fit {axes} spatial axes; two non-negative numbers for each are allowed")
    return tuple(found[:axes]), tuple(found[axes:])


def automatic(node: Reading) -> str:
    """The attribute auto_pad."""
    mode = node.attributes.text("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.wrong(f"auto_pad {mode!r} is not defined; NOTSET, VALID, SAME_UPPER and SAME_LOWER are allowed")
    return mode


def windows(node: Reading, extents: tuple[int, ...], kernel: tuple[int, ...], *, ceil: bool = False) -> Windows:
    """The windows that the node's attributes describe over axes of the given extents."""
    axes, mode = len(extents), automatic(node)
    stride, dilation = spatial(node, "strides", axes, 1), spatial(node, "dilations", axes, 1)
    begin, end = padding(node, axes)
    if mode.startswith("SAME"):
        result = tuple(-(-n // s) for n, s in zip(extents, stride, strict=True))
        spare = [
            max((m - 1) * s + (k - 1) * d + 1 - n, 0)
            for m, s, k, d, n in zip(result, stride, kernel, dilation, extents, strict=True)
        ]
        small, large = tuple(p // 2 for p in spare), tuple(p - p // 2 for p in spare)
        begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
        _check_size(node, extents, begin, end, kernel)
        return Windows(kernel, stride, dilation, begin, end, result)
    if mode == "VALID":
        begin = end = (0,) * axes
    _check_size(node, extents, begin, end, kernel)
    result = tuple(
        _extent(node, *each, ceil=ceil) for each in zip(extents, kernel, stride, dilation, begin, end, strict=True)
    )
    return Windows(kernel, stride, dilation, begin, end, result)


def _check_size(node: Reading, extents: Sizes, begin: Sizes, end: Sizes, kernel: Sizes) -> None:
    """Raises ModelError: what the windows lie on, with its padding, or a window itself, is too large."""
    node.affordable(prod(n + b + e for n, b, e in zip(extents, begin, end, strict=True)))
    node.affordable(prod(kernel))


def _extent(
    node: Reading, extent: int, kernel: int, stride: int, dilation: int, begin: int, end: int, *, ceil: bool
) -> int:
    room = extent + begin + end - (kernel - 1) * dilation - 1
    if room < 0:
        raise node.wrong(
            f"a window of {kernel} with dilation {dilation} does not fit an axis of {extent} with pads "
            f"{begin} and {end}"
        )
    found = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (found - 1) * stride >= extent + begin:
        found -= 1  # a window that would start in the padding behind the axis is dropped
    return found
