"""Reads a convolutional chain: a network as windows, one behind the other, and the slopes behind each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from leaktight.errors import UnsupportedOperator
from leaktight.models.enclosure import enclosed, exactly
from leaktight.models.network import Network, Node
from leaktight.models.ops import Conv, Input, Linear, Reshape, Scale, Select, Shape
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.sectors import Sector, has_sector, sector
from leaktight.verify.lipschitz.windows import Window, convolution

KNOWN = "convolutions, elementwise activations, scales of channels, padding, a flattening Reshape and dense layers"


@dataclass(frozen=True, eq=False)
class Draft:
    """A window with the slopes behind it, as far as the chain has been read."""

    window: Window
    sector: Sector | None = None


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
