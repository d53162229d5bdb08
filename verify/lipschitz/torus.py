"""Convolutional chains on a torus, where a convolution is a multiplication for every frequency.

A convolution with zero padding reads ``x[s j + d t - before]`` for outputs ``0 <= j < m`` and taps ``t``: indices from
``-before`` to ``n - 1 + after``. On a torus of ``N >= n + max(before, after)`` points, with ``x`` on the first ``n``
and zeros on the rest, each such index meets the entry of ``x`` or a zero, as it should; if ``s`` divides ``N`` and
``N / s >= m``, the outputs are the first ``m`` points of the torus that has every s-th point of it. So the convolution
is a sub-block of a circulant map, and a bound for the torus bounds it. With ``N = n`` taps beyond the edge would meet
the opposite edge: another map, whose norm may be smaller.

Masks. The next convolution wants zeros outside its input's ``m`` points, where the torus holds something else. Where it
reads there, an activation has to be followed by a mask: its slopes there are 0, and the multipliers, which are the same
for all points, are only valid for a sector that holds 0 as well: ``[min(0, low), max(0, high)]``. A convolution that
reads nothing outside, and a dense layer, need no mask. (Sectors ``[a, 1]`` with padding are wrong: for the kernels of a
shift and its inverse they would give bounds that tend to 0 where the true constant is 1.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from leaktight.errors import UnsupportedOperator
from leaktight.models.enclosure import Array, Enclosure, enclosed, exactly
from leaktight.models.network import Network, Node
from leaktight.models.ops import Conv, ConvTranspose, Input, Linear, Reshape, Scale, Select, Shape
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.sectors import Sector, has_sector, sector

KNOWN = "convolutions, elementwise activations, scales of channels, padding, a flattening Reshape and dense layers"


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


@dataclass(frozen=True, eq=False)
class Step:
    """A convolution on a torus of `points`, and the slopes behind it, one sector for each channel; None: linear."""

    window: Window
    points: Shape
    sector: Sector | None


@dataclass(frozen=True, eq=False)
class _Draft:
    """A window with the slopes behind it, as far as the chain has been read."""

    window: Window
    sector: Sector | None = None


def chain(network: Network, known: Mapping[str, Interval] | None = None) -> tuple[Step, ...]:
    """The network as convolutions on tori, one behind the other. Its differences are among those of the result.

    known: bounds of its values, as in leaktight.verify.lipschitz.layers.
    Raises UnsupportedOperator: the network is no chain, or an operator has no place in one; it is named.
    """
    drafts = _Reader(network, known).read()
    windows = [draft.window for draft in drafts]
    steps = []
    for i, (draft, points) in enumerate(zip(drafts, tori(windows), strict=True)):
        masked = i + 1 < len(drafts) and windows[i + 1].reads_outside
        window = replace(draft.window, stride=points) if draft.window.dense else draft.window
        steps.append(Step(window, points, _with_mask(draft.sector, masked, len(window.kernel.value))))
    return tuple(steps)


def tori(windows: list[Window]) -> list[Shape]:
    """For each convolution the points of its input's torus along every axis: as few as do."""
    along = [_along(axis, windows) for axis in range(len(windows[0].extent))]
    return [tuple(sizes[i] for sizes in along) for i in range(len(windows))]


def _along(axis: int, windows: list[Window]) -> list[int]:
    """The sizes along one axis: each a multiple of all strides to come. A dense layer leaves a single point."""
    seen = next((i + 1 for i, window in enumerate(windows) if window.dense), len(windows))
    shrunk, least = [1], 1
    for window in windows[:seen]:
        needed = max(window.extent[axis] + window.margin[axis], window.stride[axis] * window.outputs[axis])
        least = max(least, needed * shrunk[-1])
        shrunk.append(shrunk[-1] * window.stride[axis])
    first = -(-least // shrunk[-1]) * shrunk[-1]
    return [first // factor for factor in shrunk[:seen]] + [1] * (len(windows) - seen)


def _with_mask(found: Sector | None, masked: bool, channels: int) -> Sector | None:
    if not masked:
        return found
    one = np.ones(channels)
    known = Sector(one, one) if found is None else found
    return Sector(np.minimum(known.low, 0.0), np.maximum(known.high, 0.0))


def convolution(node: Node, extent: Shape) -> Window:
    """A convolution, or the one that a transposed convolution is the transpose of (it has the same norm).

    extent: of its input's spatial axes.
    """
    op = node.op
    assert isinstance(op, Conv | ConvTranspose)
    axes = op.weight.dim() - 2
    kernel = _ungrouped(enclosed(op.weight, op.weight_error), op.groups)
    inner, outer = (extent, node.shape[-axes:]) if isinstance(op, Conv) else (node.shape[-axes:], extent)
    settings = (setting * axes if len(setting) == 1 else setting for setting in (op.stride, op.dilation, op.padding))
    stride, dilation, before = settings
    return Window(kernel, stride, dilation, before, inner, outer)


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


class _Reader:
    """Reads a chain of nodes into windows and sectors; its place is a value ``(channels, *extent)``."""

    def __init__(self, network: Network, known: Mapping[str, Interval] | None) -> None:
        self.network, self.known = network, known
        self.drafts: list[_Draft] = []
        self.before: Shape | None = None  # padding that waits for its convolution

    def read(self) -> list[_Draft]:
        nodes = self._in_order()
        axes = next((n.op.weight.dim() - 2 for n in nodes if isinstance(n.op, Conv)), None)
        self.channels, self.extent = _image(nodes[0].shape, axes)
        for node in nodes[1:]:
            self._take(node)
        if self.before is not None:
            raise _refused(nodes[-1], "padding that no convolution follows")
        if not self.drafts:
            self._identity()
        return self.drafts

    def _in_order(self) -> list[Node]:
        """The nodes from the input to the output."""
        if len(self.network.inputs) != 1 or len(self.network.outputs) != 1:
            raise UnsupportedOperator("--method fourier needs one input and one output; use product, liplt or fast")
        at, found = self.network.outputs[0].name, list[Node]()
        while True:
            node = self.network.by_name[at]
            found.append(node)
            if isinstance(node.op, Input):
                return found[::-1]
            if len(node.inputs) != 1:
                raise _refused(node, "no chain: it has several inputs, or none")
            at = node.inputs[0]

    def _take(self, node: Node) -> None:
        op = node.op
        if self.before is not None and not isinstance(op, Conv):
            raise _refused(node, "padding that no convolution follows")
        if isinstance(op, Conv):
            self._convolve(node)
        elif isinstance(op, Linear) and node.size == op.weight.shape[0]:
            self._dense(node, op)
        elif isinstance(op, Scale):
            self._slopes(self._scale(node, op))
        elif has_sector(op):
            before = None if self.known is None else self.known[node.inputs[0]]
            self._slopes(sector(node, before))
        elif isinstance(op, Select):
            self._pad(node, op)
        elif not isinstance(op, Reshape):
            raise _refused(node, type(op).__name__)
        elif tuple(s for s in node.shape if s != 1) not in (
            tuple(s for s in (self.channels, *self.extent) if s != 1),
            tuple(s for s in (self.channels * prod(self.extent),) if s != 1),
        ):
            raise _refused(node, "a Reshape that does not flatten")

    def _convolve(self, node: Node) -> None:
        source = self.network.by_name[node.inputs[0]]
        axes = len(self.extent)
        if not isinstance(node.op, Conv) or node.op.weight.dim() - 2 != axes:
            raise _refused(node, "convolutions over different numbers of axes")
        if any(draft.window.dense for draft in self.drafts):
            raise _refused(node, "a convolution behind a dense layer")
        place = source.shape[-axes - 1 :]
        padded = self.before or (0,) * axes
        if self.before is None and place != (self.channels, *self.extent):
            raise _refused(node, "a convolution of a value that was reshaped")
        window = convolution(node, self.extent)
        window = replace(window, before=tuple(a + b for a, b in zip(window.before, padded, strict=True)))
        if any(b < 0 for b in window.before):
            raise _refused(node, "negative padding")
        self._put(window)
        self.before = None

    def _dense(self, node: Node, op: Linear) -> None:
        shape = (len(op.weight), self.channels, *self.extent)
        kernel = enclosed(op.weight, op.weight_error).map(lambda w: w.reshape(shape))
        one = (1,) * len(self.extent)
        self._put(Window(kernel, one, one, (0,) * len(one), self.extent, one, dense=True))

    def _identity(self) -> None:
        one = (1,) * len(self.extent)
        kernel = exactly(np.eye(self.channels).reshape(self.channels, self.channels, *one))
        self._put(Window(kernel, one, one, (0,) * len(one), self.extent, self.extent))

    def _put(self, window: Window) -> None:
        self.drafts.append(_Draft(window))
        self.channels, self.extent = len(window.kernel.value), window.outputs

    def _scale(self, node: Node, op: Scale) -> Sector:
        weight = enclosed(op.weight, op.weight_error).map(lambda w: np.broadcast_to(w, node.shape).ravel())
        off = np.where(weight.error > 0, np.nextafter(weight.error, np.inf), 0.0)
        low, high = weight.value - off, weight.value + off
        exact = off == 0
        return Sector(
            np.where(exact, low, np.nextafter(low, -np.inf)), np.where(exact, high, np.nextafter(high, np.inf))
        )

    def _slopes(self, found: Sector) -> None:
        """One sector for each channel: the hull of its points'; behind another, the products of slopes."""
        if not self.drafts:
            self._identity()
        low, high = (end.reshape(self.channels, -1) for end in (found.low, found.high))
        own = Sector(low.min(1), high.max(1))
        last = self.drafts[-1]
        both = own if last.sector is None else _product(last.sector, own)
        self.drafts[-1] = replace(last, sector=both)

    def _pad(self, node: Node, op: Select) -> None:
        axes = len(self.extent)
        shape, target = (self.channels, *self.extent), node.shape[-axes:]
        index = op.index.reshape(-1, *target) if op.index.numel() == self.channels * prod(target) else None
        if index is None or len(index) != self.channels or not bool((index >= 0).any()):
            raise _refused(node, "a Select that is no padding")
        first = (index[0] >= 0).nonzero()
        before = tuple(first.amin(0).tolist())
        room = [(b, t - b - n) for b, t, n in zip(before, target, self.extent, strict=True)]
        flat = torch.arange(prod(shape)).reshape(shape)
        if min(min(ends) for ends in room) < 0 or not torch.equal(
            torch.nn.functional.pad(flat, [end for ends in reversed(room) for end in ends], value=-1), index
        ):
            raise _refused(node, "a Select that is no padding")
        self.before = before


def _image(shape: Shape, axes: int | None) -> tuple[int, Shape]:
    """Channels and extent of the input ``(..., channels, *extent)``; without convolutions all entries are channels."""
    if axes is None:
        return prod(shape), (1,)
    if len(shape) <= axes or prod(shape[: -axes - 1]) != 1:
        raise UnsupportedOperator(f"--method fourier: an input of shape {shape} is no image; use product or fast")
    return shape[-axes - 1], shape[-axes:]


def _product(a: Sector, b: Sector) -> Sector:
    ends = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    low, high = ends.min(0), ends.max(0)
    plain = ((a.low == 1) & (a.high == 1)) | ((b.low == 1) & (b.high == 1))
    return Sector(np.where(plain, low, np.nextafter(low, -np.inf)), np.where(plain, high, np.nextafter(high, np.inf)))


def _refused(node: Node, what: str) -> UnsupportedOperator:
    return UnsupportedOperator(
        f"node {node.origin or node.name!r}: {what} is nothing that --method fourier knows; it knows chains of {KNOWN};"
        " use --method product, liplt, fast or lipsdp"
    )
