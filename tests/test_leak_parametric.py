"""L2: no input and slope lies below the lines, which are as good as they claim where they can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from time import monotonic

import pytest
import torch
from leaky import EXACT_KINDS, Question, ask, exact_rows
from networks import Draft, fully_connected
from torch import Tensor

from leaktight.capabilities import EXAMPLES, smallest_network
from leaktight.models.network import Network, Node
from leaktight.models.ops import Linear, leaky_relu
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm, Region
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import intermediate_bounds, refine_all
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.bounds.interval import input_intervals, lower_of_outputs
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.rows import Units, rows_on_outputs
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.lines import lines, sandwiched
from leaktight.verify.leak.pairs import pairs_pass
from leaktight.verify.leak.parametric import Parametric
from leaktight.verify.leak.segments import Lines

PLAIN, TURNED = Effort(), Effort(optimise=True)
efforts = pytest.mark.parametrize("effort", [PLAIN, TURNED], ids=["plain", "turned"])
# The radius of the region, and the share of each range of slopes: a point and whole ranges; a point, whose neurons are
# all stable as its range is short; and both so small that a thousandth of any term would show.
REGIMES = {"point": (0.0, 1.0), "short": (0.0, 1e-5), "thin": (1e-7, 1e-5), "single": (1e-9, 0.0)}
DRAWS = 1


def asked(question: Question, effort: Effort = PLAIN) -> Lines:
    return lines(question.slopes, question.region, question.objectives, question.lo, question.hi, effort)


def shortened(question: Question, share: float) -> Question:
    return replace(question, hi=question.lo + share * (question.hi - question.lo))


def slopes_to_try(question: Question) -> Iterator[tuple[Tensor, Tensor]]:
    """Points and slopes: both ends of the segments first, then any."""
    for a in (question.lo, question.hi):
        yield question.region.sample(question.generator), a
    for _ in range(DRAWS):
        yield question.draw()


def height(found: Lines, question: Question, i: int, r: int, a: float) -> Fraction:
    """The chord's value at a slope of the segment, without rounding."""
    low, high, first, last, at = (
        Fraction(float(x)) for x in (found.at_lo[i, r], found.at_hi[i, r], question.lo[i], question.hi[i], a)
    )
    return low + (high - low) * (at - first) / (last - first) if last > first else max(low, high)


def assert_below(question: Question, *found: Lines) -> None:
    for x, a in slopes_to_try(question):
        for i in range(len(x)):
            for r, value in enumerate(exact_rows(question, i, x[i], float(a[i]))):
                for each in found:
                    assert height(each, question, i, r, float(a[i])) <= value


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_and_slope_lies_below_the_lines(kind: str, norm: Norm) -> None:
    question = ask(kind, 1, norm)
    plain, turned = asked(question, PLAIN), asked(question, TURNED)
    for found in (plain, turned):
        assert bool(torch.isfinite(found.at_lo + found.at_hi).all())
    assert_below(question, plain, turned)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_and_slope_lies_below_lines_that_leave_little_room(kind: str, regime: str) -> None:
    radius, share = REGIMES[regime]
    norm = list(Norm)[(len(kind) + len(regime)) % 3]
    question = shortened(ask(kind, 2, norm, radius), share)
    assert_below(question, asked(question, PLAIN), asked(question, TURNED))


@pytest.mark.parametrize("kind", ["fully_connected", "residual", "max_pool", "flipped"])
def test_lines_in_the_slope_of_some_nodes_hold_while_the_others_stand_still(kind: str) -> None:
    question = ask(kind, 3)
    for names in (question.slopes.nodes[:1], question.slopes.nodes[-1:]):
        few, simple = Slopes.of(question.plain.network, names), Slopes.of(question.network, names)
        some = replace(question, plain=few, slopes=simple)
        assert_below(some, asked(some, PLAIN), asked(some, TURNED))


def test_a_neuron_that_drifts_as_far_as_it_can_is_bounded_by_where_it_gets() -> None:
    """At ``x = -1`` the neuron is ``-a``, half its drift from the middle: its bound has nothing to spare there."""
    draft, one = Draft(0), torch.ones(1, 1, dtype=torch.float64)
    network = draft.network(draft.add(leaky_relu(0.25), draft.add(Linear(one, None), draft.input(1, 1))))
    lo, hi = torch.tensor([0.25], dtype=torch.float64), torch.tensor([0.75], dtype=torch.float64)
    region, known = Box(-one, 0.5 * one), input_intervals(network, Box(-one, 0.5 * one))
    backward = Parametric(Slopes.of(network), region, known, lo, hi)
    refine_all(backward, known, default_memory())
    unit = Units(network.outputs[0].name, torch.zeros(1, 1, dtype=torch.int64), one)  # the way of the neurons behind
    for starts in (rows_on_outputs(network, one[None]), [unit]):
        assert -0.75 - 1e-9 <= float(backward.lower(*starts)) <= -0.75


# ---- many samples, in floating point ----

SAMPLES, PUSHED = 12_500, 120


def sampled(question: Question) -> tuple[Tensor, Tensor, Tensor]:
    """Regions' places, points and slopes: any, vertices of the bounding box, and points pushed down, for each row."""
    count, rows = SAMPLES - PUSHED, question.objectives.shape[1]
    which = torch.arange(len(question.lo)).repeat_interleave(SAMPLES)
    regions, generator = question.region.select(which), question.generator
    x = regions.sample(generator)
    corner = torch.where(torch.rand(x.shape, generator=generator) < 0.5, regions.lower, regions.upper)
    kind = torch.rand(len(x), 1, generator=generator)
    x = regions.project(torch.where(kind < 0.4, corner, x))
    share = (torch.rand(len(x), generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    a = question.lo[which] + share * (question.hi - question.lo)[which]
    a = torch.minimum(torch.maximum(a, question.lo[which]), question.hi[which])
    last = (torch.arange(len(x)) % SAMPLES) >= count
    near, at, there = regions.select(last), x[last], a[last]
    row = question.objectives[which[last], torch.arange(len(at)) % rows]
    network, width = question.slopes.at(there), (near.upper - near.lower) / 4
    for step in range(12):
        start = at.detach().requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((network.flat(start) * row).sum(), start)
        at = near.project(at - width * 0.75**step * slope.sign())
    x[last] = at
    return which, x, a


def assert_samples_above(low: Tensor, values: Tensor) -> None:
    """The tolerance is for the rounding of the values, which these tests compute in floating point themselves."""
    assert bool((low <= values + 1e-12 * (1 + values.abs().max())).all())


@pytest.mark.parametrize("kind", [*EXACT_KINDS, "branches", "smooth"])
def test_a_hundred_thousand_inputs_and_slopes_lie_above_the_lines(kind: str) -> None:
    question = ask(kind, 4, list(Norm)[len(kind) % 3])
    which, x, a = sampled(question)
    assert len(x) >= 10**5
    values = (question.objectives[which] @ question.slopes.at(a).flat(x).unsqueeze(-1)).squeeze(-1)
    share = ((a - question.lo[which]) / (question.hi - question.lo)[which].clamp(min=1e-300)).unsqueeze(-1)
    for found in (asked(question, PLAIN), asked(question, TURNED)):
        assert_samples_above(torch.lerp(found.at_lo[which], found.at_hi[which], share), values)


@pytest.mark.parametrize("kind", [*EXACT_KINDS, "branches", "smooth"])
def test_a_hundred_thousand_inputs_and_slopes_of_single_neurons_lie_above_the_sandwich(kind: str) -> None:
    question = ask(kind, 5, list(Norm)[len(kind) % 3])
    found = sandwiched(question.slopes, question.region, question.objectives, question.lo, question.hi)
    which, x, _ = sampled(question)
    network, ends = question.plain.network, (question.lo[which], question.hi[which])
    nodes = []
    for node in network:
        if node.name in question.plain.nodes:
            share = torch.rand(len(x), *node.shape, generator=question.generator, dtype=torch.float64) * 2 - 0.5
            first, last = (torch.as_tensor(question.plain.at(end).by_name[node.name].op.left) for end in ends)  # type: ignore[attr-defined]
            node = replace(
                node, op=leaky_relu(torch.lerp(first.expand_as(share), last.expand_as(share), share.clamp(0, 1)))
            )
        nodes.append(node)
    y = replace(network, nodes=tuple(nodes)).flat(x)
    assert_samples_above(found[which], (question.objectives[which] @ y.unsqueeze(-1)).squeeze(-1))


# ---- a slope for every neuron ----


@pytest.mark.parametrize("regime", ["wide", *REGIMES])
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_the_sandwich_holds_for_every_neuron_with_a_slope_of_its_own(kind: str, regime: str) -> None:
    radius, share = REGIMES.get(regime, (0.3, 1.0))
    question = shortened(ask(kind, 6, list(Norm)[len(kind) % 3], radius), share)
    found = sandwiched(question.slopes, question.region, question.objectives, question.lo, question.hi)
    assert bool(torch.isfinite(found).all())
    for _ in range(2):
        x, _ = question.draw()
        for i in range(len(x)):
            slopes = {}
            for name in question.plain.nodes:
                drawn = torch.rand(question.plain.network.by_name[name].size, generator=question.generator) * 2 - 0.5
                first, last = Fraction(float(question.lo[i])), Fraction(float(question.hi[i]))
                slopes[name] = [first + (last - first) * Fraction(s) for s in drawn.clamp(0, 1).tolist()]
            for r, value in enumerate(exact_rows(question, i, x[i], slopes)):
                assert Fraction(float(found[i, r])) <= value


def test_the_sandwich_is_what_slopes_at_the_ends_of_the_range_attain() -> None:
    """``phi(-1) - phi(-2)`` is ``a``, or ``2 b - a`` for two slopes: with both in [0.1, 0.3] at least -0.1."""
    draft = Draft(0)
    activation = draft.leaky(draft.input(1, 2), 0.2)
    network = draft.network(draft.add(Linear(torch.tensor([[1.0, -1.0]], dtype=torch.float64)), activation))
    at = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    given = (
        Slopes.of(network),
        Box(at, at),
        torch.ones(1, 1, 1),
        torch.tensor([0.1]).double(),
        torch.tensor([0.3]).double(),
    )
    assert float(sandwiched(*given)) == pytest.approx(2 * 0.1 - 0.3, abs=1e-7)
    assert float(lines(*given).at_lo) == pytest.approx(0.1, abs=1e-7)
    assert float(lines(*given).at_hi) == pytest.approx(0.3, abs=1e-7)


# ---- how good the lines are ----


def certificate(network: Network, region: Region, rows: Tensor) -> Tensor:
    """CROWN with the default turns of lines ``(rows,)``; the engine tries others besides."""
    known = intermediate_bounds(network, region, default_memory())
    one = Backward(network, region, known).lower(*rows_on_outputs(network, rows))
    return torch.maximum(one, lower_of_outputs(network, known, rows))[0]


@pytest.mark.parametrize("kind", [*EXACT_KINDS, "branches", "smooth"])
def test_at_a_segment_of_width_zero_the_line_is_the_single_certificate(kind: str) -> None:
    """The certificate with the same turns of lines: the engine tries a second turn besides, which may be better."""
    question = shortened(ask(kind, 7, list(Norm)[len(kind) % 3]), 0.0)
    found = asked(question)
    crowd = sandwiched(question.slopes, question.region, question.objectives, question.lo, question.hi)
    for i in range(len(question.lo)):
        network, region = question.slopes.at(float(question.lo[i])), question.region.select(slice(i, i + 1))
        rows = question.objectives[i : i + 1]
        one = certificate(network, region, rows)
        for ours in (found.at_lo[i], found.at_hi[i], crowd[i]):
            assert torch.allclose(ours, one, rtol=1e-9, atol=1e-12)
            assert bool((ours <= lower_bounds(network, region, rows)[0] + 1e-9 * (1 + one.abs())).all())


@pytest.mark.parametrize("kind", [kind for kind in EXACT_KINDS if kind != "max_pool"])
def test_at_a_point_short_lines_are_the_margin_and_its_rate(kind: str) -> None:
    """What is lost is quadratic in the width, so a thousandth of the rate would be far more.

    Without the maximum: beside slope 0 the negative neurons of a window nearly tie, whichever is the greatest.
    """
    question = shortened(ask(kind, 8, radius=0.0), 1e-5)
    found = asked(question)
    (x, _), width = question.draw(), (question.hi - question.lo).unsqueeze(-1)
    for a, ours in ((question.lo, found.at_lo), (question.hi, found.at_hi)):
        values = (question.objectives @ question.slopes.at(a).flat(x).unsqueeze(-1)).squeeze(-1)
        assert bool((values - ours <= 1e-3 * width + 1e-11 * (1 + values.abs())).all())


@efforts
def test_slope_one_is_exact_where_all_else_is_affine(effort: Effort) -> None:
    draft = Draft(3)
    at = draft.input(1, 4)
    for _ in range(3):
        at = draft.leaky(draft.linear(at, 6), 0.2)
    network = draft.network(draft.linear(at, 3))
    slopes, rows, one = Slopes.of(network), draft.normal(1, 5, 3), torch.ones(1, dtype=torch.float64)
    centre, radius = draft.normal(1, 4), 0.5
    (jacobian,) = torch.autograd.functional.jacobian(lambda x: slopes.at(1.0).flat(x), centre).sum(2)[None]
    exact = rows @ slopes.at(1.0).flat(centre).T - radius * (rows @ jacobian).abs().sum(-1, keepdim=True)
    found = lines(slopes, Box(centre - radius, centre + radius), rows, one, one, effort)
    for ours in (
        found.at_lo,
        found.at_hi,
        lines(slopes, Box(centre - radius, centre + radius), rows, one - 1e-9, one).at_hi,
    ):
        assert bool((ours <= exact.squeeze(-1)).all())
        assert torch.allclose(ours, exact.squeeze(-1), rtol=0, atol=1e-7 if ours is not found.at_lo else 1e-12)


def steady(kind: str, width: float, norm: Norm = Norm.LINF) -> Question:
    """Regions so small that every neuron keeps its sign, at a slope of its own each; segments of this width."""
    question = ask(kind, 9, norm, radius=1e-4)
    middle = torch.linspace(0.05, 0.9, len(question.lo), dtype=torch.float64)
    return replace(question, lo=middle - width / 2, hi=middle + width / 2)


@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "residual", "several_inputs", "flipped"])
def test_what_pairs_lose_falls_fourfold_when_the_width_halves(kind: str) -> None:
    single = asked(steady(kind, 0.0)).at_lo
    widths = (0.04, 0.02, 0.01)
    lost = [
        (single - (found.at_lo + found.at_hi) / 2).clamp(min=0)
        for found in map(asked, (steady(kind, w) for w in widths))
    ]
    most = [float(x.max()) for x in lost]
    for wide, narrow in pairwise(most):
        assert wide > 1e-6
        assert 3.4 <= wide / narrow <= 4.6


def test_what_is_said_to_be_lost_is_what_shorter_segments_save() -> None:
    wide, narrow = (asked(steady("fully_connected", w)) for w in (0.04, 0.0))
    saved = narrow.at_lo - (wide.at_lo + wide.at_hi) / 2
    assert bool((saved <= wide.loss + 1e-9).all())
    assert float(wide.loss.max()) <= 3 * float(saved.max())
    assert bool((narrow.loss <= 1e-12).all())


@pytest.mark.parametrize("seed", range(3))
def test_more_segments_are_tighter_and_stay_below_brute_force(seed: int) -> None:
    network = fully_connected(seed, (2, 4, 3, 2), 0.1)
    slopes, rows = Slopes.of(network), torch.eye(2, dtype=torch.float64)[None]
    region = Box(torch.tensor([[-0.3, -0.2]]).double(), torch.tensor([[0.2, 0.3]]).double())
    grid = torch.linspace(0, 1, 41, dtype=torch.float64)
    points = torch.cartesian_prod(region.lower[0, 0] + 0.5 * grid, region.lower[0, 1] + 0.5 * grid)
    least = torch.stack([slopes.at(float(a)).flat(points).amin(0) for a in 0.8 * grid])
    gaps = []
    for parts in (1, 4, 16, 64):
        ends = torch.linspace(0, 0.8, parts + 1, dtype=torch.float64)
        found = lines(
            slopes, region.select(torch.zeros(parts, dtype=torch.long)), rows.expand(parts, -1, -1), ends[:-1], ends[1:]
        )
        at = (torch.searchsorted(ends, 0.8 * grid) - 1).clamp(min=0)
        share = ((0.8 * grid - ends[at]) / (ends[at + 1] - ends[at])).unsqueeze(-1)
        curve = torch.lerp(found.at_lo[at], found.at_hi[at], share)
        assert_samples_above(curve, least)
        gaps.append(float((least - curve).mean()))
    alone = torch.stack([certificate(slopes.at(float(a)), region, rows) for a in 0.8 * grid])
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] <= float((least - alone).mean()) + 0.05 * gaps[0]


@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "residual", "flipped"])
def test_turned_lines_are_better_on_the_whole(kind: str) -> None:
    """Not always: the ascent starts from other lines, those of tighter intervals."""
    question = ask(kind, 1)
    plain, turned = (asked(question, effort) for effort in (PLAIN, TURNED))
    gain = (turned.at_lo + turned.at_hi - plain.at_lo - plain.at_hi) / (2 + 2 * plain.at_lo.abs())
    assert float(gain.max()) > 1e-3
    assert float(gain.min()) > -0.1 * float(gain.max())


# ---- batches, threads, memory, time ----


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same(a: Lines, b: Lines) -> None:
    for name in ("at_lo", "at_hi", "loss"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "kind", ["per_channel", "residual", "several_inputs", "several_outputs", "max_pool", "flipped"]
)
def test_a_batch_is_each_of_its_regions_and_segments(kind: str, threads: int) -> None:
    question = ask(kind, 2, list(Norm)[len(kind) % 3])
    for effort in (PLAIN, replace(PLAIN, memory=4096)):
        with torch_threads(threads):
            together = asked(question, effort)
            crowd = sandwiched(question.slopes, question.region, question.objectives, question.lo, question.hi, effort)
        for i in range(threads, len(question.lo), 4):
            one = slice(i, i + 1)
            given = (question.region.select(one), question.objectives[one], question.lo[one], question.hi[one])
            assert_same(lines(question.slopes, *given), together.select(one))
            assert torch.allclose(sandwiched(question.slopes, *given), crowd[one], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["fully_connected", "flipped"])
def test_turned_lines_of_a_batch_in_little_memory_hold(kind: str) -> None:
    """Where the ascent goes depends on the last digits, so the lines may differ; what they claim may not."""
    question = ask(kind, 2)
    with torch_threads(2):
        assert_below(question, asked(question, replace(TURNED, memory=4096)))


@efforts
def test_after_the_deadline_what_is_returned_holds(effort: Effort) -> None:
    question = ask("residual", 2)
    late = asked(question, replace(effort, deadline=monotonic() - 1))
    assert_below(question, late)
    assert bool((late.at_lo <= asked(question).at_lo + 1e-9).any())
    crowd = sandwiched(
        question.slopes, question.region, question.objectives, question.lo, question.hi, replace(effort, deadline=0.0)
    )
    assert bool(torch.isfinite(crowd).all())


def test_only_networks_without_a_maximum_carry_pairs() -> None:
    assert [pairs_pass(ask(kind, 0).network) for kind in ("max_pool", "residual", "flipped")] == [False, True, True]


# ---- every operator, and numbers of any size ----


def behind_a_leaky(operator: str) -> Slopes:
    """The operator's smallest network with a Leaky ReLU in front, whose slope moves."""
    plain = smallest_network(EXAMPLES[operator]())
    front = Node("a", leaky_relu(0.1), ("x",), (1, 4))
    behind = [replace(node, inputs=("a",) * len(node.inputs)) for node in plain.nodes[1:]]
    return Slopes.of(replace(plain, nodes=(plain.nodes[0], front, *behind)), ["a"])


@efforts
@pytest.mark.parametrize("operator", [name for name in EXAMPLES if name != "Constant"])
def test_every_operator_has_its_rules(operator: str, effort: Effort) -> None:
    slopes, size = behind_a_leaky(operator), 8
    rows = torch.eye(slopes.network.output_size, dtype=torch.float64)[None].expand(size, -1, -1)
    rows = torch.cat([rows, -rows], 1)
    region = Box(-torch.ones(size, 4).double(), torch.ones(size, 4).double())
    ends = torch.linspace(-0.5, 1.5, size + 1, dtype=torch.float64)
    lo, hi = ends[:-1], ends[1:]
    found, crowd = lines(slopes, region, rows, lo, hi, effort), sandwiched(slopes, region, rows, lo, hi, effort)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        x, share = region.sample(generator), torch.rand(size, generator=generator, dtype=torch.float64)
        values = (rows @ slopes.at(lo + share * (hi - lo)).flat(x).unsqueeze(-1)).squeeze(-1)
        assert_samples_above(torch.lerp(found.at_lo, found.at_hi, share.unsqueeze(-1)), values)
        assert_samples_above(crowd, values)


def exploding(scale: float) -> Network:
    draft = Draft(1)
    at = draft.input(1, 3)
    for _ in range(3):
        at = draft.leaky(draft.linear(at, 4, scale), 0.1)
    return draft.network(draft.linear(at, 2))


@efforts
@pytest.mark.parametrize("scale", [1e60, 1e110, 1e160])
def test_overflow_is_minus_infinity_and_never_nan(scale: float, effort: Effort) -> None:
    slopes = Slopes.of(exploding(scale))
    region = Box(-torch.ones(2, 3).double(), torch.ones(2, 3).double())
    rows = torch.cat([torch.eye(2), -torch.eye(2)]).double()[None].expand(2, -1, -1)
    lo, hi = torch.tensor([0.0, 0.3]).double(), torch.tensor([0.2, 0.3]).double()
    found, crowd = lines(slopes, region, rows, lo, hi, effort), sandwiched(slopes, region, rows, lo, hi, effort)
    generator = torch.Generator().manual_seed(0)
    for ours in (found.at_lo, found.at_hi, crowd):
        assert not bool((ours.isnan() | (ours == torch.inf)).any())
    for _ in range(50):
        x = region.sample(generator)
        for a, ours in ((lo, found.at_lo), (hi, found.at_hi), (lo, crowd), (hi, crowd)):
            assert not bool((ours > (rows @ slopes.at(a).flat(x).unsqueeze(-1)).squeeze(-1)).any())


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(2))
def test_rounding_of_sums_that_cancel_never_lifts_a_line(seed: int, size: float) -> None:
    """A point, one activation and wide segments: lines are exact but for rounding, and rows cancel nearly all of it."""
    draft, count = Draft(seed), 5
    activation = draft.leaky(draft.linear(draft.input(1, 40), 60, size), 0.1)
    network = draft.network(draft.linear(activation, 30))
    slopes, x = Slopes.of(network), draft.normal(count, 40)
    y = slopes.at(0.1).flat(x)
    rows = draft.normal(count, 6, 30)
    rows = rows - (rows @ y.unsqueeze(-1)) * y.unsqueeze(1) / (y * y).sum(-1)[:, None, None]
    lo, hi = (
        (draft.uniform(0, 1, count), draft.uniform(1, 9, count))
        if seed % 2
        else draft.uniform(0, 1, 2, count).sort(0).values
    )
    question = Question(slopes, slopes, Box(x, x), rows, lo, hi, draft.generator)
    for effort in (PLAIN, TURNED):
        found = asked(question, effort)
        assert_below(question, found)
        for a, ours in ((lo, found.at_lo), (hi, found.at_hi)):
            values = (rows @ slopes.at(a).flat(x).unsqueeze(-1)).squeeze(-1)
            assert bool((values - ours <= 1e-9 * (1 + size)).all())
