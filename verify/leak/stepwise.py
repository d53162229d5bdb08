"""L1 in parts: local rates over parts of a range of slopes, each with neurons bounded there, added up.

Between neighbouring ends ``a_j`` of the parts ``m(x; a) - m(x; a_j)`` lies within ``(a - a_j) [low_j, high_j]``. So up
to an end ``a_k`` the margin moves, per unit of slope, by a mean of the rates of the parts before it, weighted with
their widths; and in between by a mixture of the means at both ends. The least and the largest mean hold for all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.clock import TimeUp
from leaktight.verify.leak import local
from leaktight.verify.leak.between import bounded_grid, parts_of
from leaktight.verify.leak.effort import Effort
from leaktight.verify.rounding import trusted_upper, underflow, unit

PARTS = 16
PLAIN = Effort()


def rates(
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    lo: float,
    hi: float,
    effort: Effort = PLAIN,
    parts: int = PARTS,
) -> tuple[Tensor, Tensor]:
    """As `leaktight.verify.leak.local.rates`, for one range of slopes for all regions.

    Never wider: where parts say less, the range has no room for them or time is up, the whole range's rates stand.
    """
    batch = region.batch
    ends = torch.linspace(lo, hi, parts + 1, dtype=torch.float64)
    ends[0], ends[-1] = lo, hi
    first, last = (torch.full((batch,), end, dtype=torch.float64) for end in (lo, hi))
    low, high = local.rates(slopes, region, objectives, first, last)
    if not bool((ends[1:] > ends[:-1]).all()):
        return low, high
    wide = objectives.double().expand(batch, -1, -1)
    with torch.no_grad():
        for some in parts_of(slopes, region, parts + 1, effort.memory or default_memory()):
            if effort.late:
                break
            try:
                found = _in_parts(slopes, region.select(some), wide[some], ends, effort)
            except TimeUp:
                break
            low[some], high[some] = torch.maximum(low[some], found[0]), torch.minimum(high[some], found[1])
    return low, high


def _in_parts(
    slopes: Slopes, region: Region, objectives: Tensor, ends: Tensor, effort: Effort
) -> tuple[Tensor, Tensor]:
    parts, batch = len(ends) - 1, region.batch
    grid = bounded_grid(slopes, region, ends.expand(batch, -1), effort, None)
    known = {node.name: grid.hulls(node.name) for node in grid.network}
    many = torch.arange(batch).repeat_interleave(parts)
    first, last = (x.repeat(batch) for x in (ends[:-1], ends[1:]))
    each = local.rates(slopes, region.select(many), objectives[many], first, last, known=known)
    low, high = (x.reshape(batch, parts, -1) for x in each)
    return -_largest_mean(-low, ends), _largest_mean(high, ends)


def _largest_mean(rates: Tensor, ends: Tensor) -> Tensor:
    """At least the largest mean of the first rates ``(batch, parts, rows)``, weighted with the parts' widths.

    Each width is one rounding off, relatively, and a mean is at most as large as the largest rate.
    """
    widths = (ends[1:] - ends[:-1]).reshape(1, -1, 1)
    means = (rates * widths).cumsum(1) / widths.cumsum(1)
    off = 64 * len(ends) * unit(rates.dtype) * rates.abs().amax(1)
    return trusted_upper(means.amax(1) + off + underflow(rates.dtype))
