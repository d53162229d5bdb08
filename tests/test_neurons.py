"""Branch and bound over neurons: what domains are said to be bounded by bounds them, and verdicts are right."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Draft, build, fully_connected
from scipy.optimize import linprog
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box, Norm, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.prove import prove
from leaktight.verify.search import neurons
from leaktight.verify.search.activations import Activations, splittable
from leaktight.verify.search.ascent import Schedule, ascend
from leaktight.verify.search.choice import children, look_ahead
from leaktight.verify.search.lines import Shape
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import Search, branch
from leaktight.verify.search.passes import Cuts
from leaktight.verify.search.questions import open_questions, whole_margin
from leaktight.verify.search.reduced import Reduced, _waists, kept_neurons
from leaktight.verify.search.refute import refute
from leaktight.verify.search.relaxed import Relaxed
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.splits import Domains, Pool, joined, packed
from leaktight.verify.search.tighten import Effort, tightened
from leaktight.verify.verdict import Status

KINDS = (
    "fully_connected", "relu_only", "per_channel", "convolutional", "transposed", "residual", "several_inputs",
    "several_outputs", "scaled", "two_slopes", "average_pool", "rearranged",
)  # fmt: skip
MEMORY = 1 << 28


def never() -> bool:
    return False


def asked(network: Network, seed: int, disjuncts: int = 2, size: int = 2, norm: Norm = Norm.LINF) -> Case:
    """Two regions, and conjunctions of random atoms."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(2, network.input_size, generator=generator, dtype=torch.float64)
    atoms = disjuncts * size
    weights = torch.randn(1, atoms, network.output_size, generator=generator, dtype=torch.float64)
    bounds = torch.randn(1, atoms, generator=generator, dtype=torch.float64)
    return Case(ball(centre, 1.0, norm), Unsafe(weights, bounds, torch.arange(atoms) // size))


def bounding_of(network: Network, case: Case) -> Bounding:
    nothing = torch.full((case.region.batch, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
    known = intermediate_bounds(network, case.region, MEMORY)
    return Bounding(network, case.region, known, open_questions(case, nothing))


def inputs_of(bounding: Bounding, points: Tensor) -> Tensor:
    """The neurons' inputs ``(points, width)`` as the network computes them."""
    network = bounding.network
    known = network.values(*points.split([port.size for port in network.inputs], -1))
    return torch.cat([known[node.inputs[0]].flatten(1) for node in bounding.activations.nodes], 1)


def question_margins(bounding: Bounding, question: int, points: Tensor) -> Tensor:
    questions = bounding.questions
    atoms = bounding.network.flat(points) @ questions.weights[question].mT - questions.bounds[question]
    return atoms.masked_fill(~questions.real[question], -torch.inf).amax(1)


def at_random(bounding: Bounding, points: Tensor, generator: torch.Generator, depth: int = 5) -> Domains:
    """Domains of the first question around each point, with random lines, multipliers and weights."""
    some = bounding.columns
    above = inputs_of(bounding, points)[:, some] >= bounding.activations.kink[some]
    first = bounding.first().select(torch.zeros(len(points), dtype=torch.long))
    depth = min(depth, len(some))
    neuron = torch.stack([torch.randperm(len(some), generator=generator)[:depth] for _ in points])
    made = torch.randint(depth + 1, (len(points), 1), generator=generator)
    mix = torch.rand(first.mix.shape, generator=generator) + 0.01
    return replace(
        first,
        neuron=neuron.to(torch.int32).masked_fill(torch.arange(depth) >= made, -1),
        above=above.gather(1, neuron),
        multiplier=3 * torch.rand(neuron.shape, generator=generator),
        turn=packed(torch.rand(len(points), len(some), generator=generator)),
        mix=mix / mix.sum(1, keepdim=True),
    )


def inside(bounding: Bounding, domains: Domains, at: int, points: Tensor) -> Tensor:
    """Which of the points keep to a domain's decisions."""
    z, kept = inputs_of(bounding, points), torch.ones(len(points), dtype=torch.bool)
    for neuron, above in zip(domains.neuron[at].tolist(), domains.above[at].tolist(), strict=True):
        if neuron >= 0:
            column = bounding.columns[neuron]
            beyond = z[:, column] - bounding.activations.kink[column]
            kept &= beyond >= 0 if above else beyond <= 0
    return kept


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_multipliers_no_point_of_a_domain_is_below_its_bound(kind: str, norm: Norm) -> None:
    network = build(kind, 3)
    case = asked(network, 3, norm=norm)
    bounding, generator = bounding_of(network, case), torch.Generator().manual_seed(1)
    region = case.region.select(torch.zeros(400, dtype=torch.long))
    points = region.sample(generator)
    domains = at_random(bounding, points[:12], generator)
    for schedule in (Schedule(0), Schedule(6)):
        batch = bounding.unpacked(domains)
        if schedule.steps:
            ascend(bounding, batch, schedule, never)
        bound = bounding.proven(batch)
        for i in range(len(domains)):
            kept = inside(bounding, domains, i, points)
            assert kept[i]
            assert bool((question_margins(bounding, 0, points[kept]) >= bound[i]).all())


def slope_line(slope: float) -> tuple[Network, Case]:
    """``y = phi(x)`` for ``x`` in [-1, 2]; unsafe: ``-y <= -10``."""
    draft = Draft(0)
    x = draft.input(1)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    y = draft.add(TwoSlope(slope * one, one, zero, zero), x)
    region = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[2.0]]).double())
    unsafe = Unsafe(-one.reshape(1, 1, 1), -10 * one.reshape(1, 1), torch.zeros(1).long())
    return draft.network(y), Case(region, unsafe)


@pytest.mark.parametrize(("slope", "above", "multiplier", "least"), [
    (0.5, True, 0.0, 8.0), (0.5, False, 0.0, 10.0), (0.5, False, 0.5, 10.0), (-1.0, True, 1.0, 8.0),
    (-1.0, False, 0.0, 9.0), (3.0, False, 3.0, 10.0),
])  # fmt: skip
def test_a_multiplier_pulls_towards_its_side(slope: float, above: bool, multiplier: float, least: float) -> None:
    """The objective is ``10 - phi(x)``, exact on either side; what the decision is worth is worked out by hand.

    Below the kink, slope ``s``: ``10 - s x + m x`` over [-1, 2]. Above it ``10 - x - m x``.
    """
    network, case = slope_line(slope)
    bounding = bounding_of(network, case)
    domain = bounding.first().deepened(torch.zeros(1, dtype=torch.long), torch.tensor([above]))
    domain = replace(domain, multiplier=torch.tensor([[multiplier]]))
    found = float(bounding.proven(bounding.unpacked(domain)))
    by_hand = 10 + min((-(1 + multiplier) if above else multiplier - slope) * x for x in (-1, 2))
    assert found == pytest.approx(by_hand, abs=1e-12)
    assert found <= by_hand
    assert by_hand <= least


@pytest.mark.parametrize("kind", KINDS)
def test_quick_values_are_the_proven_ones_up_to_roundings(kind: str) -> None:
    network = build(kind, 5)
    case = asked(network, 5, disjuncts=3, size=1)
    bounding, generator = bounding_of(network, case), torch.Generator().manual_seed(2)
    domains = at_random(bounding, case.region.select(torch.zeros(8, dtype=torch.long)).sample(generator), generator)
    batch = bounding.unpacked(domains)
    quick, proven = bounding.glance(batch).path.value.double(), bounding.proven(batch)
    assert torch.allclose(quick, proven, rtol=1e-4, atol=1e-3)
    assert bool((proven <= quick + 1e-3).all())


@pytest.mark.parametrize("waists", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_passes_over_the_neurons_that_bend_are_those_through_the_whole_network(kind: str, waists: bool) -> None:
    network = build(kind, 3)
    case = asked(network, 3)
    known = intermediate_bounds(network, ball(case.region.lower, 0.2, Norm.LINF), MEMORY)
    activations = Activations.of(network)
    base = activations.joined(known)
    bent, _ = kept_neurons(network, activations, base)
    left, right = (base.upper <= activations.kink).all(0), (base.lower >= activations.kink).all(0)
    assert bool((bent | left | right | (activations.left == activations.right)).all())
    kept = bent | (torch.arange(len(bent)) % 3 == 0) if waists else bent
    whole, part = Relaxed(network, activations), Reduced(network, activations, base, kept)
    generator = torch.Generator().manual_seed(1)
    rows, offset = torch.randn(2, network.output_size, generator=generator), torch.randn(2, generator=generator)
    at, region = part.places, case.region.to(torch.float32)
    shape, pull = whole.shape(base), torch.zeros(2, activations.width)
    pull[:, at] = torch.randn(2, len(at), generator=generator)
    ray = torch.lerp(shape.least, shape.most, torch.rand(pull.shape, generator=generator))
    full = whole.replay(whole.value(rows, offset, shape, ray, pull, region))
    less = part.replay(part.value(rows, offset, part.shape(base), ray[:, at], pull[:, at], region))
    assert torch.allclose(less.path.value, full.path.value, rtol=1e-4, atol=1e-4)
    assert torch.allclose(less.inputs, full.inputs[:, at], rtol=1e-4, atol=1e-3)
    assert torch.allclose(less.path.coefficients, full.path.coefficients[:, at], rtol=1e-4, atol=1e-3)
    if len(at):
        cuts = Cuts(torch.arange(min(3, len(at))).expand(2, -1).unsqueeze(-1), part.lines.right[:3].reshape(1, -1, 1))
        cuts = Cuts(cuts.column, cuts.slope.expand(2, -1, 1))
        axis = [x.unsqueeze(1) for x in (rows, ray[:, at], pull[:, at])]
        cut = Shape(*(x.unsqueeze(1) for x in vars(part.shape(base)).values()))
        found = part.value(axis[0], offset.unsqueeze(1), cut, axis[1], axis[2], region, cuts).value
        own = Cuts(at[cuts.column], cuts.slope)
        axis = [x.unsqueeze(1) for x in (rows, ray, pull)]
        cut = Shape(*(x.unsqueeze(1) for x in vars(whole.shape(base)).values()))
        other = whole.value(axis[0], offset.unsqueeze(1), cut, axis[1], axis[2], region, own).value
        assert torch.allclose(found, other, rtol=1e-4, atol=1e-4)


def test_waists_are_the_cheapest_ways_through_a_chain() -> None:
    assert _waists(784, [1, 1, 1], [200, 200, 200], 1)[1] == []  # hardly any neuron bends: all is one matrix
    assert _waists(784, [250, 250, 250], [256, 256, 256], 1)[1] == [0, 1]  # all bend: layer by layer


def test_the_ascent_follows_the_derivative() -> None:
    network = fully_connected(2, (6, 12, 12, 3), 0.1)
    case = asked(network, 2, disjuncts=1, size=1)
    bounding = bounding_of(network, case)
    before, after = bounding.unpacked(bounding.first()), bounding.unpacked(bounding.first())
    ascend(bounding, after, Schedule(30), never)
    assert bool((bounding.proven(after) > bounding.proven(before) + 1e-3).all())


def test_looking_ahead_sees_the_children() -> None:
    network = build("two_slopes", 4)
    case = asked(network, 4)
    bounding = bounding_of(network, case)
    batch = bounding.unpacked(bounding.first())
    neurons_ = torch.arange(min(4, len(bounding.columns))).expand(len(batch), -1)
    for above in (True, False):
        seen = children(bounding, batch, neurons_, above=above)
        for k in range(neurons_.shape[1]):
            child = bounding.first().deepened(neurons_[:, k], torch.full((len(batch),), above))
            assert torch.allclose(seen[:, k], bounding.glance(bounding.unpacked(child)).path.value, atol=1e-4)
    chosen = look_ahead(bounding, batch, bounding.glance(batch), 8)
    assert bool((chosen >= 0).all())


def enumerated(network: Network, case: Case, question: tuple[int, int]) -> float:
    """The least margin of one disjunct over one region: a linear program for every pattern of sides."""
    region, disjunct = question
    some = case.unsafe.disjunct == disjunct
    rows, bounds = case.unsafe.weights[0, some].numpy(), case.unsafe.bounds[0, some].numpy()
    box = list(zip(case.region.lower[region].tolist(), case.region.upper[region].tolist(), strict=True))
    hidden = [node for node in network if isinstance(node.op, TwoSlope)]
    best = np.inf
    for sides in itertools.product((0, 1), repeat=sum(node.size for node in hidden)):
        best = min(best, _on_pattern(network, rows, bounds, box, np.array(sides)))
    return float(best)


def _on_pattern(network: Network, rows: np.ndarray, bounds: np.ndarray, box: list, sides: np.ndarray) -> float:  # type: ignore[type-arg]
    """Minimise t subject to ``rows y - bounds <= t`` and the sides; the network is a chain of linear nodes."""
    n = len(box)
    matrix, offset, walls, start = np.eye(n), np.zeros(n), [], 0
    for node in network.nodes[1:]:
        if isinstance(node.op, TwoSlope):
            left, right, kink, value = (
                p.expand(node.shape).reshape(-1).numpy()
                for p in (node.op.left, node.op.right, node.op.kink, node.op.value)
            )
            side = sides[start : start + node.size]
            start += node.size
            sign = 2 * side - 1
            walls.append((-sign[:, None] * matrix, sign * (offset - kink)))
            slope = np.where(side == 1, right, left)
            matrix, offset = slope[:, None] * matrix, value + slope * (offset - kink)
        else:
            weight, bias = node.op.weight.numpy(), node.op.bias.numpy()
            matrix, offset = weight @ matrix, weight @ offset + bias
    a = [np.hstack([rows @ matrix, -np.ones((len(rows), 1))])]
    a += [np.hstack([wall, np.zeros((len(wall), 1))]) for wall, _ in walls]
    b = [bounds - rows @ offset] + [limit for _, limit in walls]
    cost = np.append(np.zeros(n), 1.0)
    found = linprog(cost, np.vstack(a), np.concatenate(b), bounds=[*box, (None, None)])
    return float(found.fun) if found.status == 0 else np.inf


def tiny(seed: int) -> Network:
    """Three neurons and then two, with kinks anywhere and slopes anywhere in [-2, 3]; too many inputs for halving."""
    draft = Draft(seed)
    at = draft.linear(draft.input(1, 14), 3, 2.0)
    for width in (3, 2):
        left, right = draft.uniform(-2, 3, width), draft.uniform(-2, 3, width)
        kink, value = 0.3 * draft.normal(width), draft.normal(width)
        at = draft.linear(draft.add(TwoSlope(left, right, kink, value), at), 2)
    return draft.network(at)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 40))])
def test_verdicts_agree_with_the_enumeration_of_all_patterns(seed: int, size: int) -> None:
    network = tiny(seed)
    case = asked(network, seed, disjuncts=2, size=size)
    case = Case(case.region.select(slice(0, 1)), case.unsafe)
    least = min(enumerated(network, case, (0, disjunct)) for disjunct in range(2))
    gap = 1e-3 * (1 + abs(least))
    for shift, wanted in ((gap, Status.PROVED), (-gap, Status.REFUTED)):
        moved = replace(case.unsafe, bounds=case.unsafe.bounds + least - shift)
        found = prove(network, Property((Case(case.region, moved),)), engine="branch", timeout=600)
        assert found.status in (wanted, Status.UNKNOWN)
        if found.status is Status.UNKNOWN:  # linear programs that no multipliers decided: said so, and within rounding
            assert "linear programs" in found.reason
        assert found.margin.lower is not None
        assert found.margin.lower <= shift + 1e-9


def hard(seed: int = 4) -> tuple[Network, Case, Bounding]:
    """A question that needs some dozens of domains: what is unsafe lies little below what an attack attains."""
    network = fully_connected(seed, (16, 14, 12, 3), 0.1)
    case = asked(network, seed, disjuncts=1, size=1)
    case = Case(case.region.select(slice(0, 1)), replace(case.unsafe, bounds=case.unsafe.bounds - 1e3))
    with torch.enable_grad():
        _, attained = refute(network, case)
    case = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + attained - 0.05))
    return network, case, bounding_of(network, case)


@torch.no_grad()
def test_the_size_of_batches_changes_nothing() -> None:
    network, case, bounding = hard()
    found = [branch(Search(bounding, never, MEMORY, size), case, Replay(network)) for size in (1, 3, 64)]
    assert found[0].proved
    assert found[0].domains > 30
    for other in found[1:]:
        assert (other.proved, other.domains) == (found[0].proved, found[0].domains)
        # products of single precision are summed in another order: lines and multipliers differ in their last places
        assert other.lower == pytest.approx(found[0].lower, abs=1e-5)


@torch.no_grad()
def test_the_number_of_threads_changes_nothing_at_all() -> None:
    network, case, bounding = hard()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(branch(Search(bounding, never, MEMORY, 2), case, Replay(network)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@torch.no_grad()
def test_what_is_proved_survives_an_interruption() -> None:
    network, case, bounding = hard()
    whole = branch(Search(bounding, never, MEMORY, 2), case, Replay(network))
    search, rounds = Search(bounding, never, MEMORY, 2), []

    def interrupt(message: str) -> None:
        rounds.append(message)
        if len(rounds) == 4:
            raise KeyboardInterrupt

    found = branch(search, case, Replay(network), say=interrupt)
    assert found.interrupted
    assert not found.proved
    assert -torch.inf < found.lower <= whole.lower


@torch.no_grad()
def test_memory_ends_a_search_with_a_reason() -> None:
    network, case, bounding = hard()
    search = Search(bounding, never, MEMORY, 8)
    search.memory = 64
    found = branch(search, case, Replay(network))
    assert not found.proved
    assert "memory" in found.reason


@torch.no_grad()
def test_a_domain_that_is_left_is_asked_of_whoever_decides_linear_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurons, "LAST", Schedule(0))
    monkeypatch.setattr(neurons, "EACH", Schedule(0))
    network = tiny(1)
    case = asked(network, 1, disjuncts=1, size=2)
    least = min(enumerated(network, case, (g, 0)) for g in range(2))
    case = Case(case.region, replace(case.unsafe, bounds=case.unsafe.bounds + least - 1e-3))
    open_ = branch(Search(bounding_of(network, case), never, MEMORY), case, Replay(network))
    assert not open_.proved
    assert "linear programs" in open_.reason
    seen = []

    def leaf(part: Case, sides: object) -> tuple[float, None]:
        seen.append(sides)
        assert part.region.batch == 1
        return 1e-3, None

    assert branch(Search(bounding_of(network, case), never, MEMORY), case, Replay(network), leaf=leaf).proved
    assert seen


@pytest.mark.parametrize("kind", ["deep", "two_slopes", "residual", "scaled"])
@torch.no_grad()
def test_tightened_neurons_hold_what_the_network_computes(kind: str) -> None:
    deep = fully_connected(6, (6, 12, 12, 12, 3), 0.1)
    network = deep if kind == "deep" else build(kind, 6)
    case = asked(network, 6)
    known = intermediate_bounds(network, case.region, MEMORY)
    found = tightened(network, case.region, known, Effort(3, 2), memory=MEMORY, deadline=None, late=never)
    narrower = False
    for g in range(2):
        points = case.region.select(torch.full((500,), g)).sample(torch.Generator().manual_seed(g))
        values = network.values(*points.split([port.size for port in network.inputs], -1))
        for name, z in found.items():
            assert bool((values[name] >= z.lower[g]).all())
            assert bool((values[name] <= z.upper[g]).all())
            width, before = z.upper[g] - z.lower[g], known[name].upper[g] - known[name].lower[g]
            assert bool((width <= before).all())
            narrower |= bool((width < before - 1e-3).any())
    assert narrower or kind != "deep"


def test_a_pool_gives_back_what_was_put_in() -> None:
    network, _, bounding = hard()
    first = bounding.first()
    many = joined([first] * 40)
    many = replace(many, bound=torch.arange(len(many), dtype=torch.float64))
    pool = Pool(many)
    deeper = replace(many.deepened(torch.arange(len(many)) % 5, torch.ones(len(many)).bool()), bound=many.bound + 0.5)
    pool.add(deeper)
    places = pool.worst(7)
    assert pool.read(places).bound.sort().values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    pool.remove(places)
    assert len(pool) == 2 * len(many) - 7
    assert pool.least == 3.5
    left = pool.read(torch.arange(len(pool)))
    made = left.neuron[:, 0] >= 0
    assert bool((left.bound[made] % 1 == 0.5).all())
    assert bool((left.bound[~made] % 1 == 0).all())
    assert splittable(network)


def test_margins_of_questions_and_of_what_bounds_proved_make_the_whole() -> None:
    case = asked(fully_connected(1, (3, 4, 3), 0.1), 1)
    atoms = torch.tensor([[1.0, -1.0, -2.0, -3.0], [0.5, 0.2, 2.0, -1.0]], dtype=torch.float64)
    assert open_questions(case, atoms).region.tolist() == [0]
    assert whole_margin(case, atoms, -0.5) == -0.5
    assert whole_margin(case, atoms, 0.7) == 0.5
    assert whole_margin(case, atoms, -torch.inf) == -2.0


@pytest.mark.parametrize("above", [True, False])
def test_decisions_cut_intervals_at_the_kink_and_nowhere_else(above: bool) -> None:
    network = build("two_slopes", 3)
    bounding = bounding_of(network, asked(network, 3))
    count = len(bounding.columns)
    whole = bounding.first().select(torch.zeros(count, dtype=torch.long))
    batch = bounding.unpacked(whole.deepened(torch.arange(count), torch.full((count,), above)))
    z = bounding.base.select(torch.zeros(count, dtype=torch.long))
    cut = bounding.clamped(z, batch.column, batch.sign)
    at, kink = (torch.arange(count), bounding.columns), bounding.activations.kink[bounding.columns]
    lower, upper = z.lower.clone(), z.upper.clone()
    if above:
        lower[at] = torch.maximum(lower[at], kink)
    else:
        upper[at] = torch.minimum(upper[at], kink)
    assert torch.equal(cut.lower, lower)
    assert torch.equal(cut.upper, upper)
