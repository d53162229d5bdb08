"""Reads a convolutional chain: a network as windows, one behind the other, and the slopes behind each.

A residual block ``z + W2 phi(W1 z)`` is a chain, too: its first window makes ``(W1 z, z)``, with slopes 1 behind the
copy, and its second ``W2 v + z``. Max pooling is one channel at a time and stretches by slopes (see `_pool`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from leaktight.errors import UnsupportedOperator
from leaktight.models.enclosure import Enclosure, enclosed, exactly
from leaktight.models.network import Network, Node
from leaktight.models.ops import Conv, Input, Linear, Maximum, Reshape, Scale, Select, Shape, Sum
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.sectors import Sector, has_sector, sector
from leaktight.verify.lipschitz.windows import Window, convolution

KNOWN = (
    "convolutions, elementwise activations, scales of channels, padding, max pooling, a flattening Reshape, dense"
    " layers and residual blocks of two convolutions"
)


@dataclass(frozen=True, eq=False)
class Draft:
    """A window with the slopes behind it, as far as the chain has been read.

    pooled: what follows lies on other points. copies: so many of the last channels are copies of the window's input,
    point by point, which the next window reads at their own points alone.
    """

    window: Window
    sector: Sector | None = None
    pooled: bool = False
    copies: int = 0


def drafts(network: Network, known: Mapping[str, Interval] | None = None) -> list[Draft]:
    """The windows and slopes of a network, from its input to its output.

    Raises UnsupportedOperator: the network is no chain, or an operator has no place in one; it is named.
    """
    return _Reader(network, known).read()


class _Reader:
    """Reads a chain of nodes into windows and sectors; its place is a value ``(channels, *extent)``."""

    def __init__(self, network: Network, known: Mapping[str, Interval] | None) -> None:
        self.network, self.known = network, known
        self.drafts: list[Draft] = []
        self.before: Shape | None = None  # padding that waits for its convolution

    def read(self) -> list[Draft]:
        if len(self.network.inputs) != 1 or len(self.network.outputs) != 1:
            raise UnsupportedOperator("--method fourier needs one input and one output; use product, liplt or fast")
        nodes = self._down_to(None, self.network.outputs[0].name)
        axes = next((n.op.weight.dim() - 2 for n in self.network if isinstance(n.op, Conv)), None)
        self.channels, self.extent = _image(self.network.by_name[self.network.inputs[0].name].shape, axes)
        self._follow(nodes)
        if not self.drafts:
            self._identity()
        return self.drafts

    def _down_to(self, first: str | None, last: str) -> list[Node]:
        """The nodes behind `first` (None: the input) up to `last`, without those inside of residual blocks."""
        at, found = last, list[Node]()
        while at != first:
            node = self.network.by_name[at]
            if isinstance(node.op, Input) and first is None:
                break
            found.append(node)
            if isinstance(node.op, Sum) and first is None:
                at = self._shortcut(node)
            elif len(node.inputs) == 1:
                at = node.inputs[0]
            else:
                raise _refused(node, "no chain: it has several inputs, or none")
        return found[::-1]

    def _shortcut(self, node: Node) -> str:
        """Which input of a sum is the one that the other is made from."""
        if len(node.inputs) == 2 and isinstance(node.op, Sum) and node.op.signs == (1, 1):
            for short, long in (node.inputs, node.inputs[::-1]):
                at = long
                while at != short and len(self.network.by_name[at].inputs) == 1:
                    at = self.network.by_name[at].inputs[0]
                if at == short != long:
                    return short
        raise _refused(node, "no chain, and no residual block: it has several inputs")

    def _follow(self, nodes: list[Node]) -> None:
        rest = list(reversed(nodes))
        while rest:
            node = rest.pop()
            if isinstance(node.op, Select) and rest and isinstance(rest[-1].op, Maximum):
                self._pool(node, node.op, rest.pop())
            elif isinstance(node.op, Sum):
                self._block(node)
            else:
                self._take(node)
        if self.before is not None:
            raise _refused(nodes[-1], "padding that no convolution follows")

    def _block(self, node: Node) -> None:
        """A residual block: two windows that carry a copy of what went in."""
        short = self._shortcut(node)
        inner = _Reader(self.network, self.known)
        inner.channels, inner.extent = self.channels, self.extent
        inner._follow(self._down_to(short, next(name for name in node.inputs if name != short)))
        if len(inner.drafts) != 2 or inner.drafts[1].sector is not None or any(not _still(d) for d in inner.drafts):
            raise _refused(
                node, "a residual block that is not two convolutions which keep the size, an activation between"
            )
        first, second = inner.drafts
        if len(second.window.kernel.value) != self.channels:
            raise _refused(node, "a residual block that changes the number of channels")
        one, width = np.ones(self.channels), np.ones(second.window.kernel.value.shape[1])
        kept = first.sector or Sector(width, width)
        slopes = Sector(np.concatenate([kept.low, one]), np.concatenate([kept.high, one]))
        self.drafts.append(Draft(_beside(first.window, self.channels, 0), slopes, copies=self.channels))
        self.drafts.append(Draft(_beside(second.window, self.channels, 1)))

    def _pool(self, node: Node, op: Select, top: Node) -> None:
        """Max pooling, with whatever windows. ``|y - y'| <= max |x - x'|`` over a window, so the squares of a channel's
        differences sum up to at most those of its inputs, times the number of windows that an input may lie in.

        That is what ``y = e x`` with ``|e| <= r`` says of the sums, all that is used where the same multiplier belongs
        to all points of a channel; the points behind it may be others. Slopes in front of it are multiplied: with
        ``S = H : T`` (parallel sum, ``H = (S^(-1) - T^(-1))^(-1)``) a sector ``m ± r`` of its own would end at ``m^2 H
        + r^2 T >= (m + r)^2 S``, which is no less than what comes of one step with the steepest slope.
        """
        axes, count = len(self.extent), self.channels * prod(self.extent)
        source = self.network.by_name[node.inputs[0]]
        place, own = prod(self.extent), torch.arange(self.channels).unsqueeze(1)
        index = op.index.reshape(self.channels, -1) if op.index.numel() % self.channels == 0 else own - 1
        kept = source.size == count and top.size == self.channels * prod(top.shape[-axes:])
        if self.before is not None or not kept or not bool((index // place == own).all()):
            raise _refused(top, "max pooling over several channels, or of padded values")
        if not self.drafts or self.drafts[-1].pooled:
            self._identity()
        often = int(torch.bincount(index.flatten(), minlength=count).max())
        reach = 1.0 if often == 1 else float(np.nextafter(np.sqrt(often), np.inf))
        last = self.drafts[-1]
        steepest = np.ones(self.channels) if last.sector is None else last.sector.steepest
        wide = steepest if often == 1 else np.nextafter(steepest * reach, np.inf)
        self.drafts[-1] = replace(last, sector=Sector(-wide, wide), pooled=True)
        self.extent = top.shape[-axes:]

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
        window = convolution(node.op, self.extent, node.shape[-axes:])
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
        self.drafts.append(Draft(window))
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
        if not self.drafts or self.drafts[-1].pooled:
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


def _still(draft: Draft) -> bool:
    """Whether a window reads around each of its points, and keeps their number."""
    window = draft.window
    taps = window.kernel.value.shape[2:]
    inside = all(b % d == 0 and b // d < k for b, d, k in zip(window.before, window.dilation, taps, strict=True))
    return inside and window.outputs == window.extent and max(window.stride) == 1 and not (window.dense or draft.pooled)


def _beside(window: Window, channels: int, axis: int) -> Window:
    """The window that also copies so many channels: to further outputs (axis 0), or to sums from further inputs (1)."""
    shape = window.kernel.value.shape
    copy = np.zeros((channels, channels, *shape[2:]))
    middle = tuple(b // d for b, d in zip(window.before, window.dilation, strict=True))
    np.moveaxis(copy, (0, 1), (-2, -1))[middle] = np.eye(channels)
    value, error = (
        np.concatenate([window.kernel.value, copy], axis),
        np.concatenate([window.kernel.error, np.zeros_like(copy)], axis),
    )
    return replace(window, kernel=Enclosure(value, error))


def _image(shape: Shape, axes: int | None) -> tuple[int, Shape]:
    """Channels and extent of the input ``(..., channels, *extent)``; without convolutions all entries are channels."""
    if axes is None:
        return prod(shape), (1,)
    if len(shape) <= axes or prod(shape[: -axes - 1]) != 1:
        raise UnsupportedOperator(f"--method fourier: an input of shape {shape} is no image; use product or fast")
    return shape[-axes - 1], shape[-axes:]


def _product(a: Sector, b: Sector) -> Sector:
    with np.errstate(over="ignore"):  # a sector refuses what is infinite
        ends = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    low, high = ends.min(0), ends.max(0)
    plain = ((a.low == 1) & (a.high == 1)) | ((b.low == 1) & (b.high == 1))
    return Sector(np.where(plain, low, np.nextafter(low, -np.inf)), np.where(plain, high, np.nextafter(high, np.inf)))


def _refused(node: Node, what: str) -> UnsupportedOperator:
    return UnsupportedOperator(
        f"node {node.origin or node.name!r}: {what} is nothing that --method fourier knows; it knows chains of {KNOWN};"
        " use --method product, liplt, fast or lipsdp"
    )
