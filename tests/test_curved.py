"""Parabolas over the first layer: what they prove holds in exact arithmetic, whatever was found, and says more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from networks import Draft, build, exact_outputs, fully_connected
from questions import tiny_case, tiny_network
from rational import smallest_margin
from test_neurons import KINDS, MEMORY, asked, at_random, bounding_of, inside, never, question_margins
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Linear, Sum, TwoSlope
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds import vectors
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.concave import Weights, fall_over_cube
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.curved import concluded, curvable, curved_bounds, curved_outputs
from leaktight.verify.bounds.first_layer import FirstLayer, Sums, carried, first_layer
from leaktight.verify.bounds.optimise import turned_bounds
from leaktight.verify.bounds.parabolas import Parabolas, levels, proven
from leaktight.verify.bounds.question import Question
from leaktight.verify.bounds.rows import rows_on_outputs
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.stages import CURVES, Ground, Stage, _planned, staged
from leaktight.verify.search.tighten import Effort

LIMITS = {"memory": MEMORY, "deadline": None, "late": never}


def number(x: Tensor) -> Fraction:
    return Fraction(float(x))


def bend(z: Fraction, left: Tensor, right: Tensor) -> Fraction:
    return z * number(right if z >= 0 else left)


def made(seed: int, count: int, inputs: int, lost: float = 0.0) -> FirstLayer:
    """Neurons with slopes anywhere in [-2, 3], all of which bend; intervals are a little wider than need be."""
    draft = Draft(seed)
    slopes = draft.normal(count, inputs)
    reach = slopes.abs().sum(1)
    middle = draft.uniform(-0.7, 0.7, count) * reach
    lost_ = torch.full((count,), lost, dtype=torch.float64)
    wide = (reach + lost_) * (1 + 1e-12)
    left, right = draft.uniform(-2, 3, count), draft.uniform(-2, 3, count)
    centre, radius = draft.normal(inputs), draft.uniform(0.5, 1.0, inputs)
    return FirstLayer(
        {}, centre, radius, slopes, middle, lost_, middle - wide, middle + wide, left, right, draft.normal(count)
    )


def sums(seed: int, layer: FirstLayer, rows: int) -> Sums:
    draft = Draft(seed + 1000)
    count, inputs = layer.slopes.shape
    return Sums(draft.normal(rows, count), draft.normal(rows, inputs), draft.normal(rows))


def value(layer: FirstLayer, one: Sums, row: int, y: list[Fraction], off: list[int]) -> Fraction:
    """What a sum is at ``y``, each neuron's input being off by as much as may be, in exact arithmetic."""
    total = number(one.offset[row])
    for j in range(len(layer.middle)):
        z = number(layer.middle[j]) + off[j] * number(layer.lost[j])
        z += sum((number(a) * b for a, b in zip(layer.slopes[j], y, strict=True)), Fraction(0))
        phi = number(layer.value[j]) + bend(z, layer.left[j], layer.right[j])
        total += number(one.bends[row, j]) * phi
    x = [number(c) + number(r) * b for c, r, b in zip(layer.centre, layer.radius, y, strict=True)]
    return total + sum((number(w) * b for w, b in zip(one.ends[row], x, strict=True)), Fraction(0))


def random_choice(seed: int, layer: FirstLayer, rows: int) -> tuple[Parabolas, Weights]:
    """Any parabolas and weights whatever."""
    draft = Draft(seed + 2000)
    count, inputs = layer.slopes.shape
    chosen = Parabolas(draft.uniform(-0.2, 1.0, rows, count), draft.normal(rows, count))
    return chosen, Weights(draft.normal(rows), draft.uniform(-1, 6, rows, inputs))


@pytest.mark.parametrize("seed", range(4))
def test_parabolas_lie_below_the_bend_and_touch_it(seed: int) -> None:
    layer, rows = made(seed, 6, 3), 5
    one = sums(seed, layer, rows)
    chosen, _ = random_choice(seed, layer, rows)
    chosen = Parabolas(chosen.quadratic.clamp(min=0), chosen.linear)
    e = levels(layer, one.bends, chosen)
    for i, j in product(range(rows), range(6)):
        q, d, a = (number(x[i, j]) for x in (chosen.quadratic, chosen.linear, one.bends))
        low, high = number(layer.lower[j]), number(layer.upper[j])
        places = {low, high, Fraction(0), *(low + (high - low) * Fraction(k, 23) for k in range(24))}
        for slope in (layer.left[j], layer.right[j]):
            if q > 0:  # where the difference is least on a side
                places.add(min(max((d - a * number(slope)) / (2 * q), low), high))
        gaps = [a * bend(z, layer.left[j], layer.right[j]) + q * z * z - d * z - number(e[i, j]) for z in places]
        assert 0 <= min(gaps) < 1e-9


@pytest.mark.parametrize("lost", [0.0, 0.125])
@pytest.mark.parametrize("seed", range(4))
def test_no_input_is_below_what_any_parabolas_and_weights_prove(seed: int, lost: float) -> None:
    layer, rows = made(seed, 5, 3, lost), 4
    one = sums(seed, layer, rows)
    choices = [random_choice(seed, layer, rows), vectors.found(layer, one, vectors.Descent())]
    bounds = torch.stack([proven(layer, one, *choice) for choice in choices])
    assert bool(torch.isfinite(bounds).all())
    generator = torch.Generator().manual_seed(seed)
    ys = [list(map(Fraction, signs)) for signs in product((-1, 1), repeat=3)]
    ys += [[number(x) for x in y] for y in (torch.rand(40, 3, generator=generator) * 2 - 1)]
    for row in range(rows):
        for y in ys:
            for off in ([1] * 5, [-1] * 5, [1, -1, 1, -1, 1]):
                assert value(layer, one, row, y, off) >= number(bounds[:, row].amax())


def chord(seed: int, scale: float, lost: float = 0.0) -> tuple[FirstLayer, Sums, Parabolas, Weights]:
    """One neuron, one input and lines that are exact where the sum is least: at an end of the input."""
    layer = made(seed, 1, 1, lost)
    layer = replace(layer, value=layer.value * scale)
    bent = -(layer.right - layer.left).sign()  # so that the chord is below
    d = bent * (layer.right * layer.upper - layer.left * layer.lower) / (layer.upper - layer.lower)
    # the neuron's error pulls the same way as the input where nothing else reads the input
    ends = Draft(seed).normal(1, 1) * (lost == 0)
    one = Sums(bent.reshape(1, 1), ends, (-bent * layer.value).reshape(1))
    tilt = (d * layer.slopes[0] + one.ends[0] * layer.radius).abs() / 2
    return layer, one, Parabolas(torch.zeros(1, 1).double(), d.reshape(1, 1)), Weights(tilt, tilt.reshape(1, 1))


@pytest.mark.parametrize("lost", [0.0, 0.125])
def test_where_lines_are_exact_so_is_the_bound(lost: float) -> None:
    for seed in range(12):
        layer, one, *choice = chord(seed, 1.0, lost)
        found = number(proven(layer, one, *choice)[0])
        least = min(value(layer, one, 0, [Fraction(y)], [off]) for y in (-1, 1) for off in (-1, 1))
        assert least - Fraction(1, 10**6) < found <= least


@pytest.mark.parametrize("seed", range(6))
def test_a_single_bend_is_bounded_by_the_parabola_that_touches_it(seed: int) -> None:
    """One input and a neuron that bends down in its middle: the relaxation is exact there."""
    layer = made(seed, 1, 1)
    bent = -(layer.right - layer.left).sign()
    one = Sums(bent.reshape(1, 1), torch.zeros(1, 1).double(), torch.zeros(1).double())
    found = number(proven(layer, one, *vectors.found(layer, one, vectors.Descent()))[0])
    least = min(value(layer, one, 0, [Fraction(y)], [0]) for y in (-1, 1))
    assert least - Fraction(1, 100) < found <= least


def test_rounding_never_raises_what_is_proven() -> None:
    """Large terms cancel: what is left of the sum is of the size of its rounding errors."""
    for seed in range(40):
        layer, one, *choice = chord(seed, 1e13)
        one = replace(one, offset=one.offset + Draft(seed).normal(1))
        found = number(proven(layer, one, *choice)[0])
        assert found <= min(value(layer, one, 0, [Fraction(y)], [0]) for y in (-1, 1))
    for seed in range(40):
        layer, one, *choice = chord(seed, 0.0)
        far = replace(layer, centre=layer.centre * 1e13)
        one = replace(one, offset=-(one.ends[0] * far.centre))
        assert number(proven(far, one, *choice)[0]) <= min(value(far, one, 0, [Fraction(y)], [0]) for y in (-1, 1))


@pytest.mark.parametrize("wrong", ["eigenvalues", "factor", "short"])
@pytest.mark.parametrize(("count", "inputs"), [(6, 3), (2, 6)])
def test_a_wrong_factor_proves_less_and_nothing_false(
    wrong: str, count: int, inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, rows = made(3, count, inputs), 6
    one = sums(3, layer, rows)
    chosen, weights = vectors.found(layer, one, vectors.Descent())
    right = proven(layer, one, chosen, weights)
    if wrong == "eigenvalues":  # then nothing is lifted, and a factorisation ends early
        monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: torch.zeros(matrix.shape[:2]).double())
    elif wrong == "factor":
        monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda matrix: (torch.zeros_like(matrix), 0))
    else:
        true = torch.linalg.cholesky_ex
        monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda matrix: (0.9 * true(matrix)[0], 0))
    less = replace(weights, first=weights.first / 4, rest=weights.rest / 4)
    found = proven(layer, one, chosen, less if wrong == "eigenvalues" else weights)
    assert bool((found < right + 1e-6).all())
    for row, signs in product(range(rows), product((-1, 1), repeat=inputs)):
        assert value(layer, one, row, list(map(Fraction, signs)), [0] * count) >= number(found[row])


def quadratic(seed: int, rows: int, count: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    draft = Draft(seed)
    q = draft.uniform(-1, 1, rows, count).clamp(min=0)
    return draft.normal(rows, inputs), q, draft.normal(count, inputs)


def lowest(gradient: Tensor, q: Tensor, slopes: Tensor) -> Fraction:
    """The least value of ``g . y - sum q (slopes . y)^2`` at the corners, where a concave function is least."""
    found = []
    for signs in product((-1, 1), repeat=len(gradient)):
        z = [sum((number(a) * s for a, s in zip(row, signs, strict=True)), Fraction(0)) for row in slopes]
        bent = sum((number(w) * x * x for w, x in zip(q, z, strict=True)), Fraction(0))
        found.append(sum((number(a) * s for a, s in zip(gradient, signs, strict=True)), Fraction(0)) - bent)
    return min(found)


@pytest.mark.parametrize(("count", "inputs"), [(7, 4), (2, 6), (1, 5)])
@pytest.mark.parametrize("scale", [1.0, 3.0, 1e-3, 0.0])
def test_no_corner_of_a_cube_is_below_how_far_a_concave_function_falls(count: int, inputs: int, scale: float) -> None:
    """By inputs where there are many neurons, by neurons where there are few; with weights good and bad."""
    rows = 4
    for seed in range(3):
        gradient, q, slopes = quadratic(seed, rows, count, inputs)
        good = (2 * (slopes.abs().sum(1) * q) @ slopes.abs() + gradient.abs()) / 2
        weights = Weights(scale * (gradient.abs().sum(1) / 2 + 0.5), scale * good)
        fall = fall_over_cube(gradient, q, slopes, weights)
        assert bool(torch.isfinite(fall).all()) or scale == 0
        for row in range(rows):
            if bool(torch.isfinite(fall[row])):
                assert -number(fall[row]) <= lowest(gradient[row], q[row], slopes)


@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("scale", [1.0, 1e7])
def test_how_far_one_square_falls_is_exact(scale: float, inputs: int) -> None:
    """``-q (a . y)^2 + g . y`` with ``g`` along ``a``: least where all ``a_k y_k`` have one sign, as weights say."""
    for seed in range(20):
        _, q, slopes = quadratic(seed, 1, 1, inputs)
        q, gradient = q.abs() * scale + 0.5, scale * slopes[:1] * Draft(seed).uniform(0.2, 2, 1, 1)
        size, push = slopes[0].abs().sum(), (gradient / slopes)[0, 0]
        weights = Weights((push * size / 2).reshape(1), (q * size + push / 2) * slopes.abs())
        fall = number(fall_over_cube(gradient, q, slopes, weights)[0])
        exact = -lowest(gradient[0], q[0], slopes)
        assert exact <= fall <= exact * Fraction(100001, 100000)


def single(network: Network, seed: int) -> Case:
    case = asked(network, seed)
    return Case(case.region.select(slice(0, 1)), case.unsafe)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_neurons_of_the_first_layer_are_what_they_are_said_to_be(kind: str) -> None:
    network = build(kind, 5)
    region = single(network, 5).region
    backward = Backward(network, region, intermediate_bounds(network, region, MEMORY))
    layer = FirstLayer.of(backward)
    if layer is None:
        return
    for point in region.select(torch.zeros(5, dtype=torch.long)).sample(torch.Generator().manual_seed(1)):
        y = [(number(x) - number(c)) / number(r) for x, c, r in zip(point, layer.centre, layer.radius, strict=True)]
        assert max(map(abs, y)) <= 1
        at = 0
        for name, entries in layer.bending.items():
            node = network.by_name[name]
            source = replace(network, outputs=(replace(network.outputs[0], name=node.inputs[0], shape=node.shape),))
            exact = exact_outputs(source, [number(x) for x in point])
            kinks = node.op.kink.double().expand(node.shape).flatten()  # type: ignore[attr-defined]
            for entry in entries.tolist():
                z = exact[entry] - number(kinks[entry])
                line = sum((number(a) * b for a, b in zip(layer.slopes[at], y, strict=True)), number(layer.middle[at]))
                assert abs(z - line) <= number(layer.lost[at]) < 1e-9
                assert number(layer.lower[at]) <= z <= number(layer.upper[at])
                at += 1


@pytest.mark.parametrize("shape", ["chain", "residual", "per channel", "kinked", "clipped"])
@torch.no_grad()
def test_rows_on_outputs_are_below_the_exact_least_value(shape: str) -> None:
    for seed in range(2):
        network, case = tiny_network(shape, seed), tiny_case(seed)
        known = intermediate_bounds(network, case.region, MEMORY)
        known = curved_bounds(network, case.region, known, **LIMITS)
        rows = torch.tensor([[1.0, 0.0], [0.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
        found = curved_outputs(Question(network, case.region, rows.unsqueeze(0), MEMORY), known)
        for row, low in zip(rows, found[0], strict=True):
            asked_ = Case(case.region, Unsafe(row.reshape(1, 1, 2), torch.zeros(1, 1).double(), torch.zeros(1).long()))
            assert number(low) <= smallest_margin(network, asked_)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_sample_is_outside_of_the_neurons_bounds(kind: str) -> None:
    network = build(kind, 7)
    region = single(network, 7).region
    known = intermediate_bounds(network, region, MEMORY)
    found = curved_bounds(network, region, known, **LIMITS)
    whole = region.select(torch.zeros(2000, dtype=torch.long))
    points = whole.sample(torch.Generator().manual_seed(0))
    points[:1000] = torch.where(
        points[:1000] > whole.lower[:1000] / 2 + whole.upper[:1000] / 2, whole.upper[:1000], whole.lower[:1000]
    )
    values = network.values(*points.split([port.size for port in network.inputs], -1))
    for node in network:
        z, size = values[node.name], 1e-12 * (1 + found[node.name].magnitude)
        assert bool((z >= found[node.name].lower - size).all())
        assert bool((z <= found[node.name].upper + size).all())
        assert bool((found[node.name].lower >= known[node.name].lower).all())


def wide(seed: int = 0) -> tuple[Network, Box]:
    """More neurons than inputs, nearly all of which bend."""
    network = fully_connected(seed, (12, 48, 24, 3), slope=0.1)
    centre = Draft(seed).normal(1, 12, scale=0.3)
    return network, Box(centre - 0.5, centre + 0.5)


@torch.no_grad()
def test_bounds_behind_a_wide_first_layer_are_much_tighter_than_those_of_lines() -> None:
    network, region = wide()
    known = intermediate_bounds(network, region, MEMORY)
    rows = torch.eye(3, dtype=torch.float64).unsqueeze(0)
    lines = turned_bounds(Question(network, region, rows, MEMORY), known, [0.5 * 0.8**k for k in range(20)])
    curves = curved_bounds(network, region, known, **LIMITS)
    second = network.nodes[3].name
    mean = [float((z[second].upper - z[second].lower).mean()) for z in (lines, curves)]
    assert mean[1] < 0.8 * mean[0]


@torch.no_grad()
def test_a_search_proves_by_curves_what_lines_leave_open() -> None:
    network, region = wide()
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64)
    known = intermediate_bounds(network, region, MEMORY)
    curves = curved_bounds(network, region, known, **LIMITS)
    low = curved_outputs(Question(network, region, rows, MEMORY), curves)[0, 0] - 0.01
    case = Case(region, Unsafe(rows, low.reshape(1, 1), torch.zeros(1).long()))
    nothing = torch.full((1, 1), -torch.inf, dtype=torch.float64)
    ways = {"memory": MEMORY, "deadline": None, "late": never}
    first, _ = staged(network, case, nothing, Replay(network), stages=(Stage(None, 0),), **ways)
    then, _ = staged(network, case, nothing, Replay(network), stages=(Stage(None, 0), Stage(CURVES, 0)), **ways)
    assert not first.proved
    assert first.lower < 0
    assert then.proved
    assert 0 < then.lower < 0.02


def test_what_parabolas_are_for() -> None:
    network, region = wide()
    assert curvable(network, region)
    two = Box(torch.cat([region.lower] * 2), torch.cat([region.upper] * 2))
    assert not curvable(network, two)
    many = fully_connected(0, (1300, 4, 4, 2))
    assert not curvable(many, Box(torch.zeros(1, 1300).double(), torch.ones(1, 1300).double()))
    assert not curvable(fully_connected(0, (12, 8, 3)), region)


def test_the_first_layer_is_what_reads_the_input_through_affine_maps_alone() -> None:
    draft = Draft(0)
    z = draft.linear(draft.input(3), 4)
    first = draft.add(TwoSlope(*(torch.tensor(p, dtype=torch.float64) for p in (0.1, 1.0, 0.0, 0.0))), z)
    rounded = draft.add(
        TwoSlope(*(torch.tensor(p, dtype=torch.float64) for p in (0.1, 1.0, 0.0, 0.0)), precision=1e-8), z
    )
    draft.add(TwoSlope(*(torch.tensor(p, dtype=torch.float64) for p in (0.1, 1.0, 0.0, 0.0))), first)
    network = draft.network(draft.add(Linear(torch.eye(4).double()), rounded))
    assert list(first_layer(network)) == [first]


@torch.no_grad()
def test_carried_rows_bound_the_outputs_at_every_input() -> None:
    network = build("residual", 2)
    region = single(network, 2).region
    backward = Backward(network, region, intermediate_bounds(network, region, MEMORY))
    layer = FirstLayer.of(backward)
    assert layer is not None
    rows = torch.eye(network.output_size, dtype=torch.float64).unsqueeze(0)
    one = carried(backward, layer, *rows_on_outputs(network, rows))
    points = region.select(torch.zeros(300, dtype=torch.long)).sample(torch.Generator().manual_seed(0))
    y = (points - layer.centre) / layer.radius
    z = y @ layer.slopes.mT + layer.middle
    phi = layer.value + torch.where(z >= 0, layer.right * z, layer.left * z)
    low = one.offset + phi @ one.bends.mT + points @ one.ends.mT
    assert bool((low <= network.flat(points) + 1e-9).all())
    assert bool((one.bends != 0).any())


def test_without_parabolas_the_stage_before_has_their_domains() -> None:
    stages = (Stage(None, 10), Stage(CURVES, 30), Stage(Effort(1, 1), 20))
    assert _planned(stages, True) == list(stages)
    assert _planned(stages, False) == [Stage(None, 30), Stage(Effort(1, 1), 20)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_point_of_a_domain_is_below_what_curves_prove_of_it(kind: str) -> None:
    network = build(kind, 3)
    case = single(network, 3)
    bounding, generator = bounding_of(network, case), torch.Generator().manual_seed(1)
    bounding.curve(MEMORY)
    points = case.region.select(torch.zeros(400, dtype=torch.long)).sample(generator)
    domains = at_random(bounding, points[:12], generator)
    batch = bounding.unpacked(domains)
    bound = bounding.proven(batch)
    for i in range(len(domains)):
        kept = inside(bounding, domains, i, points)
        assert kept[i]
        assert bool((question_margins(bounding, 0, points[kept]) >= bound[i]).all())


def test_the_first_layer_may_have_neurons_that_come_after_deeper_ones() -> None:
    draft = Draft(0)
    x = draft.input(4)
    deep = draft.leaky(draft.linear(draft.leaky(draft.linear(x, 5)), 5))
    network = draft.network(draft.linear(draft.add(Sum((1, 1)), deep, draft.leaky(draft.linear(x, 5))), 2))
    region = Box(-torch.ones(1, 4).double(), torch.ones(1, 4).double())
    assert curvable(network, region)
    known = intermediate_bounds(network, region, MEMORY)
    found = curved_bounds(network, region, known, **LIMITS)
    values = network.values(region.select(torch.zeros(999, dtype=torch.long)).sample(torch.Generator().manual_seed(0)))
    for name, z in found.items():
        assert bool((values[name] >= z.lower).all())
        assert bool((values[name] <= z.upper).all())


@pytest.mark.parametrize("kind", ["fully_connected", "per_channel"])
@torch.no_grad()
def test_the_first_layer_is_where_a_domains_decisions_leave_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(kind, 3)
    case = single(network, 3)
    bounding, generator, seen = bounding_of(network, case), torch.Generator().manual_seed(1), list[FirstLayer]()

    def noted(layer: FirstLayer, *rest: Any) -> Tensor:
        seen.append(layer)
        return concluded(layer, *rest)

    monkeypatch.setattr("leaktight.verify.search.proof.concluded", noted)
    bounding.curve(MEMORY)
    points = case.region.select(torch.zeros(4000, dtype=torch.long)).sample(generator)
    domains = at_random(bounding, points[:40], generator)
    bounding.proven(bounding.unpacked(domains))
    (layer,) = seen
    z = (points - layer.centre) / layer.radius @ layer.slopes.mT + layer.middle
    nearest = torch.tensor(torch.inf).double()
    for i in range(len(domains)):
        own = z[inside(bounding, domains, i, points)]
        assert bool((own >= layer.lower[i] - layer.lost - 1e-12).all())
        assert bool((own <= layer.upper[i] + layer.lost + 1e-12).all())
        nearest = torch.minimum(nearest, torch.minimum(own - layer.lower[i], layer.upper[i] - own).amin())
    assert float(nearest) < 0.05  # so that a wall that is moved by a tenth is noticed


@torch.no_grad()
def test_domains_are_proved_by_curves_too() -> None:
    network, region = wide()
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64)
    case = Case(region, Unsafe(rows, torch.zeros(1, 1).double(), torch.zeros(1).long()))
    bounding = bounding_of(network, case)
    points = region.select(torch.zeros(20, dtype=torch.long)).sample(torch.Generator().manual_seed(0))
    domains = at_random(bounding, points, torch.Generator().manual_seed(0))
    batch = bounding.unpacked(domains)
    batch.multiplier.zero_()
    lines = bounding.proven(batch)
    bounding.curve(MEMORY)
    curves = bounding.proven(batch)
    assert bool((curves >= lines).all())
    assert float((curves - lines).mean()) > 0.1 * float(lines.abs().mean())


@torch.no_grad()
def test_a_search_begins_with_the_bounds_of_neurons_that_one_before_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    network, region = wide()
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64)
    points = region.select(torch.zeros(999, dtype=torch.long)).sample(torch.Generator().manual_seed(0))
    least = float((network.flat(points) @ rows[0, 0]).amin())
    ground, stages = Ground(), (Stage(None, 0), Stage(CURVES, 0), Stage(Effort(1, 1), 0))
    nothing = torch.full((1, 1), -torch.inf, dtype=torch.float64)

    def search(level: float, stages: Any) -> tuple[float, Bounding]:
        case = Case(region, Unsafe(rows, torch.full((1, 1), level).double(), torch.zeros(1).long()))
        found, rest = staged(network, case, nothing, Replay(network), **LIMITS, stages=stages, ground=ground)
        assert found.lower + level <= least
        return found.lower + level, rest.bounding

    search(least + 1, stages[:2])
    assert ground.reached == 1
    for name in ("intermediate_bounds", "turned_bounds", "curved_bounds"):  # all that is not to be done again
        monkeypatch.setattr(f"leaktight.verify.search.stages.{name}", None)
    lower, bounding = search(least + 2, stages[:2])
    assert bounding.known is ground.known
    assert bounding.proof.curves is not None
    better, bounding = search(least + 2, stages)
    assert ground.reached == 2
    assert bounding.proof.curves is not None
    assert better >= lower


@pytest.mark.parametrize(("memory", "most"), [(1 << 16, 1), (1 << 20, 11), (1 << 30, 24)])
def test_memory_says_how_many_rows_are_looked_at_together_and_nothing_else(
    memory: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, rows, seen = made(0, 24, 12), sums(0, made(0, 24, 12), 24), list[int]()
    whole = concluded(layer, rows, vectors.Descent(20), 1 << 40)
    looked_at = vectors.found

    def noted(layer: FirstLayer, sums: Sums, descent: vectors.Descent) -> Any:
        seen.append(len(sums.offset))
        return looked_at(layer, sums, descent)

    monkeypatch.setattr("leaktight.verify.bounds.curved.found", noted)
    parts = concluded(layer, rows, vectors.Descent(20), memory)
    assert sum(seen) == 24
    assert max(seen) == most
    assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-4)


def test_parabolas_that_open_upwards_count_as_lines() -> None:
    layer, one, lines, weights = chord(1, 1.0)
    upwards = Parabolas(torch.full((1, 1), -0.5, dtype=torch.float64), lines.linear)
    assert torch.equal(proven(layer, one, upwards, weights), proven(layer, one, lines, weights))


@pytest.mark.parametrize("huge", [1e200, 1e307, float("inf"), float("nan")])
@pytest.mark.parametrize(("count", "inputs"), [(6, 3), (1, 6)])
def test_what_overflows_proves_nothing(huge: float, count: int, inputs: int) -> None:
    layer = made(0, count, inputs)
    one = sums(0, layer, 3)
    one = replace(one, bends=one.bends * torch.tensor([[huge], [1.0], [1.0]], dtype=torch.float64))
    chosen, weights = vectors.found(layer, one, vectors.Descent(5))
    bounds = proven(layer, one, chosen, weights)
    assert not bool(bounds.isnan().any())
    assert bool(torch.isfinite(bounds[1:]).all())
    assert number(bounds[0]) < -(10**199) if bool(torch.isfinite(bounds[0])) else float(bounds[0]) == -torch.inf


def test_eigenvalues_that_are_not_found_prove_less(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, one = made(0, 6, 3), sums(0, made(0, 6, 3), 2)
    choice = vectors.found(layer, one, vectors.Descent())

    def fails(matrix: Tensor) -> Tensor:
        raise RuntimeError("no convergence")

    right = proven(layer, one, *choice)
    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    assert bool((proven(layer, one, *choice) <= right + 1e-9).all())


def test_each_row_has_all_of_its_neurons() -> None:
    _, q, slopes = quadratic(1, 1, 1, 5)
    q, push = q.abs() + 0.5, slopes[:1] * 0.7
    size = slopes[0].abs().sum()
    good = Weights((0.7 * size / 2).reshape(1), (q * size + 0.35) * slopes.abs())  # enough for one of them
    both = Weights(good.first.expand(2), good.rest.expand(2, -1))
    twice, none = torch.cat([q, q], 1), torch.zeros(1, 2).double()
    fall = fall_over_cube(push.expand(2, -1), torch.cat([none, twice]), slopes.expand(2, -1), both)
    assert -lowest(push[0], twice[0], slopes.expand(2, -1)) <= number(fall[1])


@pytest.mark.parametrize(("first", "rest"), [(0.5, 0.5), (0.5, 1.0)])
def test_weights_that_are_too_small_are_paid_for(first: float, rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: torch.zeros(matrix.shape[:2]).double())
    _, q, slopes = quadratic(1, 1, 1, 5)
    q, push = q.abs() + 0.5, slopes[:1] * 2.0
    size = slopes[0].abs().sum()
    weights = Weights(first * size.reshape(1), rest * (q * size + 1.0) * slopes.abs())
    assert -lowest(push[0], q[0], slopes) <= number(fall_over_cube(push, q, slopes, weights)[0])


@torch.no_grad()
def test_neurons_far_from_the_origin_are_where_they_are_said_to_be() -> None:
    network = fully_connected(0, (4, 8, 3, 2))
    centre = 1e8 * Draft(0).normal(1, 4)
    node = network.by_name[network.nodes[1].name]
    op = replace(node.op, bias=-(node.op.weight @ centre[0]))  # type: ignore[attr-defined]
    nodes = tuple(replace(n, op=op) if n.name == node.name else n for n in network.nodes)
    network = replace(network, nodes=nodes)
    region = Box(centre - 1, centre + 1)
    layer = FirstLayer.of(Backward(network, region, intermediate_bounds(network, region, MEMORY)))
    assert layer is not None
    at = next(iter(layer.bending.values())).tolist()
    for y in product((-1, 1), repeat=4):
        x = [number(c) + number(r) * s for c, r, s in zip(layer.centre, layer.radius, y, strict=True)]
        for j, entry in enumerate(at):
            z = number(op.bias[entry]) + sum(number(w) * v for w, v in zip(op.weight[entry], x, strict=True))
            line = number(layer.middle[j]) + sum(number(a) * s for a, s in zip(layer.slopes[j], y, strict=True))
            assert abs(z - line) <= number(layer.lost[j])
