"""Multipliers of LipSDP for convolutions without strides, searched for at the few frequencies that matter.

Where every convolution has stride 1 and no dense layer follows, the forms of leaktight.verify.lipschitz.spectra do not
mix frequencies: the bound is the largest of the bounds at all frequencies, of which a handful are close to it. So a
search needs these alone, and is tens of times cheaper: cutting planes. What it finds is tried at all frequencies; the
ones that are worse than those seen so far join them, and it goes on. Between a point that is feasible at all
frequencies and one that is not everywhere lie points that are, since the feasible ``1 / T`` are a convex set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, prod

import torch
from torch import Tensor

from leaktight.models.ops import Shape
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.lipschitz.spectra import Wave, advanced, spread
from leaktight.verify.lipschitz.torus import Step

_BEGIN = 8  # frequencies to begin with, at which the bound is largest, and as many others
_JOIN = 8  # that join at once
_ROUNDS = 12
_LEARNING = 2  # turns that are rough
_CLOSE = 2e-5  # of the bound's square, relatively: nearly as small as with the other frequencies
_SHARES = (1.0, 0.98, 0.9, 0.7, 0.4, 0.1, 0.02)
_ROOMS = (0.03, 0.2)
Search = Callable[[Sequence[Wave], Tensor, int], Tensor]
"""From the waves at some frequencies and a logarithm of ``T`` that is feasible there to a better one, in which turn."""


def separable(steps: Sequence[Step]) -> bool:
    """Whether no step mixes frequencies."""
    same = all(step.points == steps[0].points and not step.fresh for step in steps)
    return same and not any(step.window.dense or max(step.window.stride) > 1 for step in steps)


def without_opposites(chain: Sequence[Wave], points: Shape) -> list[Wave]:
    """The waves at one of each frequency and its opposite, at which all matrices are conjugate (kernels are real)."""
    places = torch.arange(prod(points)).reshape(points)
    axes = list(range(len(points)))
    opposite = places.flip(axes).roll([1] * len(points), axes)
    return _at(chain, places[places <= opposite].tolist())


def cut(chain: Sequence[Wave], start: Tensor, search: Search, deadline: float | None = None) -> Tensor:
    """A logarithm of ``T`` for all steps, joined, that is feasible at all frequencies; from such a one on."""
    sizes = [len(wave.half) if wave.loose else 0 for wave in chain]
    best, squares = start, largest(chain, start.exp().split(sizes))
    seen = set(squares.topk(min(_BEGIN, len(squares))).indices.tolist())
    seen.update(range(0, len(squares), max(1, len(squares) // (2 * _BEGIN) - 1)))
    for turn in range(_ROUNDS):
        if deadline is not None and time.monotonic() > deadline:
            break
        some = _at(chain, sorted(seen))
        found = search(some, _between(some, sizes, start, best, squares[sorted(seen)])[0], turn)
        own = float(largest(some, found.exp().split(sizes)).max())
        everywhere = largest(chain, found.exp().split(sizes))
        moved, there = _between(chain, sizes, found, best, squares)
        if float(there.max()) < float(squares.max()):
            best, squares = moved, there
        joining = _joining(everywhere, own)
        if turn >= _LEARNING and not set(joining) - seen:
            break
        start = found
        seen.update(joining)
    return best


def _joining(squares: Tensor, own: float) -> list[int]:
    """Frequencies that are worse than `own`: some that are infeasible, far from one another, and the worst others."""
    outside, worse = (squares == inf).nonzero().flatten(), (squares > own * (1 + _CLOSE)) & (squares < inf)
    spaced = outside[torch.linspace(0, len(outside) - 1, min(_JOIN, len(outside))).long()]
    worst = torch.where(worse, squares, -inf).topk(min(_JOIN, int(worse.sum()))).indices
    return [*spaced.tolist(), *worst.tolist()]


def _between(
    chain: Sequence[Wave], sizes: list[int], found: Tensor, inside: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    """A point near `found` that is feasible, and the squares at all frequencies; `squares`: those of `inside`.

    Either on the way from `inside`, or with every ``T`` enlarged where it is not above its ``S``.
    """
    best = inside
    mixed = (-torch.log(share * (-found).exp() + (1 - share) * (-inside).exp()) for share in _SHARES)
    raised = (_raised(chain, found.exp().split(sizes), room).log() for room in _ROOMS)
    for family in (mixed, raised):
        for at in family:
            there = largest(chain, at.exp().split(sizes))
            if float(there.max()) < inf:
                best, squares = (at, there) if float(there.max()) < float(squares.max()) else (best, squares)
                break
    return best, squares


def _raised(chain: Sequence[Wave], scales: Sequence[Tensor], room: float) -> Tensor:
    """``T``, joined, each enlarged so that it is above its ``S`` at all frequencies, with room."""
    found, form = list[Tensor](), None
    for wave, scale in zip(chain, scales, strict=True):
        image = spread(wave, None if form is None else form.unsqueeze(1))
        if wave.loose:
            unit = scale.rsqrt()
            most = float(torch.linalg.eigvalsh(unit.unsqueeze(1) * image * unit)[:, -1].max())
            scale = scale * max(1.0, most * (1 + room))
        found.append(scale)
        form = advanced(wave, image, scale)
    return torch.cat(found)


def largest(chain: Sequence[Wave], scales: Sequence[Tensor]) -> Tensor:
    """The square of the bound at every frequency; infinite where a ``T`` is not above its ``S`` there."""
    good = torch.arange(len(chain[0].symbol))
    form: Tensor | None = None
    for wave, scale in zip(chain, scales, strict=True):
        part = replace(wave, symbol=wave.symbol[good])
        image = spread(part, None if form is None else form.unsqueeze(1))
        if wave.loose:
            gap = torch.diag(scale).to(image.dtype) - image
            failed = torch.linalg.cholesky_ex((gap + gap.mH) / 2)[1] != 0
            good, image = good[~failed], image[~failed]
        if not len(good):
            break
        try:
            form = advanced(wave, image, scale)
        except NotContained:  # by a rounding
            good = good[:0]
            break
    found = torch.full((len(chain[0].symbol),), inf, dtype=torch.float64)
    if len(good) and form is not None:
        found[good] = torch.linalg.eigvalsh(form)[:, -1]
    return found


def _at(chain: Sequence[Wave], places: list[int]) -> list[Wave]:
    return [replace(wave, symbol=wave.symbol[places]) for wave in chain]
