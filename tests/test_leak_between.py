"""Curves from passes at a few slopes: nothing lies below them, in between neither, and what they dip is quadratic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from time import monotonic

import pytest
import torch
from leaky import EXACT_KINDS, ask, exact_rows
from leaky import Question as Ask
from networks import fully_connected
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm, Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds, plain_rows
from leaktight.verify.bounds.interval import Interval, lower_of_outputs
from leaktight.verify.bounds.optimise import turned_to
from leaktight.verify.bounds.question import Question
from leaktight.verify.bounds.rows import Units
from leaktight.verify.leak.bands import Strip
from leaktight.verify.leak.between import bounded_grid, curves, enclosures, referred_grid
from leaktight.verify.leak.dips import DipWalk
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.finer import _mixed, finer
from leaktight.verify.leak.grid import Grid
from leaktight.verify.leak.neurons import tighten
from leaktight.verify.leak.rough import rough_lines
from leaktight.verify.leak.segments import Lines
from leaktight.verify.leak.single import DipPass, GridReferences

PIECES = 4
PLAIN = Effort()


def wide(kind: str, seed: int, norm: Norm = Norm.LINF, radius: float = 0.6) -> Ask:
    """Regions with ranges of slopes that have room for several: below 0, across 0 and 1, above 1."""
    question = ask(kind, seed, norm, radius)
    kept = (question.hi - question.lo > 1e-3).nonzero().flatten()
    return replace(
        question,
        region=question.region.select(kept),
        objectives=question.objectives[kept],
        lo=question.lo[kept],
        hi=question.hi[kept],
    )


def ends_of(question: Ask, pieces: int = PIECES) -> Tensor:
    share = torch.arange(pieces + 1, dtype=torch.float64) / pieces
    inner = question.lo[:, None] + share * (question.hi - question.lo)[:, None]
    return torch.cat([question.lo[:, None], inner[:, 1:-1], question.hi[:, None]], 1)


@pytest.fixture
def in_single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds neurons in float32, in networks as small as those of these tests."""
    monkeypatch.setattr("leaktight.verify.bounds.single._NARROW", 0)


def traced(
    question: Ask, every: int, floor: dict[str, Interval] | None = None, effort: Effort = PLAIN, between: int = 1
) -> Lines:
    given = (question.slopes, question.region, question.objectives, ends_of(question), every, effort, floor)
    return curves(*given, between=between)[0]


def chord(found: Lines, ends: Tensor, i: int, r: int, a: float) -> Fraction:
    """The highest of the pieces' chords at a slope, without rounding."""
    heights = []
    for k in range(PIECES):
        lo, hi, at = Fraction(float(ends[i, k])), Fraction(float(ends[i, k + 1])), Fraction(a)
        if lo <= at <= hi:
            low, high = (Fraction(float(x[i * PIECES + k, r])) for x in (found.at_lo, found.at_hi))
            heights.append(low + (high - low) * (at - lo) / (hi - lo))
    return max(heights)


def assert_below(question: Ask, *found: Lines, draws: int = 2) -> None:
    """No input at any slope is below the lines: rational arithmetic, tolerance 0."""
    ends = ends_of(question)
    middles = (ends[:, 1:] + ends[:, :-1]) / 2
    tried = [ends[:, 2], middles[:, 0], middles[:, -1]]
    samples = [(question.region.sample(question.generator), a) for a in tried]
    samples += [question.draw() for _ in range(draws)]
    for x, a in samples:
        for i in range(len(x)):
            for r, value in enumerate(exact_rows(question, i, x[i], float(a[i]))):
                for each in found:
                    assert chord(each, ends, i, r, float(a[i])) <= value


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_lies_below_the_curve_at_any_slope(kind: str, norm: Norm, request: pytest.FixtureRequest) -> None:
    question = wide(kind, 1, norm)
    ends = ends_of(question)
    floor = enclosures(question.slopes, question.region, ends[:, [0, -1]], Effort())
    rough = traced(question, 4, between=2)
    request.getfixturevalue("in_single")
    fine = traced(question, 2, floor, between=2)
    for found in (rough, fine):
        assert bool(torch.isfinite(found.at_lo + found.at_hi).all())
    assert_below(question, rough, fine)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_lies_below_rough_lines(kind: str, norm: Norm, in_single: None) -> None:
    question = wide(kind, 2, norm)
    ends = ends_of(question)
    grid, references = referred_grid(question.slopes, question.region, ends[:, [0, -1]], PLAIN, None)
    if references is None:
        pytest.skip("no passes in float32 for this network")
    found = rough_lines(references, question.objectives, ends, 1 << 30)
    assert bool(torch.isfinite(found.lines.at_lo + found.lines.at_hi).all())
    assert_below(question, found.lines)
    at_ends = found.rows[:, [0, -1]]
    ahead = found.ahead(grid.at, ends, torch.arange(len(ends)), torch.zeros(len(ends), 1, dtype=torch.int64))
    assert torch.allclose(ahead[:, [0, -1], 0], at_ends[:, :, 0].double())


@pytest.mark.parametrize("radius", [0.0, 1e-6, 3.0])
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_nor_where_regions_are_points_or_large(kind: str, radius: float) -> None:
    question = wide(kind, 4, list(Norm)[len(kind) % 3], radius)
    assert_below(question, traced(question, 1), traced(question, 2), draws=1)


@pytest.mark.usefixtures("in_single")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "residual", "flipped", "convolutional"])
def test_very_many_inputs_and_slopes_lie_above_the_curve(kind: str, seed: int) -> None:
    """Corners, and points that gradients push down, at slopes all over the range."""
    question = wide(kind, 10 + seed, radius=0.3 * 4**seed)
    found, ends, many = traced(question, 2, between=1 + seed), ends_of(question), 5_000
    which = torch.arange(len(question.lo)).repeat_interleave(many)
    regions, generator = question.region.select(which), question.generator
    share = torch.rand(len(which), generator=generator, dtype=torch.float64)
    a = torch.lerp(question.lo[which], question.hi[which], share)
    corner = torch.where(torch.rand(len(which), regions.size, generator=generator) < 0.5, regions.lower, regions.upper)
    x = torch.where(torch.rand(len(which), 1, generator=generator) < 0.5, corner, regions.sample(generator))
    row = torch.randint(question.objectives.shape[1], (len(which),), generator=generator)
    rows, network = question.objectives[which, row], question.slopes.at(a)
    for step in range(3):
        with torch.enable_grad():
            start = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad((network.flat(start) * rows).sum(), start)
        pushed = regions.project(x - (regions.upper - regions.lower) * 0.5**step * slope.sign())
        x = torch.where(torch.arange(len(x)).unsqueeze(1) % 2 == 0, pushed, x)
    values = (network.flat(x) * rows).sum(-1)
    piece = (torch.searchsorted(ends[which], a.unsqueeze(1)).squeeze(1) - 1).clamp(0, PIECES - 1)
    lo, hi = (ends[which].gather(1, (piece + k).unsqueeze(1)).squeeze(1) for k in (0, 1))
    low, high = (x[which * PIECES + piece, row] for x in (found.at_lo, found.at_hi))
    bound = torch.lerp(low, high, (a - lo) / (hi - lo))
    assert bool((values - bound >= -1e-11 * (1 + values.abs() + low.abs() + high.abs())).all())


@pytest.mark.parametrize("kind", ["fully_connected", "residual", "per_channel", "convolutional"])
def test_at_the_slopes_of_passes_the_curve_is_the_single_certificate(kind: str) -> None:
    """Up to the tangents of what dips, which shorter segments make nothing of."""
    question = wide(kind, 7, radius=0.2)
    narrow = replace(question, hi=question.lo + 1e-5)
    found, ends = traced(narrow, 1), ends_of(narrow)
    for i in range(len(narrow.lo)):
        one = narrow.region.select(slice(i, i + 1))
        for k in range(PIECES):
            network = narrow.slopes.at(float(ends[i, k]))
            single = of_turned_lines(network, one, narrow.objectives[i : i + 1])[0]
            own = found.at_lo[i * PIECES + k]
            assert bool((own >= single - 1e-7 * (1 + single.abs())).all())
            assert torch.allclose(own, single, rtol=1e-5, atol=1e-5)  # neurons' bounds differ in what is refined first


def of_turned_lines(network: Network, region: Region, objectives: Tensor) -> Tensor:
    """CROWN whose lines are turned for each row."""
    known = intermediate_bounds(network, region, 1 << 28, refine=plain_rows)
    plain, asked = Backward(network, region, known), Question(network, region, objectives, 1 << 28)
    tilts = turned_to(asked, known, plain.ended(*asked.starts())[1])
    best = (plain.turned(tilts) if tilts else plain).lower(*asked.starts())
    return torch.maximum(best, lower_of_outputs(network, known, objectives))  # lines may be looser than intervals


def test_what_the_curve_loses_is_quadratic_in_the_distance_of_slopes() -> None:
    """Sixteen segments lose far less than an eighth of what two lose, which linear losses would be."""
    rows, lost = torch.eye(3, dtype=torch.float64)[None], [0.0, 0.0]
    region = Box(torch.full((1, 4), 0.38).double(), torch.full((1, 4), 0.42).double())
    for seed in range(6):
        slopes = Slopes.of(fully_connected(seed, (4, 12, 10, 3), 0.1))
        for which, parts in enumerate((2, 16)):
            ends = torch.linspace(0, 0.4, parts + 1, dtype=torch.float64)[None]
            found, _ = curves(slopes, region, rows, ends, 1, Effort())
            middles = (ends[0, 1:] + ends[0, :-1]) / 2
            alone = torch.cat([of_turned_lines(slopes.at(float(a)), region, rows) for a in middles])
            lost[which] += float((alone - (found.at_lo + found.at_hi) / 2).clamp(min=0).mean())
    assert lost[0] > 1e-3
    assert lost[1] < lost[0] / 24


@pytest.mark.parametrize("kind", ["per_channel", "residual", "max_pool", "flipped", "several_inputs"])
def test_a_batch_is_each_of_its_regions(kind: str) -> None:
    question = wide(kind, 2, list(Norm)[len(kind) % 3])
    for effort in (Effort(), Effort(memory=2**17)):
        together = traced(question, 2, effort=effort)
        for i in range(0, len(question.lo), 2):
            one, own = slice(i, i + 1), slice(i * PIECES, (i + 1) * PIECES)
            alone, _ = curves(
                question.slopes,
                question.region.select(one),
                question.objectives[one],
                ends_of(question)[one],
                2,
                Effort(),
            )
            assert torch.allclose(alone.at_lo, together.at_lo[own], rtol=1e-9, atol=1e-11)
            assert torch.allclose(alone.at_hi, together.at_hi[own], rtol=1e-9, atol=1e-11)


def test_after_the_deadline_what_is_returned_holds() -> None:
    question = wide("residual", 3)
    late = traced(question, 2, effort=Effort(deadline=monotonic() - 1))
    assert bool((late.at_lo <= traced(question, 2).at_lo + 1e-9).any())
    assert_below(question, late)


@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "flipped"])
def test_what_activations_see_lies_in_the_enclosures(kind: str) -> None:
    question = wide(kind, 5)
    found = enclosures(question.slopes, question.region, ends_of(question)[:, [0, -1]], Effort())
    for _ in range(50):
        x, a = question.draw()
        values = question.slopes.at(a).values(x)
        for name, z in found.items():
            slack = 1e-12 * (1 + values[name].abs())
            assert bool(((values[name] >= z.lower - slack) & (values[name] <= z.upper + slack)).all())


def neurons(grid: Grid) -> list[tuple[str, Units]]:
    """All entries that were bounded, from below and from above."""
    found = []
    for name in grid.tracked:
        size = grid.network.by_name[name].size
        index = torch.arange(size).expand(grid.region.batch, -1)
        for sign in (1.0, -1.0):
            found.append((name, Units(name, index, torch.full(index.shape, sign, dtype=torch.float64))))
    return found


def grid_of(question: Ask, every: int) -> Grid:
    return bounded_grid(question.slopes, question.region, ends_of(question)[:, ::every], PLAIN, None)


def deep(seed: int) -> Ask:
    """Five layers: dips come from the third on, where coefficients in front of activations move."""
    question = wide("fully_connected", seed, list(Norm)[seed % 3], 0.4)
    slopes = Slopes.of(fully_connected(seed, (question.region.size, 12, 10, 8, 6, 3), 0.1))
    return replace(question, plain=slopes, slopes=slopes)


@pytest.mark.usefixtures("in_single")
@pytest.mark.parametrize("kind", ["deep", "residual", "flipped", "convolutional"])
def test_in_float32_bounds_and_dips_are_those_in_float64_and_no_better(kind: str) -> None:
    grid = grid_of(deep(3) if kind == "deep" else wide(kind, 3, list(Norm)[len(kind) % 3], 0.4), 2)
    short, everywhere = GridReferences(grid), torch.arange(grid.region.batch // grid.count)
    seen = 0.0
    for name, units in neurons(grid):
        short.prepare(grid.network.by_name[name])
        walk, fast = grid.carry(DipWalk(grid), units), DipPass(short, everywhere)
        long, found = walk.conclude(), fast.bound([units])
        dips, size = walk.dips.expand(fast.dips.shape), 1 + long.abs().amax()
        assert bool((found <= long + 1e-12 * size).all())
        assert bool((found >= long - 1e-4 * size).all())
        assert bool((fast.dips >= dips * (1 - 1e-6) - 1e-9).all())
        assert bool((fast.dips <= dips * (1 + 1e-4) + 1e-4 * size).all())
        seen = max(seen, float(dips.amax()))
    assert seen > 1.0 or kind != "deep"


@pytest.mark.usefixtures("in_single")
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "residual", "flipped", "convolutional"])
def test_neurons_stay_above_the_mixture_of_their_bounds_minus_the_dips(kind: str, parts: int) -> None:
    """On the grid that was bounded, and on one that is finer."""
    question = wide(kind, 8, radius=1.5)
    coarse = grid_of(question, 4)
    grid = finer(coarse, ends_of(question)[:, :: 4 // parts])
    assert grid.count == parts + 1
    for draw in range(60):
        x, a = question.draw()
        if draw % 2:
            x = torch.where(
                x > (question.region.lower + question.region.upper) / 2, question.region.upper, question.region.lower
            )
        values = question.slopes.at(a).values(x)
        segment = (torch.searchsorted(grid.at.contiguous(), a.unsqueeze(1)) - 1).clamp(0, grid.count - 2)
        lo, hi = (grid.at.gather(1, segment + k) for k in (0, 1))
        for name, own in grid.tracked.items():
            for k in (0, 1):  # what is known at either end holds on the whole segment
                place = torch.arange(len(a)) * grid.count + segment.squeeze(1) + k
                known, z = grid.known[name].select(place), values[name]
                slack = 1e-11 * (1 + z.abs())
                assert bool(((z >= known.lower - slack) & (z <= known.upper + slack)).all())
            w = (a.unsqueeze(1) - lo) / (hi - lo)
            z = values[name].flatten(1)
            for end, dips, way in ((own.lower, own.below, 1), (own.upper, own.above, -1)):
                each = end.reshape(len(a), grid.count, -1)
                deep = dips.reshape(len(a), grid.count - 1, -1)
                first, last = (each[torch.arange(len(a)), segment.squeeze(1) + k] for k in (0, 1))
                dip = deep[torch.arange(len(a)), segment.squeeze(1)]
                least = (1 - w) * way * first + w * way * last - w * (1 - w) * dip
                assert bool((way * z >= least - 1e-11 * (1 + z.abs() + least.abs())).all())


@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "flipped"])
def test_charges_reach_as_far_as_activations_drift(kind: str) -> None:
    """Whatever rate a moving activation has within its bounds: ``|rate width - bend| <= change``."""
    grid = grid_of(wide(kind, 5), 2)
    for name in grid.operators:
        node = grid.network.by_name[name]
        moved, charges = grid.departure(node), grid.charges(node)
        width = grid.widths.reshape(-1, *[1] * len(node.shape))
        own = (charges.change - charges.beyond).squeeze(1)
        for rate in (moved.lower, moved.upper):
            assert bool(((rate * width - charges.bend.squeeze(1)).abs() <= own * (1 + 1e-9) + 1e-290).all())


def test_finer_grids_have_the_values_of_the_parabola_and_dips_below_it() -> None:
    """``l(w) = (1 - w) l_0 + w l_1 - w (1 - w) t``, at their slopes and half-way between them."""
    question = deep(3)
    grid, at = grid_of(question, 4), ends_of(question)
    w, deepest = torch.linspace(0, 1, PIECES + 1, dtype=torch.float64).reshape(1, -1, 1), 0.0
    for name, own in grid.tracked.items():
        found = _mixed(grid, name, at, torch.zeros(PIECES + 1, dtype=torch.int64))
        for (value, dips), end, dip, way in zip(
            found, (own.lower, own.upper), (own.below, own.above), (1, -1), strict=True
        ):
            first, last = (way * end.reshape(len(at), 2, 1, -1)).unbind(1)
            t = dip.reshape(len(at), 1, -1)
            deepest = max(deepest, float(t.amax()))
            size = 1e-9 * (1 + first.abs() + last.abs() + t)

            def parabola(w: Tensor, first: Tensor = first, last: Tensor = last, t: Tensor = t) -> Tensor:
                return (1 - w) * first + w * last - w * (1 - w) * t

            assert bool((value <= parabola(w) + 1e-6 * size).all())
            assert bool((value >= parabola(w) - size).all())
            middle = value[:, 1:] / 2 + value[:, :-1] / 2 - dips / 4
            assert bool((middle <= parabola(w[:, 1:] / 2 + w[:, :-1] / 2) + 1e-6 * size).all())
    assert deepest > 1.0


def test_what_is_known_between_slopes_is_below_both_bounds_and_their_dip() -> None:
    grid = grid_of(deep(3), 4)
    name = next(iter(grid.tracked))
    node, shape = grid.network.by_name[name], (grid.region.batch // 2, 2, grid.network.by_name[name].size)
    wide = torch.full((grid.region.batch, *node.shape), torch.inf, dtype=torch.float64)
    ends, dips = [torch.zeros(shape).double()] * 2, [torch.ones(shape[0], 1, shape[2]).double()] * 2
    tighten(grid, node, Interval(-wide, wide), ends, dips)
    assert bool((grid.values[name].lower <= -0.25).all() & (grid.values[name].upper >= 0.25).all())
    assert bool((grid.values[name].lower >= -0.2501).all() & (grid.values[name].upper <= 0.2501).all())


def test_strips_around_a_kink_hold_the_negative_part_and_no_more() -> None:
    """At both ends and at the kink, where it is furthest from a line; without rounding."""
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(1, 1, 200, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(1, 1, 200, generator=generator, dtype=torch.float64) * 10.0 ** torch.arange(
        -2, 2
    ).repeat(50)
    upper[..., :10] = lower[..., :10]
    lower[..., 10:20], upper[..., 20:30] = 0.0, 0.0
    lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    strip = Strip.around_kink(lower, upper)
    for low, high, *line in zip(*(x.flatten().tolist() for x in (lower, upper, *vars(strip).values())), strict=True):
        slope, offset, error = map(Fraction, line)
        ends = [Fraction(z) for z in (low, high, *([0.0] if low < 0 < high else []))]
        furthest = max(abs(min(z, Fraction(0)) - slope * z - offset) for z in ends)
        assert furthest <= error <= furthest + Fraction(1e-12)
