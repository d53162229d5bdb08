"""Curves of chords, in rational arithmetic: nothing that is claimed of a slope is above what the chords say there."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.leak.curve import Chord, Segment, equal_parts, lowest, proved_up_to, undecided
from leaktight.verify.leak.margin import combined
from leaktight.verify.leak.segments import Lines
from leaktight.verify.leak.shift import shift

VALUES = st.floats(-100, 100) | st.sampled_from([0.0, -0.0, 1e-300, -1e-300, 5e-324, 1e-12])
WILD = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)


def between(lo: float, hi: float, share: float) -> float:
    return min(max(lo + share * (hi - lo), lo), hi)


def exact(chord: Chord, a: float) -> Fraction:
    """The chord's value without rounding; of a point, its lower end."""
    if chord.lo == chord.hi:
        return Fraction(min(chord.at_lo, chord.at_hi))
    lo, hi, low, high = map(Fraction, (chord.lo, chord.hi, chord.at_lo, chord.at_hi))
    return low + (Fraction(a) - lo) / (hi - lo) * (high - low)


def slopes_of(chords: list[Chord], shares: list[float]) -> list[float]:
    """Slopes to look at: ends, their neighbours, and some in between."""
    lo, hi = chords[0].lo, chords[-1].hi
    ends = {end for chord in chords for end in (chord.lo, chord.hi)}
    near = {nextafter(end, way) for end in ends for way in (-inf, inf)}
    return sorted(a for a in ends | near | {between(lo, hi, share) for share in shares} if lo <= a <= hi)


@st.composite
def curves(draw: st.DrawFn, lo: float = -1.0, hi: float = 2.0) -> list[Chord]:
    """Chords that cover a range without gaps; they need not meet."""
    inner = draw(st.lists(st.floats(lo, hi), max_size=4))
    ends = sorted({lo, *inner, hi})
    return [Chord(a, b, draw(VALUES), draw(VALUES)) for a, b in pairwise(ends)]


def segments_of(chords: list[Chord], throughout: list[float]) -> list[Segment]:
    return [Segment(c.lo, c.hi, (c.at_lo, c.at_hi), throughout=t) for c, t in zip(chords, throughout, strict=False)]


@given(st.lists(WILD, min_size=2, max_size=2, unique=True).map(sorted), WILD, WILD, SHARES)
def test_a_chord_is_never_evaluated_above_its_value(ends: list[float], low: float, high: float, share: float) -> None:
    chord = Chord(ends[0], ends[1], low, high)
    for a in slopes_of([chord], [share]):
        value = chord.at(a)
        assert value == -inf or Fraction(value) <= exact(chord, a)


@given(VALUES, VALUES, SHARES)
def test_a_chord_is_evaluated_tightly(low: float, high: float, share: float) -> None:
    chord = Chord(-1.0, 0.3, low, high)
    assert chord.at(-1.0) == low
    assert chord.at(0.3) == high
    a = between(-1.0, 0.3, share)
    assert chord.at(a) == pytest.approx(float(exact(chord, a)), abs=1e-12)


def test_a_chord_to_an_unknown_end_says_nothing_in_between() -> None:
    chord = Chord(0.0, 1.0, 3.0, -inf)
    assert (chord.at(0.0), chord.at(0.5), chord.at(1.0)) == (3.0, -inf, -inf)


@given(st.lists(curves(), min_size=1, max_size=4), st.lists(SHARES, max_size=4))
def test_the_lowest_curve_is_below_all_and_touches_one(many: list[list[Chord]], shares: list[float]) -> None:
    found = lowest([chord for one in many for chord in one])
    assert (found[0].lo, found[-1].hi) == (-1.0, 2.0)
    assert all(first.hi == second.lo for first, second in pairwise(found))
    for chord in found:
        over = [c for one in many for c in one if c.lo <= chord.lo and chord.hi <= c.hi]
        assert len(over) == len(many)
        for a in slopes_of([chord], shares):
            assert all(exact(chord, a) <= exact(c, a) for c in over)
        for a, value in ((chord.lo, chord.at_lo), (chord.hi, chord.at_hi)):
            assert value == pytest.approx(float(min(exact(c, a) for c in over)), abs=1e-12)


@given(curves())
def test_one_curve_is_its_own_lowest(chords: list[Chord]) -> None:
    assert lowest(chords) == chords


def test_the_lowest_of_points_is_a_point() -> None:
    assert lowest([Chord(0.1, 0.1, 2.0, 2.0), Chord(0.1, 0.1, 1.0, 1.0)]) == [Chord(0.1, 0.1, 1.0, 1.0)]


@given(curves(), st.lists(SHARES, max_size=4))
def test_up_to_the_proved_slope_every_chord_is_positive(chords: list[Chord], shares: list[float]) -> None:
    reached = proved_up_to(segments_of(chords, [inf] * len(chords)))
    if reached is None:
        assert chords[0].at_lo <= 0
        return
    assert -1.0 <= reached <= 2.0
    for chord in chords:
        for a in [*slopes_of([chord], shares), reached]:
            # at a slope where two chords meet, the one before it speaks for it as well
            if chord.lo <= a <= chord.hi and a <= reached and (chord.lo < reached or chord is chords[0]):
                assert exact(chord, a) > 0
    # and it is the largest, up to rounding: just behind it some chord, at one of its ends or beyond, is not above zero
    beyond = reached + 1e-9
    behind = [(chord, max(chord.lo, reached), min(chord.hi, beyond)) for chord in chords]
    assert reached == 2.0 or any(min(exact(c, lo), exact(c, hi)) <= 1e-9 for c, lo, hi in behind if lo <= hi)


@given(curves(), st.lists(st.sampled_from([inf, 1.0, 0.0, -1e-300, -2.0]), min_size=5, max_size=5), st.lists(SHARES))
def test_slopes_that_are_not_open_are_proved_or_refuted(
    chords: list[Chord], throughout: list[float], shares: list[float]
) -> None:
    segments = segments_of(chords, throughout)
    found = undecided(segments)
    assert all(-1 <= lo <= hi <= 2 for lo, hi in found)
    assert all(first[1] < second[0] for first, second in pairwise(found))
    for segment in segments:
        for a in slopes_of([segment.chord], shares):
            positive = exact(segment.chord, a) > 0
            inside = any(lo <= a <= hi for lo, hi in found)
            assert inside or positive or segment.throughout < 0
            deep = any(lo + 1e-9 < a < hi - 1e-9 for lo, hi in found)
            if deep and segment.lo < a < segment.hi:
                assert exact(segment.chord, a) <= 1e-9
                assert segment.throughout >= 0


def test_an_unknown_end_leaves_its_whole_segment_open() -> None:
    segments = [Segment(0.0, 1.0, (3.0, -inf)), Segment(1.0, 2.0, (-inf, -inf)), Segment(2.0, 3.0, (1.0, 2.0))]
    assert proved_up_to(segments) == 0.0
    assert undecided(segments) == [[0.0, 2.0]]
    assert proved_up_to(segments[1:]) is None
    assert proved_up_to(segments[2:]) == 3.0


@given(WILD, WILD, st.integers(1, 20))
def test_equal_parts_rise_strictly_and_cover_the_range(first: float, second: float, count: int) -> None:
    lo, hi = sorted([first, second])
    ends = equal_parts(lo, hi, count)
    assert (ends[0], ends[-1]) == (lo, hi)
    assert 2 <= len(ends) <= count + 1
    assert lo == hi or all(a < b for a, b in pairwise(ends))


def test_a_range_of_two_neighbouring_floats_is_one_part() -> None:
    assert equal_parts(0.1, nextafter(0.1, 1), 4) == [0.1, nextafter(0.1, 1)]
    assert equal_parts(0.1, 0.1, 4) == [0.1, 0.1]


@given(st.data())
def test_lines_of_a_margin_are_below_the_smallest_of_the_largest_lines(data: st.DataObject) -> None:
    """Of every disjunct the largest line counts, of all disjuncts the smallest; the chord is below it everywhere."""
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    disjunct = [i for i, size in enumerate(sizes) for _ in range(size)]
    values = st.floats(-10, 10) | st.just(-inf)
    ends = [(data.draw(values), data.draw(values)) for _ in disjunct]
    low, high = (torch.tensor([column], dtype=torch.float64) for column in zip(*ends, strict=True))
    found = combined(conditions(disjunct), Lines(low, high, torch.zeros_like(low)))
    chord = Chord(0.0, 1.0, float(found.at_lo), float(found.at_hi))
    if -inf in (chord.at_lo, chord.at_hi):
        return
    for share in (0.0, 0.25, data.draw(SHARES), 1.0):
        atoms = [
            None if -inf in pair else Fraction(pair[0]) + Fraction(share) * (Fraction(pair[1]) - Fraction(pair[0]))
            for pair in ends
        ]
        known = [[a for a, k in zip(atoms, disjunct, strict=True) if k == i and a is not None] for i in set(disjunct)]
        assert all(known)  # where a disjunct has no line, nothing finite may come out
        assert exact(chord, share) <= min(max(own) for own in known)


def conditions(disjunct: list[int]) -> Unsafe:
    many = len(disjunct)
    return Unsafe(torch.ones(1, many, 1).double(), torch.zeros(1, many).double(), torch.tensor(disjunct).long())


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_of_a_conjunction_the_line_with_the_highest_lower_end_is_taken() -> None:
    """The ends of different lines would make a chord that neither line supports: here one of 3, above both at 1/2."""
    lines = Lines(row(3.0, -1.0, 1.0), row(-1.0, 3.0, 1.0), row(0.0, 0.0, 0.5))
    found = combined(conditions([0, 0, 0]), lines)
    assert (float(found.at_lo), float(found.at_hi), float(found.loss)) == (1.0, 1.0, 0.5)
    apart = combined(conditions([0, 1, 2]), lines)
    assert (float(apart.at_lo), float(apart.at_hi)) == (-1.0, -1.0)


def test_a_property_that_forbids_nothing_has_an_infinite_margin() -> None:
    empty = Unsafe(torch.zeros(1, 0, 1).double(), torch.zeros(1, 0).double(), torch.zeros(0).long())
    found = combined(empty, Lines(*(torch.zeros(2, 0).double() for _ in range(3))))
    assert found.at_lo.tolist() == found.at_hi.tolist() == [inf, inf]


@given(curves(), st.floats(-5, 5), st.floats(0, 3), st.floats(0, 3), st.lists(SHARES, max_size=3))
def test_the_shift_of_a_known_margin_lies_in_every_level(
    chords: list[Chord], rate: float, below: float, above: float, shares: list[float]
) -> None:
    """Of the margin ``rate a``, bounded from below and above with some slack."""
    ends = [(c.lo, c.hi) for c in chords]
    segments = [
        Segment(lo, hi, (lo * rate - below, hi * rate - below), (lo * rate + above, hi * rate + above))
        for lo, hi in ends
    ]
    segments = [
        Segment(s.lo, s.hi, tuple(nextafter(v, -inf) for v in s.lower), tuple(nextafter(v, inf) for v in s.upper),  # type: ignore[arg-type]
                nextafter(max(s.upper), inf)) for s in segments
    ]  # fmt: skip
    found = shift(segments, abs(rate), (rate - below, rate + above), (-1.0, 2.0))
    low, high = found.change
    assert Fraction(low) <= 3 * Fraction(rate) <= Fraction(high)
    assert high - low <= min(6 * abs(rate), 3 * (below + above), 2 * (below + above)) + 1e-9
    for (lo, hi), (least, most) in found.parametric:
        for a in slopes_of([Chord(lo, hi, 0.0, 0.0)], shares):
            assert Fraction(least) <= (Fraction(a) + 1) * Fraction(rate) <= Fraction(most)


@given(st.floats(-1e3, 1e3), st.floats(-3, 3), st.floats(0, 3))
def test_rates_of_either_sign_are_multiplied_outwards(rate: float, lo: float, width: float) -> None:
    hi = lo + width
    unknown = [Segment(lo, hi, (-inf, -inf))]
    low, high = shift(unknown, inf, (rate, rate), (lo, hi)).change
    true = Fraction(rate) * (Fraction(hi) - Fraction(lo))
    assert Fraction(low) <= true <= Fraction(high)
    assert high - low <= 1e-14 * (1 + abs(float(true)))


def test_levels_that_exclude_each_other_are_an_internal_error() -> None:
    segments = [Segment(0.0, 1.0, (0.0, 5.0), (0.0, 6.0), 6.0)]
    assert shift(segments, 7.0, (4.0, 9.0), (0.0, 1.0)).change == pytest.approx((5.0, 6.0))
    with pytest.raises(InternalError, match="exclude each other"):
        shift(segments, 2.0, (-9.0, 9.0), (0.0, 1.0))
    with pytest.raises(InternalError, match="exclude each other"):
        shift(segments, 9.0, (7.0, 9.0), (0.0, 1.0))


def test_levels_that_say_nothing_are_null_in_the_document() -> None:
    found = shift([Segment(0.0, 1.0, (-inf, -inf))], inf, (-inf, inf), (0.0, 1.0)).to_json()
    assert found["closed_form"] is None
    assert found["local"] is None
    assert found["change"] is None
    one = shift([Segment(0.0, 1.0, (2.0, -inf), (3.0, 4.0), 5.0)], 7.0, (-inf, inf), (0.0, 1.0))
    assert one.change == pytest.approx((-7.0, 2.0))
    assert one.to_json()["parametric"] is None


def test_at_a_range_of_width_zero_nothing_shifts() -> None:
    found = shift([Segment(0.3, 0.3, (1.0, 1.0), (2.0, 2.0), 2.0)], 100.0, (-50.0, -40.0), (0.3, 0.3))
    assert found.change == pytest.approx((0.0, 0.0), abs=1e-300)
    assert found.change[0] <= 0 <= found.change[1]
