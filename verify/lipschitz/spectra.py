"""Lipschitz bounds in L2 of a convolutional chain, frequency by frequency, with proofs.

For fixed slopes the chain on its tori (leaktight.verify.lipschitz.torus) is a matrix; its norm is that of its
transpose, which is bounded here. Let ``t_k`` be what the transpose makes of an output up to the values behind step
``k``, and ``t_0`` what arrives at the input. A form ``t^T Q_k t`` that is the same at all points has a Hermitian matrix
``Q_k(w)`` for every frequency. Claim: ``|t_0|^2 <= t_k^T Q_k t_k``, with ``Q_0 = 1``.

Step ``k`` takes ``t_k`` to ``g = d t_k`` (one slope for each channel and point) and on to ``t_(k-1) = F^T g``, through
a convolution ``F`` with stride ``s``. The form ``t_(k-1)^T Q_(k-1) t_(k-1)`` is ``g^T S g`` with

    S(w')  =  1 / (number of aliases)  sum over aliases w of w' of  F(w) Q_(k-1)(w) F(w)^H,

because keeping every s-th point of a signal adds up frequencies. With ``d = m + r e``, ``|e| <= 1`` and ``T`` diagonal,
one number for each channel, ``g = m t + w`` where ``sum T (r^2 t^2 - w^2) >= 0``, so the claim goes on from ``k - 1``
to ``k`` if, at every frequency,

    H  =  [[Q_k - r T r, 0], [0, T]]  -  [m 1]^T S [m 1]   is positive semidefinite.                          (1)

The least such ``Q_k`` is ``m (S + S (T - S)^(-1) S) m + r T r`` (``T > S``); what is stored is surely above it
(leaktight.verify.lipschitz.enlarged). At the end ``|t_0|^2 <= max_w largest eigenvalue of S(w) |y|^2``. All frequencies
are proven, each with its opposite, and nothing is trusted: multipliers need not be what they ought to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, nextafter, prod, sqrt

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.ops import Shape
from leaktight.verify.clock import tick
from leaktight.verify.lipschitz import enlarged
from leaktight.verify.lipschitz.centred import middle_and_half
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.lipschitz.gram import largest_eigenvalue as proven_eigenvalue
from leaktight.verify.lipschitz.hermitian import symbols
from leaktight.verify.lipschitz.norms import times
from leaktight.verify.lipschitz.torus import Step

_AT_ONCE = 1 << 22  # entries of matrices that are worked on together
_FARTHEST = 1e8
Rule = Callable[[int, "Wave", Tensor], Tensor]
"""The diagonal of ``T`` for a step, from its number, the step and its ``S`` at all frequencies."""


@dataclass(frozen=True, eq=False)
class Wave:
    """A step as symbols ``(frequencies, aliases, out, in)`` with an error, and its slopes ``m ± r`` ``(out,)``.

    error ``(out, in)``: of each entry, at all frequencies.
    """

    symbol: Tensor
    error: Tensor
    middle: Tensor
    half: Tensor

    @property
    def loose(self) -> bool:
        return bool((self.half > 0).any())

    @property
    def linear(self) -> bool:
        """Whether all its slopes are one."""
        return not self.loose and bool((self.middle == 1).all())


def waves(steps: Sequence[Step]) -> list[Wave]:
    """The steps, with symbols at all frequencies of their tori; frequencies as they lie behind the step."""
    found = []
    for step in steps:
        tick()
        window = step.window
        symbol, error = symbols(window.kernel, window.dilation, step.points)
        symbol = _by_alias(symbol, step.points, window.stride)
        one = torch.ones(symbol.shape[-2], dtype=torch.float64)
        ends = (one, 0 * one) if step.sector is None else [torch.from_numpy(x) for x in middle_and_half(step.sector)]
        found.append(Wave(symbol, error, *ends))
    return found


def _by_alias(field: Tensor, points: Shape, stride: Shape) -> Tensor:
    """``(*points, ...)`` to ``(frequencies behind the stride, aliases, ...)``: frequency ``a N / s + j`` becomes j."""
    axes, rest = len(points), field.shape[len(points) :]
    split = [size for n, s in zip(points, stride, strict=True) for size in (s, n // s)]
    order = [2 * i + 1 for i in range(axes)] + [2 * i for i in range(axes)]
    moved = field.reshape(*split, *rest).permute(*order, *range(2 * axes, 2 * axes + len(rest)))
    return moved.reshape(-1, prod(stride), *rest).contiguous()


def spread(wave: Wave, before: Tensor | None) -> Tensor:
    """``S`` ``(frequencies, out, out)`` for ``Q`` ``(frequencies, aliases, in, in)``; None is the identity."""
    symbol = wave.symbol
    through = symbol if before is None else symbol @ before
    return (through @ symbol.mH).sum(1) / symbol.shape[1]


def advanced(wave: Wave, spread: Tensor, scale: Tensor) -> Tensor:
    """The least ``Q_k`` for a ``T``: ``m (S + S (T - S)^(-1) S) m + r T r``.

    Raises NotContained: ``T`` is not above ``S``.
    """
    if wave.linear:
        return spread
    return torch.cat([_advanced(wave, part, scale) for part in _parts(spread)])


def _advanced(wave: Wave, spread: Tensor, scale: Tensor) -> Tensor:
    tick()
    grown = spread
    if wave.loose:
        gap = torch.diag(scale).to(spread.dtype) - spread
        lower, failed = torch.linalg.cholesky_ex((gap + gap.mH) / 2)
        if bool((failed != 0).any()):
            raise NotContained
        half = torch.linalg.solve_triangular(lower, spread, upper=False)
        grown = spread + half.mH @ half
    found = wave.middle.unsqueeze(1) * grown * wave.middle
    if wave.loose:
        found = found + torch.diag(wave.half * scale * wave.half)
    return (found + found.mH) / 2


def closed_form(_: int, wave: Wave, spread: Tensor, factor: float = 1.0) -> Tensor:
    """``T = sigma (1 + factor |m| / r)``: leaktight.verify.lipschitz.ellipsoid.closed_form; sigma over all frequencies.

    Channels with a single slope have a ``T`` that is far above all others, and no part in sigma.
    """
    loose, sigma = wave.half > 0, torch.full_like(wave.half, max(largest_eigenvalue(spread), 1e-290))
    if not bool(loose.all()):
        sigma[loose] = max(largest_eigenvalue(spread[:, loose][:, :, loose]), 1e-290)
    return sigma * (1 + (factor * wave.middle.abs() / wave.half.clamp(min=1e-300)).clamp(0.05, _FARTHEST))


def largest_eigenvalue(matrices: Tensor) -> float:
    """About the largest eigenvalue of all the Hermitian matrices; infinite where one is out of range."""
    found = -inf
    for part in _parts(matrices):
        tick()
        if not bool(torch.isfinite(part).all()):
            return inf
        found = max(found, float(torch.linalg.eigvalsh(part).amax()))
    return found


def _parts(matrices: Tensor) -> Sequence[Tensor]:
    """Some frequencies at a time, so that memory and time limits are kept."""
    return torch.split(matrices, max(1, _AT_ONCE // (4 * matrices.shape[-1] ** 2)))


def handed(field: Tensor, step: Step) -> Tensor:
    """``Q`` in front of a step ``(frequencies, c, c)``, as the step wants it."""
    if step.fresh:
        field = _the_same(field).expand(prod(step.points), -1, -1)
    return _by_alias(field.reshape(*step.points, *field.shape[-2:]), step.points, step.window.stride)


def _the_same(field: Tensor) -> Tensor:
    """A diagonal form ``(1, c, c)`` that is at least the given ones at all frequencies, which are diagonal."""
    ends = field.diagonal(dim1=-2, dim2=-1)
    if bool((field != torch.diag_embed(ends)).any()):
        raise InternalError("forms behind max pooling are diagonal")
    return torch.diag(ends.real.amax(0)).to(field.dtype).unsqueeze(0)


@dataclass(frozen=True, eq=False)
class Half:
    """One of each frequency behind a step and its opposite, at which all matrices are conjugate, as kernels are real.

    kept: which frequencies. at, turned: for every frequency the place of the one of its pair that is kept, and whether
    that is the other one.
    """

    kept: Tensor
    at: Tensor
    turned: Tensor

    @classmethod
    def behind(cls, step: Step) -> Half:
        points = tuple(n // s for n, s in zip(step.points, step.window.stride, strict=True))
        places, axes = torch.arange(prod(points)).reshape(points), list(range(len(points)))
        opposite = places.flip(axes).roll([1] * len(points), axes)
        kept = places[places <= opposite]
        at = torch.searchsorted(kept, torch.minimum(places, opposite).flatten())
        return cls(kept, at, (places > opposite).flatten())

    def of(self, wave: Wave) -> Wave:
        return replace(wave, symbol=wave.symbol[self.kept])

    def before(self, step: Step, ahead: Half, form: Tensor) -> Tensor:
        """The forms behind the last step, at its `ahead`, as `step` wants them in front of itself, at these."""
        if step.fresh:
            return _the_same(form).expand(len(self.kept), prod(step.window.stride), -1, -1)
        places = _by_alias(torch.arange(prod(step.points)).reshape(step.points), step.points, step.window.stride)
        places = places[self.kept]
        found, turned = form[ahead.at[places]], ahead.turned[places]
        return torch.where(turned[..., None, None], found.conj(), found) if bool(turned.any()) else found


def certified(steps: Sequence[Step], rule: Rule, given: Sequence[Wave] | None = None) -> float:
    """A proven Lipschitz constant in L2 from multipliers; infinite where nothing is proven.

    given: the steps as waves, at all frequencies, where they are known.
    """
    halves = [Half.behind(step) for step in steps]
    chain = [half.of(wave) for half, wave in zip(halves, waves(steps) if given is None else given, strict=True)]
    return proven(chain, rule, lambda k, form: halves[k].before(steps[k], halves[k - 1], form))


def proven(chain: Sequence[Wave], rule: Rule, before: Callable[[int, Tensor], Tensor]) -> float:
    """The same from waves at as many frequencies as it takes, and a way from the form behind a step to the next step's.

    before: ``(frequencies, aliases, in, in)`` in front of the step of a number from ``(frequencies, in, in)``.
    """
    form: Tensor | None = None
    try:
        for k, wave in enumerate(chain):
            tick()
            image = _spread(wave, None if form is None else before(k, form))
            form = _grown(wave, image, rule(k, wave, image) if wave.loose else wave.half)
    except NotContained:
        return inf
    return 1.0 if form is None else _root(form)


def _spread(wave: Wave, before: Tensor | None) -> Tensor:
    """At least ``S``, some frequencies at a time."""
    parts = wave.symbol.split(max(1, _AT_ONCE // (4 * prod(wave.symbol.shape[1:]))))
    forms = [None] * len(parts) if before is None else before.split([len(part) for part in parts])
    found = []
    for part, form in zip(parts, forms, strict=True):
        tick()
        whole = enlarged.spread(part.numpy(), wave.error.numpy(), None if form is None else form.numpy())
        found.append(torch.from_numpy(whole))
    return found[0] if len(found) == 1 else torch.cat(found)


def _grown(wave: Wave, image: Tensor, scale: Tensor) -> Tensor:
    """At least the ``Q_k`` of (1)."""
    found = []
    for part in _parts(image):
        tick()
        whole = enlarged.grown(wave.middle.numpy(), wave.half.numpy(), part.numpy(), scale.numpy())
        found.append(torch.from_numpy(whole))
    return found[0] if len(found) == 1 else torch.cat(found)


def _root(matrices: Tensor) -> float:
    """At least the root of the largest eigenvalue of the Hermitian matrices."""
    square = proven_eigenvalue(matrices, torch.zeros(len(matrices), dtype=torch.float64))
    return nextafter(sqrt(square), inf)


def norm(step: Step, wave: Wave) -> float:
    """At least the spectral norm of a convolution with zero padding, from any input on its torus.

    Stride-aware, over all frequencies, by Gram iteration (leaktight.verify.lipschitz.gram).
    """
    try:
        return _root(_spread(Half.behind(step).of(wave), None))
    except NotContained:  # out of range
        return inf


def product(steps: Sequence[Step], given: Sequence[Wave] | None = None) -> float:
    """At least the product of the steps' norms and steepest slopes."""
    bound = 1.0
    for step, wave in zip(steps, waves(steps) if given is None else given, strict=True):
        steepest = 1.0 if step.sector is None else float(step.sector.steepest.max(initial=0.0))
        bound = times(times(bound, norm(step, wave)), steepest)
    return bound
