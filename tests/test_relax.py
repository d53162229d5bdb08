"""Lines and images of every activation, in exact rational arithmetic (piecewise linear) or with 50 digits (smooth)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from random import Random

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from leaktight.errors import MissingRule
from leaktight.models.ops import Clip, Elementwise, Input, Maximum, Op, Sigmoid, Tanh, TwoSlope, leaky_relu
from leaktight.verify import relax
from leaktight.verify.relax import Lines

Ends = tuple[float, float]
Exact = Callable[[Fraction], Fraction]
DTYPES = (torch.float64, torch.float32)
often = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
dtypes = st.sampled_from(DTYPES)
tilts = st.none() | st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-300, 1 - 2.0**-53])
slopes = st.sampled_from([0.0, 1.0, -1.0, 1e-9, -0.3, 0.1, 1 / 3, 1.7, 3.0]) | st.floats(-1e6, 1e6) | st.floats(-2, 3)
offsets = st.sampled_from([0.0, 1.0, -0.1]) | st.floats(-1e6, 1e6)


@st.composite
def intervals(draw: st.DrawFn, most: float = 1e30) -> Ends:
    """Ordinary ones, and those that touch 0, have no width, lie on one side, are huge, tiny or subnormal."""
    size = draw(st.sampled_from([1e-320, 1e-300, 1e-40, 1e-8, 1.0, 10.0, 1e5, 1e30]).filter(lambda s: s <= most))
    ends = [size * draw(st.sampled_from([0.0, -1.0, 1.0]) | st.floats(-1, 1)) for _ in range(2)]
    kind = draw(st.sampled_from(["any", "any", "point", "thin"]))
    if kind == "point":
        ends[1] = ends[0]
    if kind == "thin":
        ends[1] = ends[0] * (1 + 2.0**-50)
    return min(ends), max(ends)


def tensors(dtype: torch.dtype, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """The interval in `dtype`, ``(1,)`` each."""
    return torch.tensor([lower], dtype=torch.float64).to(dtype), torch.tensor([upper], dtype=torch.float64).to(dtype)


def number(x: Tensor) -> Fraction:
    return Fraction(float(x))


def two_slope(left: float, right: float, kink: float, value: float, precision: float = 0.0) -> TwoSlope:
    a, b, c, d = (torch.tensor(p, dtype=torch.float64) for p in (left, right, kink, value))
    return TwoSlope(a, b, c, d, precision)


def exact_two_slope(left: Fraction, right: Fraction, kink: Fraction, value: Fraction) -> Exact:
    return lambda x: value + (right if x >= kink else left) * (x - kink)


def exact_clip(op: Clip) -> Exact:
    return lambda x: min(max(x, Fraction(op.lower)), Fraction(op.upper))


def places(lower: Fraction, upper: Fraction, kinks: Sequence[Fraction]) -> list[Fraction]:
    """The ends, the kinks and points between them: a piecewise linear function is known by these."""
    inner = sorted({lower, upper, *(k for k in kinks if lower <= k <= upper)})
    return [*inner, *(a + (b - a) * share for a, b in pairwise(inner) for share in (Fraction(1, 3), Fraction(1, 2)))]


def assert_lines_hold(lines: Lines, f: Exact, points: Sequence[Fraction]) -> None:
    if all(torch.isfinite(x).all() for x in (lines.lower_slope, lines.lower_offset)):
        slope, offset = number(lines.lower_slope), number(lines.lower_offset)
        assert all(slope * x + offset <= f(x) for x in points)
    else:
        assert not float(lines.lower_offset) > -torch.inf  # what overflowed says nothing
    if all(torch.isfinite(x).all() for x in (lines.upper_slope, lines.upper_offset)):
        slope, offset = number(lines.upper_slope), number(lines.upper_offset)
        assert all(slope * x + offset >= f(x) for x in points)
    else:
        assert not float(lines.upper_offset) < torch.inf


def assert_image_holds(op: Elementwise, lower: Tensor, upper: Tensor, f: Exact, points: Sequence[Fraction]) -> None:
    low, high = relax.image(op, lower, upper)
    assert low.dtype == lower.dtype
    assert float(low) == -torch.inf or all(number(low) <= f(x) for x in points)
    assert float(high) == torch.inf or all(f(x) <= number(high) for x in points)


@often
@given(slopes, slopes, offsets, offsets, intervals(), tilts, dtypes)
def test_lines_and_images_enclose_every_two_slope_activation(
    left: float, right: float, kink: float, value: float, ends: Ends, tilt: float | None, dtype: torch.dtype
) -> None:
    lower, upper = tensors(dtype, *ends)
    op = two_slope(left, right, kink, value)
    f = exact_two_slope(*map(Fraction, (left, right, kink, value)))
    points = places(number(lower), number(upper), [Fraction(kink)])
    turn = None if tilt is None else torch.tensor([tilt], dtype=dtype)
    assert_lines_hold(relax.envelope(op, lower, upper, turn), f, points)
    assert_image_holds(op, lower, upper, f, points)


@often
@given(slopes, intervals(), tilts, dtypes)
def test_lines_and_images_enclose_the_leaky_relu_of_any_slope(
    slope: float, ends: Ends, tilt: float | None, dtype: torch.dtype
) -> None:
    lower, upper = tensors(dtype, *ends)
    f = exact_two_slope(Fraction(slope), Fraction(1), Fraction(0), Fraction(0))
    points = places(number(lower), number(upper), [Fraction(0)])
    turn = None if tilt is None else torch.tensor([tilt], dtype=dtype)
    assert_lines_hold(relax.envelope(leaky_relu(slope), lower, upper, turn), f, points)
    assert_image_holds(leaky_relu(slope), lower, upper, f, points)


@pytest.mark.parametrize("slope", [5e-324, 1e-310])
def test_slopes_that_have_lost_digits_are_rounded_outwards_too(slope: float) -> None:
    ends = -1e300 * torch.rand(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = relax.image(leaky_relu(slope), *ends.expand(-1, 2).unbind(1))
    for end, least, most in zip(ends.flatten().tolist(), low.tolist(), high.tolist(), strict=True):
        assert Fraction(least) <= Fraction(slope) * Fraction(end) <= Fraction(most)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.1, 1 / 3, 0.9, 1 - 2.0**-53, 1.0])
def test_images_of_the_leaky_relu_are_rounded_outwards_where_they_round_at_all(slope: float) -> None:
    ends = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(1).values
    low, high = relax.image(leaky_relu(slope), *ends.unbind(1))
    f = exact_two_slope(Fraction(slope), Fraction(1), Fraction(0), Fraction(0))
    for (lower, upper), least, most in zip(ends.tolist(), low.tolist(), high.tolist(), strict=True):
        assert Fraction(least) <= f(Fraction(lower))
        assert Fraction(most) >= f(Fraction(upper))
        assert least == lower or lower < 0 < slope < 1 or least == slope == 0
        assert most == upper or upper < 0 < slope < 1 or most == slope == 0


@often
@given(
    st.tuples(slopes, slopes, offsets, offsets),
    intervals(),
    tilts,
    dtypes,
    st.sampled_from([1e-15, 1e-6, 1e-3]),
    st.booleans(),
)
def test_lines_hold_for_every_parameter_within_the_precision(
    stored: tuple[float, float, float, float],
    ends: Ends,
    tilt: float | None,
    dtype: torch.dtype,
    precision: float,
    near: bool,
) -> None:
    kink = stored[2]
    if near and kink:  # an interval that ends beside an uncertain kink
        ends = min(kink, kink + ends[0]), max(kink, kink + ends[0])
    lower, upper = tensors(dtype, *ends)
    op = two_slope(*stored, precision)
    turn = None if tilt is None else torch.tensor([tilt], dtype=dtype)
    lines = relax.envelope(op, lower, upper, turn)
    for signs in product((-1, 1), repeat=4):
        off = [1 + sign * Fraction(precision) for sign in signs]
        left, right, at, value = (Fraction(p) * factor for p, factor in zip(stored, off, strict=True))
        f, points = exact_two_slope(left, right, at, value), places(number(lower), number(upper), [at])
        assert_lines_hold(lines, f, points)
        assert_image_holds(op, lower, upper, f, points)


@often
@given(intervals(), intervals(1e5), tilts, dtypes)
def test_lines_and_images_enclose_every_clip(ends: Ends, limits: Ends, tilt: float | None, dtype: torch.dtype) -> None:
    lower, upper = tensors(dtype, *ends)
    op = Clip(*limits)
    points = places(number(lower), number(upper), [Fraction(x) for x in limits])
    turn = None if tilt is None else torch.tensor([tilt], dtype=dtype)
    assert_lines_hold(relax.envelope(op, lower, upper, turn), exact_clip(op), points)
    assert_image_holds(op, lower, upper, exact_clip(op), points)


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=repr)
@settings(max_examples=150, deadline=None)
@given(intervals(), dtypes)
def test_lines_and_images_enclose_the_smooth_activations_to_fifty_digits(
    op: Elementwise, ends: Ends, dtype: torch.dtype
) -> None:
    lower, upper = tensors(dtype, *ends)
    lines, (low, high) = relax.envelope(op, lower, upper), relax.image(op, lower, upper)
    with mpmath.workdps(50):
        first, last = mpmath.mpf(float(lower)), mpmath.mpf(float(upper))
        points = [first + (last - first) * k / 24 for k in range(25)]
        for slope in (lines.lower_slope, lines.upper_slope):  # where the graph minus a line turns back
            points += [x for x in stationary(op, float(slope)) if first <= x <= last]
        for x in points:
            value = mpmath.tanh(x) if isinstance(op, Tanh) else 1 / (1 + mpmath.exp(-x))
            assert float(lines.lower_slope) * x + float(lines.lower_offset) <= value
            assert float(lines.upper_slope) * x + float(lines.upper_offset) >= value
            assert float(low) <= value <= float(high)


def stationary(op: Op, slope: float) -> list[mpmath.mpf]:
    """Where the derivative of sigmoid or tanh is `slope`, to 50 digits."""
    most = mpmath.mpf(1) / (1 if isinstance(op, Tanh) else 4)
    if not 0 < slope <= most:
        return []
    root = mpmath.sqrt(1 - slope / most)
    if root == 1:
        return []
    x = mpmath.atanh(root) * (1 if isinstance(op, Tanh) else 2)
    return [x, -x]


@settings(max_examples=150, deadline=None)
@given(st.lists(intervals(), min_size=1, max_size=4), dtypes, st.randoms(use_true_random=False))
def test_lines_enclose_the_maximum(boxes: list[Ends], dtype: torch.dtype, random: Random) -> None:
    lower, upper = (torch.tensor([[box[i] for box in boxes]], dtype=torch.float64).to(dtype) for i in (0, 1))
    lines = relax.maximum_lines(lower, upper)
    ends = [(number(a), number(b)) for a, b in zip(lower[0], upper[0], strict=True)]
    corners = list(product(*ends)) + [
        tuple(a + (b - a) * Fraction(random.random()) for a, b in ends) for _ in range(20)
    ]
    slope, offset = number(lines.upper_slope[0]), number(lines.upper_offset[0])
    for x in corners:
        assert x[int(lines.lower_at[0])] <= max(x) <= slope * x[int(lines.upper_at[0])] + offset


# ---- tightness: what makes the lines good ----


@dataclass(frozen=True)
class Crossing:
    """An activation on an interval that holds its kink, and whether it is convex there."""

    op: TwoSlope
    lower: float
    upper: float
    convex: bool


CROSSINGS = [
    Crossing(two_slope(left, right, kink, value), kink - below, kink + above, right >= left)
    for left, right in ((0.0, 1.0), (0.1, 1.0), (-1.0, 1.0), (-2.0, 1.0), (1.7, 1.0), (3.0, 1.0), (0.5, -0.25))
    for kink, value in ((0.0, 0.0), (0.75, -1.5))
    for below, above in ((1.0, 2.0), (2.0, 1.0), (1e-3, 5.0), (30.0, 1e-2))
]


@pytest.mark.parametrize("tilt", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("crossing", CROSSINGS, ids=repr)
def test_the_chord_meets_the_graph_at_both_ends_and_the_ray_at_the_kink(crossing: Crossing, tilt: float | None) -> None:
    op, (lower, upper) = crossing.op, tensors(torch.float64, crossing.lower, crossing.upper)
    lines = relax.envelope(op, lower, upper, None if tilt is None else torch.tensor([tilt], dtype=torch.float64))
    low, high = (lines.lower_slope, lines.lower_offset), (lines.upper_slope, lines.upper_offset)
    ray, chord = (low, high) if crossing.convex else (high, low)
    size = 1 + abs(crossing.lower) + abs(crossing.upper)
    for end in (lower, upper):
        assert float(chord[0] * end + chord[1] - op(end)) == pytest.approx(0, abs=1e-12 * size)
    kink = op.kink
    assert float(ray[0] * kink + ray[1] - op(kink)) == pytest.approx(0, abs=1e-12 * size)
    if tilt is not None:
        assert float(ray[0]) == pytest.approx(float(op.left + tilt * (op.right - op.left)), abs=1e-12)


@pytest.mark.parametrize("crossing", CROSSINGS, ids=repr)
def test_the_default_ray_encloses_the_smaller_area(crossing: Crossing) -> None:
    op, (lower, upper) = crossing.op, tensors(torch.float64, crossing.lower, crossing.upper)

    def area(tilt: float | None) -> float:
        turn = None if tilt is None else torch.tensor([tilt], dtype=torch.float64)
        lines, middle = relax.envelope(op, lower, upper, turn), (lower + upper) / 2
        gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_offset - lines.lower_offset
        return float(gap * (upper - lower))

    best = min(area(k / 20) for k in range(21))
    assert area(None) <= best + 1e-9 * (1 + best)
    assert area(float(relax.default_tilt(op, lower, upper))) <= best + 1e-9 * (1 + best)


def widest_gap(op: Elementwise, lower: Tensor, upper: Tensor) -> float:
    """How far the two lines lie apart, at most."""
    lines = relax.envelope(op, lower, upper)
    slope, offset = lines.upper_slope - lines.lower_slope, lines.upper_offset - lines.lower_offset
    return max(float(slope * end + offset) for end in (lower, upper))


PIECEWISE = [leaky_relu(0.1), leaky_relu(-2.0), two_slope(0.3, 2.0, 0.5, 1.0), Clip(-1.0, 2.0)]
ENDS = [(0.2, 0.2), (-0.7, -0.7), (0.0, 0.0), (0.6, 1.9), (-0.9, -0.1), (-1.0, 0.0), (0.5, 3.0)]


@pytest.mark.parametrize("op", PIECEWISE, ids=repr)
@pytest.mark.parametrize("ends", ENDS)
def test_where_the_activation_is_affine_both_lines_are_its_graph(op: Elementwise, ends: Ends) -> None:
    lower, upper = tensors(torch.float64, *ends)
    if bool(relax.is_linear_on(op, lower, upper)) or ends[0] == ends[1]:
        assert widest_gap(op, lower, upper) <= 1e-13
    else:
        assert widest_gap(op, lower, upper) > 1e-3


@pytest.mark.parametrize("op", [leaky_relu(0.1), Clip(-1.0, 2.0)], ids=repr)
def test_the_lines_of_plain_stable_neurons_are_the_identity(op: Elementwise) -> None:
    lines = relax.envelope(op, *tensors(torch.float64, 0.3, 1.7))
    assert [float(x) for x in (lines.lower_slope, lines.upper_slope)] == [1.0, 1.0]
    assert abs(float(lines.lower_offset)) <= 1e-14
    assert abs(float(lines.upper_offset)) <= 1e-14


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=repr)
@pytest.mark.parametrize("ends", [(-1.0, 1.0), (-3.0, 0.5), (0.2, 4.0), (-5.0, -0.1), (-0.01, 6.0), (-1e-4, 1e-4)])
def test_the_lines_of_smooth_activations_touch_the_graph(op: Elementwise, ends: Ends) -> None:
    lower, upper = tensors(torch.float64, *ends)
    lines, x = relax.envelope(op, lower, upper), torch.linspace(*ends, 20001, dtype=torch.float64)
    below = op(x) - (lines.lower_slope * x + lines.lower_offset)
    above = lines.upper_slope * x + lines.upper_offset - op(x)
    assert 0 <= float(below.min()) <= 1e-6 * float(op(upper) - op(lower))
    assert 0 <= float(above.min()) <= 1e-6 * float(op(upper) - op(lower))
    # no looser than the box around the graph
    assert widest_gap(op, lower, upper) <= float(op(upper) - op(lower)) + 1e-9


@pytest.mark.parametrize("limits", [(0.0, 6.0), (-1.0, 1.0)])
@pytest.mark.parametrize("ends", [(-2.0, 3.0), (-3.0, 8.0), (0.5, 7.0), (-9.0, -3.0), (-1.0, 0.4)])
def test_the_lines_of_a_clip_touch_its_graph(limits: Ends, ends: Ends) -> None:
    op, (lower, upper) = Clip(*limits), tensors(torch.float64, *ends)
    lines = relax.envelope(op, lower, upper)
    kinks = torch.tensor(limits, dtype=torch.float64).clamp(*ends)
    x = torch.cat([torch.linspace(*ends, 1001, dtype=torch.float64), kinks])
    assert float((op(x) - (lines.lower_slope * x + lines.lower_offset)).min()) == pytest.approx(0, abs=1e-12)
    assert float((lines.upper_slope * x + lines.upper_offset - op(x)).min()) == pytest.approx(0, abs=1e-12)


def test_the_maximum_is_exact_where_one_entry_dominates() -> None:
    lines = relax.maximum_lines(*(torch.tensor([x], dtype=torch.float64) for x in ([0.0, 2.0, -1.0], [1.0, 3.0, 1.5])))
    assert (int(lines.lower_at), int(lines.upper_at)) == (1, 1)
    assert (float(lines.upper_slope), float(lines.upper_offset)) == (1.0, 0.0)


def test_the_maximum_is_at_least_the_entry_with_the_largest_lower_bound() -> None:
    lines = relax.maximum_lines(*(torch.tensor([x], dtype=torch.float64) for x in ([-5.0, 0.0, -1.0], [3.0, 1.0, 2.0])))
    assert (int(lines.lower_at), int(lines.upper_at)) == (1, 0)


def test_the_line_over_the_maximum_is_the_chord() -> None:
    lines = relax.maximum_lines(*(torch.tensor([x], dtype=torch.float64) for x in ([-1.0, 0.5], [3.0, 1.0])))
    at = [float(lines.upper_slope * x + lines.upper_offset) for x in (-1.0, 3.0)]
    assert at == pytest.approx([1.0, 3.0], abs=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [*PIECEWISE, leaky_relu(3.0), Sigmoid(), Tanh()], ids=repr)
def test_unbounded_intervals_never_make_a_claim(op: Elementwise, dtype: torch.dtype) -> None:
    for lower, upper in ((-torch.inf, torch.inf), (-1.0, torch.inf), (-torch.inf, 1.0), (2.0, torch.inf)):
        lines = relax.envelope(op, *tensors(dtype, lower, upper))
        x = torch.tensor([max(lower, -50.0), 0.7 if lower < 0 else 2.5, min(upper, 50.0)], dtype=torch.float64)
        below = lines.lower_slope.double() * x + lines.lower_offset.double()
        above = lines.upper_slope.double() * x + lines.upper_offset.double()
        assert not bool((below > op(x)).any())
        assert not bool((above < op(x)).any())


def test_an_activation_without_a_rule_is_refused_by_name() -> None:
    class Swish(Elementwise):
        def __call__(self, *inputs: Tensor) -> Tensor:
            return inputs[0] * torch.sigmoid(inputs[0])

    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(MissingRule, match="Swish"):
        relax.image(Swish(), -one, one)
    with pytest.raises(MissingRule, match="Swish"):
        relax.envelope(Swish(), -one, one)


def test_every_elementwise_operator_has_an_image_and_an_envelope() -> None:
    one = torch.ones(1, dtype=torch.float64)
    examples = {TwoSlope: leaky_relu(0.1), Clip: Clip(-1.0, 1.0), Sigmoid: Sigmoid(), Tanh: Tanh()}
    own = {kind for kind in Elementwise.__subclasses__() if kind.__module__ == Elementwise.__module__}
    assert own == set(examples)
    for op in examples.values():
        relax.image(op, -one, one)
        relax.envelope(op, -one, one)
    assert not isinstance(Maximum(), Elementwise)
    assert not isinstance(Input(), Elementwise)


@pytest.mark.parametrize("kink", [0.0, 0.25])
def test_the_image_of_a_valley_or_a_peak_reaches_its_kink(kink: float) -> None:
    lower, upper = tensors(torch.float64, -1.0, 2.0)
    assert float(relax.image(two_slope(-1.0, 1.0, kink, 0.0), lower, upper)[0]) <= 0
    assert float(relax.image(two_slope(1.0, -1.0, kink, 0.0), lower, upper)[1]) >= 0
