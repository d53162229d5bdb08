"""Branch and bound inside segments of slopes: what it proves holds, and it decides what single passes leave open."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import Draft
from test_leak import KINDS, assert_nothing_is_below, blur, grid, question, tiny, truth
from torch import Tensor

import leaktight as lt
from leaktight.errors import UsageError
from leaktight.models.ops import Linear, leaky_relu
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box
from leaktight.verify.bounds.rows import rows_on_outputs
from leaktight.verify.leak import signs, told
from leaktight.verify.leak.closing import Answers, Limits, Span, Stretch, joined, without
from leaktight.verify.leak.curve import Segment
from leaktight.verify.leak.joint_boxes import Line, box_search
from leaktight.verify.leak.joint_neurons import split_neurons
from leaktight.verify.leak.plan import Plan
from leaktight.verify.leak.raised import Raising, _Part
from leaktight.verify.leak.slope_boxes import _beside
from leaktight.verify.leak.slope_passes import SlopePasses
from leaktight.verify.leak.told import refuted_spans
from leaktight.verify.leak.trace import _Tracer
from leaktight.verify.search.boxes import Boxes

RANGES = [(0.0, 0.3), (-0.8, 0.2), (0.7, 1.8)]


def moved(slopes: Slopes, case: Case, within: tuple[float, float], by: float = 0.0) -> Case:
    """The case with its sign changing about the middle of the range."""
    middle = truth(slopes, case, sum(within) / 2) + by
    return Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + middle))


def assert_signs_are_true(slopes: Slopes, case: Case, curve: Any, within: tuple[float, float]) -> None:
    for a in grid(*within, 20):
        least = truth(slopes, case, a)
        for s in curve.segments:
            if s.lo <= a <= s.hi:
                assert not s.refuted or least < 0
                assert not s.proved or least > 0
                assert s.chord.at(a) <= least + blur(case, least)


@pytest.mark.parametrize(("seed", "within"), list(enumerate(RANGES)))
def test_nearly_no_slope_stays_open(seed: int, within: tuple[float, float]) -> None:
    slopes, case = tiny(seed, (0, 1, 1))
    case = moved(slopes, case, within)
    # the tolerance keeps the search for signs alone
    curve = lt.leak(slopes.network, Property((case,)), within, engine="branch", tolerance=10.0).curve
    assert curve is not None
    assert sum(last - first for first, last in curve.open) <= 0.005 * (within[1] - within[0])
    assert_signs_are_true(slopes, case, curve, within)


@pytest.mark.parametrize("within", RANGES)
def test_the_refined_curve_is_within_a_thousandth_of_the_truth(within: tuple[float, float]) -> None:
    """Against enumeration of all activation patterns, over a fine grid of slopes."""
    slopes, case = tiny(1, (0, 1, 1))
    curve = lt.leak(slopes.network, Property((case,)), within, tolerance=9e-4, engine="branch").curve
    assert curve is not None
    for a in grid(*within, 60):
        least = truth(slopes, case, a)
        assert curve.lower(a) - blur(case, least) <= least <= curve.lower(a) + 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("within", [(-0.3, 0.4), (0.6, 1.5)])
def test_rows_over_inputs_and_slopes_are_below_the_atoms(kind: str, within: tuple[float, float]) -> None:
    """On boxes, their halves and quarters, with lines taken off: where the slope is a coordinate and an output too."""
    plain, network, case = question(kind, 3, size=0.5)
    slopes, line = Slopes.of(network, plain.nodes), Line(0.7, -1.3)
    search = box_search(slopes, case, [Stretch(0, *within)], [line], 0.0, 1 << 28, lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    boxes = search.open_boxes()
    for side in (network.input_size, 0, network.input_size):
        found = search.bounder(boxes, torch.ones(len(boxes), 2, dtype=torch.bool), None)
        for _ in range(50):
            share = torch.rand(boxes.lower.shape, generator=generator, dtype=torch.float64)
            share = torch.where(share < 0.2, 0.0, torch.where(share > 0.8, 1.0, share))
            at = boxes.lower + share * (boxes.upper - boxes.lower)
            atoms = values(slopes, case, at) - (line.level + line.rate * at[:, -1:])
            scale = 1e-9 * (1 + atoms.abs().amax())
            assert bool((found.atoms <= atoms + scale).all())
            for rows in found.rows:
                corner = torch.where(rows.slopes > 0, boxes.lower.unsqueeze(1), boxes.upper.unsqueeze(1))
                rise = (rows.slopes * (at.unsqueeze(1) - corner)).sum(-1)
                assert bool(((rows.floors + rise <= atoms + scale) | torch.isinf(rows.floors)).all())
        known = replace(boxes, atoms=found.atoms, signs=found.signs)
        boxes = Boxes.joined(list(known.halves(torch.full((len(known),), side))))


def test_at_a_point_rows_over_inputs_and_slopes_are_the_atoms_less_the_line() -> None:
    slopes, case = tiny(0, (0, 1, 1))
    x, line = case.region.lower, Line(0.7, -1.3)
    point = Case(Box(x, x), case.unsafe)
    search = box_search(slopes, point, [Stretch(0, 0.2, 0.2)], [line], 0.0, 1 << 28, lambda *_: None)
    boxes = search.open_boxes()
    found = search.bounder(boxes, torch.ones(len(boxes), 2, dtype=torch.bool), None)
    atoms = values(slopes, point, boxes.lower) - (line.level + line.rate * 0.2)
    assert bool((found.atoms <= atoms + 1e-12).all())
    assert torch.allclose(found.atoms, atoms, rtol=1e-9, atol=1e-9)


def test_rows_over_inputs_and_slopes_fall_with_the_slope_as_far_as_a_neuron_does() -> None:
    """At ``x = -1`` the neuron is ``-a``: over the slopes of a box its bound has nothing to spare."""
    draft, one = Draft(0), torch.ones(1, 1, dtype=torch.float64)
    network = draft.network(draft.add(leaky_relu(0.25), draft.add(Linear(one, None), draft.input(1, 1))))
    passes = SlopePasses(Slopes.of(network), 1 << 28)
    box: Any = Box(torch.tensor([[-1.0, 0.25]], dtype=torch.float64), torch.tensor([[-1.0, 0.75]], dtype=torch.float64))
    _, floors = passes.rows(passes.opened(box, {}, None), rows_on_outputs(network, one[None]))
    assert -0.75 - 1e-9 <= float(floors) <= -0.75


def test_both_parts_of_a_segment_that_is_cut_keep_its_chord() -> None:
    part = _Part(0, Segment(0.0, 1.0, (1.0, 2.0), (3.0, 4.0)))
    curve: Any = SimpleNamespace(traced=[SimpleNamespace(attained={})], parts=[part])
    first, last = Raising._cut(curve, part, 0.25, 2.5, torch.zeros(1))
    assert (first.segment.lower, last.segment.lower) == (
        (1.0, part.segment.chord.at(0.25)),
        (part.segment.chord.at(0.25), 2.0),
    )
    assert part.segment.chord.at(0.25) <= 1.25
    assert (first.segment.upper, last.segment.upper) == ((3.0, 2.5), (2.5, 4.0))
    assert curve.parts == [first, last]


def values(slopes: Slopes, case: Case, at: Tensor) -> Tensor:
    """The atoms ``(batch, atoms)`` at inputs with slopes behind them."""
    return case.unsafe.atoms(slopes.at(at[:, -1]).flat(at[:, :-1]))


# ---- neurons ----


@pytest.mark.parametrize("within", [(0.0, 0.3), (-0.5, 0.1), (0.9, 1.3)])
@pytest.mark.parametrize("seed", range(2))
def test_splitting_neurons_proves_and_refutes_what_is_true(seed: int, within: tuple[float, float]) -> None:
    slopes, case = tiny(seed, (0, 1, 1))
    lo, hi = within
    least = min(truth(slopes, case, a) for a in grid(lo, hi, 10))
    for by in (-0.02, 0.02):
        part = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + least + by))
        found = split_neurons(slopes, part, lo, hi, Limits(4000))
        assert found.lower <= -by + 1e-12
        if found.proved:
            assert by < 0
        if found.found is not None:
            a, upper, x = found.found
            assert bool(part.region.contains(x.unsqueeze(0)).all())
            assert float(part.unsafe.margin(slopes.at(a).flat(x.unsqueeze(0)))) <= upper < 0


def test_splitting_neurons_decides_what_lines_leave_open() -> None:
    slopes, case = tiny(2)
    lo, hi = 0.1, 0.105
    least = min(truth(slopes, case, a) for a in grid(lo, hi))
    part = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + least - 0.01))
    plain = lt.leak(slopes.network, Property((part,)), (lo, hi), engine="crown", tolerance=10.0).curve
    assert plain is not None
    assert plain.proved_up_to is None or plain.proved_up_to < hi
    assert split_neurons(slopes, part, lo, hi, Limits(20_000)).proved


@pytest.mark.parametrize("kind", KINDS)
def test_of_more_inputs_no_sample_is_below_what_splitting_neurons_proves(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "FEW_INPUTS", 0)
    plain, network, case = question(kind, 7, size=0.3)
    result = lt.leak(network, Property((case,)), (-0.2, 0.5), engine="branch", nodes=plain.nodes, timeout=1)
    assert result.curve is not None
    assert_nothing_is_below(plain, case, result.curve, -0.2, 0.5)


def test_at_a_single_slope_neurons_are_split_through_all_stages() -> None:
    slopes, case = tiny(2, (0, 1, 1))
    part = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + truth(slopes, case, 0.2) - 1e-3))
    assert split_neurons(slopes, part, 0.2, 0.2, Limits()).proved


# ---- what is asked, and what is left of spans ----


def test_branching_wants_one_slope_for_all_and_something_to_branch_on() -> None:
    _, network, case = question("fully_connected", 0)
    with pytest.raises(UsageError, match="share"):
        lt.leak(network, Property((case,)), (0.0, 0.3), engine="branch", meaning="independent")


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("place", ["boxes", "neurons", "raised"])
def test_what_was_closed_before_ctrl_c_stands(place: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from leaktight.verify.leak import raised
    from leaktight.verify.search.bisect import Bisection

    slopes, case = tiny(0, (0, 1, 1))
    within = (0.0, 0.3)
    case, tolerance = moved(slopes, case, within), 0.01 if place == "raised" else 10.0
    calls = iter(range(10**6))

    def interrupting(real: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if next(calls) == after:
                raise KeyboardInterrupt
            return real(*given, **named)

        return call

    if place == "boxes":
        monkeypatch.setattr(Bisection, "_treated", interrupting(Bisection._treated))
    elif place == "raised":
        monkeypatch.setattr(raised.Raising, "_proved", interrupting(raised.Raising._proved))
    else:
        monkeypatch.setattr(signs, "FEW_INPUTS", 0)
        monkeypatch.setattr(signs, "split_neurons", interrupting(split_neurons))
    result = lt.leak(slopes.network, Property((case,)), within, engine="branch", tolerance=tolerance)
    assert result.interrupted
    assert result.curve is not None
    assert (result.curve.segments[0].lo, result.curve.segments[-1].hi) == within
    assert_signs_are_true(slopes, case, result.curve, within)


def test_spans_are_joined_and_taken_out() -> None:
    whole = Span(0.0, 1.0)
    assert without(whole, []) == [whole]
    assert without(whole, [Span(0.2, 0.4), Span(0.3, 0.5), Span(0.9, 2.0)]) == [Span(0.0, 0.2), Span(0.5, 0.9)]
    assert without(whole, [Span(-1.0, 3.0)]) == []
    assert without(whole, [Span(0.4, 0.4)]) == [Span(0.0, 0.4), Span(0.4, 1.0)]
    assert without(Span(0.5, 0.5), [Span(0.6, 0.7)]) == [Span(0.5, 0.5)]
    assert without(Span(0.5, 0.5), [Span(0.5, 0.7)]) == []
    assert joined([(0.1, 0.3, 1.0), (0.3005, 0.4, 1.0)]) == [Span(0.1, 0.3), Span(0.3005, 0.4)]
    assert joined([(0.5, 0.6, 1.0), (0.1, 0.3, 2.0), (0.3, 0.4, 3.0)]) == [Span(0.1, 0.4), Span(0.5, 0.6)]


def test_many_regions_are_searched_together() -> None:
    slopes, case = tiny(0, (0, 1, 1))
    within = (0.0, 0.3)
    one = moved(slopes, case, within, 0.2)
    shifts = torch.tensor([[0.0], [0.05], [-5.0]], dtype=torch.float64)
    several = Case(
        Box(one.region.lower.repeat(3, 1), one.region.upper.repeat(3, 1)),
        replace(one.unsafe, weights=one.unsafe.weights.repeat(3, 1, 1), bounds=one.unsafe.bounds + shifts),
    )
    plan = lt.leak(slopes.network, Property((several,)), within, engine="branch", tolerance=10.0).curve
    assert plan is not None
    for i in range(3):
        single = Case(several.region.select(slice(i, i + 1)), several.unsafe.select(slice(i, i + 1)))
        for a in grid(*within, 8):
            least = truth(slopes, single, a)
            assert plan.lower(a) <= least + blur(single, least)


# ---- what is told of pieces of a curve, and what is searched beside a span ----


def test_boxes_beside_a_span_are_all_that_lies_outside_of_it() -> None:
    slopes, case = tiny(0, (0, 1, 1))
    several = Case(Box(case.region.lower.repeat(2, 1), case.region.upper.repeat(2, 1)), case.unsafe)
    stretches = [Stretch(0, 0.0, 1.0), Stretch(1, 0.0, 1.0)]
    search = box_search(slopes, several, stretches, [Line()] * 2, 0.0, 1 << 28, lambda *_: None)
    boxes = search.open_boxes()
    mine = boxes.owner == 0

    def left(span: Span) -> list[tuple[int, float, float]]:
        found = _beside(boxes, mine, span)
        return sorted(zip(found.owner.tolist(), found.lower[:, -1].tolist(), found.upper[:, -1].tolist(), strict=True))

    other = (1, 0.0, 1.0)
    assert left(Span(0.25, 0.5)) == [(0, 0.0, 0.25), (0, 0.5, 1.0), other]
    assert left(Span(0.0, 0.5)) == [(0, 0.5, 1.0), other]
    assert left(Span(0.0005, 2.0)) == [(0, 0.0, 0.0005), other]
    assert left(Span(-1.0, 2.0)) == [other]


def test_pieces_of_a_curve_are_told_what_holds_on_all_of_them() -> None:
    segment = Segment(0.0, 1.0, (-1.0, 1.0), (2.0, 2.0))
    pieces = told._cut(segment, [0.25, 0.75], {})
    assert [(s.lo, s.hi, s.lower) for s in pieces] == [
        (0.0, 0.25, (-1.0, pieces[0].lower[1])),
        (0.25, 0.75, pieces[1].lower),
        (0.75, 1.0, (pieces[1].lower[1], 1.0)),
    ]
    for piece in pieces:
        for a, low in zip((piece.lo, piece.hi), piece.lower, strict=True):
            assert 2 * a - 1 - 1e-12 <= low <= 2 * a - 1
    for lo, hi, holds in ((0.25, 0.75, True), (0.0, 1.0, True), (0.2505, 0.75, False), (0.25, 0.7495, False)):
        assert told._on(pieces[1], Answers(proved=[(lo, hi, 0.5)])).proved == holds
        assert told._on(pieces[1], Answers(refuted=[(lo, hi, -0.5)])).refuted == holds


def test_what_was_refuted_before_stands_when_the_time_is_up() -> None:
    slopes, case = tiny(0, (0, 1, 1))
    case = moved(slopes, case, (0.0, 0.3))
    tracer = _Tracer(slopes, case, 0.0, 0.3, Plan(tolerance=10.0))
    tracer.begin()
    (first,) = tracer.curves(False)
    before = joined(refuted_spans(first.segments))
    assert before, "nothing is refuted"
    tracer.plan = replace(tracer.plan, deadline=0.0)
    (late,) = tracer.curves(False)
    assert joined(refuted_spans(late.segments)) == before
    for s in late.segments:
        assert not s.refuted or truth(slopes, case, s.lo) < 0 > truth(slopes, case, s.hi)


def test_a_proof_that_is_not_complete_closes_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a segment: all domains are proved, and above zero."""
    from leaktight.verify.leak.joint_neurons import Split

    slopes, case = tiny(0, (0, 1, 1))
    monkeypatch.setattr(signs, "FEW_INPUTS", 0)
    for lower, proved in ((-0.0005, True), (0.0, True), (1.0, False)):
        told = Split(lower, proved, None, 1)
        monkeypatch.setattr(signs, "split_neurons", lambda *_, told=told, **__: told)
        part = moved(slopes, case, (0.0, 0.3))
        curve = lt.leak(
            slopes.network, Property((part,)), (0.0, 0.3), engine="branch", tolerance=10.0, timeout=20
        ).curve
        assert curve is not None
        assert_signs_are_true(slopes, part, curve, (0.0, 0.3))
        assert curve.open


def test_atoms_over_a_segment_are_below_what_inputs_attain() -> None:
    """Next to a point there is nothing to lose: the bound is the value, to nine digits."""
    from leaktight.verify.leak.effort import Effort
    from leaktight.verify.leak.joint_neurons import _atoms, _concluded
    from leaktight.verify.leak.lines import refined
    from leaktight.verify.leak.parametric import Parametric
    from leaktight.verify.search.outcome import Searched
    from leaktight.verify.verdict import Counterexample

    slopes, case = tiny(3, (0, 1, 1))
    x = case.region.lower / 2 + case.region.upper / 2
    part, a = Case(Box(x, x), case.unsafe), torch.tensor([0.2], dtype=torch.float64)
    with torch.no_grad():
        found = _atoms(refined(Parametric, slopes, part.region, a, a, Effort(), None), part)
    value = part.unsafe.atoms(slopes.at(0.2).flat(x))
    assert bool((found <= value + 1e-12).all())
    assert torch.allclose(found, value, rtol=1e-9, atol=1e-9)
    for margin, unsafe in ((0.0005, False), (-0.0005, True)):
        bounds = part.unsafe.bounds + part.unsafe.combine(value) - margin
        moved_ = Case(part.region, replace(part.unsafe, bounds=bounds))
        point = Counterexample({}, {}, x[0].numpy(), margin)
        told = _concluded(slopes, moved_, found, 0.2, Searched(-1.0, False, point, margin, 1))
        assert (told.found is not None) == unsafe
