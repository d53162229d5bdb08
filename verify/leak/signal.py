"""What the leak does to training beside what it does to proofs: signal factors and stable neurons of every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Network, Node
from leaktight.models.ops import Conv, Leaky, Linear, TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import batch_chunks, default_memory
from leaktight.verify.leak.intervals import beyond


@dataclass(frozen=True)
class Factors:
    """One layer of Leaky ReLUs at one slope ``a``, for inputs that are positive or negative with equal odds.

    The derivative is then 1 or ``a``: its mean is ``(1 + a) / 2``, its variance ``(1 - a)^2 / 4``; a signal's (and a
    gradient's) squared length is multiplied by ``(1 + a^2) / 2``. Weights of the variance ``2 / (fan_in (1 + a^2))``
    make up for that (He et al. 2015, arXiv:1502.01852). Several slopes in a layer: means over its entries.

    `active`, `inactive`, `unstable`: the shares of neurons whose input is proven to stay on the side with slope 1, on
    the leaky side (at slope 0: proven dead), or neither, over each region, on average over all; None without a region.
    """

    slope: float
    expected_gradient: float
    gradient_variance: float
    squared_norm: float
    preserving_variance: float | None
    active: float | None
    inactive: float | None
    unstable: float | None


@dataclass(frozen=True)
class Layer:
    """A layer of Leaky ReLUs and the affine layer directly in front of it, if there is one (else None).

    `weight_variance` is that of the weights as the network computes with them: normalisations are folded in.
    """

    node: str
    entries: int
    fan_in: int | None
    weight_variance: float | None
    at: tuple[Factors, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": [asdict(factors) for factors in self.at]}


@dataclass(frozen=True)
class Signal:
    """All layers at the least slope, at their own (None where layers differ in it) and at the largest one."""

    slopes: tuple[float, float | None, float]
    layers: tuple[Layer, ...]

    def to_json(self) -> dict[str, Any]:
        return {"slopes": list(self.slopes), "layers": [layer.to_json() for layer in self.layers]}


def signal(
    slopes: Slopes, region: Region, lo: float, hi: float, *, memory: int | None = None, deadline: float | None = None
) -> Signal:
    """The signal factors of the chosen Leaky ReLUs at `lo`, at their own slopes and at `hi`.

    Which neurons are stable is proven by CROWN bounds over the regions, with all roundings accounted for; after
    `deadline` (of time.monotonic) by intervals. `memory`: a cap in bytes, by default half of what is free.
    """
    least, most = slopes.own
    memory = default_memory() if memory is None else memory
    places = [
        (a, network, _shares(slopes.nodes, network, [region], memory, deadline))
        for a, network in ((lo, slopes.at(lo)), (None, slopes.network), (hi, slopes.at(hi)))
    ]
    layers = tuple(_layer(slopes.network, name, places) for name in slopes.nodes)
    return Signal((lo, least if least == most else None, hi), layers)


def own_signal(network: Network, regions: Sequence[Region] = (), *, memory: int | None = None) -> tuple[Layer, ...]:
    """The signal factors of every layer of Leaky ReLUs at its own slopes.

    Which neurons are stable is said where there are regions; `memory` as for `signal`.
    """
    network = network.to(torch.float64)
    names = [node.name for node in network if isinstance(node.op, TwoSlope) and node.op.leak is not None]
    shares = _shares(names, network, regions, default_memory() if memory is None else memory, None) if regions else {}
    return tuple(_layer(network, name, [(None, network, shares)]) for name in names)


_Place = tuple["float | None", Network, Mapping[str, tuple[float, float, float]]]


def _layer(own: Network, name: str, places: Sequence[_Place]) -> Layer:
    """A layer at its variable slope, or its own (None), of networks whose neurons' stability is known, or is not."""
    node = own.by_name[name]
    fan_in, variance = _in_front(own, node)
    at = tuple(
        _factors(_leak(network.by_name[name]), node, a, fan_in, shares.get(name)) for a, network, shares in places
    )
    return Layer(node.origin or name, node.size, fan_in, variance, at)


def _leak(node: Node) -> Leaky:
    if not isinstance(node.op, TwoSlope) or node.op.leak is None:
        raise InternalError(f"node {node.name!r} is no Leaky ReLU, and its signal was asked for")
    return node.op.leak


def _factors(
    leak: Leaky, node: Node, a: float | None, fan_in: int | None, shares: tuple[float, float, float] | None
) -> Factors:
    slope = leak.slope.double().expand(node.shape)
    squared = float(((1 + slope**2) / 2).mean())
    return Factors(
        float(slope.mean()) if a is None else a,
        float(((1 + slope) / 2).mean()),
        float(((1 - slope) ** 2 / 4).mean()),
        squared,
        None if fan_in is None else 1 / (fan_in * squared),
        *(shares or (None, None, None)),
    )


def _in_front(network: Network, node: Node) -> tuple[int | None, float | None]:
    """The number of weights that each entry sums over in the affine layer in front, and the variance of all of them."""
    op = network.by_name[node.inputs[0]].op
    if not isinstance(op, Linear | Conv):
        return None, None
    return prod(op.weight.shape[1:]), float(op.weight.double().var(correction=0))


def _shares(
    names: Sequence[str], network: Network, regions: Sequence[Region], memory: int, deadline: float | None
) -> Mapping[str, tuple[float, float, float]]:
    """Which part of each of these nodes' neurons is active, inactive and unstable, on average over all regions."""
    counts = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    with torch.no_grad():
        for region in regions:
            for part in batch_chunks(network, region.batch, torch.float64, memory):
                known = intermediate_bounds(network, region.select(part), memory, deadline=deadline)
                for name in names:
                    counts[name] += _stable(network.by_name[name], known)
    shares, batch = {}, sum(region.batch for region in regions)
    for name, stable in counts.items():
        whole = batch * network.by_name[name].size
        active, inactive, unstable = (torch.cat([stable, whole - stable.sum(0, keepdim=True)]).cpu() / whole).tolist()
        shares[name] = (active, inactive, unstable)
    return shares


def _stable(node: Node, known: Mapping[str, Interval]) -> Tensor:
    """How many neurons are proven active and inactive, all regions together."""
    if not isinstance(node.op, TwoSlope):
        raise InternalError(f"node {node.name!r} is no Leaky ReLU, and its signal was asked for")
    reach, flipped = beyond(node.op, known[node.inputs[0]]), _leak(node).flipped
    right, left = reach.lower >= 0, reach.upper <= 0
    active = torch.where(flipped, left, right)
    inactive = torch.where(flipped, right, left) & ~active
    return torch.stack([active.sum(), inactive.sum()]).double()
