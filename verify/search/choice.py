"""Which neuron a domain is split at: a cheap score picks candidates, a look at both children decides.

The score is the neuron's share of the relaxation's gap at the point where the relaxed objective is smallest: there the
line that was taken is off by ``|line(z) - phi(z)|``, times the neuron's coefficient, and exact lines would take that
away. How far the chord is off at the kink counts a little as well, so that neurons have a score whose line happens to
be right at that point. Neither assumes anything of the slopes. Looking ahead at the best by score is filtered smart
branching (De Palma et al. 2021, arXiv:2104.06718).
"""

from __future__ import annotations

import torch
from torch import Tensor

from leaktight.verify.search.batch import Batch
from leaktight.verify.search.lines import Shape
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.passes import Cuts, Replayed

_AT_THE_KINK = 0.1
_BETTER_CHILD = 0.1
_TIE = 1e-3


def scores(bounding: Bounding, batch: Batch, found: Replayed) -> Tensor:
    """The score of every neuron that may be split, ``(batch, neurons)``; -1 where it is linear on the domain."""
    some, shape, lines, path = bounding.spots, batch.shape, bounding.relaxed.lines, found.path
    z, size, slopes, offsets = (
        x.index_select(1, some) for x in (found.inputs, path.coefficients, path.slopes, path.offsets)
    )
    graph = lines.left[some] * z + lines.gap[some] * z.clamp(min=0)
    line = torch.addcmul(offsets, slopes, z)
    score = size.abs() * ((line - graph).abs() + _AT_THE_KINK * shape.sink.index_select(1, some).abs())
    score = score * bounding.worth
    return torch.where(shape.turn.index_select(1, some) == 0, -1.0, score)


def look_ahead(bounding: Bounding, batch: Batch, found: Replayed, candidates: int) -> Tensor:
    """The neuron ``(batch,)`` to split each domain at; -1 where every neuron is linear.

    Of so many candidates with the best scores, that whose children's quick values promise most, everything else being
    as it is: what the worse child gains, and a little of what the better one does. More than a proof is worth nothing.
    """
    if not len(bounding.columns):
        return torch.full((len(batch),), -1)
    score = scores(bounding, batch, found)
    best = score.topk(min(candidates, score.shape[1]), dim=1)
    enough = 2 * bounding.tolerance[batch.owner].unsqueeze(1)
    now = found.path.value.unsqueeze(1)
    gains = [
        (torch.minimum(children(bounding, batch, best.indices, above=above), enough) - now).clamp(min=0)
        for above in (False, True)
    ]
    worth = torch.minimum(*gains) + _BETTER_CHILD * torch.maximum(*gains) + _TIE * best.values
    worth = worth.nan_to_num(nan=0.0).masked_fill(best.values < 0, -1.0)
    pick = worth.argmax(1, keepdim=True)
    return torch.where(best.values[:, 0] < 0, -1, best.indices.gather(1, pick).squeeze(1))


def children(bounding: Bounding, batch: Batch, neurons: Tensor, *, above: bool) -> Tensor:
    """The quick values ``(batch, k)`` of domains cut at each of the `neurons` ``(batch, k)``, on one side."""
    column, lines = bounding.spots[neurons].unsqueeze(-1), bounding.relaxed.lines
    slope = (lines.right if above else lines.left)[column]
    rows, offset = (x.unsqueeze(1) for x in bounding.objective(batch))
    shape = Shape(*(x.unsqueeze(1) for x in (batch.shape.chord, batch.shape.sink, batch.shape.least, batch.shape.most)))
    ray, pull = batch.ray.unsqueeze(1), batch.pull.unsqueeze(1)
    return bounding.relaxed.value(rows, offset, shape, ray, pull, batch.region, Cuts(column, slope)).value
