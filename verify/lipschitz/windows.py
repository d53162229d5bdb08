"""Convolutions as windows: a kernel, and how it is laid over its input. A dense layer is one, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leaktight.models.enclosure import Array, Enclosure, enclosed
from leaktight.models.ops import Conv, Shape


@dataclass(frozen=True, eq=False)
class Window:
    """A convolution: kernel ``(out, in, *taps)``, from `extent` to `outputs` points, what it pads before each axis.

    A dense layer is one with as many taps as its input has points, and with one output; on the torus its stride is the
    whole torus.
    """

    kernel: Enclosure
    stride: Shape
    dilation: Shape
    before: Shape
    extent: Shape
    outputs: Shape
    dense: bool = False

    @property
    def after(self) -> Shape:
        """How far beyond the end of each axis it reads."""
        taps = self.kernel.value.shape[2:]
        return tuple(
            max(0, s * (m - 1) + d * (k - 1) - b - (n - 1))
            for s, m, d, k, b, n in zip(
                self.stride, self.outputs, self.dilation, taps, self.before, self.extent, strict=True
            )
        )

    @property
    def margin(self) -> Shape:
        """Zeros that it needs around its input, at one of the ends of each axis."""
        return tuple(max(b, a) for b, a in zip(self.before, self.after, strict=True))

    @property
    def reads_outside(self) -> bool:
        return any(self.margin)


def convolution(op: Conv, extent: Shape, outputs: Shape) -> Window:
    """A convolution, from `extent` to `outputs` points along its axes."""
    axes = op.weight.dim() - 2
    kernel = _ungrouped(enclosed(op.weight, op.weight_error), op.groups)
    settings = (setting * axes if len(setting) == 1 else setting for setting in (op.stride, op.dilation, op.padding))
    stride, dilation, before = settings
    return Window(kernel, stride, dilation, before, extent, outputs)


def _ungrouped(kernel: Enclosure, groups: int) -> Enclosure:
    if groups == 1:
        return kernel

    def spread(value: Array) -> Array:
        out, width = value.shape[0] // groups, value.shape[1]
        whole = np.zeros((value.shape[0], width * groups, *value.shape[2:]))
        for g in range(groups):
            rows = slice(g * out, (g + 1) * out)
            whole[rows, g * width : (g + 1) * width] = value[rows]
        return whole

    return kernel.map(spread)
