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

The least such ``Q_k`` is ``m (S + S (T - S)^(-1) S) m + r T r`` (``T > S``); a little more is taken and (1) is proven.
At the end ``|t_0|^2 <= max_w largest eigenvalue of S(w) |y|^2``. All frequencies are proven, and no matrix is trusted:
neither the multipliers nor the ``Q_k`` need be what they ought to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nextafter, prod, sqrt

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.ops import Shape
from leaktight.verify.clock import tick
from leaktight.verify.lipschitz.centred import middle_and_half
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.lipschitz.gram import largest_eigenvalue as proven_eigenvalue
from leaktight.verify.lipschitz.hermitian import are_positive, length, symbols
from leaktight.verify.lipschitz.torus import Step
from leaktight.verify.lipschitz.windows import Window
from leaktight.verify.rounding import gamma, unit

_SLACKS = (1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_AT_ONCE = 1 << 22  # entries of matrices that are worked on together
_FARTHEST = 1e8
Rule = Callable[[int, "Wave", Tensor], Tensor]
"""The diagonal of ``T`` for a step, from its number, the step and its ``S`` at all frequencies."""


@dataclass(frozen=True, eq=False)
class Wave:
    """A step as symbols ``(frequencies, aliases, out, in)`` with an error, and its slopes ``m ± r`` ``(out,)``."""

    symbol: Tensor
    error: float
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


def _error_of_spread(wave: Wave, before: Tensor | None) -> Tensor:
    """How far each ``S`` may be off, in the spectral norm."""
    size = length(wave.symbol)
    form = torch.full_like(size, wave.symbol.shape[-1] ** 0.5 * (1 + 1e-12)) if before is None else length(before)
    terms = 4 * wave.symbol.shape[-1] + 2 * wave.symbol.shape[1] + 16
    each = form * (gamma(terms, torch.float64) * size.square() + (2 * size + wave.error) * wave.error)
    return each.sum(1) / wave.symbol.shape[1] * (1 + gamma(wave.symbol.shape[1] + 16, torch.float64)) + 1e-290


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


def closed_form(_: int, wave: Wave, spread: Tensor) -> Tensor:
    """``T = sigma (1 + |m| / r)``: as leaktight.verify.lipschitz.ellipsoid.closed_form; sigma over all frequencies.

    Channels with a single slope have a ``T`` that is far above all others, and no part in sigma.
    """
    loose = wave.half > 0
    places = loose.nonzero().flatten()
    largest = largest_eigenvalue(spread[:, places][:, :, places])
    others = largest if bool(loose.all()) else largest_eigenvalue(spread)
    ratio = (wave.middle.abs() / wave.half.clamp(min=1e-300)).clamp(0.05, _FARTHEST)
    return torch.where(loose, max(largest, 1e-290), max(others, 1e-290)) * (1 + ratio)


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


def certified(steps: Sequence[Step], rule: Rule, given: Sequence[Wave] | None = None) -> float:
    """A proven Lipschitz constant in L2 from multipliers; infinite where nothing is proven."""
    form: Tensor | None = None
    error = torch.zeros(1, dtype=torch.float64)
    chain = waves(steps) if given is None else given
    for k, (step, wave) in enumerate(zip(steps, chain, strict=True)):
        tick()
        before = None if form is None else handed(form, step)
        image, error = spread(wave, before), _error_of_spread(wave, before)
        if wave.linear and k + 1 == len(steps):
            return _root(image, error)
        form = _proven(wave, image, error, rule(k, wave, image) if wave.loose else image.new_zeros(()).real)
        if form is None:
            return inf
    return 1.0 if form is None else _root(form, torch.zeros(len(form), dtype=torch.float64))


def _proven(wave: Wave, image: Tensor, error: Tensor, scale: Tensor) -> Tensor | None:
    """``Q_k`` for which (1) is proven."""
    try:
        least = advanced(wave, image, scale)
    except NotContained:
        return None
    diagonal = least.diagonal(dim1=-2, dim2=-1).real
    top = diagonal.amax().clamp(min=1e-280)
    parts = torch.arange(len(least)).split(max(1, _AT_ONCE // (4 * least.shape[-1] ** 2)))
    begin = 0
    found = torch.empty_like(least)
    for part in parts:
        for at in range(begin, len(_SLACKS)):
            tick()
            form = least[part] * (1 + _SLACKS[at])
            form.diagonal(dim1=-2, dim2=-1).add_(_SLACKS[at] * top)
            form = (form + form.mH) / 2
            if are_positive(*_inequality(wave, form, image[part], error[part], scale)):
                found[part], begin = form, at
                break
        else:
            return None
    return found


def _inequality(wave: Wave, form: Tensor, image: Tensor, error: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices of (1) and how far they may be off."""
    side = wave.middle.unsqueeze(1) * image
    drained = side * wave.middle
    reach = float(wave.middle.square().max()) * (1 + 1e-12)
    rounded = 16 * unit(torch.float64)
    if not wave.loose:
        off = error * reach + rounded * (length(form) + length(drained))
        return form - drained, off * (1 + 1e-12)
    charged = torch.diag(wave.half * scale * wave.half).to(form.dtype)
    rest = torch.diag(scale).to(form.dtype)
    top = torch.cat([form - charged - drained, -side], -1)
    bottom = torch.cat([-side.mH, rest - image], -1)
    sizes = length(form) + length(charged) + length(drained) + 2 * length(side) + length(rest) + length(image)
    return torch.cat([top, bottom], -2), (error * (1 + reach) + rounded * sizes) * (1 + 1e-12)


def _root(form: Tensor, error: Tensor) -> float:
    """At least the root of the largest eigenvalue of the Hermitian matrices that are within `error` of `form`."""
    largest = max(largest_eigenvalue(form), 1e-280)
    if not isfinite(largest):
        return inf
    for slack in _SLACKS:
        square = largest * (1 + slack)
        rest = -form
        rest.diagonal(dim1=-2, dim2=-1).add_(square)
        off = error + 8 * unit(torch.float64) * (length(form) + square)
        if are_positive(rest, off):
            return nextafter(sqrt(square), inf)
    return inf


def norm(window: Window, points: Shape) -> float:
    """At least the spectral norm of a convolution with zero padding, from any input on `points` (as `tori` says).

    Stride-aware, over all frequencies, by Gram iteration (leaktight.verify.lipschitz.gram).
    """
    tick()
    (wave,) = waves([Step(window, points, None)])
    square = proven_eigenvalue(spread(wave, None), _error_of_spread(wave, None))
    return nextafter(sqrt(square), inf)


def product(steps: Sequence[Step]) -> float:
    """At least the product of the steps' norms and steepest slopes."""
    bound = 1.0
    for step in steps:
        steepest = 1.0 if step.sector is None else float(step.sector.steepest.max(initial=0.0))
        bound = nextafter(nextafter(bound * norm(step.window, step.points), inf) * steepest, inf)
    return bound
