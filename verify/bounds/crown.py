"""CROWN: backward bounds with backward bounds for every pre-activation in front.

Intervals are pushed forwards; where a nonlinear operator's input is one that it is not affine on, its ends are bounded
again by a backward pass. Neurons that intervals already show stable need no pass: their lines are exact whatever the
ends are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Input, Maximum
from leaktight.specs.region import Box, Region
from leaktight.verify import relax
from leaktight.verify.bounds.backward import Backward, Units
from leaktight.verify.bounds.interval import Interval, input_intervals, step
from leaktight.verify.bounds.memory import row_chunks

Refine = Callable[[Backward, Node, Tensor], Tensor]


def plain_rows(backward: Backward, node: Node, index: Tensor) -> Tensor:
    """Lower bounds of ``+z_j`` and then ``-z_j`` for the entries `index` of a node, by one backward pass."""
    return backward.lower(Units(node.name, index))


def intermediate_bounds(
    network: Network,
    region: Region,
    memory: int,
    *,
    floor: Mapping[str, Interval] | None = None,
    refine: Refine = plain_rows,
    deadline: float | None = None,
) -> dict[str, Interval]:
    """Bounds of every node's value over the region, in the dtype of region and network.

    `floor`: bounds that are known already, which the result is never looser than. `refine` bounds entries of a node
    whose intervals are not good enough; after `deadline` (of time.monotonic) intervals have to do.
    """
    known = input_intervals(network, region)
    backward = Backward(network, region, known)
    for node in network:
        if node.name not in known:
            known[node.name] = step(node, [known[name] for name in node.inputs], region.batch)
            if floor is not None:
                known[node.name] = known[node.name].meet(floor[node.name])
        if not _already_tight(network, region, node):
            wanted = undecided(network, node, known[node.name])
            if bool(wanted.any()):
                known[node.name] = _refined(backward, node, known[node.name], wanted, memory, refine, deadline)
    return known


def _already_tight(network: Network, region: Region, node: Node) -> bool:
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
    wanted = torch.zeros_like(z.lower, dtype=torch.bool)
    for name in network.consumers[node.name]:
        op = network.by_name[name].op
        if isinstance(op, Elementwise):
            wanted |= ~relax.is_linear_on(op, z.lower, z.upper)
        elif isinstance(op, Maximum):
            wanted |= (z.upper >= z.lower.amax(-1, keepdim=True)) & (z.lower < z.upper)
    return wanted.flatten(1)


def _refined(
    backward: Backward, node: Node, z: Interval, wanted: Tensor, memory: int, refine: Refine, deadline: float | None
) -> Interval:
    """The interval met with refined bounds of the entries that are `wanted`.

    Rows of the batch with fewer of them are padded with other entries, whose refined bounds are thrown away: so each
    region has the same bounds in every batch.
    """
    lower, upper = z.lower.flatten(1), z.upper.flatten(1)
    index = wanted.to(torch.uint8).topk(int(wanted.sum(1).amax()), dim=1).indices
    for part in row_chunks(backward.network, index, memory):
        if deadline is not None and time.monotonic() > deadline:
            break
        found, count = refine(backward, node, part), part.shape[1]
        padding = ~wanted.gather(1, part)
        lower = lower.scatter_reduce(1, part, found[:, :count].masked_fill(padding, -torch.inf), "amax")
        upper = upper.scatter_reduce(1, part, (-found[:, count:]).masked_fill(padding, torch.inf), "amin")
    return Interval(lower.reshape(z.lower.shape), upper.reshape(z.upper.shape))
