"""Branch and bound on the input decides what bounds alone leave open, and never wrongly."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from networks import KINDS, build, fully_connected
from planar import smallest_margin
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.prove import prove
from leaktight.verify.search.bisect import bisect
from leaktight.verify.search.box_bounds import Bounder
from leaktight.verify.search.boxes import Boxes, Queue
from leaktight.verify.search.clip import LinearRows, clip
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.replay import Replay, confirming
from leaktight.verify.verdict import Status


def least(network: Network, region: Box, weights: Tensor) -> float:
    """Nearly the smallest value of ``max_j weights_j . y`` over a box of two inputs, by ever finer grids."""
    low, high = region.lower[0].clone(), region.upper[0].clone()
    best = torch.inf
    for _ in range(12):
        sides = [torch.linspace(float(a), float(b), 81, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*sides)
        values = (network.flat(grid) @ weights.mT).amax(1)
        best = min(best, float(values.min()))
        at, step = grid[values.argmin()], (high - low) / 20
        low, high = torch.maximum(at - step, region.lower[0]), torch.minimum(at + step, region.upper[0])
    return best


def question(seed: int, slope: float, atoms: int) -> tuple[Network, Box, Tensor]:
    network = fully_connected(seed, (2, 10, 10, 3), slope)
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(atoms, 3, generator=generator, dtype=torch.float64)
    return network, Box(centre - 1.5, centre + 1.5), weights


def property_of(region: Region, weights: Tensor, bound: float) -> Property:
    """Unsafe: every atom is at most `bound`, that is ``max_j w_j . y <= bound``."""
    unsafe = Unsafe(
        weights.unsqueeze(0),
        torch.full((1, len(weights)), bound, dtype=torch.float64),
        torch.zeros(len(weights)).long(),
    )
    return Property((Case(region, unsafe),))


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.1, 1.7])
@pytest.mark.parametrize("atoms", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_what_holds_by_little_is_proved_and_what_fails_by_little_is_refuted(
    seed: int, slope: float, atoms: int
) -> None:
    network, region, weights = question(seed, slope, atoms)
    edge = least(network, region, weights)
    gap = 2e-3 * (1 + abs(edge))
    held = prove(network, property_of(region, weights, edge - gap), timeout=60)
    assert held.status is Status.PROVED
    assert held.margin.lower is not None
    assert 0 < held.margin.lower <= gap * 1.01
    failed = prove(network, property_of(region, weights, edge + gap), timeout=60)
    assert failed.status is Status.REFUTED
    assert failed.margin.upper is not None
    assert failed.margin.upper <= 0


def test_bounds_alone_leave_open_what_halving_decides() -> None:
    network, region, weights = question(5, 0.1, 1)
    tight = property_of(region, weights, least(network, region, weights) - 5e-3)
    assert prove(network, tight, engine="alpha-crown").status is Status.UNKNOWN
    found = prove(network, tight, engine="branch")
    assert found.status is Status.PROVED
    assert found.statistics["domains"] > 1


def test_every_region_of_a_case_has_to_hold() -> None:
    network, region, weights = question(7, 0.1, 1)
    edge = least(network, region, weights)
    far = Box(region.upper + 1, region.upper + 1)  # one point
    both = Box(torch.cat([far.lower, region.lower]), torch.cat([far.upper, region.upper]))
    assert prove(network, property_of(both, weights, edge + 1e-2), engine="branch").status is Status.REFUTED
    low = min(edge, float((network.flat(far.lower) @ weights.mT).amin()))
    assert prove(network, property_of(both, weights, low - 1e-2), engine="branch").status is Status.PROVED


def test_time_ends_it_with_a_bound_that_holds() -> None:
    network, region, weights = question(5, 0.1, 1)
    edge = least(network, region, weights)
    found = prove(network, property_of(region, weights, edge - 1e-9), engine="branch", timeout=0.3)
    assert found.status in (Status.TIMEOUT, Status.PROVED)
    assert found.margin.lower is not None
    assert found.margin.lower <= 1e-6


def test_the_same_question_has_the_same_answer() -> None:
    network, region, weights = question(3, 0.1, 2)
    asked = property_of(region, weights, least(network, region, weights) - 1e-2)
    first, again = (prove(network, asked, engine="branch", seed=1) for _ in range(2))
    assert first.margin == again.margin
    assert first.statistics == again.statistics


def test_balls_are_refused_by_name_where_neurons_cannot_be_split() -> None:
    network = build("smooth", 1)
    size, outputs = network.input_size, network.output_size
    round_one = ball(torch.zeros(1, size, dtype=torch.float64), 1.0, Norm.L2)
    with pytest.raises(UsageError, match=r"branch.*halves boxes.*ball"):
        prove(network, property_of(round_one, torch.eye(outputs, dtype=torch.float64)[:1], 0.0), engine="branch")


# ---- clipping ----


def exact_rows(seed: int, boxes: int) -> tuple[Tensor, Tensor, LinearRows, list[list[Fraction]]]:
    """Boxes of three inputs with rows of two conjunctions of two atoms, their offsets exactly, and floors below their
    exact minima by less than two units in the last place."""
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(boxes, 3, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(boxes, 3, generator=generator, dtype=torch.float64) ** 3
    slopes = torch.randn(boxes, 4, 3, generator=generator, dtype=torch.float64)
    slopes[::3, :, 0] *= 1e-9  # a row that hardly moves along an input
    slopes[::5, 1, 2] = 0.0
    depth = torch.rand(boxes, 4, generator=generator, dtype=torch.float64) ** 2
    offsets, floors = [], torch.empty(boxes, 4, dtype=torch.float64)
    for b, j in product(range(boxes), range(4)):
        pairs = list(zip(slopes[b, j].tolist(), lower[b].tolist(), upper[b].tolist(), strict=True))
        least = sum(min(Fraction(a) * Fraction(x) for x in ends) for a, *ends in pairs)
        reach = sum(abs(a) * (high - low) for a, low, high in pairs)
        floors[b, j] = -float(depth[b, j]) * reach
        offsets.append(Fraction(float(floors[b, j])) - least)  # so that the minimum is the floor itself
    return lower, upper, LinearRows(slopes, floors), [offsets[4 * b : 4 * b + 4] for b in range(boxes)]


def atoms_at(point: list[float], slopes: Tensor, offsets: list[Fraction]) -> list[Fraction]:
    return [
        sum((Fraction(a) * Fraction(x) for a, x in zip(row, point, strict=True)), offset)
        for row, offset in zip(slopes.tolist(), offsets, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", [1e-30, 0.05])
def test_no_point_that_could_be_unsafe_is_cut_off(seed: int, target: float) -> None:
    """In exact arithmetic, at the first float beyond every wall that moved, other inputs at any corner."""
    lower, upper, rows, offsets = exact_rows(seed, 40)
    conjunction = torch.tensor([0, 0, 1, 1])
    standing = torch.tensor([[True, True], [True, False], [False, True]]).repeat(14, 1)[:40]
    low, high, empty = clip(lower, upper, rows, conjunction, standing, target)
    checked = 0
    for b in range(len(lower)):
        ends = list(zip(lower[b].tolist(), upper[b].tolist(), strict=True))
        corners = [list(corner) for corner in product(*ends)]
        beyond = corners if bool(empty[b]) else []
        for k in range(3):
            walls = []
            if low[b, k] > lower[b, k]:
                walls.append(float(torch.nextafter(low[b, k], lower[b, k])))
            if high[b, k] < upper[b, k]:
                walls.append(float(torch.nextafter(high[b, k], upper[b, k])))
            beyond += [[*c[:k], wall, *c[k + 1 :]] for c in corners for wall in walls]
        for point in beyond:
            values = atoms_at(point, rows.slopes[b], offsets[b])
            for i in range(2):
                if standing[b, i]:
                    checked += 1
                    assert max(values[2 * i], values[2 * i + 1]) >= Fraction(target)
    assert checked > 300


def test_one_row_is_clipped_to_where_it_is_negative() -> None:
    one = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    rows = LinearRows(torch.tensor([[[2.0, -4.0]]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64))
    found = clip(one, one + 1, rows, torch.tensor([0]), torch.tensor([[True]]), 1e-30)
    assert torch.allclose(found[0], torch.tensor([[0.0, 0.75]], dtype=torch.float64), atol=1e-15)
    assert torch.allclose(found[1], torch.tensor([[0.5, 1.0]], dtype=torch.float64), atol=1e-15)
    assert not found[2].any()


# ---- bounds of boxes ----


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rows_are_below_the_atoms_on_boxes_that_inherit_signs(kind: str) -> None:
    network = build(kind, 1)
    generator = torch.Generator().manual_seed(1)
    n, outputs = network.input_size, network.output_size
    centre = torch.randn(1, n, generator=generator, dtype=torch.float64)
    weights = torch.randn(1, 3, outputs, generator=generator, dtype=torch.float64)
    bounds = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    case = Case(Box(centre - 0.7, centre + 0.7), Unsafe(weights, bounds, torch.tensor([0, 0, 1])))
    bounder = Bounder(network, case, 1 << 28)
    boxes = Boxes.whole(case, bounder.signs)
    for depth in range(3):
        found = bounder(boxes, torch.ones(len(boxes), 2, dtype=torch.bool), None)
        for _ in range(20):
            share = torch.rand(len(boxes), n, generator=generator, dtype=torch.float64)
            x = boxes.lower + share * (boxes.upper - boxes.lower)
            atoms = case.unsafe.atoms(network.flat(x))
            scale = 1e-9 * (1 + atoms.abs().amax())  # of this evaluation, in float64
            assert bool((found.atoms <= atoms + scale).all())
            for rows in found.rows:
                at_corner = torch.where(rows.slopes > 0, boxes.lower.unsqueeze(1), boxes.upper.unsqueeze(1))
                rise = (rows.slopes * (x.unsqueeze(1) - at_corner)).sum(-1)
                assert bool(((rows.floors + rise <= atoms + scale) | torch.isinf(rows.floors)).all())
        known = replace(boxes, atoms=found.atoms, signs=found.signs)
        boxes = Boxes.joined(list(known.halves(torch.full((len(known),), depth % n))))


# ---- verdicts ----


@pytest.mark.parametrize("seed", range(12))
def test_verdicts_are_those_of_the_exact_minimum(seed: int) -> None:
    """Slopes anywhere in [-2, 3]; conjunctions, disjunctions and both."""
    generator = torch.Generator().manual_seed(seed)
    slope = -2 + 5 * torch.rand((), generator=generator, dtype=torch.float64)
    network = fully_connected(seed, (2, 5, 4, 2), slope)
    weights = torch.randn(1, 4, 2, generator=generator, dtype=torch.float64)
    bounds = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    conjunction = (torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1]))[seed % 3]
    region = Box(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    atoms = list(zip(weights[0].tolist(), bounds[0].tolist(), conjunction.tolist(), strict=True))
    edge = smallest_margin(network, ((-1.0, -1.0), (1.0, 1.0)), atoms)
    for gap in (1e-3, 1e-5):
        size = gap * (1 + abs(edge))
        held = Property((Case(region, Unsafe(weights, bounds + edge - size, conjunction)),))
        proved = prove(network, held, engine="branch", timeout=60)
        assert proved.status is Status.PROVED
        assert proved.margin.lower is not None
        assert 0 < proved.margin.lower <= size * (1 + 1e-6)
        failing = Property((Case(region, Unsafe(weights, bounds + edge + size, conjunction)),))
        assert prove(network, failing, engine="branch", timeout=60).status is Status.REFUTED


def searched(seed: int, **ways: Any) -> Searched:
    network, region, weights = question(seed, 0.1, 2)
    bound = least(network, region, weights) - 1e-3
    case = property_of(region, weights, bound).fitted(2, 3)[0]
    return bisect(network, case, confirming(network, case, Replay(network)), attained=1e-3, **ways)


@pytest.mark.parametrize("seed", [3, 8])
def test_proofs_and_margins_are_the_same_for_every_batch_size_and_thread_count(seed: int) -> None:
    threads = torch.get_num_threads()
    try:
        found = []
        for batch, count in ((512, 1), (5, 1), (64, 2)):
            torch.set_num_threads(count)
            found.append(searched(seed, batch=batch))
    finally:
        torch.set_num_threads(threads)
    assert all(one.proved for one in found)
    assert found[0].domains > 7
    assert {one.domains for one in found} == {found[0].domains}
    assert [one.lower for one in found] == pytest.approx([found[0].lower] * len(found), rel=1e-9)


# ---- stopping early ----


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_proof_says_what_is_proven_so_far(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, region, weights = question(5, 0.1, 1)
    edge = least(network, region, weights)
    calls, real = iter(range(10**6)), Bounder.__call__

    def call(*given: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(Bounder, "__call__", call)
    found = prove(network, property_of(region, weights, edge - 1e-3), engine="branch")
    assert found.status is Status.UNKNOWN
    assert found.interrupted
    assert found.to_json()["interrupted"] is True
    assert "interrupted" in found.reason
    assert found.margin.lower is not None
    assert -torch.inf < found.margin.lower <= 1e-3 * (1 + 1e-6)


def test_a_proof_that_was_not_interrupted_does_not_speak_of_it() -> None:
    network, region, weights = question(5, 0.1, 1)
    found = prove(network, property_of(region, weights, least(network, region, weights) - 1.0), engine="branch")
    assert not found.interrupted
    assert "interrupted" not in found.to_json()


def test_the_queue_hands_out_every_box_once_and_the_least_proven_first() -> None:
    _, region, weights = question(5, 0.1, 1)
    case = property_of(region, weights, 0.0).fitted(2, 3)[0]
    margins = torch.rand(100, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = Boxes.whole(case, 4)
    ends = torch.arange(200, dtype=torch.float64).reshape(100, 2)
    worst = torch.full_like(margins, -torch.inf)
    boxes = Boxes(torch.zeros(100).long(), ends, ends + 1, margins, worst, whole.signs.expand(100, 4))
    queue = Queue(case.unsafe, 1000)
    queue.push(boxes.select(slice(0, 60)), 8)
    queue.push(boxes.select(slice(60, 100)), 8)
    assert queue.lower == float(margins.amin())
    seen = list[float]()
    while len(queue):
        lowest = queue.lower
        queue.finish()
        some = queue.pop(20)
        assert len(some) <= 20
        assert float(some.atoms.amin()) == lowest
        seen += some.lower[:, 0].tolist()
    assert sorted(seen) == ends[:, 0].tolist()


def test_with_too_many_boxes_the_search_goes_deep_and_still_proves() -> None:
    usual, tight = searched(4, batch=8), searched(4, batch=8, most=16)
    assert usual.proved
    assert tight.proved
    assert tight.lower == pytest.approx(usual.lower, rel=1e-9)
