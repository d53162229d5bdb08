"""LipLT: the linear part of the network exactly, and what each activation adds to it, in any norm."""

from __future__ import annotations

import time

from leaktight.models.enclosure import Enclosure
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz.centred import Centred, CentredStage
from leaktight.verify.lipschitz.norms import operator_norm, plus, times


class OutOfTime(Exception):
    """The deadline came before there was a bound."""


def liplt(network: Centred, norm: Norm, *, deadline: float | None = None) -> float:
    """At least the Lipschitz constant in `norm`.

    With ``u_k = W_k s_(k-1)``, ``s_k = A_k s_(k-1) + B_k w_k``, ``|w_k| <= |u_k|`` entry by entry, and so in every norm
    here, unrolling the linear parts gives

        |u_k|  <=  m_k  =  |W_k A_(k-1) ... A_1 first|  +  sum_(j < k)  |W_k A_(k-1) ... A_(j+1) B_j| m_j,

    and the same for the output. For a chain with slopes in [a, 1] it is LipLT (Fazlyab et al. 2023, arXiv:2305.19797),
    whose ``2^(L-1)`` terms of Combettes and Pesquet (2020) the recursion adds up without listing them; it does not
    grow with ``a``, and is exact where every sector is a single slope.

    Raises OutOfTime.
    """
    sources = [_Source(network.first, 1.0)]
    for stage in network.stages:
        _check(deadline)
        reached = _length(sources, stage.weight, norm, deadline)
        sources = [source.through(stage) for source in sources]
        if stage.neurons:
            sources.append(_Source(stage.feed, reached))
    return _length(sources, network.last, norm, deadline)


class _Source:
    """Where differences come from: the state is the sum over sources of `matrix` times something of length `length`."""

    def __init__(self, matrix: Enclosure | None, length: float) -> None:
        self.matrix, self.length = matrix, length

    def through(self, stage: CentredStage) -> _Source:
        return _Source(stage.through if self.matrix is None else stage.through @ self.matrix, self.length)


def _length(sources: list[_Source], weight: Enclosure | None, norm: Norm, deadline: float | None) -> float:
    """At least the length of ``weight s``."""
    if weight is not None and not len(weight.value):
        return 0.0
    total = 0.0
    for source in sources:
        _check(deadline)
        seen = source.matrix if weight is None else weight if source.matrix is None else weight @ source.matrix
        total = plus(total, times(operator_norm(seen, norm), source.length))
    return total


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfTime
