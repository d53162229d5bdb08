"""L1 in parts: no input moves faster than the means of the parts' rates say, and they say more than one for all."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from math import nextafter

import pytest
import torch
from leaky import EXACT_KINDS, ask, exact_rows
from networks import fully_connected
from test_leak_local import box, one_neuron

from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm, ball
from leaktight.verify.leak import local, stepwise
from leaktight.verify.leak.effort import Effort

WITHIN = (-0.1, 0.4)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_and_slope_moves_faster_than_the_parts_rates_say(kind: str, norm: Norm) -> None:
    question = ask(kind, 1, norm)
    lo, hi = WITHIN
    low, high = stepwise.rates(question.slopes, question.region, question.objectives, lo, hi, parts=3)
    for share in (0.0, 0.1, 1 / 3, 0.6, 1.0):
        x, a = question.region.sample(question.generator), min(lo + share * (hi - lo), hi)
        for i in range(len(x)):
            start, here = (exact_rows(question, i, x[i], s) for s in (lo, a))
            for r, (before, now) in enumerate(zip(start, here, strict=True)):
                move = Fraction(a) - Fraction(lo)
                assert move * Fraction(float(low[i, r])) <= now - before <= move * Fraction(float(high[i, r]))


def test_the_largest_mean_is_at_least_that_of_all_first_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        rates = torch.randn(1, 6, 1, generator=generator, dtype=torch.float64)
        ends = torch.rand(7, generator=generator, dtype=torch.float64).cumsum(0)
        widths = [Fraction(float(b)) - Fraction(float(a)) for a, b in pairwise(ends)]
        sums = accumulate(w * Fraction(float(r)) for w, r in zip(widths, rates.flatten(), strict=True))
        exact = max(s / w for s, w in zip(sums, accumulate(widths), strict=True))
        found = Fraction(float(stepwise._largest_mean(rates, ends)))
        assert exact <= found <= exact + Fraction(1, 10**10)


def test_parts_say_more_than_the_whole_range_and_never_less() -> None:
    slopes = Slopes.of(fully_connected(0, (6, 20, 20, 3)))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    region, rows = ball(x, 0.05), torch.eye(3, dtype=torch.float64)[None]
    lo, hi = (torch.full((4,), end, dtype=torch.float64) for end in WITHIN)
    widths = []
    for low, high in (local.rates(slopes, region, rows, lo, hi), stepwise.rates(slopes, region, rows, *WITHIN)):
        widths.append(high - low)
    assert bool((widths[1] <= widths[0]).all())
    assert float(widths[1].mean()) < 0.7 * float(widths[0].mean())


def test_without_time_or_room_for_parts_the_whole_ranges_rates_stand() -> None:
    slopes = Slopes.of(fully_connected(0))
    region, rows = ball(torch.zeros(1, 4).double(), 0.3), torch.eye(3, dtype=torch.float64)[None]
    for within, effort in (
        (WITHIN, Effort(deadline=0.0)),
        ((0.1, nextafter(0.1, 1)), Effort()),
        ((0.2, 0.2), Effort()),
    ):
        lo, hi = (torch.full((1,), end, dtype=torch.float64) for end in within)
        plain = local.rates(slopes, region, rows, lo, hi)
        found = stepwise.rates(slopes, region, rows, *within, effort)
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_of_one_neuron_below_its_kink_the_rates_are_its_inputs() -> None:
    """``m(x; a) = a x`` for ``x < 0``."""
    slopes = Slopes.of(one_neuron())
    found = stepwise.rates(slopes, box((-2.0, -1.0)), torch.ones(1, 1, 1), *WITHIN)
    low, high = (float(x) for x in found)
    assert -2 - 1e-9 <= low <= -2
    assert -1 <= high <= -1 + 1e-9
