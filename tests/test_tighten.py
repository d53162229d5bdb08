"""The least margin to a tolerance: both bounds hold in rational arithmetic, and come as close as was asked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from questions import FIXED, padded, shifted, tiny_case, tiny_network
from rational import Fraction, smallest_margin

from leaktight import cli
from leaktight.errors import UsageError
from leaktight.specs.property import Property
from leaktight.verify import branching
from leaktight.verify.search import stages
from leaktight.verify.tighten import least_margin, moved
from leaktight.verify.verdict import Status

DIGITS = ["leaktight/data/digits.onnx", "leaktight/data/digits-proved.vnnlib"]


@pytest.mark.parametrize("engine", ["auto", "branch", "milp"])
@pytest.mark.parametrize("shape", ["chain", "per channel", "maximum"])
def test_the_margin_is_found_to_the_tolerance(engine: str, shape: str) -> None:
    for seed, tolerance in ((20, 1e-2), (21, 1e-4)):
        network, case = tiny_network(shape, seed), tiny_case(seed)
        exact = smallest_margin(network, case)
        found = least_margin(network, Property((case,)), tolerance, engine=engine, timeout=60)
        assert found.margin.lower is not None
        assert found.margin.upper is not None
        assert found.margin.upper - found.margin.lower <= tolerance, (seed, found)
        assert Fraction(found.margin.lower) <= exact <= Fraction(found.margin.upper) + Fraction(10) ** -9
        assert found.status is (Status.PROVED if exact > 0 else Status.REFUTED)


def test_where_many_inputs_do_not_move_the_margin_is_found_by_splitting_neurons() -> None:
    network, case = tiny_network("residual", 5, inputs=2 + FIXED), padded(tiny_case(5))
    exact = smallest_margin(network, case)
    found = least_margin(network, Property((case,)), 1e-6, engine="milp", timeout=60)
    assert found.margin.lower is not None
    assert found.margin.upper is not None
    assert found.margin.upper - found.margin.lower <= 1e-6
    assert Fraction(found.margin.lower) <= exact <= Fraction(found.margin.upper) + Fraction(10) ** -9


def test_the_neurons_of_each_case_are_bounded_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network("residual", 8, inputs=2 + FIXED)
    cases = (padded(tiny_case(8)),)
    exact, bounded, asked = min(smallest_margin(network, case) for case in cases), list[object](), list[object]()

    def noted(log: list[object], call: Callable[..., object]) -> Callable[..., object]:
        return lambda *given, **named: log.append(given) or call(*given, **named)

    monkeypatch.setattr(stages, "intermediate_bounds", noted(bounded, stages.intermediate_bounds))
    monkeypatch.setattr(branching, "split", noted(asked, branching.split))
    found = least_margin(network, Property(cases), 1e-5, timeout=60)
    assert len(asked) > len(cases) >= len(bounded) > 0
    assert found.margin.lower is not None
    assert found.margin.upper is not None
    assert found.margin.upper - found.margin.lower <= 1e-5
    assert Fraction(found.margin.lower) <= exact <= Fraction(found.margin.upper) + Fraction(10) ** -9


def test_the_least_margin_of_several_cases_is_the_least_of_theirs() -> None:
    network, cases = tiny_network("chain", 3), (tiny_case(3), shifted(tiny_case(4), 1.0), tiny_case(7))
    exact = min(smallest_margin(network, case) for case in cases)
    found = least_margin(network, Property(cases), 1e-3, engine="milp", timeout=60)
    assert found.margin.lower is not None
    assert found.margin.upper is not None
    assert Fraction(found.margin.lower) <= exact <= Fraction(found.margin.upper) + Fraction(10) ** -9
    assert found.margin.upper - found.margin.lower <= 1e-3


def test_an_engine_that_gives_up_leaves_bounds_that_hold_and_says_so() -> None:
    network, case = tiny_network("chain", 20), tiny_case(20)
    found = least_margin(network, Property((case,)), 1e-9, engine="interval")
    assert found.margin.lower is not None
    assert found.margin.upper is not None
    exact = smallest_margin(network, case)
    assert Fraction(found.margin.lower) <= exact <= Fraction(found.margin.upper) + Fraction(10) ** -9
    assert "further apart than 1e-09" in found.reason


@given(seed=st.integers(0, 100), target=st.floats(-1e12, 1e12))
def test_a_moved_property_encloses_what_it_stands_for(seed: int, target: float) -> None:
    case = shifted(tiny_case(seed), 0.1)
    (other,) = moved((case,), target).cases
    unsafe = other.unsafe  # type: ignore[union-attr]
    assert unsafe.inner_bounds is not None
    for bound, outer, inner in zip(
        case.unsafe.bounds[0].tolist(), unsafe.bounds[0].tolist(), unsafe.inner_bounds[0].tolist(), strict=True
    ):
        assert Fraction(inner) <= Fraction(bound) + Fraction(target) <= Fraction(outer)
        assert outer - inner <= 1e-14 * (abs(bound) + abs(target)) + 1e-300


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_must_be_above_zero(tolerance: float) -> None:
    network, case = tiny_network("chain", 0), tiny_case(0)
    with pytest.raises(UsageError, match="--margin"):
        least_margin(network, Property((case,)), tolerance)


def test_on_the_command_line_stdout_is_one_document(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS prints a banner of its own; nothing of it reaches stdout."""
    code = cli.run(["verify", *DIGITS, "--engine", "milp", "--margin", "1/4", "--format", "json"])
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert code == 0, err
    assert document["schema"] == "leaktight.verdict/1"
    assert document["status"] == "proved"
    assert 0 <= document["margin"]["upper"] - document["margin"]["lower"] <= 0.25
    assert cli.run(["verify", *DIGITS, "--margin", "0"]) == 2
    assert cli.run(["verify", *DIGITS, "--margin", "x"]) == 2


def test_the_time_limit_is_for_all_questions_together() -> None:
    network, case = tiny_network("chain", 1, width=40), tiny_case(1)
    found = least_margin(network, Property((case,)), 1e-12, engine="milp", timeout=0.5)
    assert found.seconds < 5
    assert found.margin.lower is None or found.margin.lower <= (found.margin.upper or torch.inf) + 1e-9
