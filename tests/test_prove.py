"""Verdicts: proved is never contradicted, refuted comes with an input, and nothing else makes a claim."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from networks import KINDS, Draft, build, exact_outputs, fully_connected
from torch import Tensor

from leaktight.errors import PropertyError, UsageError
from leaktight.models.network import Network
from leaktight.models.ops import Linear, leaky_relu
from leaktight.specs.property import Case, Property, robust
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.engine import ENGINES
from leaktight.verify.prove import prove
from leaktight.verify.verdict import Guarantee, Status, Verdict

OURS = ("auto", *ENGINES)


def unsafe(
    rows: list[list[float]], bounds: list[float], disjunct: list[int] | None = None, strict: bool = False
) -> Unsafe:
    """Atoms ``rows . y <= bounds``; each a disjunct of its own unless told."""
    at = torch.tensor(disjunct if disjunct is not None else list(range(len(rows))))
    return Unsafe(
        torch.tensor([rows], dtype=torch.float64),
        torch.tensor([bounds], dtype=torch.float64),
        at,
        torch.full((len(rows),), strict),
    )


def unit_box(size: int, radius: float = 1.0) -> Box:
    return Box(-radius * torch.ones(1, size, dtype=torch.float64), radius * torch.ones(1, size, dtype=torch.float64))


def identity(size: int) -> Network:
    draft = Draft(0)
    return draft.network(draft.add(Linear(torch.eye(size, dtype=torch.float64)), draft.input(1, size)))


def tent() -> Network:
    """``y = |x|``, as a Leaky ReLU of slope -1."""
    draft = Draft(0)
    return draft.network(draft.add(leaky_relu(-1.0), draft.input(1, 1)))


def ask(
    network: Network, region: Region, condition: Unsafe, engine: str = "auto", timeout: float | None = None
) -> Verdict:
    return prove(network, Property((Case(region, condition),)), engine=engine, timeout=timeout)


def margins(network: Network, case: Case, count: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    points = torch.cat([case.region.sample(generator) for _ in range(count)])
    return case.unsafe.margin(network.flat(points))


def check(network: Network, property: Property, verdict: Verdict) -> None:
    """What holds of every verdict, whatever it is."""
    case = property.about(network)[0]
    assert verdict.guarantee is Guarantee.REAL
    assert verdict.reason
    lower, upper = verdict.margin.lower, verdict.margin.upper
    assert lower is not None
    assert upper is not None
    assert lower <= upper
    sampled = float(margins(network, case).min())
    assert lower <= sampled
    if verdict.status is Status.PROVED:
        assert lower > 0
        assert verdict.counterexample is None
    elif verdict.status is Status.REFUTED:
        check_counterexample(network, case, verdict)
        assert lower <= 0
    else:
        assert verdict.counterexample is None
        assert lower <= 0 < upper


def check_counterexample(network: Network, case: Case, verdict: Verdict) -> None:
    assert verdict.counterexample is not None
    point = torch.from_numpy(verdict.counterexample.point)
    assert bool(case.region.contains(point.unsqueeze(0)))
    try:
        y = exact_outputs(network, [Fraction(v) for v in point.tolist()])
    except TypeError:
        y = [Fraction(v) for v in network.flat(point.unsqueeze(0))[0].tolist()]
    rows, bounds = case.unsafe.weights[0].tolist(), case.unsafe.bounds[0].tolist()
    atoms = [
        sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0)) - Fraction(d)
        for row, d in zip(rows, bounds, strict=True)
    ]
    each = [
        max(a for a, k in zip(atoms, case.unsafe.disjunct.tolist(), strict=True) if k == i)
        for i in range(case.unsafe.disjuncts)
    ]
    assert min(each) <= Fraction(1, 10**12)
    assert verdict.counterexample.margin <= 0
    assert verdict.margin.upper is not None
    assert verdict.margin.upper <= verdict.counterexample.margin


@pytest.mark.parametrize("share", [-0.1, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_every_verdict_agrees_with_what_samples_show(kind: str, share: float) -> None:
    """Bounds a little above and below the sampled minimum: what is true, false, and hard to say."""
    network = build(kind, 21)
    centre = torch.randn(1, network.input_size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    region = ball(centre, 0.3, Norm.LINF if share < 0 else Norm.L2)
    row = torch.randn(network.output_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64).tolist()
    lowest = margins(network, Case(region, unsafe([row], [0.0])))
    limit = float(lowest.min() + share * (lowest.max() - lowest.min() + 1e-3))
    property = Property((Case(region, unsafe([row], [limit])),))
    verdict = prove(network, property)
    check(network, property, verdict)
    assert verdict.status in ((Status.REFUTED,) if share > 0 else (Status.PROVED, Status.UNKNOWN, Status.REFUTED))


@pytest.mark.parametrize("engine", OURS)
def test_what_is_clearly_so_is_proved_by_every_engine(engine: str) -> None:
    verdict = ask(identity(2), unit_box(2), unsafe([[1, 0], [0, -1]], [-1.5, -1.25]), engine)
    assert verdict.status is Status.PROVED
    assert verdict.margin.lower == pytest.approx(0.25)
    assert verdict.engine == engine


@pytest.mark.parametrize("engine", OURS)
def test_what_is_clearly_not_so_is_refuted_by_every_engine(engine: str) -> None:
    verdict = ask(identity(2), unit_box(2), unsafe([[1, 0]], [-0.5]), engine)
    assert verdict.status is Status.REFUTED
    assert verdict.counterexample is not None
    assert verdict.counterexample.point[0] <= -0.5


def test_what_is_true_but_beyond_the_bounds_is_unknown() -> None:
    network = fully_connected(3, (2, 10, 10, 10, 1), -1.0)
    region = unit_box(2)
    lowest = float(margins(network, Case(region, unsafe([[1]], [0])), 20000).min())
    verdict = ask(network, region, unsafe([[1]], [lowest - 1.0]), "interval")
    assert verdict.status is Status.UNKNOWN
    assert verdict.counterexample is None
    assert "not above zero" in verdict.reason


def test_a_conjunction_needs_only_one_atom_ruled_out() -> None:
    """Unsafe: y1 <= 0 and y2 <= -2. The first happens, the second never: safe."""
    both = unsafe([[1, 0], [0, 1]], [0, -2], disjunct=[0, 0])
    assert ask(identity(2), unit_box(2), both).status is Status.PROVED


def test_a_disjunction_needs_every_disjunct_ruled_out() -> None:
    either = unsafe([[1, 0], [0, 1]], [0, -2], disjunct=[0, 1])
    assert ask(identity(2), unit_box(2), either).status is Status.REFUTED
    neither = unsafe([[1, 0], [0, 1]], [-1.5, -2], disjunct=[0, 1])
    assert ask(identity(2), unit_box(2), neither).status is Status.PROVED


def test_atoms_of_different_disjuncts_may_stand_in_any_order() -> None:
    """Disjunct 0: y1 <= 0 and y2 <= -2 (impossible); disjunct 1: y2 <= 0 and y1 <= -2 (impossible)."""
    mixed = unsafe([[1, 0], [0, 1], [0, 1], [1, 0]], [0, 0, -2, -2], disjunct=[0, 1, 0, 1])
    assert ask(identity(2), unit_box(2), mixed).status is Status.PROVED
    possible = unsafe([[1, 0], [0, 1], [0, 1], [1, 0]], [0, 0, -0.5, -2], disjunct=[0, 1, 0, 1])
    assert ask(identity(2), unit_box(2), possible).status is Status.REFUTED


def test_an_empty_unsafe_set_is_never_entered() -> None:
    nothing = Unsafe(
        torch.zeros(1, 0, 2, dtype=torch.float64),
        torch.zeros(1, 0, dtype=torch.float64),
        torch.zeros(0, dtype=torch.long),
    )
    assert ask(identity(2), unit_box(2), nothing).status is Status.PROVED


def test_a_bound_that_is_attained_is_unsafe_unless_it_is_strict() -> None:
    """``y <= -1`` happens at x = -1; ``y < -1`` never does, and no rounding may say that it does."""
    assert ask(identity(1), unit_box(1), unsafe([[1]], [-1.0])).status is Status.REFUTED
    strict = ask(identity(1), unit_box(1), unsafe([[1]], [-1.0], strict=True))
    assert strict.status in (Status.PROVED, Status.UNKNOWN)
    assert strict.counterexample is None


def test_zero_bounds_prove_strict_atoms_only() -> None:
    bounds = torch.tensor([[0.0]], dtype=torch.float64)
    assert not bool(unsafe([[1]], [0]).proved(bounds).any())
    assert bool(unsafe([[1]], [0], strict=True).proved(bounds).all())
    for nothing in (-torch.inf, torch.nan, -1e-300):
        assert not bool(unsafe([[1]], [0], strict=True).proved(torch.full_like(bounds, nothing)).any())


def test_every_case_must_hold() -> None:
    good, bad = Case(unit_box(1), unsafe([[1]], [-2])), Case(unit_box(1, 3.0), unsafe([[1]], [-2]))
    assert prove(identity(1), Property((good, good))).status is Status.PROVED
    verdict = prove(identity(1), Property((good, bad)))
    assert verdict.status is Status.REFUTED
    assert verdict.counterexample is not None
    assert verdict.counterexample.point[0] <= -2
    assert verdict.statistics["cases"] == 2


def test_a_case_with_several_regions_holds_where_all_of_them_do() -> None:
    regions = Box(torch.tensor([[0.0], [-3.0]]).double(), torch.tensor([[1.0], [-2.5]]).double())
    assert ask(identity(1), regions, unsafe([[1]], [-4])).status is Status.PROVED
    assert ask(identity(1), regions, unsafe([[1]], [-2.75])).status is Status.REFUTED


def test_the_absolute_value_is_never_negative() -> None:
    assert ask(tent(), unit_box(1), unsafe([[1]], [-0.01])).status is Status.PROVED
    assert ask(tent(), unit_box(1), unsafe([[1]], [0.01])).status is Status.REFUTED


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_arithmetic_of_the_bounds_does_not_change_what_is_claimed(dtype: torch.dtype) -> None:
    """``1e8 x - 1e8 x + x`` on [1e-3, 1] is positive; float32 loses x entirely and may not say anything false."""
    draft = Draft(0)
    x = draft.input(1, 1)
    pair = draft.add(Linear(torch.tensor([[1e8], [1e8 - 1.0]]).double()), x)
    network = draft.network(draft.add(Linear(torch.tensor([[1.0, -1.0]]).double()), draft.add(leaky_relu(1.0), pair)))
    region = Box(torch.tensor([[1e-3]]).double(), torch.tensor([[1.0]]).double())
    sound = prove(network, Property((Case(region, unsafe([[1]], [-1e-3])),)), dtype=dtype)
    assert sound.status is not Status.REFUTED
    wrong = prove(network, Property((Case(region, unsafe([[1]], [0.0])),)), dtype=dtype)
    assert wrong.status is not Status.PROVED or dtype == torch.float64


@pytest.mark.parametrize("timeout", [0.001, 0.3, 1.0])
def test_the_time_limit_is_kept_within_half_a_second(timeout: float) -> None:
    network = fully_connected(5, (12, 150, 150, 150, 150, 5), 0.1)
    region = unit_box(12)
    rows = (torch.eye(5) - torch.roll(torch.eye(5), 1, 1)).tolist()
    lowest = margins(network, Case(region, unsafe(rows, [0.0] * 5)), 500).min()
    condition = unsafe(rows, [float(lowest) - 5] * 5)
    began = time.process_time()
    verdict = ask(network, region, condition, timeout=timeout)
    assert time.process_time() - began <= timeout + 0.5
    assert verdict.status in (Status.TIMEOUT, Status.UNKNOWN, Status.PROVED)
    if verdict.status is Status.TIMEOUT:
        assert "time" in verdict.reason


@pytest.mark.parametrize("kind", ["fully_connected", "residual", "max_pool"])
def test_the_same_question_has_the_same_answer(kind: str) -> None:
    network = build(kind, 4)
    property = Property((Case(unit_box(network.input_size, 0.4), unsafe([[1.0] * network.output_size], [-0.5])),))
    first, second = (prove(network, property, seed=3) for _ in range(2))
    assert first.status == second.status
    assert first.margin == second.margin
    small = prove(network, property, seed=3, memory=1)
    assert small.status == first.status
    assert small.margin.lower == pytest.approx(first.margin.lower, abs=1e-9)


def test_a_label_is_robust_near_a_point_and_not_far_from_it() -> None:
    network, x = fully_connected(6, (3, 8, 3), 0.1), torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    label = int(network.flat(x.unsqueeze(0)).argmax())
    assert prove(network, robust(x, label, 1e-4)).status is Status.PROVED
    assert prove(network, robust(x, label, 50.0)).status is Status.REFUTED
    wrong = prove(network, robust(x, (label + 1) % 3, 0.0))
    assert wrong.status is Status.REFUTED
    assert wrong.margin.upper is not None
    assert wrong.margin.upper < 0


def test_bad_arguments_are_refused_with_what_is_allowed() -> None:
    network, property = identity(1), Property((Case(unit_box(1), unsafe([[1]], [-2])),))
    with pytest.raises(UsageError, match="interval, crown, alpha-crown"):
        prove(network, property, engine="milp-ish")
    for timeout in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="timeout"):
            prove(network, property, timeout=timeout)
    with pytest.raises(UsageError, match="memory"):
        prove(network, property, memory=0)
    with pytest.raises(PropertyError, match="input"):
        prove(identity(2), property)


def test_the_json_of_a_verdict_has_no_infinities() -> None:
    verdict = ask(identity(1), unit_box(1), unsafe([[1]], [-2]))
    endless = replace(verdict, margin=replace(verdict.margin, lower=-torch.inf, upper=torch.inf))
    assert endless.to_json()["margin"] == {"lower": None, "upper": None}
    assert verdict.to_json()["margin"]["lower"] == pytest.approx(1.0)
