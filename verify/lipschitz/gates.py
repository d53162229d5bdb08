"""The network of differences: every activation a gate that multiplies by a slope somewhere in its sector.

For two inputs ``x`` and ``x'`` each neuron has a slope ``d`` in its sector with ``v - v' = d (u - u')``, so ``f(x) -
f(x') = J (x - x')`` for a matrix ``J`` that is a product of the layers and of diagonal matrices of slopes. ``J v`` and
``J^T t`` are values of networks whose activations are gates ``y = d g``, ``low <= d <= high``:

    min(low g, high g)  <=  y  <=  max(low g, high g),

two functions with two slopes each: on one side of zero the gate's lines are rays, and on both a chord belongs to each
(for ReLUs these are the relaxations of Zhang et al. 2019, RecurJac, arXiv:1810.11783, and Shi et al. 2022,
arXiv:2210.07394; here for any sector). So linear bound propagation bounds ``J``, roundings included, with the same code
that bounds networks. Nothing is asked of the slopes: negative ones and steep ones are sectors like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leaktight.models.enclosure import Enclosure
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Elementwise, Input, Linear, Op, Sum, TwoSlope
from leaktight.specs.region import Box
from leaktight.verify import relax
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import refine_all
from leaktight.verify.bounds.interval import Interval, input_intervals, outputs
from leaktight.verify.bounds.memory import default_memory, passes
from leaktight.verify.bounds.rows import Rows
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.lipschitz.sectors import Sector
from leaktight.verify.relax import Lines
from leaktight.verify.rounding import trusted_lower


@dataclass(frozen=True, eq=False)
class Gated:
    """A network without biases whose activations `above` bounds from above and its own operators from below."""

    network: Network
    above: Mapping[str, TwoSlope]


def forwards(layers: Layers) -> Gated:
    """``J v`` as a function of ``v``."""
    draft = _Draft(layers.sizes[0] if layers.first is None else layers.first.value.shape[1])
    draft.linear(layers.first)
    for stage in layers.stages:
        draft.stage(stage.name, stage.weight, stage.sector, stage.feed, stage.keep)
    draft.linear(layers.last)
    return draft.finished()


def backwards(layers: Layers) -> Gated:
    """``J^T t`` as a function of ``t``."""
    draft = _Draft(layers.sizes[-1] if layers.last is None else layers.last.value.shape[0])
    draft.linear(_turned(layers.last))
    for stage in reversed(layers.stages):
        draft.stage(stage.name, _turned(stage.feed), stage.sector, _turned(stage.weight), _turned(stage.keep))
    draft.linear(_turned(layers.first))
    return draft.finished()


def _turned(matrix: Enclosure | None) -> Enclosure | None:
    return None if matrix is None else matrix.map(lambda x: x.T.copy())


@dataclass
class _Draft:
    """A network that grows; `at` is the last value's name."""

    size: int
    nodes: list[Node] = field(default_factory=list)
    above: dict[str, TwoSlope] = field(default_factory=dict)
    at: str = "in"

    def __post_init__(self) -> None:
        self.nodes.append(Node("in", Input(), (), (self.size,)))
        self.inputs = (Port("in", (self.size,), "float64"),)

    def put(self, op: Op, size: int, *inputs: str) -> str:
        name = f"{type(op).__name__}_{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs, (size,)))
        self.at, self.size = name, size
        return name

    def linear(self, matrix: Enclosure | None) -> None:
        if matrix is not None:
            op = Linear(matrix.tensor, None, weight_error=matrix.error_tensor)
            self.put(op, len(matrix.value), self.at)

    def stage(
        self, name: str, inner: Enclosure | None, sector: Sector, outer: Enclosure | None, keep: Enclosure | None
    ) -> None:
        before, size = self.at, self.size
        self.linear(inner)
        low, high = torch.from_numpy(sector.low), torch.from_numpy(sector.high)
        zero = torch.zeros((), dtype=torch.float64)
        gate = self.put(TwoSlope(high, low, zero, zero), self.size, self.at)
        self.above[gate] = TwoSlope(low, high, zero, zero)
        self.linear(outer)
        if keep is not None:
            branch = self.at
            self.at, self.size = before, size
            self.linear(keep)
            self.put(Sum((1, 1)), self.size, branch, self.at)

    def finished(self) -> Gated:
        if self.at == "in":  # an output of its own
            self.put(Sum((1,)), self.size, "in")
        return Gated(Network(tuple(self.nodes), self.inputs, (Port(self.at, (self.size,), "float64"),)), self.above)


class _Backward(Backward):
    """Bound propagation in which a gate lies between two activations."""

    def __init__(self, gated: Gated, region: Box, known: Mapping[str, Interval]) -> None:
        super().__init__(gated.network, region, known)
        self.above = gated.above

    def envelope(self, op: Elementwise, node: Node, lower: Tensor, upper: Tensor) -> Lines:
        below, above = super().envelope(op, node, lower, upper), relax.envelope(self.above[node.name], lower, upper)
        return Lines(below.lower_slope, below.lower_offset, above.upper_slope, above.upper_offset)

    def step(self, node: Node) -> Interval:
        if node.name not in self.above:
            return super().step(node)
        z = self.known[node.inputs[0]]
        below, above = (relax.image(op, z.lower, z.upper) for op in (self.operator(node), self.above[node.name]))
        return Interval(below[0], above[1]).trusted()


def bounds(gated: Gated, lower: Tensor, upper: Tensor, *, lines: bool = True) -> Interval:
    """Bounds ``(batch, outputs)`` of the outputs for all inputs ``lower <= v <= upper`` ``(batch, inputs)``.

    lines: by linear bound propagation; otherwise by intervals alone, which is cheap.
    """
    region, network = Box(lower, upper), gated.network
    known = input_intervals(network, region)
    backward = _Backward(gated, region, known)
    if not lines:
        for node in network:
            if node.name not in known:
                known[node.name] = backward.step(node)
        return outputs(network, known)
    memory = default_memory()
    refine_all(backward, known, memory)
    crude = outputs(network, known)
    ends = crude.lower.clone(), crude.upper.clone()
    last = network.outputs[0]
    backward.prepare(network.by_name[last.name])
    units = torch.eye(last.size, dtype=torch.float64)
    for regions, rows in passes(network, [2 * last.size] * len(lower), memory):
        some = torch.cat([units, -units])[rows].expand(len(lower[regions]), -1, -1)
        found = trusted_lower(backward.select(regions).lower(Rows(last.name, some)))
        for row, at in enumerate(range(2 * last.size)[rows]):
            entry = at % last.size
            if at < last.size:
                ends[0][regions, entry] = torch.maximum(ends[0][regions, entry], found[:, row])
            else:
                ends[1][regions, entry] = torch.minimum(ends[1][regions, entry], -found[:, row])
    return Interval(*ends)
