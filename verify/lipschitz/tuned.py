"""Multipliers of LipSDP for convolutional chains, one for each channel, found by descent; proven elsewhere.

The bound of leaktight.verify.lipschitz.spectra is a convex function of ``1 / T``, and grows without limit where a ``T``
comes near its ``S``: every point that can be evaluated is feasible. Where frequencies do not mix, few of them matter
(leaktight.verify.lipschitz.frequencies), and in deep chains Newton's method finds the least bound of these
(leaktight.verify.lipschitz.jointly). Else it is minimised over ``log T`` by L-BFGS with halved steps; the largest
eigenvalue over all frequencies is smoothed to ``(sum trace S^p)^(1/p)``, with p = 2^k rising.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from math import inf, isfinite

import torch
from torch import Tensor

from leaktight.verify.lipschitz.barrier import Progress
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.lipschitz.frequencies import Search, cut, largest, separable, without_opposites
from leaktight.verify.lipschitz.jointly import improved
from leaktight.verify.lipschitz.quasi_newton import Function, descend
from leaktight.verify.lipschitz.spectra import Wave, advanced, closed_form, handed, largest_eigenvalue, spread, waves
from leaktight.verify.lipschitz.torus import Step

_SQUARINGS = (4, 7, 10, 13)
_TURNS = ((4,), (4, 7), (10, 13))  # sharpness of a descent at few frequencies, turn by turn
_DEEP = 6  # steps with multipliers, from which Newton's method is better than descent
_GAPS = (3e-2, 3e-3, 1e-5)  # of the bound's square, relatively, turn by turn
_STAGES = 50  # of all searches at few frequencies together, as usual
_ITERATIONS = 400
_COARSE = (8, 4, 2)  # of how many frequencies of each axis one is looked at, descent by descent
_CLOSE = 1e-4  # of the bound's square, relatively: a descent that gains less in ten iterations ends
_EXACT = 1e-6  # the same where few frequencies are looked at, at no cost to speak of
_FEWEST = 2  # points of a torus along each axis
_ROOM = 0.02  # above what is feasible at all frequencies
_USUAL = 450  # of all descents together


def optimal(
    steps: Sequence[Step], chain: Sequence[Wave], deadline: float | None = None, progress: Progress | None = None
) -> list[Tensor] | None:
    """The diagonal of ``T`` for every step (empty for those without a width), from the closed form's on.

    What few frequencies had found at the deadline is not compared with the closed form any more, and may be worse.
    None: the closed form is not feasible in floating point.
    """
    began = time.monotonic()
    start = _closed_forms(steps, chain)
    look = time.monotonic() - began
    if start is None or not sum(map(len, start)):
        return start
    sizes, point = [len(scale) for scale in start], torch.cat(start).log()
    if separable(steps):
        few = len(sizes) - sizes.count(0) < _DEEP
        search = _creeping(steps, sizes, deadline, progress) if few else _jointly(start, deadline, progress)
        point = cut(without_opposites(chain, steps[0].points), point, search, deadline)
    else:
        early = None if deadline is None else deadline - 2 * look  # what to raise the point that is found then takes
        point = _coarse_to_fine(steps, chain, point, _Fall(sizes, early, progress))
    return list(point.exp().split(sizes))


def _coarse_to_fine(steps: Sequence[Step], chain: Sequence[Wave], start: Tensor, fall: _Fall) -> Tensor:
    """By descents at every eighth frequency of each axis first, at every fourth, at every other and at all of them.

    Multipliers belong to channels, whatever the size of the image, and symbols are smooth in the frequency: what few
    frequencies say is close, and costs a share. It is raised to what is feasible at all of them. Fewer frequencies may
    differ much from all (the values are those of another network), so each time the next sharpness is enough.
    """
    point, sharpness = start, list(_SQUARINGS)
    for some in filter(None, (coarser(steps, factor) for factor in _COARSE)):
        if fall.late:
            break
        part, own = waves(some), sharpness.pop(0)
        point = fall.fallen(some, part, _better(some, part, point, start, fall.sizes), (own,), _CLOSE)
    if fall.late:
        raised = _raised(steps, chain, point, fall.sizes)
        return start if raised is None else raised
    return fall.fallen(steps, chain, _better(steps, chain, point, start, fall.sizes), sharpness, _CLOSE)


def coarser(steps: Sequence[Step], factor: int) -> list[Step] | None:
    """The steps on tori with about so many times fewer points along each axis; None: they would be too few.

    Not the network any more (windows may overlap their own ends), but its symbols at about some of the frequencies.
    """
    found, starts = list[Step](), [i for i, step in enumerate(steps) if step.fresh or i == 0]
    for begin, end in pairwise([*starts, len(steps)]):
        own = steps[begin:end]
        last = [
            min((n for n in along if n > 1), default=1) for along in zip(*(step.points for step in own), strict=True)
        ]
        if any(1 < n < _FEWEST * factor for n in last):
            return None
        for step in own:
            points = tuple(n // m * -(-m // factor) if n > 1 else 1 for n, m in zip(step.points, last, strict=True))
            window = replace(step.window, stride=points) if step.window.dense else step.window
            found.append(replace(step, points=points, window=window))
    return found


def _better(steps: Sequence[Step], chain: Sequence[Wave], point: Tensor, start: Tensor, sizes: list[int]) -> Tensor:
    """The point or `start`, each raised to be feasible at these frequencies: the better one."""
    both = [at for at in (_raised(steps, chain, one, sizes) for one in (point, start)) if at is not None]
    values = [_objective(steps, chain, at.exp().split(sizes), _SQUARINGS[-1]) for at in both]
    known = [(float(value), at) for value, at in zip(values, both, strict=True) if value is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else start


def _raised(steps: Sequence[Step], chain: Sequence[Wave], point: Tensor, sizes: list[int]) -> Tensor | None:
    """The point, with every ``T`` as much larger as it has to be; None where a rounding is in the way."""
    raised, scales = list[Tensor](), point.exp().split(sizes)

    def rule(k: int, _: Wave, image: Tensor) -> Tensor:
        unit = scales[k].rsqrt()
        scale: Tensor = scales[k] * max(1.0, largest_eigenvalue(unit.unsqueeze(1) * image * unit) * (1 + _ROOM))
        raised.append(scale)
        return scale

    try:
        _walk(steps, chain, rule)
    except NotContained:
        return None
    return torch.cat(raised).log()


def _creeping(steps: Sequence[Step], sizes: list[int], deadline: float | None, progress: Progress | None) -> Search:
    """The same by descent, which is quicker where there are few steps."""
    some = [replace(step, points=(-1,), window=replace(step.window, stride=(1,))) for step in steps]
    fall = _Fall(sizes, deadline, progress)
    return lambda part, at, turn: fall.fallen(some, part, at, _TURNS[min(turn, len(_TURNS) - 1)], _EXACT)


def _jointly(start: list[Tensor], deadline: float | None, progress: Progress | None) -> Search:
    """A search at few frequencies, rough in the first turns: it says which others there should be.

    Every turn begins at the closed form, which is far from the boundary of what is feasible; the best of the turn
    before is close to it, where Newton's method makes small steps.
    """
    done, scales = count(), [scale for scale in start if len(scale)]

    def told(*_: int) -> None:
        if progress is not None:
            so_far = next(done)
            progress(so_far, max(_STAGES, so_far + 1))

    def search(some: Sequence[Wave], _: Tensor, turn: int) -> Tensor:
        gap, square = _GAPS[min(turn, len(_GAPS) - 1)], float(largest(some, start).max())
        return improved(some, scales, square, gap=gap, deadline=deadline, progress=told).log()

    return search


@dataclass
class _Fall:
    """Descents for the same multipliers, counted together."""

    sizes: list[int]
    deadline: float | None
    progress: Progress | None
    done: int = 0

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def fallen(
        self, steps: Sequence[Step], chain: Sequence[Wave], point: Tensor, sharpness: Sequence[int], enough: float
    ) -> Tensor:
        """A logarithm of ``T`` with a smaller bound, smoothed less and less."""
        for squarings in sharpness:

            def value(at: Tensor, squarings: int = squarings) -> Tensor | None:
                return _objective(steps, chain, at.exp().split(self.sizes), squarings)

            point = descend(_with_slope(value), point, _ITERATIONS, self.deadline, enough=enough, progress=self._told)
        return point

    def _told(self, _: int) -> None:
        if self.progress is not None:
            self.progress(self.done, max(_USUAL, self.done + 1))
        self.done += 1


def _closed_forms(steps: Sequence[Step], chain: Sequence[Wave]) -> list[Tensor] | None:
    found = list[Tensor]()

    def rule(k: int, wave: Wave, image: Tensor) -> Tensor:
        found.append(closed_form(k, wave, image))
        return found[-1]

    none = torch.zeros(0, dtype=torch.float64)
    try:
        with torch.no_grad():
            _walk(steps, chain, rule)
    except NotContained:
        return None
    by_step, at = list[Tensor](), 0
    for wave in chain:
        by_step.append(found[at] if wave.loose else none)
        at += wave.loose
    return by_step if all(bool(torch.isfinite(scale).all()) for scale in by_step) else None


def _walk(
    steps: Sequence[Step], chain: Sequence[Wave], rule: Callable[[int, Wave, Tensor], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Of every step its ``S`` and the ``Q`` behind it."""
    form: Tensor | None = None
    found = []
    for k, (step, wave) in enumerate(zip(steps, chain, strict=True)):
        image = spread(wave, None if form is None else handed(form, step))
        scale = rule(k, wave, image) if wave.loose else image.new_zeros(0).real
        form = advanced(wave, image, scale)
        found.append((image, form))
    return found


def _objective(steps: Sequence[Step], chain: Sequence[Wave], scales: Sequence[Tensor], squarings: int) -> Tensor | None:
    """The smoothed logarithm of the bound's square; None: a ``T`` is not above its ``S``."""
    try:
        last = _walk(steps, chain, lambda k, *_: scales[k])[-1][1]
    except NotContained:
        return None
    total = last.diagonal(dim1=-2, dim2=-1).real.sum(-1).amax().detach()
    logarithm, power = total.log(), 1.0
    matrix = last / total
    for _ in range(squarings):
        matrix = matrix @ matrix
        power *= 2
        largest = matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1).amax().detach()
        matrix = matrix / largest
        logarithm = logarithm + largest.log() / power
    return logarithm + matrix.diagonal(dim1=-2, dim2=-1).real.sum().log() / power


def _with_slope(value: Callable[[Tensor], Tensor | None]) -> Function:
    """A function of tensors as a value and a gradient; None is infinity."""

    def function(point: Tensor) -> tuple[float, Tensor]:
        moving = point.clone().requires_grad_()
        with torch.enable_grad():
            found = value(moving)
            if found is None or not isfinite(float(found.detach())):
                return inf, torch.zeros_like(point)
            (slope,) = torch.autograd.grad(found, moving)
        return float(found.detach()), slope

    return function
