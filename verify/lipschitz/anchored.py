"""Certified radii from Lipschitz constants of margins, with sectors that are anchored at the input.

At ``x`` let ``m_j`` be the margin of the label over class j, and ``L_j(e)`` a constant with ``|margin_j(x') -
margin_j(x)| <= L_j(e) |x' - x|`` for all ``x'`` in the ball of radius ``e``. If ``e L_j(e) < m_j`` for every j, the
label scores strictly highest on the ball.

Only differences from the one point ``x`` matter. So a neuron with the pre-activation ``c`` at ``x`` and ``[l, u]`` in
the ball has a slope between the chords from ``c``: for a kink ``k`` with ``l < k <= c`` and slopes ``left``, ``right``
these are ``right + (left - right) w`` with ``0 <= w <= (k - l) / (c - l)``, because the share ``w`` of the chord from
``c`` to ``t < k`` that lies left of the kink is ``(k - t) / (c - t)``, which grows as ``t`` falls. Likewise on the
other side. Each margin is one scalar network: its constant is smaller than ``sqrt 2`` times the whole network's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.enclosure import Array
from leaktight.models.network import Network, Node
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import misclassified
from leaktight.specs.region import Norm, ball
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval, outputs, propagate
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.lipschitz import fast, interior
from leaktight.verify.lipschitz.centred import centred
from leaktight.verify.lipschitz.certificate import repaired
from leaktight.verify.lipschitz.jacobian import jacobian_bound
from leaktight.verify.lipschitz.layers import Layers, layers, scalar
from leaktight.verify.lipschitz.norms import up
from leaktight.verify.lipschitz.sectors import Sector, sector
from leaktight.verify.rounding import down

_HALVINGS = 10
_WORTH = 1.01  # times the radius that is known: if that fails, no more is tried
_FAST_ENOUGH = 400  # neurons up to which multipliers are searched for


@dataclass(frozen=True)
class AnchoredRadius:
    """A proven radius, 0 where nothing is; the margins' proven lower bounds and constants at that radius, by class."""

    radius: float
    margins: tuple[float, ...]
    constants: tuple[float, ...]


def anchored_radius(
    network: Network,
    x: Tensor,
    label: int,
    *,
    norm: Norm = Norm.L2,
    largest: float = inf,
    known: float = 0.0,
    deadline: float | None = None,
    memory: int | None = None,
) -> AnchoredRadius:
    """A radius around `x` ``(n,)`` within which `label` provably scores strictly highest, in real arithmetic.

    The radius is found by bisection, to a thousandth of where the search begins, and is never larger than `largest`.
    Args: norm: of the ball. known: a radius that is proven already; smaller ones are not worth looking for (then the
    answer's radius is 0). deadline: of time.monotonic.
    Raises UnsupportedOperator: an activation has no sector, or matrices would be too large. UsageError, PropertyError:
    the input or the label does not fit.
    """
    point = x.double().reshape(1, -1)
    if point.shape[1] != network.input_size:
        raise UsageError(f"the input has {point.shape[1]} entries; the network has {network.input_size} inputs")
    misclassified(torch.tensor([label]), network.output_size)  # refuses a label that does not exist
    search = _Search(network, point, label, norm, deadline, default_memory() if memory is None else memory)
    if not search.margins or min(search.margins) <= 0:
        return AnchoredRadius(0.0, tuple(search.margins), ())
    return search.found(known, largest)


class _Search:
    def __init__(
        self, network: Network, point: Tensor, label: int, norm: Norm, deadline: float | None, memory: int
    ) -> None:
        self.network, self.point, self.norm, self.deadline, self.memory = network, point, norm, deadline, memory
        self.rows = _rows(network.output_size, label)
        with torch.no_grad():
            self.at = propagate(network, ball(point, 0.0, norm))
        self.margins = _margins(self.at, network, self.rows)
        self.plain = layers(network)
        self.hardest = 0

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def found(self, known: float, largest: float) -> AnchoredRadius:
        constants: tuple[float, ...] | None = None
        low, high = known, largest
        if high == inf:
            high = self._first_guess()
        if high <= low:
            return AnchoredRadius(0.0, tuple(self.margins), ())
        best, trials = 0.0, [min(known * _WORTH, high)] if known > 0 else []
        trials.append(high)
        for step in range(_HALVINGS + len(trials)):
            if self.late or (step >= len(trials) and high - low < 1e-3 * high):
                break
            middle = trials[step] if step < len(trials) else low / 2 + high / 2
            holds = self.constants(middle)
            if holds is not None:
                low = best = middle
                constants = holds
            elif known > 0 and step == 0:
                break
            else:
                high = middle
            if low >= high:
                break
        return AnchoredRadius(best, tuple(self.margins), constants or ())

    def _first_guess(self) -> float:
        """A radius beyond which nothing is expected: that of the steepest direction at the input, by its Jacobian."""
        x = self.point.clone().requires_grad_()
        scores = self.network.flat(x)[0]
        least = inf
        for row, margin in zip(self.rows, self.margins, strict=True):
            (slope,) = torch.autograd.grad((scores * torch.from_numpy(row)).sum(), x, retain_graph=True)
            length = float(torch.linalg.vector_norm(slope, _DUAL[self.norm]))
            least = min(least, margin / length if length > 0 else inf)
        return 4 * least if least < inf else max(1.0, float(self.point.abs().max()))

    def constants(self, radius: float) -> tuple[float, ...] | None:
        """A constant for every margin, if with each of them the ball of this radius is safe."""
        with torch.no_grad():
            inside = intermediate_bounds(self.network, ball(self.point, radius, self.norm), self.memory)
        if not all(bool(torch.isfinite(z.lower).all() and torch.isfinite(z.upper).all()) for z in inside.values()):
            return None
        stages = tuple(
            replace(stage, sector=anchored(self.network.by_name[stage.name], self.at, inside))
            for stage in self.plain.stages
        )
        local = replace(self.plain, stages=stages)
        found: dict[int, float] = {}
        order = [self.hardest, *(j for j in range(len(self.rows)) if j != self.hardest)]
        for j in order:
            constant = self._constant(scalar(local, self.rows[j]), radius, self.margins[j])
            if constant is None:
                self.hardest = j
                return None
            found[j] = constant
        return tuple(found[j] for j in range(len(self.rows)))

    def _constant(self, margin: Layers, radius: float, needed: float) -> float | None:
        """A constant with which the radius is safe, from the cheapest method that finds one."""

        def enough(constant: float) -> bool:
            return up(radius * constant) < needed

        if self.norm is not Norm.L2:
            found = jacobian_bound(margin, Norm.LINF if self.norm is Norm.LINF else Norm.L1)
            return found if enough(found) else None
        ready = centred(margin)
        start = fast.closed_form(ready)
        if not 0 < start.square < inf:
            return None
        found = repaired(ready, start.each, start.each, start.square)
        if enough(found) or not ready.neurons:
            return found if enough(found) else None
        if ready.neurons > _FAST_ENOUGH or radius * start.square**0.5 > 3 * needed or self.late:
            return None
        better = interior.optimal(ready, start.each, start.square, deadline=self.deadline, progress=None)
        found = repaired(ready, better, start.each, start.square)
        return found if enough(found) else None


_DUAL = {Norm.L2: 2, Norm.LINF: 1, Norm.L1: inf}


def _rows(size: int, label: int) -> list[Array]:
    """``e_label - e_j`` for every other class."""
    unit = np.eye(size)
    return [unit[label] - unit[j] for j in range(size) if j != label]


def _margins(at: Mapping[str, Interval], network: Network, rows: list[Array]) -> list[float]:
    """Proven lower bounds of the margins at the input."""
    scores = outputs(network, at)
    low, high = scores.lower[0], scores.upper[0]
    return [float(down(low[int(row.argmax())] - high[int(row.argmin())])) for row in rows]


def anchored(node: Node, at: Mapping[str, Interval], inside: Mapping[str, Interval]) -> Sector:
    """Between which slopes the chords lie from the activation's value at a point to its values around it."""
    here, around = at[node.inputs[0]], inside[node.inputs[0]]
    # the point lies in the region: its interval may be taken with the region's, and the region's includes it
    whole = Interval(torch.minimum(around.lower, here.lower), torch.maximum(around.upper, here.upper))
    found = sector(node, whole)
    if not isinstance(node.op, TwoSlope) or node.op.precision:
        return found
    left, right, kink = (
        p.double().expand(node.shape).reshape(-1).numpy() for p in (node.op.left, node.op.right, node.op.kink)
    )
    low, high, first, last = (z[0].reshape(-1).numpy() for z in (whole.lower, whole.upper, here.lower, here.upper))
    share = np.ones_like(low)  # how much of a chord may lie on the other side of the kink
    on_right, on_left = (first > kink) & (low < kink), (last < kink) & (high > kink)
    with np.errstate(all="ignore"):
        share = np.where(on_right, (kink - low) / (first - low), share)
        share = np.where(on_left, (high - kink) / (high - last), share)
    share = np.minimum(share * (1 + 2.0**-48), 1.0)
    own, other = np.where(on_right, right, left), np.where(on_right, left, right)
    end = own + (other - own) * share
    slack = 2.0**-50 * (np.abs(own) + np.abs(other)) + 1e-300
    inner = Sector(
        np.maximum(np.minimum(own, end - slack), found.low), np.minimum(np.maximum(own, end + slack), found.high)
    )
    moved = on_right | on_left
    return Sector(np.where(moved, inner.low, found.low), np.where(moved, inner.high, found.high))
