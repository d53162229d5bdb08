"""L1, the local derivative: signed bounds of how fast a margin moves with the slope, over a region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.region import Region
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import row_bytes
from leaktight.verify.leak.closed_form import terms
from leaktight.verify.leak.intervals import Known, departures, over_range, product
from leaktight.verify.leak.jacobian import secants
from leaktight.verify.leak.moves import Form, moves
from leaktight.verify.rounding import down, gamma, trusted_lower, up

_BYTES = 256 << 20  # about what the coefficients of the regions that are worked on together need


def rates(
    slopes: Slopes,
    region: Region,
    objectives: Tensor,
    lo: Tensor,
    hi: Tensor,
    *,
    known: Known | None = None,
    anchored: bool = True,
) -> tuple[Tensor, Tensor]:
    """Bounds of the rate at which linear functions of the outputs move with the slope, for every input of the region.

    Let ``m(x; a) = objectives . f(x; a)``. For every ``x`` in the region, in real arithmetic,

        (a - lo) low  <=  m(x; a) - m(x; lo)  <=  (a - lo) high        for all a in [lo, hi],

    and if not `anchored`, ``m(x; a) - m(x; b)`` lies within ``(a - b) [low, high]`` for all ``lo <= b <= a <= hi``. The
    same bounds hold for the minimum of ``m`` over the region; for minima and maxima of several rows see `joined`.

    Why: let ``z, z'`` be the inputs of an activation at the slopes ``b`` and ``a``. Its value moves by

        phi_a(z') - phi_b(z)  =  s (z' - z)  +  (a - b) g(z),    s the slope of a secant of phi_a,

    with ``g(z) = min(z, 0)`` (times a rate, where scales were folded in): so ``m`` moves by ``(a - b)`` times the sum
    over all chosen activations of ``J . g(z)``, with ``J`` the product of all weights and secants behind it. Turned
    around, with secants of ``phi_b``, it is ``g(z')``. Both are bounded by intervals over the region and over all
    slopes in question (or by the closed form's term for an activation, where that is smaller). Anchored at ``b = lo``,
    the first knows the slope of all ``z``, the second that of all secants, and the better one of the two is taken.

    At every cut through the network, what its nodes move by (`leaktight.verify.leak.moves`) may take the place of all
    that is in front of it: carried forwards, terms cancel in what a neuron receives, and carried backwards, in what it
    hands on. The best cut is taken; so no bound is wider than what is carried all the way forwards.

    Args: objectives: ``(batch or 1, rows, output_size)``. lo, hi: ``(batch,)``, ``lo <= hi``. known: bounds of every
    node's value over region and range, where better ones than plain intervals are at hand.
    Returns: ``low, high``, each ``(batch, rows)`` in float64; infinite where nothing can be said.
    Raises: MissingRule: an operator has no rule.
    """
    objectives = objectives.double().expand(region.batch, -1, -1)
    each = row_bytes(slopes.network, torch.float64) * objectives.shape[1]
    most = max(1, _BYTES // each)
    low, high = [], []
    with torch.no_grad():
        for first in range(0, region.batch, most):
            part = slice(first, min(first + most, region.batch))
            given = None if known is None else {name: interval.select(part) for name, interval in known.items()}
            find = _anchored if anchored else _anywhere
            found = find(slopes, region.select(part), objectives[part], lo[part], hi[part], given)
            low.append(found[0])
            high.append(found[1])
    return torch.cat(low), torch.cat(high)


def _anywhere(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, known: Known | None
) -> tuple[Tensor, Tensor]:
    known = over_range(slopes, region, lo, hi) if known is None else known
    forms = (Form((slopes.at(lo), slopes.at(hi)), departures(slopes, known)),)
    return _best(forms, slopes, objectives, known, known)


def _anchored(
    slopes: Slopes, region: Region, objectives: Tensor, lo: Tensor, hi: Tensor, known: Known | None
) -> tuple[Tensor, Tensor]:
    known = over_range(slopes, region, lo, hi) if known is None else known
    first, last = slopes.at(lo), slopes.at(hi)
    start = {name: z.meet(known[name]) for name, z in over_range(slopes, region, lo, lo).items()}
    forms = Form((first, last), departures(slopes, start)), Form((first, first), departures(slopes, known))
    return _best(forms, slopes, objectives, known, start)


def joined(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The rates ``(batch,)`` of any minimum and maximum of the rows (a margin, say): the hull of the rows' rates.

    If every row moves by at least ``d``, so does every minimum of rows, every maximum, and every minimum of maxima.
    """
    return low.amin(-1), high.amax(-1)


def _best(
    forms: Sequence[Form], slopes: Slopes, objectives: Tensor, known: Known, start: Known
) -> tuple[Tensor, Tensor]:
    moving = moves(forms, known, start)
    low, high = zip(*(_cut(form, slopes, objectives, known, start, moving) for form in forms), strict=True)
    return torch.stack(low).amax(0), torch.stack(high).amin(0)


def _cut(
    form: Form, slopes: Slopes, objectives: Tensor, known: Known, start: Known, moving: Known
) -> tuple[Tensor, Tensor]:
    """The best of all cuts: what the nodes at a cut move, times secants behind it, and departures behind it.

    Behind the first cut is nothing but affine; before the last one, nothing moves. Products of intervals grow faster
    with depth than products of norms; each activation's part is within both.
    """
    most = terms(form.networks, objectives, form.departures)
    low = high = objectives.new_zeros(objectives.shape[:2])
    lows, highs = list[Tensor](), list[Tensor]()
    for name, rows, others in secants(form.networks, objectives, known, start, slopes.nodes):
        before = low, high
        for node, there in ((name, rows), *others.items()):
            if node in moving:
                before = _added(before, there, moving[node])
        lows.append(before[0])
        highs.append(before[1])
        if name in form.departures:
            low, high = _added((low, high), rows, form.departures[name], most[name])
    return _highest(lows, low), -_highest([-x for x in highs], -high)


def _added(
    sums: tuple[Tensor, Tensor], rows: Interval, rates: Interval, most: Tensor | float = torch.inf
) -> tuple[Tensor, Tensor]:
    """Bounds of sums and another term: coefficients times rates, which is at most so large."""
    found = product(rows, Interval(rates.lower.unsqueeze(1), rates.upper.unsqueeze(1)))
    less, more = (_total(x).clamp(max=most) for x in (-found.lower, found.upper))
    return down(sums[0] - less), up(sums[1] + more)


def _highest(bounds: Sequence[Tensor], last: Tensor) -> Tensor:
    """The highest of some lower bounds."""
    return torch.stack([trusted_lower(x) for x in (*bounds, last)]).amax(0)


def _total(x: Tensor) -> Tensor:
    """At least the sum of the entries behind the first two axes."""
    flat = x.flatten(2)
    return flat.sum(-1) + gamma(flat.shape[-1], x.dtype) * flat.abs().sum(-1)
