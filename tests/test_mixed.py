"""Neurons split within boxes prove no more than holds, and close what halving alone leaves open."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import KINDS, build, fully_connected
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Box
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.prove import prove
from leaktight.verify.search import bisect as halving
from leaktight.verify.search.activations import splittable
from leaktight.verify.search.box_bounds import Bounder
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.search.mixed import Within, split_within
from leaktight.verify.search.questions import standing_questions
from leaktight.verify.verdict import Status

MEMORY = 1 << 28
SPLITTABLE = [kind for kind in sorted(KINDS) if splittable(build(kind, 1))]


def boxes_of(network: Network, seed: int, count: int, radius: float) -> Box:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, network.input_size, generator=generator, dtype=torch.float64)
    return Box(centre - radius, centre + radius)


def case_of(network: Network, seed: int, count: int, radius: float) -> Case:
    """A conjunction of two and one of one, whose bounds lie about the values at the centres."""
    generator = torch.Generator().manual_seed(seed)
    region = boxes_of(network, seed, count, radius)
    weights = torch.randn(1, 3, network.output_size, generator=generator, dtype=torch.float64)
    middle = (weights @ network.flat((region.lower + region.upper) / 2).unsqueeze(-1)).squeeze(-1)
    bounds = middle - middle.abs().amax() * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return Case(region, Unsafe(weights.expand(count, -1, -1), bounds, torch.tensor([0, 0, 1])))


def asked(network: Network, case: Case, **ways: float) -> Within:
    with torch.no_grad():
        known = intermediate_bounds(network, case.region, MEMORY)
        standing = torch.ones(case.region.batch, case.unsafe.disjuncts, dtype=torch.bool)
        nothing = torch.full(standing.shape, -torch.inf, dtype=torch.float64)
        return split_within(network, case, known, nothing, standing, memory=MEMORY, late=lambda: False, **ways)  # type: ignore[arg-type]


def smallest_seen(network: Network, case: Case, seed: int) -> Tensor:
    """The smallest value of each disjunct's largest atom on random points ``(boxes, disjuncts)``."""
    generator = torch.Generator().manual_seed(seed)
    low, high = case.region.lower, case.region.upper
    best = torch.full((case.region.batch, 2), torch.inf, dtype=torch.float64)
    for i in range(400):
        share = torch.rand(low.shape, generator=generator, dtype=torch.float64)
        atoms = case.unsafe.atoms(network.flat(low + (share.round() if i % 4 == 0 else share) * (high - low)))
        best = torch.minimum(best, torch.stack([atoms[:, :2].amax(1), atoms[:, 2]], 1))
    return best


@pytest.mark.parametrize("kind", SPLITTABLE)
@pytest.mark.parametrize("seed", [1, 2])
def test_bounds_are_below_every_sampled_input(kind: str, seed: int) -> None:
    network = build(kind, seed)
    case = case_of(network, seed, 5, 0.5)
    found, seen = asked(network, case, most=64, gain=-torch.inf, rounds=3), smallest_seen(network, case, seed)
    assert bool(torch.isfinite(found.worst).all())
    assert bool((found.worst <= seen + 1e-12 * (1 + seen.abs())).all())


@pytest.mark.parametrize("slope", [-0.7, 0.0, 0.1, 2.5])
def test_rounds_of_splits_raise_the_bounds_towards_the_minimum(slope: float) -> None:
    network = fully_connected(4, (2, 8, 8, 3), slope)
    case = case_of(network, 4, 12, 0.8)
    # what is proved is not improved
    none, some = (asked(network, case, most=256, gain=-torch.inf, rounds=k).worst.clamp(max=0) for k in (0, 6))
    seen = smallest_seen(network, case, 4).clamp(max=0)
    assert bool((some >= none - 1e-9).all())
    assert float((seen - none).sum()) > 0.1
    assert float((seen - some).sum()) < 0.6 * float((seen - none).sum())


def test_only_what_stands_is_asked() -> None:
    network = fully_connected(3, (2, 6, 3), 0.1)
    case = case_of(network, 3, 3, 0.3)
    standing = torch.tensor([[True, False], [False, False], [True, True]])
    questions = standing_questions(case, standing)
    assert questions.region.tolist() == [0, 2, 2]
    assert questions.disjunct.tolist() == [0, 0, 1]
    assert questions.real.tolist() == [[True, True], [True, True], [True, False]]
    assert torch.equal(questions.weights[2, 0], case.unsafe.weights[2, 2])
    assert float(questions.bounds[1, 1]) == float(case.unsafe.bounds[2, 1])


def test_what_becomes_of_a_box_does_not_depend_on_its_neighbours() -> None:
    network = fully_connected(6, (3, 12, 12, 3), 0.1)
    case = case_of(network, 6, 40, 0.3)
    together = asked(network, case).worst
    for i in range(0, 40, 7):
        alone = asked(network, Case(case.region.select(slice(i, i + 1)), case.unsafe.select(slice(i, i + 1)))).worst
        # a proved question keeps the lowest bound of all that were proved beside it, which is above zero too
        assert bool(((alone > 0) == (together[i] > 0)).all())
        negative = alone[0] <= 0
        assert alone[0][negative].tolist() == pytest.approx(together[i][negative].tolist(), rel=1e-4)


def test_conjunctions_are_closed_in_fewer_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fully_connected(5, (3, 16, 16, 4), 0.1)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(1, 3, 4, generator=generator, dtype=torch.float64)
    region = Box(-torch.ones(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))
    points = -1 + 2 * torch.rand(200_000, 3, generator=generator, dtype=torch.float64)
    edge = float((network.flat(points) @ weights[0].mT).amax(1).amin()) - 0.05
    bounds = torch.full((1, 3), edge, dtype=torch.float64)
    holds = Property((Case(region, Unsafe(weights, bounds, torch.zeros(3).long())),))
    counts, real = [], Bounder.__call__

    def call(self: Bounder, boxes: Boxes, *rest: Any) -> Any:
        counts[-1] += len(boxes)
        return real(self, boxes, *rest)

    monkeypatch.setattr(Bounder, "__call__", call)
    for splits in (True, False):
        monkeypatch.setattr(halving, "splittable", lambda _, splits=splits: splits)
        counts.append(0)
        assert prove(network, holds, engine="branch", timeout=60).status is Status.PROVED
    assert counts[0] < 0.7 * counts[1]
