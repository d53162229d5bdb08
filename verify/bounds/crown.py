"""CROWN: backward bounds with backward bounds for every pre-activation in front.

Intervals are pushed forwards; where a nonlinear operator's input is one that it is not affine on, its ends are bounded
again by a backward pass. Neurons that intervals already show stable need no pass: their lines are exact whatever the
ends are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Input, Maximum, Op, TwoSlope
from leaktight.specs.region import Box, Region
from leaktight.verify import relax
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.interval import Interval, input_intervals
from leaktight.verify.bounds.memory import passes
from leaktight.verify.bounds.rows import Units
from leaktight.verify.bounds.single import Single

_WASTE = 1.15  # how many padded rows for one that is wanted are worth keeping the batch's order
Refine = Callable[[Backward, Units], Tensor]


def plain_rows(backward: Backward, units: Units) -> Tensor:
    """Lower bounds ``(batch, k)`` of some entries of a node, or of their negatives, by one pass in its own dtype."""
    return backward.lower(units)


@dataclass(frozen=True)
class _Means:
    """How neurons are bounded: by `refine` on a `Backward`, or by passes in float32 where there are such."""

    backward: Backward
    refine: Refine
    single: Single | None
    memory: int
    deadline: float | None

    def prepare(self, node: Node) -> None:
        (self.single or self.backward).prepare(node)

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def bound(self, regions: Tensor | slice, units: Units) -> Tensor:
        """Lower bounds ``(batch, k)`` of these entries in these regions of the batch."""
        if self.single is not None:
            return self.single.lower(regions, units)
        return self.refine(self.backward.select(regions), units)

    def parts(self, counts: Sequence[int]) -> list[tuple[slice, slice]]:
        dtype = torch.float32 if self.single is not None else self.backward.dtype
        return list(passes(self.backward.network, counts, self.memory, dtype))


def intermediate_bounds(
    network: Network,
    region: Region,
    memory: int,
    *,
    floor: Mapping[str, Interval] | None = None,
    refine: Refine | None = None,
    deadline: float | None = None,
) -> dict[str, Interval]:
    """Bounds of every node's value over the region, in the dtype of region and network.

    `floor`: bounds that are known already, which the result is never looser than. `refine` bounds entries of a node
    whose intervals are not good enough, by default in float32 where `Single` can; after `deadline` (of time.monotonic)
    intervals have to do.
    """
    known = input_intervals(network, region)
    refine_all(Backward(network, region, known), known, memory, floor=floor, refine=refine, deadline=deadline)
    return known


def refine_all(
    backward: Backward,
    known: dict[str, Interval],
    memory: int,
    *,
    floor: Mapping[str, Interval] | None = None,
    refine: Refine | None = None,
    deadline: float | None = None,
) -> Single | None:
    """Fills `known`, which the backward pass reads, from the inputs on; arguments as for `intermediate_bounds`.

    Returns the passes in float32 that did it, if they did: they serve for rows on the outputs, too.
    """
    network, region = backward.network, backward.region
    single = Single(backward) if refine is None and Single.fits(backward) else None
    means = _Means(backward, refine or plain_rows, single, memory, deadline)
    for node in network:
        if node.name not in known:
            known[node.name] = backward.step(node)
            if floor is not None and node.name in floor:
                known[node.name] = known[node.name].meet(floor[node.name])
        if _bends(network, node) and not already_tight(network, region, node):
            wanted = undecided(network, node, known[node.name])
            known[node.name] = _refined(means, node, known[node.name], wanted)
    return single


def _bends(network: Network, node: Node) -> bool:
    """Whether what a node hands on goes through an operator that is not affine."""
    return any(isinstance(network.by_name[name].op, (Elementwise, Maximum)) for name in network.consumers[node.name])


def already_tight(network: Network, region: Region, node: Node) -> bool:
    """Whether intervals are exact here: one affine map of a box, or entries that only moved."""
    if isinstance(node.op, Input):
        return True
    if not isinstance(node.op, Affine) or not isinstance(region, Box):
        return False
    return all(_moved_input(network, name) for name in node.inputs) and len(set(node.inputs)) == len(node.inputs) == 1


def _moved_input(network: Network, name: str) -> bool:
    node = network.by_name[name]
    if isinstance(node.op, Input):
        return True
    still = isinstance(node.op, Affine) and node.op.forward_terms == 0 and node.op.adjoint_terms == 0
    return still and len(node.inputs) == 1 and _moved_input(network, node.inputs[0])


def undecided(network: Network, node: Node, z: Interval) -> Tensor:
    """The entries that a consumer's relaxation needs tighter, ``(batch, size)``."""
    wanted: Tensor | None = None
    for name in network.consumers[node.name]:
        found = _undecided_by(network.by_name[name].op, z)
        if found is not None:
            wanted = found if wanted is None else wanted | found
    return torch.zeros_like(z.lower, dtype=torch.bool).flatten(1) if wanted is None else wanted.flatten(1)


def _undecided_by(op: Op, z: Interval) -> Tensor | None:
    if isinstance(op, Elementwise):
        return ~relax.is_linear_on(op, z.lower, z.upper)
    if isinstance(op, Maximum):
        return (z.upper >= z.lower.amax(-1, keepdim=True)) & (z.lower < z.upper)
    return None


def _refined(means: _Means, node: Node, z: Interval, wanted: Tensor) -> Interval:
    """The interval met with refined bounds of the entries that are `wanted`.

    First each entry's nearer end, the one that is likelier to lie on this side of the kink. Where that decides, the
    other end does not matter; for the rest it follows.
    """
    count = wanted.sum(1).tolist()
    if not any(count):
        return z
    means.prepare(node)
    network = means.backward.network
    nearer = _nearer(network, node, z)
    z = _one_side(means, node, z, wanted, count, nearer)
    wanted = wanted & undecided(network, node, z)
    count = wanted.sum(1).tolist()
    return _one_side(means, node, z, wanted, count, -nearer) if any(count) else z


def _nearer(network: Network, node: Node, z: Interval) -> Tensor:
    """1 where the lower end is nearer to the kink behind it than the upper one, else -1; ``(batch, size)``."""
    kinks = (network.by_name[name].op for name in network.consumers[node.name])
    kink = next((op.kink for op in kinks if isinstance(op, TwoSlope) and not relax.is_leaky(op)), None)
    middle = z.upper + z.lower if kink is None else ((z.upper - kink) - (kink - z.lower)).to(z.lower.dtype)
    return middle.sign_().clamp_(min=0).mul_(2).sub_(1).flatten(1)  # a comparison takes longer


def _one_side(means: _Means, node: Node, z: Interval, wanted: Tensor, count: list[int], sign: Tensor) -> Interval:
    """The interval with the lower ends (where `sign` is 1) or the upper ends of the `wanted` entries refined.

    count: how many entries each region wants.

    Regions of a part that want fewer entries are padded with other entries, whose refined bounds are thrown away: so
    each region has the same bounds in every batch. Where that would waste much, those that want about as many share a
    part; else parts are slices of the batch, which cost no copies.
    """
    total, most, order = wanted.shape[1], max(count), None
    if most * len(count) > _WASTE * sum(count):
        places = sorted(range(len(count)), key=count.__getitem__, reverse=True)
        order, count = torch.tensor(places), [count[i] for i in places]
    else:  # nearly all entries are all of them, which need no list
        count = [total if total <= _WASTE * most else most] * len(count)
    best = torch.full(wanted.shape, -torch.inf, dtype=z.lower.dtype)

    for part in means.parts(count):
        if means.late:  # what is known has to do
            break
        some = part[0] if order is None else order[part[0]]
        units = _units(node.name, wanted[some], sign[some], count[part[0].start], part[1])
        found = means.bound(some, units)
        if units.span is not None:
            best[some, units.span] = found
        elif isinstance(some, slice):
            best[some].scatter_(1, units.index, found)
        else:
            place = units.index + total * some.unsqueeze(1)
            best.view(-1).scatter_(0, place.flatten(), found.flatten())  # a third of an index's time

    return _met(z, best, sign * wanted)


def _units(name: str, wanted: Tensor, sign: Tensor, count: int, rows: slice) -> Units:
    """These of the `count` entries that are to be bounded: the wanted ones, and others."""
    if count == wanted.shape[1]:
        index = torch.arange(count)[rows].expand(len(wanted), -1)
        return Units(name, index, sign[:, rows], span=rows)
    index = wanted.view(torch.uint8).topk(count, dim=1, sorted=False).indices[:, rows]
    return Units(name, index, sign.gather(1, index))


def _met(z: Interval, found: Tensor, side: Tensor) -> Interval:
    """The interval with ``found <= z`` where `side` is 1, and ``found <= -z`` where it is -1; no news where it is 0.

    Caps of plus and minus infinity do what a selection by comparisons takes three times as long for.
    """
    side = side.reshape(z.lower.shape)
    found = found.reshape(z.lower.shape)
    below, above = (side - 0.5).mul_(torch.inf), (side + 0.5).mul_(torch.inf)
    return Interval(
        torch.maximum(z.lower, torch.minimum(found, below)), torch.minimum(z.upper, torch.maximum(-found, above))
    )
