"""A network as stages: linear maps of a state, with one activation in each.

The differences between two runs of a network obey

    s_0 = first x,      u_k = weight_k s_(k-1),      s_k = keep_k s_(k-1) + feed_k v_k,      y = last s_K,

where neuron ``i`` of stage ``k`` contributes ``v_i = d_i u_i`` with a slope ``d_i`` in its sector. A chain of layers
has ``keep = 0`` and ``feed = 1``; a residual block ``z + W2 phi(W1 z)`` has ``weight = W1``, ``keep = 1``,
``feed = W2``; any other graph is written with the values that are still needed as its state. Matrices are enclosures of
the true ones: parameters that simplification had to round carry their error. None stands for the identity (for `keep`
for zero).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from leaktight.models.enclosure import Array, Enclosure, exactly
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.matrices import times
from leaktight.verify.lipschitz.sectors import Sector, has_sector, sector

Expression = dict[str, Enclosure | None]
"""A value as a linear function of named ones; None is the identity. A name that is missing does not matter."""


@dataclass(frozen=True, eq=False)
class Stage:
    """``u = weight s``, ``s' = keep s + feed phi(u)``; `name` is the activation's node."""

    name: str
    sector: Sector
    weight: Enclosure | None
    keep: Enclosure | None
    feed: Enclosure | None


@dataclass(frozen=True, eq=False)
class Layers:
    """The stages of a network, from all of its inputs, joined, to all of its outputs, joined.

    `first` and `last` are None where the state is the input or the output itself. `sizes` holds the lengths of the
    state before and after every stage, ``K + 1`` numbers.
    """

    first: Enclosure | None
    stages: tuple[Stage, ...]
    last: Enclosure | None
    sizes: tuple[int, ...]

    @property
    def neurons(self) -> int:
        return sum(stage.sector.size for stage in self.stages)


def layers(network: Network, known: Mapping[str, Interval] | None = None) -> Layers:
    """The stages of a network whose activations have sectors.

    known: proven bounds ``(1, *shape)`` of its values over a convex region of inputs, by node; then the sectors hold in
    that region.

    Raises UnsupportedOperator: an activation has no sector, or a matrix would be too large.
    """
    order = _relevant(network)
    places = [i for i, node in enumerate(order) if has_sector(node.op)]
    cuts, walk = _cuts(network, order, places), _Walk(network, order)
    inputs = [port.name for port in network.inputs]
    first = walk.joined(walk.run(_at(inputs), len(inputs), cuts[0].time), cuts[0].names, inputs)
    stages = tuple(
        walk.stage(before, place, after, known) for before, place, after in zip(cuts, places, cuts[1:], strict=False)
    )
    ended = walk.run(_at(cuts[-1].names), cuts[-1].time, len(order))
    last = walk.joined(ended, [port.name for port in network.outputs], cuts[-1].names)
    return Layers(first, stages, last, tuple(sum(walk.size[name] for name in cut.names) for cut in cuts))


def _relevant(network: Network) -> list[Node]:
    """The nodes that an output depends on, and all inputs, which come first."""
    needed = {port.name for port in network.outputs}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    order = [network.by_name[port.name] for port in network.inputs]
    order += [node for node in network if node.name in needed and not isinstance(node.op, Input)]
    for node in order:
        if not isinstance(node.op, Input | Affine):
            sector(node)  # raises where there is none
    return order


@dataclass(frozen=True)
class _Cut:
    """A place in the order of nodes, and the values that what comes after it needs of what comes before it."""

    time: int
    names: tuple[str, ...]


def _cuts(network: Network, order: Sequence[Node], places: Sequence[int]) -> list[_Cut]:
    """Where states are: one before the first activation, and one after each, where little is needed.

    Right behind an activation, if nothing else is needed there; else where the fewest numbers are.
    """
    frontiers = _frontiers(network, order)
    size = {node.name: node.size for node in order}
    found = []
    for begin, end in zip([len(network.inputs) - 1, *places], [*places, len(order)], strict=True):
        options = [_Cut(time, frontiers[time]) for time in range(begin + 1, end + 1)]
        chain = begin in places and options[0].names == (order[begin].name,)
        found.append(options[0] if chain else min(options, key=lambda cut: sum(size[name] for name in cut.names)))
    return found


def _frontiers(network: Network, order: Sequence[Node]) -> list[tuple[str, ...]]:
    """For every time ``t`` the values among ``order[:t]`` that ``order[t:]`` or the outputs need."""
    last_use = {port.name: len(order) for port in network.outputs}
    for at, node in enumerate(order):
        for name in node.inputs:
            last_use[name] = max(last_use.get(name, -1), at)
    moving: dict[str, bool] = {}
    for node in order:
        moving[node.name] = isinstance(node.op, Input) or any(moving[name] for name in node.inputs)
    return [
        tuple(node.name for node in order[:t] if moving[node.name] and last_use.get(node.name, -1) >= t)
        for t in range(len(order) + 1)
    ]


class _Walk:
    """Expressions of nodes through states."""

    def __init__(self, network: Network, order: Sequence[Node]) -> None:
        self.network, self.order = network, order
        self.size = {node.name: node.size for node in order}

    def run(self, known: dict[str, Expression], begin: int, end: int) -> dict[str, Expression]:
        """`known` with the affine nodes ``order[begin:end]`` in terms of the same names; others are passed over."""
        for node in self.order[begin:end]:
            if isinstance(node.op, Affine):
                known[node.name] = self._affine(node, node.op, known)
        return known

    def _affine(self, node: Node, op: Affine, known: Mapping[str, Expression]) -> Expression:
        shapes = [self.network.by_name[name].shape for name in node.inputs]
        found: Expression = {}
        for at, name in enumerate(node.inputs):
            for of, given in known[name].items():
                part = times(node, op, shapes, at, given)
                own = found.get(of)
                found[of] = part if own is None else own + part
        return found

    def stage(self, before: _Cut, place: int, after: _Cut, known: Mapping[str, Interval] | None) -> Stage:
        """The stage of the activation at `place`, from the state at one cut to the state at the next."""
        node = self.order[place]
        values = self.run(_at(before.names), before.time, place)
        weight = self.joined(values, [node.inputs[0]], before.names)
        within = None if known is None else known[node.inputs[0]]
        values[node.name] = {node.name: None}
        values = self.run(values, place + 1, after.time)
        kept = any(set(before.names) & set(values[name]) for name in after.names)
        keep = self.matrix(values, after.names, before.names) if kept else None
        feed = self.joined(values, after.names, [node.name])
        return Stage(node.name, sector(node, within), weight, keep, feed)

    def joined(self, values: Mapping[str, Expression], rows: Sequence[str], names: Sequence[str]) -> Enclosure | None:
        """The matrix from the named values, joined, to the rows, joined; None where it is the identity."""
        same = len(rows) == len(names) and all(
            set(values[row]) == {name} and values[row][name] is None for row, name in zip(rows, names, strict=True)
        )
        return None if same else self.matrix(values, rows, names)

    def matrix(self, values: Mapping[str, Expression], rows: Sequence[str], names: Sequence[str]) -> Enclosure:
        blocks = [[self._block(values[row], row, name) for name in names] for row in rows]
        value, error = ([[getattr(b, part) for b in row] for row in blocks] for part in ("value", "error"))
        return Enclosure(np.block(value), np.block(error))

    def _block(self, row: Expression, of: str, name: str) -> Enclosure:
        if name not in row:
            return exactly(np.zeros((self.size[of], self.size[name])))
        found = row[name]
        return exactly(np.eye(self.size[name])) if found is None else found


def _at(names: Sequence[str]) -> dict[str, Expression]:
    return {name: {name: None} for name in names}


def scalar(network: Layers, row: Array) -> Layers:
    """The stages of one linear function of the outputs, with exact coefficients ``(outputs,)``: a margin, say."""
    objective = exactly(row[None, :])
    return replace(network, last=objective if network.last is None else objective @ network.last)
