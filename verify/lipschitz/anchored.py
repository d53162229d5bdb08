"""Certified radii from Lipschitz constants of margins, with sectors that are anchored at the input.

At ``x`` let ``m_j`` be the margin of the label over class j, and ``L_j(e)`` a constant with ``|margin_j(x') -
margin_j(x)| <= L_j(e) |x' - x|`` for all ``x'`` in the ball of radius ``e``. If ``e L_j(e) < m_j`` for every j, the
label scores strictly highest on the ball. Only differences from the one point ``x`` matter, so sectors are those of
leaktight.verify.lipschitz.chords. Each margin is one scalar network: its constant is smaller than ``sqrt 2`` times the
whole network's.

A constant ``L`` of a ball that is too large proves a radius all the same: it holds in every smaller ball, so ``m / L``
and less is safe (if it is below ``e``). With the best constants ``m / L(e)`` falls as ``e`` grows, and the largest
radius that they prove lies between ``e`` and ``m / L(e)``: every trial narrows it down from both sides. Only the margin
with the least radius so far is looked at, and a cheap bound leaves most of them alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.enclosure import Array
from leaktight.models.network import Network
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval, outputs, propagate
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.lipschitz import dense, fast, primal_dual
from leaktight.verify.lipschitz.centred import centred
from leaktight.verify.lipschitz.certificate import repaired
from leaktight.verify.lipschitz.chords import anchored
from leaktight.verify.lipschitz.jacobian import jacobian_bound
from leaktight.verify.lipschitz.layers import Layers, layers, scalar
from leaktight.verify.rounding import down

_TRIALS = 40
_CLOSE = 1e-3  # of the radius, relatively, at which it is near enough
_GAP = 1e-4  # of the squares of constants, relatively
_WORTH = 1.01  # times the radius that is known: if that fails, no more is tried
_SOLVED = 400  # neurons up to which multipliers are searched for


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

    It is within about a thousandth of the largest that these constants prove, and never larger than `largest`.
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
    nothing = AnchoredRadius(0.0, tuple(search.margins), ())
    if not search.margins or min(search.margins) <= 0:
        return nothing
    found = search.found(known, largest)
    return found if found.radius > known else nothing


@dataclass(eq=False)
class _Trials:
    """What is known of one margin: a proven radius with its constant, and where no more is expected.

    tried: radii and what the best constants proved there, ``m / L``.
    """

    row: Array
    margin: float
    low: float = 0.0
    high: float = inf
    constant: float = inf
    tried: list[tuple[float, float]] = field(default_factory=list)

    def learn(self, radius: float, constant: float) -> None:
        """A constant that holds in the ball of this radius proves a radius within it."""
        proven = min(radius, self._safe(constant))
        if proven > self.low:
            self.low, self.constant = proven, constant

    def _safe(self, constant: float) -> float:
        """A radius with ``radius constant < margin``, roundings included."""
        if constant == 0:
            return inf
        return max(0.0, self.margin / constant * (1 - 2.0**-48)) if isfinite(constant) else 0.0

    def expect(self, radius: float, constant: float) -> None:
        """The same of the best constant there is: it also says where no more is expected."""
        self.learn(radius, constant)
        reach = self._safe(constant)
        self.tried.append((radius, reach))
        self.high = min(self.high, max(radius, reach))

    @property
    def done(self) -> bool:
        return self.high < inf and self.high - self.low <= _CLOSE * self.high

    def next(self, guess: float) -> float:
        """Where to try: where the last two trials suggest that ``m / L(e) = e``, and away from the ends."""
        if not self.tried:
            return min(max(guess, self.low), self.high)
        if self.high == inf:
            return 2 * self.low
        aim, (e, g) = self.low / 2 + self.high / 2, self.tried[-1]
        if len(self.tried) > 1 and (before := self.tried[-2])[0] != e:
            bend = (g - before[1]) / (e - before[0])
            aim = e + (g - e) / (1 - bend) if bend < 0 else aim
        edge = 0.02 * (self.high - self.low)
        return min(max(aim, self.low + edge), self.high - edge)


class _Search:
    def __init__(
        self, network: Network, point: Tensor, label: int, norm: Norm, deadline: float | None, memory: int
    ) -> None:
        self.network, self.point, self.norm, self.deadline, self.memory = network, point, norm, deadline, memory
        rows = _rows(network.output_size, label)
        with torch.no_grad():
            self.at = propagate(network, ball(point, 0.0, norm))
        self.margins = _margins(self.at, network, rows)
        self.trials = [_Trials(row, margin) for row, margin in zip(rows, self.margins, strict=True)]
        self.plain = layers(network)

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def found(self, known: float, largest: float) -> AnchoredRadius:
        guess = min(self._first_guess(), largest)
        for trials in self.trials:
            trials.high = largest
        if known > 0 and not self._holds(min(known * _WORTH, largest)):
            return self._answer()
        self._glance(guess)
        for _ in range(_TRIALS):
            worst = min(self.trials, key=lambda trials: trials.low)
            if worst.done or self.late:
                break
            enough = min((t.low for t in self.trials if t.done), default=inf)
            self._try(worst, min(worst.next(guess), enough))
        return self._answer()

    def _answer(self) -> AnchoredRadius:
        radius = min(trials.low for trials in self.trials)
        constants = tuple(trials.constant for trials in self.trials) if radius > 0 else ()
        return AnchoredRadius(radius, tuple(self.margins), constants)

    def _holds(self, radius: float) -> bool:
        """Whether the ball of this radius is proven to be safe."""
        self._glance(radius)
        for trials in sorted(self.trials, key=lambda trials: trials.low):
            if trials.low < radius and not self.late:
                self._try(trials, radius)
            if trials.low < radius:
                return False
        return True

    def _glance(self, radius: float) -> None:
        """Cheap constants of all margins."""
        local = self._local(radius)
        for trials in self.trials:
            if local is not None and trials.low < radius and not self.late:
                trials.learn(radius, self._constant(scalar(local, trials.row)))

    def _try(self, trials: _Trials, radius: float) -> None:
        """The best constant of a margin in the ball of this radius."""
        local = self._local(radius)
        constant = inf if local is None else self._constant(scalar(local, trials.row), best=True)
        trials.expect(radius, constant)

    def _first_guess(self) -> float:
        """A radius beyond which little is expected: that of the steepest direction at the input, by its Jacobian."""
        x = self.point.clone().requires_grad_()
        scores = self.network.flat(x)[0]
        least = inf
        for row, margin in zip((trials.row for trials in self.trials), self.margins, strict=True):
            (slope,) = torch.autograd.grad((scores * torch.from_numpy(row)).sum(), x, retain_graph=True)
            length = float(torch.linalg.vector_norm(slope, _DUAL[self.norm]))
            least = min(least, margin / length if length > 0 else inf)
        return least if least < inf else max(1.0, float(self.point.abs().max()))

    def _local(self, radius: float) -> Layers | None:
        """The stages with the sectors of chords in a ball; None: values there have no bounds."""
        with torch.no_grad():
            inside = intermediate_bounds(self.network, ball(self.point, radius, self.norm), self.memory)
        if not all(bool(torch.isfinite(z.lower).all() and torch.isfinite(z.upper).all()) for z in inside.values()):
            return None
        stages = tuple(
            replace(stage, sector=anchored(self.network.by_name[stage.name], self.at, inside))
            for stage in self.plain.stages
        )
        return replace(self.plain, stages=stages)

    def _constant(self, margin: Layers, best: bool = False) -> float:
        """A proven constant of a margin: the closed form's, or with multipliers that were searched for."""
        if self.norm is not Norm.L2:
            return jacobian_bound(margin, Norm.LINF if self.norm is Norm.LINF else Norm.L1)
        chain = None if best else dense.links(margin)
        found = inf if chain is None else dense.certified(chain)
        if found < inf:
            return found
        ready = centred(margin)
        start = fast.closed_form(ready)
        if not 0 < start.square < inf:
            return inf
        chosen: list[Array] = list(start.each)
        if best and 0 < ready.neurons <= _SOLVED:
            chosen = primal_dual.optimal(ready, start.each, start.square, deadline=self.deadline, gap=_GAP)
        return repaired(ready, chosen, start.each, start.square)


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
