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

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Elementwise, Input, Linear, Maximum
from leaktight.specs.region import Region
from leaktight.verify import relax
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.relax import Lines
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit


@dataclass(frozen=True)
class Rows:
    """Linear functions of one node's value: ``coefficients`` ``(batch, rows, *shape)``."""

    node: str
    coefficients: Tensor


@dataclass(frozen=True)
class Units:
    """The rows ``+z_j`` and ``-z_j`` for the entries ``j`` in `index` ``(batch, k)`` of one node's flat value.

    They make ``2 k`` rows, all positive ones first. An affine node answers them from its weights, without a product.
    """

    node: str
    index: Tensor


@dataclass(frozen=True)
class _Slack:
    """How much rewriting a node with coefficients ``a`` may be off: ``|a| . vector + constant``, per region."""

    vector: Tensor | None
    constant: Tensor


@dataclass(frozen=True)
class _Centred:
    """Lines in the form that a pass applies: ``slope ± half_slope``, ``offset ± half_offset`` (plus: the lower line).

    Halving and adding rounds; `Backward.handed_on` charges for the slopes. The offsets are moved outwards instead.
    """

    slope: Tensor
    half_slope: Tensor
    offset: Tensor
    half_offset: Tensor

    @classmethod
    def of(cls, lines: Lines) -> _Centred:
        offset = lines.lower_offset / 2 + lines.upper_offset / 2
        reach = 2 * unit(offset.dtype) * (lines.lower_offset.abs() + lines.upper_offset.abs())
        half = lines.lower_offset / 2 - lines.upper_offset / 2 - reach.detach()
        return cls(
            lines.lower_slope / 2 + lines.upper_slope / 2, lines.lower_slope / 2 - lines.upper_slope / 2, offset, half
        )


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
        self._plain: dict[str, Lines] = {}
        self._lines: dict[str, _Centred] = {}
        self._handed_on: dict[str, Tensor] = {}
        self._slacks: dict[str, _Slack] = {}
        self._place = {node.name: i for i, node in enumerate(network.nodes)}

    def turned(self, tilts: Mapping[str, Tensor]) -> Backward:
        """The same with other tilts; shares what does not depend on them."""
        other = Backward(self.network, self.region, self.known, tilts)
        other._plain, other._slacks = self._plain, self._slacks
        return other

    def lower(self, *starts: Rows | Units) -> Tensor:
        """Proven lower bounds ``(batch, rows)`` of the sum of `starts` (the same rows on several nodes)."""
        walk = _Walk(self)
        for start in starts:
            walk.begin(start)
        for node in reversed(self.network.nodes[: max(self._place[s.node] for s in starts) + 1]):
            walk.through(node)
        return walk.conclude()

    def centred(self, node: Node) -> _Centred:
        """The lines around an activation, with an axis for rows behind the batch."""
        found = self._lines.get(node.name)
        if found is None:
            z, op = self.known[node.inputs[0]], node.op
            ends = z.lower.unsqueeze(1), z.upper.unsqueeze(1)
            if node.name not in self._plain:
                self._plain[node.name] = relax.envelope(op, *ends)  # type: ignore[arg-type]
            lines, tilt = self._plain[node.name], self.tilts.get(node.name)
            if tilt is not None:
                lines = relax.turn(op, lines, *ends, tilt)  # type: ignore[arg-type]
            found = self._lines[node.name] = _Centred.of(lines)
        return found

    def handed_on(self, node: Node) -> Tensor:
        """``vector``: an activation with coefficients ``a`` charges ``|a| . vector``, for itself and for rewriting what
        it hands on. ``(batch, *shape)``.
        """
        found = self._handed_on.get(node.name)
        if found is None:
            lines, zeta = self.centred(node), self.known[node.inputs[0]].magnitude
            steep = (lines.slope.abs() + lines.half_slope.abs()).detach().amax(1)
            reach = (lines.offset.abs() + lines.half_offset.abs()).detach().amax(1)
            found = (
                8 * unit(self.dtype) * steep * zeta + gamma(node.size, self.dtype) * reach + 4 * underflow(self.dtype)
            )
            source = self.network.by_name[node.inputs[0]]
            if isinstance(source.op, Affine) and (vector := self.slack(source).vector) is not None:
                found = found + steep * vector.reshape(-1, *source.shape)
            self._handed_on[node.name] = found
        return found

    def slack(self, node: Node) -> _Slack:
        found = self._slacks.get(node.name)
        if found is None:
            found = self._affine_slack(node, node.op) if isinstance(node.op, Affine) else self._line_slack(node)
            self._slacks[node.name] = found
        return found

    def _affine_slack(self, node: Node, op: Affine) -> _Slack:
        reach = [self.known[name].magnitude for name in node.inputs]
        parts = []
        if op.adjoint_terms:
            parts.append(gamma(op.adjoint_terms, self.dtype) * op.magnitude(*reach))
        if (spread := op.spread(*reach)) is not None:
            parts.append(2 * spread)
        if op.bias_value is not None:
            parts.append(gamma(node.size, self.dtype) * op.bias_value.abs())
        inputs = sum((x.flatten(1).sum(1) for x in reach), torch.zeros(self.region.batch, dtype=self.dtype))
        constant = 4 * (op.adjoint_terms * inputs + node.size) * underflow(self.dtype)
        if not parts:
            return _Slack(None, constant)
        total = torch.zeros((self.region.batch, *node.shape), dtype=self.dtype)
        for part in parts:
            total = total + part
        return _Slack(total.flatten(1), constant)

    def _line_slack(self, node: Node) -> _Slack:
        z = self.known[node.inputs[0]]
        constant = 4 * (z.magnitude.flatten(1).sum(1) + node.size) * underflow(self.dtype)
        if not isinstance(node.op, Maximum):
            return _Slack(None, constant)
        # a slope multiplies a coefficient (one rounding, times zeta); an offset enters a sum of node.size terms
        lines = relax.maximum_lines(z.lower, z.upper)
        vector = 4 * unit(self.dtype) * z.magnitude.amax(-1) + gamma(node.size, self.dtype) * lines.upper_offset.abs()
        return _Slack(vector.flatten(1), constant)


class _Walk:
    """One pass from the outputs to the inputs.

    An activation with lines ``l, u`` takes ``a`` to ``a c + |a| h``, where ``c = (l + u) / 2`` and ``h = (l - u) / 2``:
    that is ``a l`` for ``a >= 0`` and ``a u`` below, without a second copy split by sign. Slack is charged when rows
    are handed to a node, because an activation can bound the rows that it hands on by ``|a| (|c| + |h|)``, with the
    ``|a|`` that it has at hand.
    """

    def __init__(self, backward: Backward) -> None:
        self.b = backward
        self.pending: dict[str, Tensor] = {}
        self.mirrored: str | None = None  # a node whose pending rows stand for themselves and their negatives
        self.offset: Tensor | float = 0.0
        self.slack: Tensor | float = 0.0

    def begin(self, start: Rows | Units) -> None:
        node = self.b.network.by_name[start.node]
        if isinstance(start, Rows):
            self.give(node.name, start.coefficients)
        elif isinstance(node.op, Linear) and node.size == node.op.weight.shape[0]:
            self._rows_of(node, node.op, start.index)
        else:
            batch, count = start.index.shape
            rows = torch.zeros(batch, count, node.size, dtype=self.b.dtype).scatter_(-1, start.index.unsqueeze(-1), 1.0)
            self.give(node.name, torch.cat([rows, -rows], 1).reshape(batch, 2 * count, *node.shape))

    def _rows_of(self, node: Node, op: Linear, index: Tensor) -> None:
        (name,) = node.inputs
        source = self.b.network.by_name[name]
        rows = op.weight[index].reshape(*index.shape, *source.shape)
        if isinstance(source.op, Elementwise):
            self.pending[name], self.mirrored = rows, name
        else:
            self.give(name, torch.cat([rows, -rows], 1))
        if op.bias is not None:
            self._shift(torch.cat([op.bias[index], -op.bias[index]], 1))
        spread = op.spread(self.b.known[name].magnitude)
        if spread is not None:
            wide = 2 * spread.expand(self.b.region.batch, *node.shape).flatten(1).gather(1, index)
            self.slack = self.slack + torch.cat([wide, wide], 1)

    def give(self, name: str, rows: Tensor, charged: bool = False) -> None:
        """Adds rows on a node, and the slack of rewriting them there if the node is affine."""
        node = self.b.network.by_name[name]
        if isinstance(node.op, Affine) and not charged and (vector := self.b.slack(node).vector) is not None:
            self._charge(rows, vector)
        if name in self.pending:  # the sum of two is one rounding off
            rows = self.pending[name] + rows
            self._charge(rows, 2 * unit(self.b.dtype) * self.b.known[name].magnitude.flatten(1))
        self.pending[name] = rows

    def _charge(self, rows: Tensor, vector: Tensor) -> None:
        whole = vector + underflow(self.b.dtype)  # what underflowed in the vector itself, before large rows multiply it
        self.slack = self.slack + (rows.detach().flatten(2).abs() @ whole.unsqueeze(-1)).squeeze(-1)

    def _shift(self, term: Tensor) -> None:
        """Adds to the offset; the sum is one rounding off."""
        self.offset = self.offset + term
        self.slack = self.slack + 2 * unit(self.b.dtype) * self.offset.detach().abs()

    def through(self, node: Node) -> None:
        if isinstance(node.op, Input) or node.name not in self.pending:
            return
        a = self.pending.pop(node.name)
        self.slack = self.slack + self.b.slack(node).constant.unsqueeze(1)
        if isinstance(node.op, Affine):
            self._affine(node, node.op, a)
        elif isinstance(node.op, Elementwise):
            self._elementwise(node, a)
        elif isinstance(node.op, Maximum):
            self._maximum(node, a)
        else:
            raise MissingRule(
                f"linear bounds have no rule for {type(node.op).__name__} (node {node.origin or node.name!r})"
            )

    def _affine(self, node: Node, op: Affine, a: Tensor) -> None:
        if op.bias_value is not None:
            bias = op.bias_value.expand(node.shape).reshape(-1, 1)
            self._shift((a.flatten(2) @ bias).squeeze(-1))
        shapes = [self.b.network.by_name[name].shape for name in node.inputs]
        for name, rows in zip(node.inputs, op.adjoint(a, shapes), strict=True):
            self.give(name, rows)

    def _elementwise(self, node: Node, a: Tensor) -> None:
        lines = self.b.centred(node)
        if self.mirrored == node.name and lines.slope.shape[1] > 1:  # lines of their own for each row
            a, self.mirrored = torch.cat([a, -a], 1), None
        size = a.abs()
        straight, bent = a * lines.slope, size * lines.half_slope
        shift, sink = _dot(a, lines.offset), _dot(size, lines.half_offset)
        slack = _dot(size.detach(), self.b.handed_on(node).unsqueeze(1))
        if self.mirrored == node.name:
            self.mirrored = None
            rows = torch.cat([straight + bent, bent - straight], 1)
            shift, sink, slack = torch.cat([shift, -shift], 1), torch.cat([sink, sink], 1), torch.cat([slack, slack], 1)
        else:
            rows = straight + bent
        self._shift(shift)
        self._shift(sink)
        self.slack = self.slack + slack
        self.give(node.inputs[0], rows, charged=True)

    def _maximum(self, node: Node, a: Tensor) -> None:
        z = self.b.known[node.inputs[0]]
        lines = relax.maximum_lines(z.lower, z.upper)
        vector = self.b.slack(node).vector
        if vector is not None:
            self._charge(a, vector)
        positive = a.clamp(min=0)
        negative = a - positive
        self._shift(_dot(negative, lines.upper_offset.unsqueeze(1)))
        rows = torch.zeros((*a.shape, z.lower.shape[-1]), dtype=a.dtype)
        for at, share in ((lines.lower_at, positive), (lines.upper_at, negative * lines.upper_slope.unsqueeze(1))):
            place = at.unsqueeze(1).unsqueeze(-1).expand(*a.shape, 1)
            rows = rows.scatter_add(-1, place, share.unsqueeze(-1))
        self.give(node.inputs[0], rows)

    def conclude(self) -> Tensor:
        """The rows over the region, minus all slack."""
        if self.pending:  # otherwise no row depends on an input
            flat = self._on_inputs()
            self._charge(flat, gamma(flat.shape[-1], self.b.dtype) * self.b.region.magnitude)
            self._shift(self.b.region.minimum(flat))
            self.slack = self.slack + flat.shape[-1] * underflow(self.b.dtype)
        # the slack itself is a sum of nonnegative terms, at most eight a node
        steps = 1 + 10 * (len(self.b.network.nodes) + 4) * unit(self.b.dtype)
        return trusted_lower(down(torch.as_tensor(self.offset) - steps * torch.as_tensor(self.slack)))

    def _on_inputs(self) -> Tensor:
        lead = next(iter(self.pending.values())).shape[:2]
        parts = [
            self.pending[p.name].flatten(2)
            if p.name in self.pending
            else torch.zeros(*lead, p.size, dtype=self.b.dtype)
            for p in self.b.network.inputs
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _dot(rows: Tensor, offsets: Tensor) -> Tensor:
    """``(batch, rows)`` inner products with offsets ``(batch, 1 or rows, *shape)``."""
    if offsets.shape[1] == 1:
        return (rows.flatten(2) @ offsets.flatten(1).unsqueeze(-1)).squeeze(-1)
    return (rows * offsets).flatten(2).sum(-1)
