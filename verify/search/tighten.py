"""Bounds of single neurons by splitting neurons in front of them, within a fixed effort.

Where many layers lie behind each other, loose bounds of a neuron spoil everything behind it, and splitting neurons
there mends one domain at a time. The same search that proves properties bounds neurons instead: the network is cut
off behind a layer, and its questions are how low and how high each unstable neuron comes. A few generations of domains
are bounded for each, the worst ones first; what they have in common holds on the whole region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input
from leaktight.specs.region import Region
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.rounding import down, up
from leaktight.verify.search.activations import Activations, splittable
from leaktight.verify.search.ascent import Schedule, ascend
from leaktight.verify.search.choice import look_ahead
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import fitting
from leaktight.verify.search.questions import Questions
from leaktight.verify.search.splits import Domains, joined

_FIRST = Schedule(20, rate=0.3, decay=0.95)
_EACH = Schedule(8)
_CANDIDATES = 4


@dataclass(frozen=True)
class Effort:
    """How many generations of domains, and how many of a question's domains are split in each."""

    generations: int
    beam: int


def cut_off(network: Network, node: Node) -> Network:
    """The network whose only output is this node's value: the nodes that it is made of, and all inputs."""
    needed = {node.name}
    for other in reversed(network.nodes):
        if other.name in needed:
            needed |= set(other.inputs)
    kept = tuple(other for other in network if other.name in needed or isinstance(other.op, Input))
    return replace(network, nodes=kept, outputs=(Port(node.name, node.shape, "float64"),), source=None)


def ends(node: Node, wanted: Tensor, kink: Tensor, regions: Tensor) -> Questions:
    """How far the `wanted` entries of a node lie above ``kink`` and below it: two questions for each."""
    count = len(wanted)
    rows = torch.zeros(2 * count, 1, node.size, dtype=torch.float64)
    rows[torch.arange(count), 0, wanted] = 1.0
    rows[torch.arange(count) + count, 0, wanted] = -1.0
    bounds = torch.cat([kink, -kink]).unsqueeze(1)
    real = torch.ones(2 * count, 1, dtype=torch.bool)
    return Questions(regions.repeat(2), rows, bounds, real, torch.zeros(2 * count, dtype=torch.bool), regions.repeat(2))


def lowest(bounding: Bounding, effort: Effort, size: int, late: Callable[[], bool]) -> Tensor:
    """Proven lower bounds ``(questions,)`` of the questions' margins."""
    count = len(bounding.questions.region)
    domains = _bounded(bounding, bounding.first(), _FIRST, size, late)
    settled = torch.full((count,), torch.inf, dtype=torch.float64)
    for _ in range(effort.generations):
        domains, closed = _closed(domains)
        settled = settled.scatter_reduce(0, closed.owner.long(), closed.bound, "amin")
        if late() or not len(domains):
            break
        worst = _worst(domains, effort.beam)
        rest = torch.ones(len(domains), dtype=torch.bool)
        rest[worst] = False
        children = _children(bounding, domains.select(worst), _CANDIDATES, size)
        if not len(children):
            break
        domains = joined([domains.select(rest.nonzero().flatten()), _bounded(bounding, children, _EACH, size, late)])
    return settled.scatter_reduce(0, domains.owner.long(), domains.bound, "amin")


def _closed(domains: Domains) -> tuple[Domains, Domains]:
    done = domains.bound > 0
    return domains.select((~done).nonzero().flatten()), domains.select(done.nonzero().flatten())


def _worst(domains: Domains, beam: int) -> Tensor:
    """The places of the domains with the lowest bounds, so many of each question."""
    order = domains.bound.argsort(stable=True)
    order = order[domains.owner[order].argsort(stable=True)]
    owner = domains.owner[order].long()
    first = torch.searchsorted(owner, owner)
    return order[torch.arange(len(order)) - first < beam]


def _children(bounding: Bounding, parents: Domains, candidates: int, size: int) -> Domains:
    """Both children of each domain; a domain without a neuron to split is left as it is."""
    found = []
    for start in range(0, len(parents), size):
        some = parents.select(slice(start, start + size))
        batch = bounding.unpacked(some)
        neuron = look_ahead(bounding, batch, bounding.glance(batch), candidates)
        split, whole = (neuron >= 0).nonzero().flatten(), (neuron < 0).nonzero().flatten()
        for above in (True, False):
            found.append(some.select(split).deepened(neuron[split], torch.full((len(split),), above)))
        found.append(some.select(whole))
    return joined(found)


def _bounded(bounding: Bounding, domains: Domains, schedule: Schedule, size: int, late: Callable[[], bool]) -> Domains:
    found = []
    for start in range(0, len(domains), size):
        some = domains.select(slice(start, start + size))
        if late() and start:
            found.append(some)  # their parents' bounds hold
            continue
        batch = bounding.unpacked(some)
        ascend(bounding, batch, schedule, late)
        found.append(bounding.repacked(some, batch, bounding.proven(batch)))
    return joined(found)


def tightened(
    network: Network,
    region: Region,
    known: Mapping[str, Interval],
    effort: Effort,
    *,
    memory: int,
    deadline: float | None,
    late: Callable[[], bool],
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Interval]:
    """Bounds of all nodes within `known`, those of unstable neurons from splits in front of them, layer after layer."""
    activations, floor = Activations.of(network), dict(known)
    for activation in activations.nodes:
        node = network.by_name[activation.inputs[0]]
        short = cut_off(network, node)
        if not splittable(short) or late():
            continue
        floor = intermediate_bounds(network, region, memory, floor=floor, deadline=deadline)
        part = activations.parts[activation.name]
        bends = activations.left[part] != activations.right[part]
        z = Interval(*(end.flatten(1).clone() for end in (floor[node.name].lower, floor[node.name].upper)))
        unstable = (z.lower < activations.kink[part]) & (z.upper > activations.kink[part]) & bends
        at, wanted = unstable.nonzero(as_tuple=True)
        if len(wanted):
            say(f"bounding {len(wanted)} neurons of {node.origin or node.name} by splits in front of them")
            kink = activations.kink[part][wanted]
            bounding = Bounding(short, region, {n.name: floor[n.name] for n in short}, ends(node, wanted, kink, at))
            low, high = lowest(bounding, effort, fitting(bounding, memory), late).split(len(wanted))
            z.lower[at, wanted] = torch.maximum(z.lower[at, wanted], down(kink + low))
            z.upper[at, wanted] = torch.minimum(z.upper[at, wanted], up(kink - high))
            floor[node.name] = Interval(z.lower.reshape(-1, *node.shape), z.upper.reshape(-1, *node.shape))
    return intermediate_bounds(network, region, memory, floor=floor, deadline=deadline)
