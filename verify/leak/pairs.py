"""Rows and how they move with the slope, carried together: the loss of a segment is quadratic in its width.

The first half of the rows bounds values at the middle of the segment, the second half holds their rates: at the slope
``middle + t`` a pair ``(A, G)`` stands for ``A z + t G z + offset + t rate - slack``. With

    phi_a(z)  =  phi_middle(z) + t g(z),    phi_middle(z) in c z + o ± e,    g(z) in c' z + o' ± e',

(parallel lines, so that ``e`` and ``e'`` are 0 wherever the input does not reach over the kink),

    A phi_a(z) + t G phi_a(z)  >=  (row below A phi_middle(z))  +  t (G c + A c') z  +  t (G o + A o')
                                   + t^2 G g(z)  -  half |A| e'  -  half |G| e.

The sum of all ``G g(z)`` is bounded from below once, with the signs of ``G``; it counts ``t^2`` times where negative.

At the inputs, ``(A + t G) x`` is minimised at both ends of the segment: its minimum over the region is concave in
``t``, so the chord of the two lies below it. Rounding errors of the second half count ``half`` times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Elementwise, Maximum, TwoSlope
from leaktight.verify import relax
from leaktight.verify.bounds.centred import Centred
from leaktight.verify.bounds.rows import dot, dots
from leaktight.verify.bounds.walk import Walk
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit

if TYPE_CHECKING:
    from leaktight.verify.leak.parametric import Parametric


def pairs_pass(network: Network) -> bool:
    """Whether pairs can be carried through every node: they have no rule for a maximum of several."""
    return not any(isinstance(node.op, Maximum) for node in network)


class Band:
    """Parallel lines around an activation: ``|f(z) - slope z - offset| <= error``, all ``(batch, 1, *shape)``."""

    def __init__(self, op: Elementwise, lower: Tensor, upper: Tensor) -> None:
        tilt = relax.parallel_tilt(op, lower, upper) if isinstance(op, TwoSlope) else None
        self.lines = Centred.of(relax.envelope(op, lower, upper, tilt))
        # where rounding, or another operator, left the lines not quite parallel, they are widest apart at an end
        ends = [self.lines.half_slope * z + self.lines.half_offset for z in (lower, upper)]
        off = 4 * unit(lower.dtype) * (self.lines.half_slope.abs() * torch.maximum(lower.abs(), upper.abs()))
        self.error = (-torch.minimum(*ends)).clamp(min=0) * (1 + 8 * unit(lower.dtype)) + off
        self.slope, self.offset = self.lines.slope, self.lines.offset


class PairWalk(Walk):
    """A pass that carries pairs; it starts from rows alone, whose rates are zero."""

    def __init__(self, backward: Parametric) -> None:
        super().__init__(backward)
        self.segment = backward
        self.half = backward.half.reshape(-1, 1)
        # a lower bound of the sum of G g(z), which counts t^2 times
        self.bend: Tensor = torch.zeros((), dtype=backward.dtype)
        self.lost: Tensor = torch.zeros((), dtype=backward.dtype)  # what a segment of no width would save

    def elementwise(self, node: Node, a: Tensor) -> None:
        values, rates = a.chunk(2, 1)
        b, lines = self.segment, self.segment.centred(node)
        own, moved = b.bands(node)
        half = self.half.reshape(-1, *[1] * len(node.shape)).unsqueeze(1)
        size, speed = values.abs(), rates.abs()
        # what the activation's own relaxation costs, what its drift costs, the roundings of the rates
        drift = own.error * half
        noise = b.handing(node, own.lines).unsqueeze(1)
        handed_on = b.plain_handed_on(node).unsqueeze(1)
        if lines.half_offset.shape[1] == 1:
            sink, slack = dots(size, torch.cat([lines.half_offset, handed_on], 1)).unbind(-1)
        else:  # lines turned about a kink that is not at the origin have an offset for every row
            sink, slack = dot(size, lines.half_offset), dot(size, handed_on)
        shift, turn, turned_slack = dot(values, lines.offset), dot(rates, own.offset), dot(speed, noise)
        new_rates = rates * own.slope
        if moved is not None:
            departure = b.departure(node)
            centre = departure.lower / 2 + departure.upper / 2
            radius = torch.maximum(departure.upper - centre, centre - departure.lower)
            blur = radius * (1 + 16 * unit(b.dtype)) + 2 * gamma(node.size, b.dtype) * departure.magnitude
            self.bend = self.bend + dot(rates, centre.unsqueeze(1)) - dot(speed, blur.unsqueeze(1))
            self.bend = self.bend - 8 * unit(b.dtype) * self.bend.abs()
            turn = turn + dot(values, moved.offset)
            new_rates = new_rates.addcmul_(values, moved.slope)
            turned_slack = turned_slack + dot(size, b.handing(node, moved.lines).unsqueeze(1))
            lost = dot(size, moved.error * half * (1 + 8 * unit(b.dtype)))
            slack, self.lost = slack + lost, self.lost + lost
        lost = dot(speed, drift * (1 + 16 * unit(b.dtype)))
        slack, self.lost = slack + lost, self.lost + lost
        self.shift(torch.cat([shift, turn], 1))
        self.shift(torch.cat([sink, torch.zeros_like(turn)], 1))
        self.slack = self.slack + torch.cat([slack, turned_slack], 1)
        rows = (values * lines.slope).addcmul_(size, lines.half_slope)
        self.give(node.inputs[0], torch.cat([rows, new_rates], 1), charged=True)

    def at_ends(self) -> list[Tensor]:
        """Lower bounds ``(batch, rows)`` at both ends of the segments; the chord of the two holds in between."""
        b = self.segment
        slack = self.whole_slack.chunk(2, 1)
        offset = torch.as_tensor(self.offset).chunk(2, 1)
        bent = (self.half * self.half * (1 + 8 * unit(b.dtype))) * (-self.bend).clamp(min=0)
        self.lost = self.lost + bent
        lost = slack[0] + slack[1] * self.half + bent
        rows = self.on_inputs().chunk(2, 1) if self.pending else None
        found = []
        for way in b.ways.unbind(-1):
            t = way.unsqueeze(1)
            value = offset[0] + t * offset[1]
            off = 8 * unit(b.dtype) * (offset[0].abs() + (t * offset[1]).abs()) + 4 * underflow(b.dtype)
            if rows is not None:
                row, size = rows[0] + t.unsqueeze(2) * rows[1], b.region.size
                # the row is off by two roundings, its minimum as `Region.minimum` says, the sum by one more
                reach = (rows[0].abs() + (t.unsqueeze(2) * rows[1]).abs()) @ b.region.magnitude.unsqueeze(-1)
                least = b.region.minimum(row)
                value = value + least
                off = off + gamma(size + 8, b.dtype) * reach.squeeze(-1) + 8 * unit(b.dtype) * least.abs()
                tiny = underflow(b.dtype) * (size + b.region.magnitude.sum(-1, keepdim=True))
                off = off + 4 * tiny
            found.append(trusted_lower(down(value - (off + lost) * (1 + 8 * unit(b.dtype)))))
        return found
