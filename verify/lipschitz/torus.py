"""Convolutional chains on a torus, where a convolution is a multiplication for every frequency.

A convolution with zero padding reads ``x[s j + d t - before]`` for outputs ``0 <= j < m`` and taps ``t``: indices from
``-before`` to ``n - 1 + after``. On a torus of ``N >= n + max(before, after)`` points, with ``x`` on the first ``n``
and zeros on the rest, each such index meets the entry of ``x`` or a zero, as it should; if ``s`` divides ``N`` and
``N / s >= m``, the outputs are the first ``m`` points of the torus that has every s-th point of it. So the convolution
is a sub-block of a circulant map, and a bound for the torus bounds it. With ``N = n`` taps beyond the edge would meet
the opposite edge: another map, whose norm may be smaller.

Masks. The next convolution wants zeros outside its input's ``m`` points, where the torus holds something else. Where it
reads there, an activation has to be followed by a mask: its slopes there are 0, and the multipliers, which are the same
for all points, are only valid for a sector that holds 0 as well: ``[min(0, low), max(0, high)]``. A convolution that
reads nothing outside, and a dense layer, need no mask. (Sectors ``[a, 1]`` with padding are wrong: for the kernels of a
shift and its inverse they would give bounds that tend to 0 where the true constant is 1.) Copies that the next
convolution adds point by point, as in a residual block, need no mask either: what they are outside never comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from leaktight.models.network import Network
from leaktight.models.ops import Shape
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.sectors import Sector
from leaktight.verify.lipschitz.window_reader import Draft, drafts
from leaktight.verify.lipschitz.windows import Window


@dataclass(frozen=True, eq=False)
class Step:
    """A convolution on a torus of `points`, and the slopes behind it, one sector for each channel; None: linear.

    fresh: its torus is not the one of the step in front of it, whose forms are the same at all frequencies.
    """

    window: Window
    points: Shape
    sector: Sector | None
    fresh: bool = False


def chain(network: Network, known: Mapping[str, Interval] | None = None) -> tuple[Step, ...]:
    """The network as convolutions on tori, one behind the other. Its differences are among those of the result.

    known: bounds of its values, as in leaktight.verify.lipschitz.layers.
    Raises UnsupportedOperator: the network is no chain, or an operator has no place in one; it is named.
    """
    read = drafts(network, known)
    ends = [i + 1 for i, draft in enumerate(read) if draft.pooled] + [len(read)]
    points = [own for a, b in pairwise([0, *ends]) if a < b for own in tori([draft.window for draft in read[a:b]])]
    steps = []
    for i, (draft, own) in enumerate(zip(read, points, strict=True)):
        masked = i + 1 < len(read) and read[i + 1].window.reads_outside
        window = replace(draft.window, stride=own) if draft.window.dense else draft.window
        steps.append(Step(window, own, _with_mask(draft, masked), fresh=i in ends))
    return tuple(steps)


def tori(windows: list[Window]) -> list[Shape]:
    """For each convolution the points of its input's torus along every axis: as few as do."""
    along = [_along(axis, windows) for axis in range(len(windows[0].extent))]
    return [tuple(sizes[i] for sizes in along) for i in range(len(windows))]


def _along(axis: int, windows: list[Window]) -> list[int]:
    """The sizes along one axis: each a multiple of all strides to come. A dense layer leaves a single point."""
    seen = next((i + 1 for i, window in enumerate(windows) if window.dense), len(windows))
    shrunk, least = [1], 1
    for window in windows[:seen]:
        needed = max(window.extent[axis] + window.margin[axis], window.stride[axis] * window.outputs[axis])
        least = max(least, needed * shrunk[-1])
        shrunk.append(shrunk[-1] * window.stride[axis])
    first = -(-least // shrunk[-1]) * shrunk[-1]
    return [first // factor for factor in shrunk[:seen]] + [1] * (len(windows) - seen)


def _with_mask(draft: Draft, masked: bool) -> Sector | None:
    """The slopes behind a window; copies that are read at their own points alone need no mask."""
    if not masked:
        return draft.sector
    one = np.ones(len(draft.window.kernel.value))
    known = Sector(one, one) if draft.sector is None else draft.sector
    copied = np.arange(len(one)) >= len(one) - draft.copies
    low, high = np.minimum(known.low, 0.0), np.maximum(known.high, 0.0)
    return Sector(np.where(copied, known.low, low), np.where(copied, known.high, high))
