"""The slope of chosen Leaky ReLU nodes as one variable, in a network and in its file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.enclosure import Enclosure, exactly
from leaktight.models.folding import chosen, pieces, two_slope
from leaktight.models.network import Network, Node
from leaktight.models.ops import Leaky, TwoSlope
from leaktight.models.placed import PROCESSOR, placed, working_on

LARGEST = 1e9  # layers multiply slopes, and float32 ends at 3e38
_FILES = 8  # networks read from a file that are kept


def check_range(slopes: tuple[float, float]) -> None:
    """Raises UsageError: the two are no range of slopes, or such that numbers overflow."""
    try:
        lo, hi = map(float, slopes)
    except (TypeError, ValueError):
        raise UsageError(f"--slopes: {slopes!r} is no pair of numbers; in Python write it like (0, 0.3)") from None
    if not (isfinite(lo) and isfinite(hi)):
        raise UsageError(f"--slopes: {lo}:{hi} is not a range of finite numbers; write it like 0:0.3")
    if max(abs(lo), abs(hi)) > LARGEST:
        raise UsageError(f"--slopes: {lo}:{hi} goes beyond {LARGEST:g}, where products overflow; write it like 0:0.3")
    if lo > hi:
        raise UsageError(f"--slopes: {lo}:{hi} is empty; give the lower slope first, like {hi}:{lo}")


@dataclass(frozen=True, eq=False)
class Slopes:
    """The slope of some Leaky ReLU nodes of a network as one variable ``a``.

    A node whose trained slope is the same in all entries gets the slope ``a``: its leaky side is ``a`` times the other
    side. A PReLU with several slopes ``p_j`` gets the slopes ``(a / m) p_j``, where ``m``, its own slope, is their mean
    as float64 holds it. So every leaky side is ``a`` times a constant, its `rate`. Make it with `Slopes.of`.
    """

    network: Network
    nodes: tuple[str, ...]
    _files: OrderedDict[float, Network] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in self.nodes:
            leak = _leak(self.network.by_name[name])
            if not _single(leak) and (_own(leak) == 0 or not isfinite(_own(leak))):
                node = self.network.by_name[name]
                raise UsageError(
                    f"node {node.origin or name!r}: the mean of its trained slopes is 0 or not finite, so no factor "
                    "scales it to another slope; leave this node out, or name the others"
                )

    @classmethod
    def of(cls, network: Network, names: Iterable[str] | None = None) -> Slopes:
        """The slope of the Leaky ReLU nodes whose name or origin is in `names`; of all of them where that is None.

        ReLU (slope 0) and PReLU are Leaky ReLUs. Nodes made from other operators (absolute values, clips) are not.
        Raises UsageError: the network has none; a name is no node's, or that of another operator; several trained
        slopes have the mean 0.
        """
        leaky = {node.name: node for node in network if isinstance(node.op, TwoSlope) and node.op.leak is not None}
        if not leaky:
            raise UsageError("the network has no Leaky ReLU, ReLU or PReLU; without one there is no slope to move")
        if names is None:
            return cls(network, tuple(leaky))
        wanted = list(names)
        exists = ", ".join(repr(node.origin or node.name) for node in leaky.values())
        if not wanted:
            raise UsageError(f"no node was named; the network has the Leaky ReLU nodes {exists}; name some, or none")
        for name in wanted:
            if not any(name in (node.name, node.origin) for node in leaky.values()):
                other = any(name in (node.name, node.origin) for node in network)
                came = "is no Leaky ReLU" if other else "does not exist"
                raise UsageError(
                    f"node {name!r} {came}; the network has the Leaky ReLU nodes {exists}; name some of them"
                )
        found = (n.name for n in leaky.values() if n.name in wanted or n.origin in wanted)
        return cls(network, tuple(found))

    @property
    def own(self) -> tuple[float, float]:
        """The least and the largest of the nodes' own slopes."""
        found = [_own(_leak(self.network.by_name[name])) for name in self.nodes]
        return min(found), max(found)

    def at(self, a: float | Tensor) -> Network:
        """The network with this slope; for a tensor ``(batch,)``, with one slope for each row of a batch.

        For a tensor the parameters of the chosen nodes get a leading batch axis, so that they broadcast against values
        ``(batch, *shape)``. What float64 rounds is accounted for in the operators' `precision`; nothing is rounded
        where the other side's slope is 1 (an activation that absorbed no scale) or a power of two, and at slope 0.

        Raises UsageError: a slope is not finite, or so large or small that float64 does not hold its products.
        """
        slope = torch.as_tensor(a, dtype=torch.float64, device=PROCESSOR).detach()
        if not bool(torch.isfinite(slope).all()):
            raise UsageError(f"slope {slope.tolist()}: every slope must be a finite number")
        if slope.dim() > 1:
            raise ValueError(f"slopes of shape {tuple(slope.shape)} were given; a number or (batch,) is allowed")
        with working_on(PROCESSOR):
            made = {kind: self._set(self._still.by_name[names[0]], slope) for kind, names in self._kinds.items()}
            moved = {
                name: replace(self._still.by_name[name], op=made[kind])
                for kind, names in self._kinds.items()
                for name in names
            }
        if (where := self.network.device) != PROCESSOR:
            moved = placed(moved, where)
        return replace(self.network, nodes=tuple(moved.get(node.name, node) for node in self.network))

    @cached_property
    def bent(self) -> Network:
        """The network at a slope at which none of the chosen nodes is linear; kept, so it may meet gradients."""
        with torch.inference_mode(False), torch.no_grad():
            return self.at(0.5)

    def rate(self, name: str) -> tuple[Tensor, Tensor]:
        """How fast a node's sides turn: ``d left / da`` and ``d right / da``, one of them 0 in each entry.

        float64, broadcastable to the node's shape; each true rate lies within `rate_precision` of it, relatively.
        """
        flipped = _leak(self.network.by_name[name]).flipped
        rate = self._rates[name].tensor.to(flipped.device)
        zero = torch.zeros_like(rate)
        return torch.where(flipped, zero, rate), torch.where(flipped, rate, zero)

    def rate_precision(self, name: str) -> float:
        """The largest relative error of the node's `rate`."""
        rate = self._rates[name]
        size = np.where(rate.value == 0, 1.0, np.abs(rate.value))
        return float((rate.error / size).max()) * (1 + 2.0**-50)

    def file_at(self, a: float) -> Network:
        """The network that the file describes when the slope is set there: read again, simplified, with its own source.

        A file stores float32: this is the slope `a` where float32 holds it (and every ``p_j a / m`` of a PReLU), else
        the nearest. The last few are kept. It is meant for replaying what was found at the slope `a`.

        Raises UsageError: the network has no ONNX model, float32 does not hold the slope's size, or a chosen node is
        not in the model.
        """
        from leaktight.models.resloping import resloped

        if a in self._files:
            self._files.move_to_end(a)
            return self._files[a]
        slopes = {}
        for name in self.nodes:
            leak = _leak(self._still.by_name[name])
            slopes[name] = leak.slope * 0 + a if _single(leak) else leak.slope * a / _own(leak)
        with working_on(PROCESSOR):
            self._files[a] = resloped(self._still, slopes)
        if len(self._files) > _FILES:
            self._files.popitem(last=False)
        return self._files[a]

    @cached_property
    def _rates(self) -> Mapping[str, Enclosure]:
        """The leaky side at slope 1 of every chosen node."""
        with working_on(PROCESSOR):
            return {name: _rate(self._still.by_name[name]) for name in self.nodes}

    @cached_property
    def _still(self) -> Network:
        """The network on the processor: slopes are set there."""
        return self.network.on(PROCESSOR)

    @cached_property
    def _kinds(self) -> Mapping[tuple[object, ...], list[str]]:
        """The chosen nodes by all that says what they are at a slope: those of a kind are one operator there."""
        found: dict[tuple[object, ...], list[str]] = {}
        for name in self.nodes:
            node = self._still.by_name[name]
            op, leak = _two_slope(node), _leak(node)
            parts = (op.left, op.right, op.kink, op.value, leak.slope, leak.flipped)
            each = tuple((tuple(part.shape), part.dtype, part.numpy().tobytes()) for part in parts)
            found.setdefault((len(node.shape), op.precision, each), []).append(name)
        return found

    def _set(self, node: Node, slope: Tensor) -> TwoSlope:
        op, leak, rate = _two_slope(node), _leak(node), self._rates[node.name]
        a = slope.reshape(-1, *[1] * len(node.shape)) if slope.dim() else slope
        leaky = exactly(a.numpy()) * rate
        plain = (a.numpy() == 0) | ((np.abs(rate.value) == 1) & (rate.error == 0))  # however small the slope
        leaky = Enclosure(leaky.value, np.where(plain, 0.0, leaky.error))
        left, right, kink, value = pieces(op)
        flipped = leak.flipped.numpy()
        relative = a if _single(leak) else a / _own(leak) * leak.slope
        moved = two_slope(
            chosen(flipped, left, leaky), chosen(flipped, leaky, right), kink, value, replace(leak, slope=relative)
        )
        if moved is None:
            raise UsageError(
                f"node {node.origin or node.name!r}: float64 does not hold its slopes at the slope {slope.tolist()}; "
                "take a slope of moderate size"
            )
        return moved


def _two_slope(node: Node) -> TwoSlope:
    if not isinstance(node.op, TwoSlope):
        raise UsageError(f"node {node.origin or node.name!r} is no Leaky ReLU")
    return node.op


def _leak(node: Node) -> Leaky:
    leak = _two_slope(node).leak
    if leak is None:
        raise UsageError(f"node {node.origin or node.name!r} is no Leaky ReLU")
    return leak


def _single(leak: Leaky) -> bool:
    """Whether the trained slope is the same in all entries."""
    return bool((leak.slope == leak.slope.flatten()[0]).all())


def _own(leak: Leaky) -> float:
    """The slope, or the mean of several."""
    return float(leak.slope.flatten()[0]) if _single(leak) else float(leak.slope.double().mean())


def _rate(node: Node) -> Enclosure:
    left, right, _, _ = pieces(_two_slope(node))
    leak = _leak(node)
    flipped = leak.flipped.numpy()
    if _single(leak):
        return chosen(flipped, left, right)
    return chosen(flipped, right, left) / exactly(_own(leak))
