"""The whole search against enumeration in rational arithmetic: no verdict is wrong, and what is decidable is decided.

Ten thousand problems: ``python -m pytest -m slow tests/test_search_soundness.py -k thousands``.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from planted import plant
from questions import SHAPES, shifted, tiny_case, tiny_network, tiny_question
from rational import Fraction, smallest_margin

from leaktight.errors import UnsupportedOperator, UsageError
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import Case, Property
from leaktight.specs.region import Norm, ball
from leaktight.verify.prove import prove
from leaktight.verify.search import neurons, stages
from leaktight.verify.search.ascent import Schedule
from leaktight.verify.search.complete import complete
from leaktight.verify.search.leaf import Decision, decide
from leaktight.verify.search.refute import refute
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.stages import CURVES, Stage
from leaktight.verify.verdict import Status, Verdict

ENGINES = ("auto", "branch", "milp")


@pytest.fixture(autouse=True)
def weak_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack of few steps, so that the search itself has to find counterexamples, and problems are quick."""
    weak = {"restarts": 1, "steps": 3, "effort": 1e4}
    for place in ("prove", "branching"):
        monkeypatch.setattr(
            f"leaktight.verify.{place}.refute", lambda *asked, **given: refute(*asked, **{**given, **weak})
        )


def judge(shape: str, seed: int, gap: float, engine: str, wide: bool, timeout: float = 60.0) -> Verdict:
    """The verdict on one problem, after it was compared with the oracle."""
    network, asked, exact = tiny_question(shape, seed, gap, wide=wide)
    verdict = prove(network, asked, engine=engine, timeout=timeout)
    problem = f"{shape} {seed} {gap} {engine} {wide}: {verdict.status} {verdict.margin}, exactly {float(exact)}"
    assert verdict.status is not (Status.REFUTED if exact > 0 else Status.PROVED), problem
    assert verdict.margin.lower is not None, problem
    assert verdict.margin.upper is not None, problem
    assert Fraction(verdict.margin.lower) <= exact if verdict.margin.lower > -torch.inf else True, problem
    assert Fraction(verdict.margin.upper) >= exact - Fraction(10) ** -9 * (1 + abs(exact)), problem
    return verdict


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wide", [False, True])
def test_verdicts_agree_with_enumeration(engine: str, shape: str, wide: bool) -> None:
    for seed in range(10, 12):
        verdict = judge(shape, seed, 1e-3, engine, wide)
        if engine == "milp" or not wide:
            assert verdict.status in (Status.PROVED, Status.REFUTED), (seed, verdict)


@pytest.mark.parametrize("shape", ["chain", "residual", "per channel", "kinked"])
def test_where_every_neuron_is_split_linear_programs_decide(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Margins a billionth above zero or below, and neither turned lines nor multipliers to decide them."""
    for name in ("FIRST", "EACH", "LAST"):
        monkeypatch.setattr(neurons, name, Schedule(0))
    asked = []

    def counted(*given: Any, **more: Any) -> Decision:
        asked.append(decide(*given, **more))
        return asked[-1]

    monkeypatch.setattr("leaktight.verify.branching.decide", counted)
    for seed in range(20, 28):
        verdict = judge(shape, seed, 1e-9, "branch", wide=True)
        assert verdict.status in (Status.PROVED, Status.REFUTED), (seed, verdict)
    assert all(decision.exact for decision in asked)
    assert asked


@pytest.mark.parametrize("seed", range(2))
def test_linear_programs_decide_diamonds_as_well(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an L1 ball, a property that holds or fails by a thousandth; the box around the ball holds worse inputs."""
    for name in ("FIRST", "EACH", "LAST"):
        monkeypatch.setattr(neurons, name, Schedule(0))
    network, case = tiny_network("chain", seed, inputs=16), tiny_case(seed)
    centre = torch.cat([(case.region.lower + case.region.upper) / 2, torch.zeros(1, 14).double()], 1)
    case = Case(ball(centre, 0.5, Norm.L1), case.unsafe)
    hidden = [node for node in network if isinstance(node.op, TwoSlope)]
    patterns = itertools.product((1, -1), repeat=sum(node.size for node in hidden))
    sides = (torch.tensor(p, dtype=torch.int8).split([node.size for node in hidden]) for p in patterns)
    names = [node.name for node in hidden]
    least = min(decide(network, case, dict(zip(names, one, strict=True))).attained for one in sides)
    for gap, wanted in ((1e-3, Status.PROVED), (-1e-3, Status.REFUTED)):
        moved = shifted(case, least - gap * (1 + abs(least)))
        assert prove(network, Property((moved,)), engine="branch", timeout=60).status is wanted


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_tree_alone_decides_and_is_tight(shape: str, seed: int) -> None:
    """Without an attack before it, on a property that holds by a millionth, or fails by one."""
    network, asked, exact = tiny_question(shape, seed, 1e-6)
    (case,) = asked.about(network)
    found = complete(network, case, Replay(network))
    assert found.proved == (exact > 0)
    assert (found.found is not None) == (exact < 0)
    assert Fraction(found.lower) <= exact
    assert found.attained >= float(exact) - 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_a_margin_below_zero_by_rounding_is_never_proved(seed: int) -> None:
    """The unsafe set is touched by less than float64 computes: no rounding hides it."""
    network, case = tiny_network("chain", seed), tiny_case(seed)
    least = smallest_margin(network, case)
    touching = shifted(case, math.nextafter(float(least), math.inf))
    assert -(Fraction(10) ** -13) < smallest_margin(network, touching) <= 0
    for engine in ENGINES:
        assert prove(network, Property((touching,)), engine=engine, timeout=5).status is not Status.PROVED


@pytest.mark.parametrize("slope", [0.1, -0.5])
def test_a_counterexample_that_was_planted_in_training_is_never_proved_away(slope: float) -> None:
    planted = plant(1, problems=4, width=12, slope=slope, steps=250)
    assert len(planted.properties) > 1
    for asked, hidden, label in zip(planted.properties, planted.hidden, planted.labels, strict=True):
        assert int(planted.network.flat(hidden.unsqueeze(0)).argmax()) != int(label)
        for engine in ("alpha-crown", *ENGINES):
            assert prove(planted.network, asked, engine=engine, timeout=2).status is not Status.PROVED


def test_ctrl_c_answers_with_what_is_proven_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    network, asked, exact = tiny_question("kinked", 0, 1e-3)
    calls = []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return decide(*given, **named)

    monkeypatch.setattr("leaktight.verify.search.complete.decide", interrupted)
    verdict = prove(network, asked, engine="milp")
    assert verdict.status is Status.UNKNOWN
    assert verdict.reason.startswith("interrupted")
    assert verdict.margin.lower is not None
    assert -torch.inf < verdict.margin.lower
    assert Fraction(verdict.margin.lower) <= exact


def test_the_same_question_has_the_same_answer_and_the_same_bounds() -> None:
    network, asked, _ = tiny_question("maximum", 12, 1e-4)
    first, second = (prove(network, asked, engine="milp", seed=3) for _ in range(2))
    assert (first.status, first.margin, first.statistics) == (second.status, second.margin, second.statistics)


def test_what_cannot_be_decided_exactly_is_refused_by_name() -> None:
    from networks import build

    smooth = build("smooth", 0)
    with pytest.raises(UnsupportedOperator, match=r"node 'Sigmoid_2'.*not piecewise linear"):
        prove(smooth, Property((_any_case(smooth.input_size),)), engine="milp")
    network, case = tiny_network("chain", 0), tiny_case(0)
    round_region = ball(torch.zeros(1, 2), 0.5, Norm.L2)
    with pytest.raises(UsageError, match="L2 ball"):
        prove(network, Property((type(case)(round_region, case.unsafe),)), engine="milp")


def _any_case(size: int):  # type: ignore[no-untyped-def]
    from leaktight.specs.property import Case
    from leaktight.specs.region import Box
    from leaktight.specs.unsafe import Unsafe

    ones = torch.ones(1, size, dtype=torch.float64)
    unsafe = Unsafe(torch.ones(1, 1, 3, dtype=torch.float64), torch.zeros(1, 1).double(), torch.zeros(1).long())
    return Case(Box(-ones, ones), unsafe)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_ten_thousands_problems_have_no_wrong_verdict(part: int) -> None:
    """10,000 problems, one engine each in turn, half of them with inputs that do not move.

    They hold or fail by a tenth to a thousandth of the margin's size; for milp, which decides all, to a millionth.
    """
    for seed in range(1000 + 500 * part, 1500 + 500 * part):
        shape, engine, wide = SHAPES[seed % len(SHAPES)], ENGINES[seed // 6 % 3], bool(seed // 18 % 2)
        finest, timeout = (6, 60.0) if engine == "milp" else (3, 1.0)
        verdict = judge(shape, seed, 10.0 ** -(1 + seed // 36 % finest), engine, wide, timeout)
        assert engine != "milp" or verdict.status in (Status.PROVED, Status.REFUTED), (seed, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_thousand_problems_that_parabolas_have_to_decide_have_no_wrong_verdict(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parabolas from the second domain on, and lines that nobody turns: small problems seldom ask for them else."""
    monkeypatch.setitem(stages.staged.__kwdefaults__, "stages", (Stage(None, 1), Stage(CURVES, math.inf)))
    for name in ("FIRST", "EACH", "LAST"):
        monkeypatch.setattr(neurons, name, Schedule(0))
    for seed in range(20000 + 500 * part, 20500 + 500 * part):
        gap = 10.0 ** -(2 + seed // 12 % 5)
        judge(SHAPES[seed % len(SHAPES)], seed, gap, "branch", bool(seed // 6 % 2), timeout=2.0)
