"""The first lines of a curve: no input lies below them after any stage, and only rows that matter go on."""

from __future__ import annotations

import pytest
import torch
from networks import fully_connected
from torch import Tensor

from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import Unsafe, misclassified
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.stages import PIECES, STAGES, Stage, _Staged, first_margins

ENDS = torch.linspace(0.0, 0.3, PIECES + 1, dtype=torch.float64)
SHAPE = (6, 24, 20, 16, 5)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds neurons in float32, in networks as small as those of these tests."""
    monkeypatch.setattr("leaktight.verify.bounds.single._NARROW", 0)


def asked(seed: int, radius: float, norm: Norm = Norm.LINF) -> tuple[Slopes, Case]:
    network = fully_connected(seed, SHAPE, 0.1)
    x = torch.randn(6, SHAPE[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Slopes.of(network), Case(ball(x, radius, norm), misclassified(network.flat(x).argmax(1), SHAPE[-1]))


def attacked(slopes: Slopes, case: Case, a: float, generator: torch.Generator) -> Tensor:
    """The least margin of some inputs of each region: corners and samples, pushed down by gradients."""
    many = torch.arange(case.region.batch).repeat_interleave(200)
    region, unsafe, network = case.region.select(many), case.unsafe.select(many), slopes.at(a)
    x = region.sample(generator)
    for step in range(3):
        with torch.enable_grad():
            start = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(unsafe.margin(network.flat(start)).sum(), start)
        x = region.project(x - (region.upper - region.lower) * 0.5**step * slope.sign())
    return unsafe.margin(network.flat(x)).reshape(-1, 200).amin(1)


@pytest.mark.parametrize(
    ("stages", "norm"), [(STAGES[:2], Norm.LINF), (STAGES[::2], Norm.LINF), (STAGES, Norm.L1), (STAGES[:1], Norm.L2)]
)
def test_no_input_lies_below_the_lines_of_any_stage(stages: tuple[Stage, ...], norm: Norm) -> None:
    slopes, case = asked(len(stages), 0.25, norm)
    found, _ = first_margins(slopes, case, ENDS, 1e-6, Effort(), stages)
    low, high = (x.reshape(-1, PIECES) for x in (found.at_lo, found.at_hi))
    generator = torch.Generator().manual_seed(0)
    for k in range(0, PIECES, 5):
        for share in (0.0, 0.5, 1.0):
            a = float(torch.lerp(ENDS[k], ENDS[k + 1], share))
            bound = torch.lerp(low[:, k], high[:, k], share)
            assert bool((attacked(slopes, case, a, generator) >= bound - 1e-9).all())


def test_neurons_that_an_earlier_stage_bounded_serve_later_ones() -> None:
    slopes, case = asked(5, 0.2)
    stage, later = Stage(PIECES // 4, 2), Stage(PIECES // 4, 4)
    staged = _Staged(slopes, case, ENDS, Effort(), STAGES)
    whole = staged._bounded_anew(stage, torch.tensor([1, 3, 4]))
    some = staged._bounded_before(later, torch.tensor([3, 4]))
    assert some is not None
    many = torch.tensor([3, 4]).repeat_interleave(some.count)
    assert torch.equal(some.region.lower, case.region.lower[many])
    for name, z in some.tracked.items():
        for own, made in ((z.lower, whole.tracked[name].lower), (z.upper, whole.tracked[name].upper)):
            assert torch.equal(own, made[some.count :])
    assert staged._bounded_before(later, torch.tensor([0, 3])) is None
    assert staged._bounded_before(STAGES[-1], torch.tensor([3])) is None


def test_more_stages_lose_less_against_single_certificates() -> None:
    slopes, case = asked(3, 0.15)
    lost = []
    for stages in (STAGES[:1], STAGES[::2]):
        found, _ = first_margins(slopes, case, ENDS, 1e-6, Effort(), stages)
        middle = (found.at_lo / 2 + found.at_hi / 2).reshape(-1, PIECES)
        alone = [
            case.unsafe.combine(lower_bounds(slopes.at(float(a)), case.region, case.unsafe.weights))
            for a in (ENDS[:-1] + ENDS[1:])[::5] / 2
        ]
        lost.append((torch.stack(alone, 1) - middle[:, ::5]).clamp(min=0))
    assert float(lost[1].mean()) < float(lost[0].mean()) / 4
    assert float(lost[1].amax()) < 0.1


def test_the_rows_that_may_be_smallest_are_those_of_conjunctions_that_are_not_above_the_centre() -> None:
    """Two conjunctions, one far above: it keeps its line, and the margin is that of the other one alone."""
    slopes, case = asked(4, 0.1)
    weights = torch.randn(1, 3, SHAPE[-1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    near, far = torch.zeros(1, 3).double(), torch.tensor([[0.0, 0.0, -1e3]]).double()
    both = Unsafe(weights, near + far, torch.tensor([0, 0, 1]))
    one = Unsafe(weights[:, :2], near[:, :2], torch.tensor([0, 0]))
    found = [first_margins(slopes, Case(case.region, x), ENDS, 1e-6, Effort())[0] for x in (both, one)]
    for name in ("at_lo", "at_hi"):  # products in float32 with more rows round otherwise
        assert torch.allclose(getattr(found[0], name), getattr(found[1], name), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_of_wide_networks_a_hundred_thousand_inputs_and_slopes_lie_above_the_lines(seed: int) -> None:
    network = fully_connected(seed, (12, 72, 64, 64, 5), 0.1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(10, 12, generator=generator, dtype=torch.float64)
    case = Case(ball(x, 0.1 + 0.1 * seed), misclassified(network.flat(x).argmax(1), 5))
    slopes = Slopes.of(network)
    found, _ = first_margins(slopes, case, ENDS, 1e-6, Effort())
    low, high = (z.reshape(-1, PIECES) for z in (found.at_lo, found.at_hi))
    which = torch.arange(10).repeat_interleave(12_000)
    region, unsafe = case.region.select(which), case.unsafe.select(which)
    a = 0.3 * torch.rand(len(which), generator=generator, dtype=torch.float64)
    corner = torch.where(torch.rand(len(which), 12, generator=generator) < 0.5, region.lower, region.upper)
    points = torch.where(torch.rand(len(which), 1, generator=generator) < 0.5, corner, region.sample(generator))
    piece = (a / 0.3 * PIECES).long().clamp(max=PIECES - 1)
    bound = torch.lerp(low[which, piece], high[which, piece], (a - ENDS[piece]) / (ENDS[piece + 1] - ENDS[piece]))
    for step in range(4):
        with torch.enable_grad():
            start = points.detach().requires_grad_(True)
            margins = unsafe.margin(slopes.at(a).flat(start))
            (slope,) = torch.autograd.grad(margins.sum(), start)
        assert bool((margins.detach() >= bound - 1e-12 * (1 + bound.abs())).all())
        points = region.project(points - (region.upper - region.lower) * 0.6**step * slope.sign())
