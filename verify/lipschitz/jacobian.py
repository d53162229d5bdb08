"""Lipschitz constants in L-infinity and L1 from bounds of the Jacobian's entries.

``|J|_inf`` is the largest sum of absolute entries of a row, ``|J|_1`` of a column. Every entry of every possible
Jacobian (leaktight.verify.lipschitz.gates) is enclosed, from the outputs backwards and from the inputs forwards, and
the enclosures met. Besides, ``|J|_inf`` is the largest entry of ``J v`` for ``v`` in the unit box, and ``|J|_1`` that
of ``J^T t``: bounds of one box, which know that all columns of a row have the same slopes.
"""

from __future__ import annotations

import time
from math import inf

import torch
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.specs.region import Norm
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.gates import Gated, backwards, bounds, forwards
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.rounding import gamma

_BOTH_WAYS = 1 << 16  # entries of the Jacobian up to which it is bounded from both sides by lines


def jacobian_bound(layers: Layers, norm: Norm, *, lines: bool = True, deadline: float | None = None) -> float:
    """At least the Lipschitz constant in `norm` (inf or 1), global or local as the sectors of `layers` are.

    lines: by linear bound propagation; otherwise by products of intervals, cheaper and looser. deadline: of
    time.monotonic; products of intervals come first then, and after it what is proven by then.
    """
    if norm not in (Norm.LINF, Norm.L1):
        raise InternalError(f"norm {norm.value}: rows and columns of the Jacobian bound the norms inf and 1 alone")
    ahead, back = forwards(layers), backwards(layers)
    found = inf
    for by_lines in (False, True) if lines and deadline is not None else (lines,):
        for bound in (_boxed, _summed):
            if found == inf or deadline is None or time.monotonic() < deadline:
                found = min(found, bound(ahead, back, norm, by_lines))
    return found


def _boxed(ahead: Gated, back: Gated, norm: Norm, lines: bool) -> float:
    return _over_box(ahead if norm is Norm.LINF else back, lines)


def _summed(ahead: Gated, back: Gated, norm: Norm, lines: bool) -> float:
    size = entries(ahead, back, lines=lines)
    sums = size.sum(1 if norm is Norm.LINF else 0).amax() if size.numel() else size.new_zeros(())
    summed = float(sums) * (1 + gamma(max(size.shape), torch.float64))
    return summed if summed == summed else inf


def entries(ahead: Gated, back: Gated, *, lines: bool = True) -> Tensor:
    """At least the absolute entries ``(outputs, inputs)`` of every possible Jacobian."""
    rows = _entries(back, lines)
    few = rows.lower.numel() <= _BOTH_WAYS
    columns = _entries(ahead, lines and few)
    return rows.meet(Interval(columns.lower.mT, columns.upper.mT)).magnitude


def _entries(gated: Gated, lines: bool) -> Interval:
    units = torch.eye(gated.network.input_size, dtype=torch.float64)
    with torch.no_grad():
        return bounds(gated, units, units, lines=lines)


def _over_box(gated: Gated, lines: bool) -> float:
    one = torch.ones(1, gated.network.input_size, dtype=torch.float64)
    with torch.no_grad():
        found = bounds(gated, -one, one, lines=lines)
    return float(found.magnitude.amax()) if found.lower.numel() else 0.0
