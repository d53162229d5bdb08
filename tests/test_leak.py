"""Curves over slopes, end to end: no input at no slope is below what is proven, and what is refuted replays."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from fractions import Fraction
from math import inf, nextafter, prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from extended import UNIT, exact_sample, margins, open_ones, outputs
from onnx_zoo import Maker
from planar import smallest_margin
from rows import mostly_slow
from torch import Tensor

import leaktight as lt
from leaktight.errors import PropertyError, UsageError
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes
from leaktight.models.simplify import simplify
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.leak import course, critical, incumbents, independent, plan, questions, radius, trace
from leaktight.verify.leak.attained import Lowest
from leaktight.verify.leak.curve import Chord, Segment, undecided
from leaktight.verify.leak.result import Curve, LeakResult
from leaktight.verify.leak.traced import Traced
from leaktight.verify.report.check import check
from leaktight.verify.search.exact import lies_in_unsafe_set
from leaktight.verify.search.replay import Replay, flatten
from leaktight.verify.verdict import Status

SAMPLES = 100_000
MOST_OPEN = 200  # samples that extended precision may leave open


def file_of(kind: str, seed: int) -> Network:
    """A random ONNX file, as it was read."""
    m = Maker(seed)

    def normal(*shape: int) -> str:
        return m.constant(m.random.normal(size=shape) / max(1, prod(shape[1:])) ** 0.5)

    def dense(source: str, inputs: int, outputs: int) -> str:
        return str(m.node("Gemm", source, normal(outputs, inputs), normal(outputs), transB=1))

    def leaky(source: str) -> str:
        return str(m.node("LeakyRelu", source, alpha=m.pick(0.1, 0.3, 1.0, -0.2)))

    if kind == "convolutional":
        at = m.node("Conv", m.input(1, 1, 4, 4), normal(3, 1, 3, 3), normal(3), pads=[1, 1, 1, 1], strides=[2, 2])
        at = m.node("Relu", m.node("Conv", leaky(at), normal(4, 3, 2, 2), normal(4)))
        at = dense(m.node("Flatten", at), 4, 3)
    elif kind == "residual":
        start = dense(m.input(1, 4), 4, 6)
        inner = m.node("Add", start, dense(leaky(start), 6, 6))
        at = dense(leaky(m.node("Sub", inner, dense(leaky(inner), 6, 6))), 6, 3)
    elif kind == "per_channel":
        at = m.node("Conv", m.input(1, 2, 3, 3), normal(4, 2, 2, 2), normal(4))
        at = m.node("PRelu", at, m.constant(m.random.uniform(0.05, 0.5, size=(4, 1, 1))))
        at = dense(m.node("PRelu", dense(m.node("Flatten", at), 16, 6), m.constant(m.random.uniform(-1, 2, 6))), 6, 3)
    else:
        at = dense(leaky(dense(leaky(dense(m.input(1, 4), 4, 8)), 8, 7)), 7, 3)
    return network_from_bytes(m.build(at).SerializeToString(), path=f"{kind}.onnx")


KINDS = ("fully_connected", "convolutional", "residual", "per_channel")
WITHIN = ((0.0, 0.3), (-0.8, 0.2), (0.7, 1.8))
RANGES = {
    "usual": (0.0, 0.3),
    "below zero": (-0.6, -0.1),
    "across zero and one": (-0.3, 1.2),
    "above one": (1.1, 1.9),
    "width zero": (0.3, 0.3),
    "neighbours": (0.1, nextafter(0.1, 1)),
}


SLOW_SHIFTS = [
    pytest.param(seed, within, marks=pytest.mark.slow)
    for seed in range(3)
    for within in ((-0.6, -0.1), (-0.3, 1.2), (0.02, 0.4))
]


def question(kind: str, seed: int, norm: Norm = Norm.LINF, size: float = 0.15) -> tuple[Slopes, Network, Case]:
    """The network as it is in its file and simplified, and a case with a conjunction in it."""
    plain = file_of(kind, seed)
    network = simplify(plain)
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
    weights = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    bounds = (weights @ network.flat(centre).unsqueeze(-1)).squeeze(-1) - torch.tensor([0.3, 0.1, 0.4]).double()
    width = size if norm is Norm.LINF else 2 * size
    return Slopes.of(plain), network, Case(ball(centre, width, norm), Unsafe(weights, bounds, torch.tensor([0, 1, 1])))


def draws(region: Region, count: int, lo: float, hi: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs ``(count, n)`` of a single region and slopes ``(count,)``, some at the ends of the range."""
    generator = torch.Generator().manual_seed(seed)
    x = region.select(torch.zeros(count, dtype=torch.int64)).sample(generator)
    share = (1.2 * torch.rand(count, generator=generator, dtype=torch.float64) - 0.1).clamp(0, 1)
    return x, (lo + share * (hi - lo)).clamp(lo, hi)


def exact_chord(chord: Chord, a: float) -> Fraction:
    if chord.lo == chord.hi:
        return Fraction(chord.at_lo)
    share = (Fraction(a) - Fraction(chord.lo)) / (Fraction(chord.hi) - Fraction(chord.lo))
    return Fraction(chord.at_lo) + share * (Fraction(chord.at_hi) - Fraction(chord.at_lo))


def assert_nothing_is_below(
    plain: Slopes, case: Case, found: Curve, lo: float, hi: float, samples: int = SAMPLES // 5
) -> None:
    """Very many samples, tolerance 0: in extended precision, and without any rounding where that leaves it open."""
    x, a = draws(case.region, samples, lo, hi)
    value, error = margins(case.unsafe, outputs(plain, x, a))
    at, open = a.numpy(), set[int]()
    for s in found.segments:
        (here,) = np.nonzero((at >= s.lo) & (at <= s.hi))
        if -inf not in s.lower and len(here):
            width = np.longdouble(s.hi) - np.longdouble(s.lo)
            share = (at[here].astype(np.longdouble) - s.lo) / (width if s.hi > s.lo else 1)
            height = s.lower[0] + share * (np.longdouble(s.lower[1]) - np.longdouble(s.lower[0]))
            off = 16 * UNIT * (abs(s.lower[0]) + abs(s.lower[1]))
            open.update(here[open_ones(value[here], error, height, off)].tolist())
    lowest = value.argsort()[:2].tolist()
    for i in [0, 1, *lowest, *sorted(open)[:MOST_OPEN]]:
        exact = exact_sample(plain, case.unsafe, x[i], float(a[i]))
        known = found.lower(float(a[i]))
        assert known == -inf or exact >= Fraction(known)
        over = [s.chord for s in found.segments if s.lo <= a[i] <= s.hi and -inf not in s.lower]
        assert all(exact >= exact_chord(chord, float(a[i])) for chord in over)
        assert abs(exact - Fraction(float(value[i]))) <= Fraction(error) + Fraction(float(abs(value[i])) * 2.0**-52)
    if lo < hi and nextafter(lo, inf) < hi:
        assert len(open) <= MOST_OPEN
    if found.proved_up_to is not None:
        assert not bool((value[at <= found.proved_up_to] < -error).any())


def assert_refuted_replays(slopes: Slopes, case: Case, found: Curve, lo: float, hi: float) -> None:
    """The slope, set in the file, and the input, run by the runtime, are unsafe; nothing up to there is proved."""
    assert found.refuted is not None
    slope, example = found.refuted.slope, found.refuted.counterexample
    assert lo <= slope <= hi
    assert float(np.float32(slope)) == slope
    outputs = Replay(slopes.file_at(slope)).run(torch.from_numpy(example.point))
    assert lies_in_unsafe_set(case.unsafe, flatten(outputs))
    assert bool(case.region.contains(torch.from_numpy(example.point).unsqueeze(0)).all())
    assert found.proved_up_to is None or found.proved_up_to < slope


def assert_document_is_whole(result: LeakResult) -> None:
    """It is strict JSON, and the readers of result files accept it."""
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    check(document, "result.json")


@pytest.mark.parametrize("within", RANGES.values(), ids=list(RANGES))
@pytest.mark.parametrize("kind", KINDS)
def test_no_sample_is_below_the_curve(kind: str, within: tuple[float, float]) -> None:
    seed = list(RANGES.values()).index(within)
    norm = list(Norm)[seed % 3]
    plain, network, case = question(kind, seed, norm)
    result = lt.leak(
        network, Property((case,)), within, engine=("alpha-crown", "auto", "branch")[seed % 3], nodes=plain.nodes
    )
    curve = result.curve
    assert curve is not None
    assert curve.segments[0].lo == within[0]
    assert curve.segments[-1].hi == within[1]
    assert all(np.isfinite(s.lower).all() and np.isfinite(s.upper).all() for s in curve.segments)
    assert all(s.lower[0] <= s.upper[0] and s.lower[1] <= s.upper[1] for s in curve.segments)
    assert_nothing_is_below(plain, case, curve, *within, samples=SAMPLES if within == RANGES["usual"] else SAMPLES // 5)
    if curve.refuted is not None:
        assert_refuted_replays(Slopes.of(network, plain.nodes), case, curve, *within)
    assert_document_is_whole(result)


@pytest.mark.parametrize(
    ("kind", "norm"),
    mostly_slow(
        KINDS,
        Norm,
        quick=[
            ("fully_connected", Norm.L1),
            *(("convolutional", norm) for norm in Norm),
            ("residual", Norm.L2),
            ("per_channel", Norm.LINF),
        ],
    ),
)
def test_of_labelled_data_every_curve_and_radius_holds(kind: str, norm: Norm) -> None:
    plain = file_of(kind, 11)
    network, lo, hi, epsilon = simplify(plain), 0.0, 0.4, 0.2
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(4, network.input_size, generator=generator, dtype=torch.float64)
    moving = Slopes.of(network)
    labels = network.flat(inputs).argmax(1)
    labels[3] = (labels[3] + 1) % 3  # a wrong one
    result = lt.leak_of_data(
        network, inputs, labels, epsilon, (lo, hi), norm=norm, clip=(0, 1), radius=True, tolerance=0.2
    )
    assert_document_is_whole(result)
    assert [one.label for one in result.inputs] == labels.tolist()
    for i, one in enumerate(result.inputs):
        property = lt.robust(inputs[i : i + 1], label=int(labels[i]), epsilon=epsilon, norm=norm.value, clip=(0, 1))
        (case,) = property.fitted(network.input_size, 3)
        assert_nothing_is_below(Slopes.of(plain, moving.nodes), case, one.curve, lo, hi)
        if one.curve.refuted is not None:
            assert_refuted_replays(moving, case, one.curve, lo, hi)
        assert one.curve.radius is not None
        assert one.curve.radius[0].lo == lo
        assert one.curve.radius[-1].hi == hi
        for part in one.curve.radius:
            if part.radius is not None:
                x, a = draws(ball(inputs[i : i + 1], part.radius, norm, (0, 1)), 2000, part.lo, part.hi)
                assert bool((moving.at(a).flat(x).argmax(1) == labels[i]).all())
    assert result.inputs[3].curve.status is Status.REFUTED
    at_start = result.inputs[3].curve.radius
    assert at_start is not None
    # at its own slopes the network scores another class higher: not even the input itself is proven
    assert any(part.radius is None for part in at_start)
    for share in result.accuracy:
        assert 0 <= share["certified"] <= share["attacked"] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_slope_for_each_neuron_no_sample_is_below_the_curve(kind: str) -> None:
    plain, network, case = question(kind, 5, size=0.05)
    lo, hi = 0.05, 0.25
    result = lt.leak(network, Property((case,)), (lo, hi), meaning="independent", nodes=plain.nodes)
    curve = result.curve
    assert curve is not None
    assert curve.shift is None
    assert_document_is_whole(result)
    x, top = draws(case.region, SAMPLES, lo, hi)
    drawn = own_slopes(plain, lo, top)
    value, error = margins(case.unsafe, outputs(plain, x, drawn))
    floor = np.array([curve.lower(a) for a in np.unique(top)])[np.unique(top, return_inverse=True)[1]]
    open = open_ones(value, error, floor, 0.0)
    assert len(open) <= MOST_OPEN
    for i in [0, 1, *value.argsort()[:2].tolist(), *open]:
        exact = exact_sample(plain, case.unsafe, x[i], {name: own[i].tolist() for name, own in drawn.items()})
        assert exact >= Fraction(float(floor[i]))
    floors = [s.lower[0] for s in curve.segments]
    assert floors == sorted(floors, reverse=True)
    shared = lt.leak(network, Property((case,)), (lo, hi), nodes=plain.nodes).curve
    assert shared is not None
    assert curve.proved_up_to is None or (shared.proved_up_to or -inf) >= curve.proved_up_to


def own_slopes(moving: Slopes, lo: float, top: Tensor) -> dict[str, Tensor]:
    """For every sample and every neuron a slope of its own in ``[lo, top]``."""
    generator, drawn = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for name in moving.nodes:
        share = torch.rand(len(top), moving.network.by_name[name].size, generator=generator, dtype=torch.float64)
        share = torch.where(share < 0.3, 0.0, torch.where(share > 0.7, 1.0, share))  # ends are the hardest
        drawn[name] = torch.minimum(lo + share * (top.unsqueeze(1) - lo), top.unsqueeze(1))
    return drawn


@pytest.mark.parametrize(("seed", "within"), [(11, (0.0, 0.3)), *SLOW_SHIFTS])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_samples_lie_inside_every_level_of_the_shift(
    kind: str, seed: int, within: tuple[float, float]
) -> None:
    """Tolerance 0. What a level says of ``M(a) - M(lo)`` the first two say of every input; the others are about minima:
    no sample is below what is proven of ``M(lo)`` plus the least change, and none at ``lo`` shows a larger change."""
    plain, network, case = question(kind, seed, size=0.05)
    curve = lt.leak(network, Property((case,)), within, nodes=plain.nodes, lipschitz=False).curve
    assert curve is not None
    assert curve.shift is not None
    shift, lo, hi = curve.shift, *within
    x, a = draws(case.region, SAMPLES, lo, hi)
    (value, error), (start, off) = (margins(case.unsafe, outputs(plain, x, b)) for b in (a, torch.full_like(a, lo)))
    at = a.numpy().astype(np.longdouble)
    moved, way, far, unsure = value - start, at - lo, (a > lo).numpy(), error + off
    for low in (-shift.closed_form, shift.local[0]):  # of inputs below; above likewise
        assert not open_ones(moved[far], unsure, (low * way)[far], 4 * UNIT * abs(low) * (hi - lo))
    for high in (shift.closed_form, shift.local[1]):
        assert not open_ones(-moved[far], unsure, (-high * way)[far], 4 * UNIT * abs(high) * (hi - lo))
    known = curve.segments[0].lower[0]
    for (first, last), (low, high) in (*shift.parametric, ((hi, hi), shift.change)):
        here = (at >= first) & (at <= last)
        assert not open_ones(value[here], error, np.full(int(here.sum()), known + low), UNIT * abs(known + low))
        floor = min(curve.lower(first), curve.lower(last))
        assert not open_ones(start + high, off, np.full(len(start), floor), UNIT * abs(high))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.2, 1.0, 1.6])
def test_at_a_range_of_width_zero_the_curve_is_the_single_certificate(kind: str, slope: float) -> None:
    plain, network, case = question(kind, 3)
    moving = Slopes.of(network, plain.nodes)
    single = lower_bounds(moving.at(slope), case.region, case.unsafe.weights, engine="crown")
    certificate = float(case.unsafe.combine(single - case.unsafe.bounds))
    for meaning in ("shared", "independent"):
        curve = lt.leak(
            network, Property((case,)), (slope, slope), meaning=meaning, nodes=plain.nodes, engine="crown"
        ).curve
        assert curve is not None
        assert len(curve.segments) == 1
        assert curve.lower(slope) >= certificate - 1e-9 * (1 + abs(certificate))


@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "residual"])
def test_at_the_slope_one_the_curve_is_exact(kind: str) -> None:
    """Nothing is left but an affine network, whose smallest margin lies at a corner."""
    plain, network, case = question(kind, 3)
    apart = Case(case.region, replace(case.unsafe, disjunct=torch.tensor([0, 1, 2])))
    for within in ((1.0, 1.0), (0.9, 1.0), (1.0, 1.4)):
        curve = lt.leak(network, Property((apart,)), within, nodes=plain.nodes, tolerance=10.0).curve
        assert curve is not None
        affine = Slopes.of(network, plain.nodes).at(1.0)
        zero = affine.flat(torch.zeros(1, network.input_size).double())
        matrix = (affine.flat(torch.eye(network.input_size).double()) - zero).T
        rows = apart.unsafe.weights @ matrix
        least = apart.region.minimum(rows) + apart.unsafe.weights @ zero[0] - apart.unsafe.bounds
        if within[0] == within[1]:
            assert curve.lower(1.0) == pytest.approx(float(least.min()), abs=1e-9)
        assert curve.lower(1.0) <= float(least.min()) + 1e-12


def test_one_node_moves_and_the_others_stay() -> None:
    plain, network, case = question("fully_connected", 8)
    name = plain.nodes[0]
    result = lt.leak(network, Property((case,)), (0.0, 0.5), nodes=[name])
    assert result.nodes == (plain.network.by_name[name].origin or name,)
    assert result.curve is not None
    assert_nothing_is_below(Slopes.of(plain.network, [name]), case, result.curve, 0.0, 0.5)


# ---- tiny networks, whose smallest margin is known at every slope ----


def tiny(seed: int, disjuncts: tuple[int, ...] = (0, 1, 2)) -> tuple[Slopes, Case]:
    m = Maker(seed)

    def dense(source: str, inputs: int, outputs: int) -> str:
        weight = m.constant(m.random.normal(size=(outputs, inputs)) / inputs**0.5)
        return str(m.node("Gemm", source, weight, m.constant(0.3 * m.random.normal(size=outputs)), transB=1))

    first = m.node("LeakyRelu", dense(m.input(1, 2), 2, 5), alpha=0.1)
    second = m.node("LeakyRelu", dense(first, 5, 4), alpha=0.1)
    network = simplify(network_from_bytes(m.build(dense(second, 4, 3)).SerializeToString(), path="tiny.onnx"))
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    bounds = (weights @ network.flat(centre).unsqueeze(-1)).squeeze(-1) - 0.4
    return Slopes.of(network), Case(Box(centre - 0.4, centre + 0.4), Unsafe(weights, bounds, torch.tensor(disjuncts)))


def truth(slopes: Slopes, case: Case, a: float) -> float:
    rows = zip(
        case.unsafe.weights[0].tolist(), case.unsafe.bounds[0].tolist(), case.unsafe.disjunct.tolist(), strict=True
    )
    lower, upper = (tuple(end[0].tolist()) for end in (case.region.lower, case.region.upper))
    return smallest_margin(slopes.at(a), (lower, upper), list(rows))


def blur(case: Case, *values: float) -> float:
    """What `truth` may have rounded, as a share of its terms: differences of them may be tiny, their errors are not."""
    return 1e-13 * (float(case.unsafe.bounds.abs().amax()) + max(map(abs, values)))


def grid(lo: float, hi: float, count: int = 40) -> list[float]:
    return [min(lo + k / count * (hi - lo), hi) for k in range(count + 1)]


def test_the_exact_minimum_is_what_very_many_samples_come_close_to() -> None:
    for seed in range(6):
        slopes, case = tiny(seed, (0, 1, 1))
        x, _ = draws(case.region, SAMPLES, 0, 0)
        for a in (-0.5, 0.0, 0.3, 1.4):
            least, sampled = truth(slopes, case, a), float(case.unsafe.margin(slopes.at(a).flat(x)).min())
            assert -1e-9 <= sampled - least <= 2e-2


@pytest.mark.parametrize(
    ("seed", "within"), mostly_slow(range(3), WITHIN, quick=[(0, WITHIN[1]), (1, WITHIN[0]), (1, WITHIN[2])])
)
def test_where_the_margin_changes_its_sign_few_slopes_stay_open(seed: int, within: tuple[float, float]) -> None:
    """Slopes are closed from both sides: by what is proven, and by inputs that stay unsafe on whole segments."""
    slopes, case = tiny(seed, (0, 1, 1))
    lo, hi = within
    middle = truth(slopes, case, (lo + hi) / 2)
    moved = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + middle))
    curve = lt.leak(slopes.network, Property((moved,)), within, tolerance=0.02).curve
    assert curve is not None
    assert sum(last - first for first, last in curve.open) <= 0.05 * (hi - lo)
    for a in grid(lo, hi):
        least = truth(slopes, moved, a)
        for s in curve.segments:
            if s.lo <= a <= s.hi:
                assert not s.refuted or least < 0
                assert not s.proved or least > 0


@pytest.mark.parametrize(
    ("seed", "within"),
    mostly_slow(range(4), WITHIN, quick=[*zip(range(3), WITHIN, strict=True), (3, WITHIN[0])]),
)
def test_the_true_minimum_and_its_shift_lie_within_every_level(seed: int, within: tuple[float, float]) -> None:
    slopes, case = tiny(seed, (0, 1, 1))
    curve = lt.leak(slopes.network, Property((case,)), within, tolerance=0.05).curve
    assert curve is not None
    shift = curve.shift
    assert shift is not None
    lo, hi = within
    start = truth(slopes, case, lo)
    for a in grid(lo, hi):
        least = truth(slopes, case, a)
        off = blur(case, least, start)
        assert curve.lower(a) <= least + off
        assert abs(least - start) <= shift.closed_form * (a - lo) + off
        assert shift.local[0] * (a - lo) - off <= least - start <= shift.local[1] * (a - lo) + off
        for (first, last), (low, high) in shift.parametric:
            assert not first <= a <= last or low - off <= least - start <= high + off
        for s in curve.segments:
            assert a not in (s.lo, s.hi) or least <= (s.upper[0] if a == s.lo else s.upper[1]) + off
            assert not s.lo <= a <= s.hi or least <= s.throughout + off
        if curve.proved_up_to is not None and a <= curve.proved_up_to:
            assert least > 0
    end = truth(slopes, case, hi)
    off = blur(case, start, end)
    assert shift.change[0] - off <= end - start <= shift.change[1] + off
    if curve.refuted is not None:
        assert truth(slopes, case, curve.refuted.slope) <= 1e-6


# ---- several regions, conjunctions, bad questions ----

CASES = """
(declare-const X_0 Real) (declare-const X_1 Real) (declare-const X_2 Real) (declare-const X_3 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (or
  (and (>= X_0 0) (<= X_0 0.2) (>= X_1 0) (<= X_1 0.2) (>= X_2 0) (<= X_2 0.2) (>= X_3 0) (<= X_3 0.2)
       (<= Y_0 {first}) (>= Y_1 Y_2))
  (and (>= X_0 0.4) (<= X_0 0.6) (>= X_1 0) (<= X_1 0.2) (>= X_2 0) (<= X_2 0.2) (>= X_3 0) (<= X_3 0.2)
       (>= Y_2 {second}))))
"""


@pytest.mark.parametrize(("first", "second"), [(-9.0, 9.0), (0.2, 0.8), (0.9, 0.2), (9.0, -9.0)])
def test_of_several_regions_the_curve_is_below_all(first: float, second: float) -> None:
    plain = file_of("fully_connected", 2)
    network = simplify(plain)
    property = lt.parse_property(CASES.format(first=first, second=second))
    cases = property.fitted(4, 3)
    result = lt.leak(network, property, (-0.2, 0.6), nodes=Slopes.of(plain).nodes)
    assert result.curve is not None
    assert sum(case.region.batch for case in cases) == 2
    for case in cases:
        for i in range(case.region.batch):
            one = Case(case.region.select(slice(i, i + 1)), case.unsafe.select(slice(i, i + 1)))
            assert_nothing_is_below(Slopes.of(plain), one, result.curve, -0.2, 0.6)
    assert_document_is_whole(result)
    assert (result.status is Status.PROVED) == (first == -9.0)
    assert (first == 9.0) <= (result.status is Status.REFUTED)


def test_a_property_that_does_not_fit_is_refused() -> None:
    _, network, _ = question("fully_connected", 0)
    with pytest.raises(PropertyError):
        lt.leak(network, lt.robust(torch.zeros(1, 7), label=0, epsilon=0.1), (0.0, 0.3))


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        ({"slopes": (0.3, 0.0)}, "empty"),
        ({"slopes": (0.0, inf)}, "finite"),
        ({"slopes": (float("nan"), 0.3)}, "finite"),
        ({"tolerance": 0.0}, "--tolerance"),
        ({"tolerance": float("nan")}, "--tolerance"),
        ({"timeout": 0.0}, "--timeout"),
        ({"meaning": "both"}, "shared, independent"),
        ({"engine": "milp"}, "auto, crown, alpha-crown"),
        ({"nodes": ["nowhere"]}, "does not exist"),
        ({"nodes": []}, "no node was named"),
        ({"slopes": (0.0, 1e30)}, "products overflow"),
    ],
)
def test_what_cannot_be_asked_is_refused(ways: dict[str, Any], says: str) -> None:
    _, network, case = question("per_channel", 0)
    slopes = ways.pop("slopes", (0.0, 0.3))
    with pytest.raises(UsageError, match=says):
        lt.leak(network, Property((case,)), slopes, **ways)


def test_what_is_unsafe_by_next_to_nothing_is_not_all_that_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, as files are run, a margin just below zero may come out above it: clearer ones follow."""
    slopes, case = tiny(0)
    x, asked = case.region.lower[0], []

    def run(slopes: Slopes, case: Case, found: Lowest, lo: Tensor, hi: Tensor) -> list[Any]:
        asked.append(float(found.slopes[0]))
        return [
            (a, None) if upper < -1e-6 else None
            for a, upper in zip(found.slopes.tolist(), found.upper.tolist(), strict=True)
        ]

    monkeypatch.setattr(critical, "refuted", run)
    monkeypatch.setattr(critical, "_searched", lambda *_: [(0, 0.05, -1e-15, x)])
    attained = {0.1: (-1e-12, x), 0.15: (1.0, x), 0.2: (-2e-12, x), 0.3: (-1e-5, x), 0.4: (-0.5, x), 0.5: (-0.4, x)}
    one = Traced([Segment(0.0, 0.6, (-1.0, -1.0))], attained, 1)
    (found,) = critical.first_refuted(slopes, case, [one], (0.0, 0.6), plan.Plan())
    assert found is not None
    assert found.slope == asked[-1] == 0.3
    assert asked[:2] == [0.05, 0.1]


# ---- stopping early ----


def interrupting(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, after: int) -> None:
    """Lets the `after`-th call of a function end as Ctrl-C ends it."""
    calls, real = iter(range(10**6)), getattr(place, name)

    def call(*given: Any, **named: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(place, name, call)


def test_halving_leaves_time_to_tell_where_inputs_are_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round of halving takes a fifth of the time; what inputs attain between slopes is asked when it is over."""
    slopes, case = tiny(0)
    case = replace(case, unsafe=replace(case.unsafe, bounds=case.unsafe.bounds + 2.0))
    now, halve, rounds = [time.monotonic()], trace._Tracer.halve, []

    def slow(tracer: trace._Tracer) -> bool:
        now[0] += 200.0
        rounds.append(halve(tracer))
        return rounds[-1]

    monkeypatch.setattr(trace._Tracer, "halve", slow)
    monkeypatch.setattr(plan, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (traced,) = trace.trace(slopes, case, 0.0, 0.6, plan.Plan(tolerance=1e-9, deadline=now[0] + 1000.0))
    assert len(rounds) > 3
    assert all(rounds)
    assert all(truth(slopes, case, a) < 0 for a in grid(0.0, 0.6, 8))
    assert sum(b - a for a, b in undecided(traced.segments)) < 0.01


@pytest.mark.parametrize(
    ("place", "name", "after", "meaning"),
    [
        (trace, "margin_lines", 0, "shared"),
        (trace, "margin_lines", 1, "shared"),
        (trace, "margin_lines", 3, "shared"),
        (incumbents, "along", 0, "shared"),
        (incumbents, "search", 1, "shared"),
        (independent, "sandwiched_margins", 0, "independent"),
        (independent, "along", 0, "independent"),
        (questions, "rates", 0, "shared"),
        (course, "signal", 0, "shared"),
        (questions, "first_refuted", 0, "shared"),
        (radius, "margin_lines", 0, "shared"),
    ],
)
@pytest.mark.parametrize("of_data", [False, True])
def test_an_interrupted_run_returns_what_is_proven_so_far(
    place: Any, name: str, after: int, meaning: str, of_data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place is radius and not of_data:
        pytest.skip("radii are those of data")
    plain, network, case = question("fully_connected", 6, size=0.4)
    centre = case.region.lower / 2 + case.region.upper / 2
    labels = network.flat(centre).argmax(1)
    interrupting(monkeypatch, place, name, after)
    if of_data:
        case = lt.robust(centre, label=int(labels[0]), epsilon=0.4).fitted(4, 3)[0]
        result = lt.leak_of_data(network, centre, labels, 0.4, (0.0, 0.6), tolerance=0.01, radius=True, meaning=meaning)
        curve = result.inputs[0].curve
    else:
        result = lt.leak(network, Property((case, case)), (0.0, 0.6), tolerance=0.01, meaning=meaning)
        assert result.curve is not None
        curve = result.curve
    assert result.interrupted
    assert "interrupted" in result.summary
    assert (curve.segments[0].lo, curve.segments[-1].hi) == (0.0, 0.6)
    if meaning == "shared":
        assert_nothing_is_below(plain, case, curve, 0.0, 0.6)
    assert_document_is_whole(result)


@pytest.mark.parametrize("meaning", ["shared", "independent"])
def test_a_run_that_is_out_of_time_stops_and_says_so(meaning: str) -> None:
    plain, network, case = question("convolutional", 6, size=0.5)
    began = time.process_time()  # a busy machine does not stretch it
    result = lt.leak(network, Property((case,)), (-0.5, 1.5), tolerance=1e-6, timeout=1e-3, meaning=meaning)
    assert time.process_time() - began < 5
    assert result.curve is not None
    assert result.status in (Status.TIMEOUT, Status.REFUTED)
    assert_document_is_whole(result)
    if meaning == "shared":
        assert_nothing_is_below(plain, case, result.curve, -0.5, 1.5)


def test_the_same_question_has_the_same_answer_on_one_thread_and_on_two() -> None:
    _, network, case = question("residual", 4)

    def answer() -> tuple[dict[str, Any], list[float]]:
        document = lt.leak(network, Property((case,)), (0.0, 0.5), seed=3).to_json()
        constants = document.pop("lipschitz")
        return {**document, "seconds": None}, [piece["upper"] for piece in constants["curve"]]

    one, constants = answer()
    torch.set_num_threads(2)
    try:
        same, others = answer()
        assert same == one
        assert others == pytest.approx(constants, rel=1e-9)  # factorizations of matrices share out their sums
    finally:
        torch.set_num_threads(1)
