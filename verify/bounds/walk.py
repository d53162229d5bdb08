"""One backward pass, from the rows that it starts with to the inputs; `Backward` knows what it meets on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.network import Node
from leaktight.models.ops import Affine, Elementwise, Input, Maximum
from leaktight.verify import relax
from leaktight.verify.bounds.interval import spread_of
from leaktight.verify.bounds.kinds import is_affine, kind_of
from leaktight.verify.bounds.rows import Rows, Units, dot, dots
from leaktight.verify.clock import tick
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.bounds.backward import Backward
    from leaktight.verify.bounds.centred import Fan


class Walk:
    """One pass from the outputs to the inputs.

    An activation with lines ``l, u`` takes ``a`` to ``a c + |a| h``, where ``c = (l + u) / 2`` and ``h = (l - u) / 2``:
    that is ``a l`` for ``a >= 0`` and ``a u`` below, without a second copy split by sign. Slack is charged when rows
    are handed to a node, because an activation can bound the rows that it hands on by ``|a| (|c| + |h|)``, with the
    ``|a|`` that it has at hand.
    """

    def __init__(self, backward: Backward) -> None:
        self.b = backward
        self.pending: dict[str, Tensor] = {}
        self.terms: list[Tensor] = []  # which add up to the offset
        self.slack: Tensor | float = 0.0
        self.rate: Tensor | float = 0.0  # how the offset moves with the parameter of a drift
        self.spent: Tensor | float = 0.0  # the part of the slack that a smaller range of the parameter would save

    def begin(self, start: Rows | Units) -> None:
        node = self.b.network.by_name[start.node]
        if isinstance(start, Rows):
            self.give(node.name, start.coefficients)
        elif is_affine(node.op) and (matrix := self.b.matrix(node, start.index.numel())) is not None:
            self._rows_of(node, node.op, matrix, start)
        else:
            rows = start.sign.new_zeros(*start.index.shape, node.size)
            rows.scatter_(-1, start.index.unsqueeze(-1), start.sign.unsqueeze(-1))
            self.give(node.name, rows.reshape(*start.index.shape, *node.shape))

    def _rows_of(self, node: Node, op: Affine, matrix: Tensor, start: Units) -> None:
        (name,) = node.inputs
        rows = start.of(matrix) * start.sign.unsqueeze(-1)
        self.give(name, rows.reshape(*start.index.shape, *self.b.network.by_name[name].shape))
        if op.bias_value is not None:
            self.shift(start.of(op.bias_value.expand(node.shape).reshape(-1)) * start.sign)
        spread = spread_of(op, [self.b.known[name]])
        if spread is not None:
            wide = spread.expand(self.b.region.batch, *node.shape).flatten(1)
            self.slack = self.slack + 2 * wide.gather(1, start.index)

    def give(self, name: str, rows: Tensor, charged: bool = False) -> None:
        """Adds rows on a node, and the slack of rewriting them there if the node is affine."""
        node = self.b.network.by_name[name]
        if is_affine(node.op) and not charged and (vector := self.b.slack(node).vector) is not None:
            self._charge(rows, vector)
        if name in self.pending:  # the sum of two is one rounding off
            rows = self.pending[name] + rows
            self._charge(rows, 2 * unit(self.b.dtype) * self.b.known[name].magnitude.flatten(1))
        self.pending[name] = rows

    def _charge(self, rows: Tensor, vector: Tensor) -> None:
        whole = vector + underflow(self.b.dtype)  # what underflowed in the vector itself, before large rows multiply it
        self.slack = self.slack + dot(rows.detach().abs(), whole.unsqueeze(1))

    def shift(self, term: Tensor) -> None:
        """Adds to the offset; `whole_slack` charges for the sum."""
        self.terms.append(term)

    @property
    def offset(self) -> Tensor | float:
        """The constant of the rows, ``(batch, rows)``."""
        return torch.stack(self.terms).sum(0) if self.terms else 0.0

    def through(self, node: Node) -> None:
        tick()
        kind = kind_of(type(node.op))
        if kind is Input or node.name not in self.pending:
            return
        a = self.pending.pop(node.name)
        if is_affine(node.op):
            self._affine(node, node.op, a)
        elif kind is Elementwise:
            self.elementwise(node, a)
        elif kind is Maximum:
            self._maximum(node, a)
        else:
            raise MissingRule(
                f"linear bounds have no rule for {type(node.op).__name__} (node {node.origin or node.name!r})"
            )

    def _affine(self, node: Node, op: Affine, a: Tensor) -> None:
        if op.bias_value is not None:
            self.shift((a.flatten(2) @ op.bias_value.expand(node.shape).reshape(-1, 1)).squeeze(-1))
        shapes = [self.b.network.by_name[name].shape for name in node.inputs]
        for name, rows in zip(node.inputs, op.adjoint(a, shapes), strict=True):
            self.give(name, rows)

    def elementwise(self, node: Node, a: Tensor) -> None:
        if (fan := self.b.fan(node)) is not None:
            self._turned(node, a, fan)
            return
        lines, handed_on = self.b.centred(node), self.b.handed_on(node).unsqueeze(1)
        size = a.abs()
        self.shift(dot(a, lines.offset))
        if lines.half_offset.shape[1] == 1:
            sink, slack = dots(size, torch.cat([lines.half_offset, handed_on], 1)).unbind(-1)
        else:
            sink, slack = dot(size, lines.half_offset), dot(size.detach(), handed_on)
        self.shift(sink)
        if (drift := self.b.drift(node)) is None:
            self.slack = self.slack + slack.detach()
        else:  # a charge that is worth turning lines for
            self.slack = self.slack + slack
            self.rate = self.rate + dot(a, drift.centre.unsqueeze(1))
            self.slack = self.slack + 2 * unit(self.b.dtype) * self.rate.detach().abs() * drift.half.reshape(-1, 1)
            self.spent = self.spent + dot(size, drift.reach.unsqueeze(1)).detach()
        self.give(node.inputs[0], (a * lines.slope).addcmul_(size, lines.half_slope), charged=True)

    def _turned(self, node: Node, a: Tensor, fan: Fan) -> None:
        """Rows through a Leaky ReLU whose free lines are turned: with ``p`` for positive parts, ``|a| = 2 p - a``."""
        positive, vectors = a.relu(), torch.cat([fan.offset, self.b.handed_on(node).unsqueeze(1)], 1)
        whole, part = dots(a, vectors), dots(positive, vectors)
        self.shift(whole[..., 0] - part[..., 0])
        self.slack = self.slack + torch.sub(2 * part[..., 1], whole[..., 1]).detach()
        self.give(node.inputs[0], fan.turned(a, positive, self.b.tilts[node.name]), charged=True)

    def _maximum(self, node: Node, a: Tensor) -> None:
        z = self.b.known[node.inputs[0]]
        lines = relax.maximum_lines(z.lower, z.upper)
        vector = self.b.slack(node).vector
        if vector is not None:
            self._charge(a, vector)
        positive = a.clamp(min=0)
        negative = a - positive
        self.shift(dot(negative, lines.upper_offset.unsqueeze(1)))
        rows = torch.zeros((*a.shape, z.lower.shape[-1]), dtype=a.dtype)
        for at, share in ((lines.lower_at, positive), (lines.upper_at, negative * lines.upper_slope.unsqueeze(1))):
            place = at.unsqueeze(1).unsqueeze(-1).expand(*a.shape, 1)
            rows = rows.scatter_add(-1, place, share.unsqueeze(-1))
        self.give(node.inputs[0], rows)

    def conclude(self) -> Tensor:
        """The rows over the region, minus all slack."""
        if self.pending:  # otherwise no row depends on an input
            flat = self.on_inputs()
            region = self.b.widened()
            if region is None:
                region = self.b.region
                self._charge(flat, gamma(region.size, self.b.dtype) * region.magnitude)
            self.shift(region.minimum(flat))
            self.slack = self.slack + region.size * underflow(self.b.dtype)
        return trusted_lower(down(torch.as_tensor(self.offset) - self.whole_slack))

    @property
    def whole_slack(self) -> Tensor:
        """The slack so far, and what was lost in summing it: its terms are nonnegative, at most eight a node.

        The offset's own terms may have been added in any order.
        """
        steps = 1 + 10 * (len(self.b.network.nodes) + 4) * unit(self.b.dtype)
        total = torch.as_tensor(self.slack)
        if self.terms:
            sizes = torch.stack([term.detach() for term in self.terms]).abs().sum(0)
            total = total + gamma(len(self.terms), self.b.dtype) * sizes
        return steps * total

    def on_inputs(self) -> Tensor:
        lead = next(iter(self.pending.values())).shape[:2]
        parts = [
            self.pending[p.name].flatten(2)
            if p.name in self.pending
            else torch.zeros(*lead, p.size, dtype=self.b.dtype)
            for p in self.b.network.inputs
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
