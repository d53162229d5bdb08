"""Stages with their sectors turned to ``[-1, 1]``.

A slope in ``[low, high]`` is ``m + r e`` with ``m`` the middle, ``r`` half the width and ``|e| <= 1``. With
``w_i = e_i u_i`` a stage of leaktight.verify.lipschitz.layers is

    u = weight s,    s' = through s + feed w,    |w_i| <= |u_i|,

``through = keep + feed' m weight`` and ``feed = feed' r``. A neuron whose sector is a single slope has no ``w``: it is
part of `through`, and nothing is lost on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leaktight.models.enclosure import Array, Enclosure, exactly
from leaktight.verify.clock import tick
from leaktight.verify.lipschitz.layers import Layers, Stage
from leaktight.verify.lipschitz.sectors import Sector

_AT_ONCE = 1 << 19  # entries of a matrix that are scaled together


@dataclass(frozen=True, eq=False)
class CentredStage:
    """``s' = through s + feed w`` for all ``|w_i| <= |u_i|``, ``u = weight s``.

    weight ``(n, d)``, through ``(d', d)``, feed ``(d', n)``, for the ``n`` neurons whose sector has a width; `middle`
    and `half` ``(n,)`` are theirs, and `loose` says which of the stage's neurons they are.
    """

    weight: Enclosure
    through: Enclosure
    feed: Enclosure
    middle: Array
    half: Array
    loose: NDArray[np.intp]

    @property
    def neurons(self) -> int:
        return len(self.half)

    @property
    def transposed(self) -> CentredStage:
        """The stage that takes ``through^T``, ``weight^T`` and ``feed^T`` in the opposite direction."""
        return CentredStage(
            _turned(self.feed), _turned(self.through), _turned(self.weight), self.middle, self.half, self.loose
        )


@dataclass(frozen=True, eq=False)
class Centred:
    """``s_0 = first x``, the stages, ``y = last s_K``; None is the identity. `size`: the length of ``s_0``."""

    first: Enclosure | None
    stages: tuple[CentredStage, ...]
    last: Enclosure | None
    size: int

    @property
    def neurons(self) -> int:
        return sum(stage.neurons for stage in self.stages)

    @cached_property
    def transposed(self) -> Centred:
        """The network that runs backwards, from outputs to inputs."""
        stages = tuple(stage.transposed for stage in reversed(self.stages))
        size = len(self.stages[-1].through.value) if self.stages else self.size
        first, last = (None if x is None else _turned(x) for x in (self.last, self.first))
        return Centred(first, stages, last, size)


def _turned(matrix: Enclosure) -> Enclosure:
    return matrix.map(lambda x: np.ascontiguousarray(x.T))


def centred(network: Layers) -> Centred:
    """The same set of possible differences, or a little more where middles and widths had to be rounded."""
    stages = tuple(_centred(stage, size) for stage, size in zip(network.stages, network.sizes, strict=False))
    return Centred(network.first, stages, network.last, network.sizes[0])


def middle_and_half(sector: Sector) -> tuple[Array, Array]:
    """Numbers with ``middle - half <= low`` and ``high <= middle + half``; half is zero where low is high.

    Differences that are not exact are off by half a unit in the last place, and half is raised by one at least.
    """
    low, high = exactly(sector.low), exactly(sector.high)
    middle = np.clip(sector.low / 2 + sector.high / 2, sector.low, sector.high)
    above, below = high + -exactly(middle), exactly(middle) + -low
    half = np.maximum(above.value, below.value)
    return middle, np.where((above.error + below.error) == 0, half, np.nextafter(np.nextafter(half, np.inf), np.inf))


def _centred(stage: Stage, size: int) -> CentredStage:
    tick()
    middle, half = middle_and_half(stage.sector)
    weight = exactly(np.eye(size)) if stage.weight is None else stage.weight
    through = _scaled(weight, middle[:, None])
    if stage.feed is not None:
        through = stage.feed @ through
    if stage.keep is not None:
        through = through + stage.keep
    tick()
    loose = np.flatnonzero(half)
    feed = exactly(np.eye(len(half))) if stage.feed is None else stage.feed
    columns = _scaled(feed.map(lambda x: np.ascontiguousarray(x[:, loose])), half[None, loose])
    rows = weight.map(lambda x: np.ascontiguousarray(x[loose]))
    return CentredStage(rows, through, columns, middle[loose], half[loose], loose)


def _scaled(matrix: Enclosure, factor: Array) -> Enclosure:
    """Every entry times the factor of its row ``(n, 1)`` or column ``(1, n)``; some rows at a time, for time limits."""
    whole = np.broadcast_to(factor, matrix.value.shape)
    parts, count = list[Enclosure](), max(1, _AT_ONCE // max(1, matrix.value.shape[1]))
    for begin in range(0, max(1, len(whole)), count):
        tick()
        rows = slice(begin, begin + count)
        parts.append(exactly(whole[rows]) * Enclosure(matrix.value[rows], matrix.error[rows]))
    value, error = (np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "error"))
    return Enclosure(value, error)
