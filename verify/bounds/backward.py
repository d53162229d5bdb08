"""Backward linear bound propagation (CROWN) on directed acyclic graphs, rigorous in floating point.

A set of rows, each a linear function ``sum_v A_v . z_v + offset`` of node values that bounds an objective from below,
is rewritten from the outputs to the inputs: an affine node is replaced by its definition, an activation by the line
that its coefficient's sign asks for (Zhang et al. 2018, arXiv:1811.00866). At the inputs, the region's closed form
gives the number.

Rounding. Let ``zeta`` bound ``|z|`` of a node, known before. After ``A' = fl(A W)`` every ``|z| <= zeta`` has
``(A W) z >= A' z - gamma |A| (|W| zeta)``, and ``|W| zeta`` is the same for all rows: the slack of a node is one
vector, and it costs one matrix-vector product (`Slack`). The slacks of all nodes add up to one number per row, which is
subtracted at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Input, Linear, Maximum
from leaktight.specs.region import Box, Region
from leaktight.verify import relax
from leaktight.verify.bounds.centred import Centred, Drift, Fan
from leaktight.verify.bounds.interval import Interval, rounding, spread_of, step
from leaktight.verify.bounds.kinds import is_affine, is_elementwise, kind_of
from leaktight.verify.bounds.rows import Rows, Units, is_whole
from leaktight.verify.bounds.selected import Selected
from leaktight.verify.bounds.walk import Walk
from leaktight.verify.relax import Lines
from leaktight.verify.rounding import gamma, underflow, unit

if TYPE_CHECKING:
    from typing_extensions import Self

SomeWalk = TypeVar("SomeWalk", bound=Walk)
_LARGEST_MATRIX = 2**22  # entries of a convolution that is kept as a matrix too


@dataclass(frozen=True)
class _Slack:
    """How much rewriting a node with coefficients ``a`` may be off: ``|a| . vector + constant``, per region."""

    vector: Tensor | None
    constant: Tensor

    def select(self, regions: Tensor | slice) -> _Slack:
        return _Slack(None if self.vector is None else self.vector[regions], self.constant[regions])


class Backward:
    """Bounds linear functions of node values from below, given intervals of the nodes that lie in front.

    It keeps what does not depend on the rows (lines, slack vectors), so one object serves many calls. `known` may gain
    nodes between calls; it must not change the intervals of nodes that were there. `tilts` holds, for activations by
    name, where to turn their free lines: ``(batch, 1 or rows, *shape)``.
    """

    def __init__(
        self, network: Network, region: Region, known: Mapping[str, Interval], tilts: Mapping[str, Tensor] | None = None
    ) -> None:
        self.network, self.region, self.known = network, region, known
        self.tilts = tilts or {}
        self.dtype = region.lower.dtype
        self._plain: MutableMapping[str, Lines] = {}
        self._lines: dict[str, Centred] = {}
        self._fans: dict[str, Fan] = {}
        self._handed_fans: dict[str, Tensor] = {}
        self._handed_on: dict[str, Tensor] = {}
        self._slacks: MutableMapping[str, _Slack] = {}
        self._underflows: dict[str, Tensor] = {}
        self._matrices: dict[str, Tensor | None] = {}
        self._widened: Region | None = None
        self._place = {node.name: i for i, node in enumerate(network.nodes)}

    def turned(self, tilts: Mapping[str, Tensor]) -> Self:
        """The same with other tilts; shares what does not depend on them."""
        other = copy(self)
        other.tilts = tilts
        still = [name for name in self._lines if name not in self.tilts and name not in tilts]
        other._lines = {name: self._lines[name] for name in still}
        other._handed_on = {name: self._handed_on[name] for name in still if name in self._handed_on}
        return other

    def select(self, regions: Tensor | slice) -> Self:
        """The same for the regions at these places of the batch alone; it takes over what is known by now."""
        if is_whole(regions, self.region.batch):
            return self
        other = self._placed(regions)
        other.known = Selected(self.known, regions)
        other.tilts = {name: tilt[regions] for name, tilt in self.tilts.items()}
        other._lines = {name: lines.select(regions) for name, lines in self._lines.items()}
        other._fans = {name: fan.select(regions) for name, fan in self._fans.items()}
        other._handed_fans = {name: vector[regions] for name, vector in self._handed_fans.items()}
        other._plain = Selected(self._plain, regions)
        other._handed_on = {name: vector[regions] for name, vector in self._handed_on.items()}
        return other

    def narrowed(self, regions: Tensor, known: Mapping[str, Interval], tilts: Mapping[str, Tensor]) -> Self:
        """The same for parts of the regions at these places, where `known` holds intervals within theirs.

        What is known of rounding errors on the whole regions is taken over.
        """
        other = self._placed(regions)
        other.known, other.tilts = known, tilts
        other._lines, other._plain, other._handed_on = {}, {}, {}
        other._fans, other._handed_fans = {}, {}
        return other

    def _placed(self, regions: Tensor | slice) -> Self:
        """A copy at these places of the batch, with what is known of regions and rounding errors, but not of lines."""
        other = copy(self)
        other.region = self.region.select(regions)
        other._slacks = Selected(self._slacks, regions)
        other._underflows = {name: total[regions] for name, total in self._underflows.items()}
        other._widened = None if self._widened is None else self._widened.select(regions)
        return other

    def step(self, node: Node) -> Interval:
        """The node's interval from those of its inputs."""
        return step(node, [self.known[name] for name in node.inputs], self.region.batch)

    def envelope(self, op: Elementwise, node: Node, lower: Tensor, upper: Tensor) -> Lines:
        """The lines around the activation before any is turned; a place for activations that vary."""
        return relax.envelope(op, lower, upper)

    def ahead_of(self, node: Node) -> Interval:
        """The interval of an activation's input on which its lines have to hold."""
        return self.known[node.inputs[0]]

    def operator(self, node: Node) -> Elementwise:
        """The activation, its parameters broadcasting against ``(batch, rows, *shape)``."""
        op = node.op
        if not is_elementwise(op):
            raise InternalError(f"node {node.name!r} is no activation")
        return op

    def drift(self, node: Node) -> Drift | None:
        """What moves an activation besides its input; nothing here."""
        return None

    def prepare(self, last: Node) -> None:
        """Works out what every pass that starts at a node needs, for the whole batch at once."""
        for node in self.network.nodes[: self._place[last.name] + 1]:
            if is_elementwise(node.op):
                self.handed_on(node)
            elif kind_of(type(node.op)) is not Input:
                self.slack(node)
        self.underflows(last)
        self.widened()

    def lower(self, *starts: Rows | Units) -> Tensor:
        """Proven lower bounds ``(batch, rows)`` of the sum of `starts` (the same rows on several nodes)."""
        return self.walk(*starts).conclude()

    def ended(self, *starts: Rows | Units) -> tuple[Tensor, Tensor]:
        """As `lower`, and the rows on the inputs ``(batch or 1, rows or 1, n)`` that it was concluded from."""
        walk = self.walk(*starts)
        rows = walk.on_inputs() if walk.pending else torch.zeros(1, 1, self.region.size, dtype=self.dtype)
        return walk.conclude(), rows

    def walk(self, *starts: Rows | Units) -> Walk:
        """A pass of these rows as far as the inputs."""
        return self.carry(Walk(self), *starts)

    def carry(self, walk: SomeWalk, *starts: Rows | Units) -> SomeWalk:
        """The walk, with these rows carried as far as the inputs."""
        first = max(self._place[start.node] for start in starts)
        walk.slack = walk.slack + self.underflows(self.network.nodes[first])
        for start in starts:
            walk.begin(start)
        for node in reversed(self.network.nodes[: first + 1]):
            walk.through(node)
        return walk

    def underflows(self, last: Node) -> Tensor:
        """What products that underflow may add up to in a pass from a node to the inputs, ``(batch, 1)``."""
        found = self._underflows.get(last.name)
        if found is None:
            total = torch.zeros((self.region.batch, 1), dtype=self.dtype)
            for node in self.network.nodes[: self._place[last.name] + 1]:
                if kind_of(type(node.op)) is not Input:
                    total = total + self.slack(node).constant.unsqueeze(1)
            found = self._underflows[last.name] = total
        return found

    def widened(self) -> Region | None:
        """A box that is wider by the rounding errors of a minimum over it; None for balls, and next to overflow.

        A minimum over the wider box is smaller by ``|a| . pad``, where ``pad = gamma magnitude``.
        """
        region = self.region
        if self._widened is None and isinstance(region, Box):
            pad = gamma(region.size, self.dtype) * region.magnitude
            lower, upper = region.lower - pad, region.upper + pad
            if bool((upper - lower).amax() < torch.inf):  # so both are finite
                self._widened = Box(lower, upper)
        return self._widened

    def matrix(self, node: Node, rows: int) -> Tensor | None:
        """An affine node of one input as a matrix ``(size, input size)``, exactly; None where it is not worth having.

        The adjoint of a unit vector moves weights to their places: whatever it adds to them is zero. `rows`: how many
        the caller wants of it; making it costs as much as one pass of ``size`` rows through the node.
        """
        if node.name not in self._matrices:
            if not isinstance(node.op, Linear) and rows < node.size:
                return None
            self._matrices[node.name] = self._as_matrix(node)
        return self._matrices[node.name]

    def _as_matrix(self, node: Node) -> Tensor | None:
        if isinstance(node.op, Linear) and node.size == node.op.weight.shape[0]:
            return node.op.weight
        if not isinstance(node.op, Affine) or len(node.inputs) != 1:
            return None
        source = self.network.by_name[node.inputs[0]]
        if node.size * max(source.size, node.size) > _LARGEST_MATRIX:
            return None
        units = torch.eye(node.size, dtype=self.dtype).reshape(node.size, *node.shape)
        return node.op.adjoint(units, [source.shape])[0].reshape(node.size, source.size)

    def centred(self, node: Node) -> Centred:
        """The lines around an activation, with an axis for rows behind the batch."""
        found = self._lines.get(node.name)
        if found is None:
            lines, tilt = self.plain(node), self.tilts.get(node.name)
            if tilt is not None:
                z = self.ahead_of(node)
                lines = relax.turn(self.operator(node), lines, z.lower.unsqueeze(1), z.upper.unsqueeze(1), tilt)
            found = self._lines[node.name] = Centred.of(lines)
        return found

    def plain(self, node: Node) -> Lines:
        """The lines around an activation before any is turned, ``(batch, 1, *shape)``."""
        if node.name not in self._plain:
            z = self.ahead_of(node)
            ends = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
            self._plain[node.name] = self.envelope(self.operator(node), node, *ends)
        return self._plain[node.name]

    def fan(self, node: Node) -> Fan | None:
        """The lines that an activation's tilt picks from, where passes turn them row by row; else `centred` turns them.

        The slopes of a plain Leaky ReLU are ordered and its line is exactly one of theirs, so every tilt in [0, 1]
        gives a line below it. Passes of other kinds read `centred` alone.
        """
        if node.name not in self.tilts or type(self) is not Backward or self.dtype != torch.float64:
            return None
        op = node.op
        if not relax.is_leaky(op):
            return None
        found = self._fans.get(node.name)
        if found is None:
            z = self.known[node.inputs[0]]
            first = relax.default_tilt(op, z.lower, z.upper)
            free = torch.minimum(-z.lower, z.upper).clamp_(min=0).sign_()
            found = Fan.of(self.plain(node), first.unsqueeze(1), ((1 - op.left) * free).unsqueeze(1))
            self._fans[node.name] = found
        return found

    def handed_on(self, node: Node) -> Tensor:
        """``vector``: an activation with coefficients ``a`` charges ``|a| . vector``, for itself and for rewriting what
        it hands on. ``(batch, *shape)``.
        """
        fan = self.fan(node)
        kept = self._handed_on if fan is None else self._handed_fans
        found = kept.get(node.name)
        if found is None:
            found = self.handing(node, fan or self.centred(node))
            if (drift := self.drift(node)) is not None:
                # the rate is a sum of node.size products, which counts for at most `half` away from the middle
                found = found + drift.reach * (1 + 8 * unit(self.dtype))
                found = found + gamma(node.size, self.dtype) * drift.centre.abs() * drift.half
            kept[node.name] = found
        return found

    def handing(self, node: Node, lines: Centred | Fan) -> Tensor:
        """The rounding errors of replacing an activation by `lines` and of rewriting what its input is made of."""
        steep, reach = (_widest(x.detach()) for x in (lines.steep, lines.reach))
        z = self.known[node.inputs[0]]
        size = z.largest.reshape(-1, *[1] * len(node.shape)) if self.dtype == torch.float64 else z.magnitude
        each = lines.roundings * unit(self.dtype) * size
        source = self.network.by_name[node.inputs[0]]
        if is_affine(source.op) and (vector := self.slack(source).vector) is not None:
            each = each + vector.reshape(-1, *source.shape)
        return torch.add(steep * each, reach, alpha=gamma(node.size, self.dtype)) + 4 * underflow(self.dtype)

    def slack(self, node: Node) -> _Slack:
        found = self._slacks.get(node.name)
        if found is None:
            found = self._affine_slack(node, node.op) if is_affine(node.op) else self._line_slack(node)
            self._slacks[node.name] = found
        return found

    def _affine_slack(self, node: Node, op: Affine) -> _Slack:
        inputs = [self.known[name] for name in node.inputs]
        constant = self._lost(node, inputs, op.adjoint_terms)
        spread = spread_of(op, inputs)
        if not op.adjoint_terms and op.bias_value is None and spread is None:
            return _Slack(None, constant)
        found = rounding(op, gamma(op.adjoint_terms, self.dtype), gamma(node.size, self.dtype), inputs)
        if spread is not None:
            found = found + 2 * spread
        return _Slack(found.expand(self.region.batch, *node.shape).flatten(1), constant)

    def _lost(self, node: Node, inputs: Sequence[Interval], terms: int) -> Tensor:
        """What products with a node's rows that underflow may add up to, ``(batch,)``: `terms` for each input's entry,
        and one for each of its own.
        """
        each = 4 * underflow(self.dtype)
        total = self.region.lower.new_full((self.region.batch,), each * node.size)
        for z in inputs:
            total = torch.add(total, z.largest, alpha=each * terms * z.lower.shape[1:].numel())
        return total

    def _line_slack(self, node: Node) -> _Slack:
        z = self.known[node.inputs[0]]
        constant = self._lost(node, [z], 1)
        if not isinstance(node.op, Maximum):
            return _Slack(None, constant)
        # a slope multiplies a coefficient (one rounding, times zeta); an offset enters a sum of node.size terms
        lines = relax.maximum_lines(z.lower, z.upper)
        vector = 4 * unit(self.dtype) * z.magnitude.amax(-1) + gamma(node.size, self.dtype) * lines.upper_offset.abs()
        return _Slack(vector.flatten(1), constant)


def _widest(x: Tensor) -> Tensor:
    """The largest of all rows' entries, ``(batch, *shape)`` of ``(batch, rows, *shape)``."""
    return x.squeeze(1) if x.shape[1] == 1 else x.amax(1)
