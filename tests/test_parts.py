"""A property in parts: every input that is not proved lies in a part, and parts decide what the whole does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from questions import SHAPES, shifted, tiny_question
from rational import Fraction
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Property, robust
from leaktight.specs.region import Norm
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.divide import Divided, _known, divide
from leaktight.verify.parts import Part, _boxes, _floor, domains_of, prove_part
from leaktight.verify.prove import prove
from leaktight.verify.run.joined import joined
from leaktight.verify.search import stages
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.questions import open_questions
from leaktight.verify.search.refute import refute
from leaktight.verify.search.stages import Stage
from leaktight.verify.search.tighten import Effort
from leaktight.verify.verdict import Status

WEAK = {"restarts": 1, "steps": 1, "effort": 1.0}


@pytest.fixture(autouse=True)
def weak_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that finds little, so that there is something to divide."""
    weak = lambda *asked, **given: refute(*asked, **{**given, **WEAK})  # noqa: E731
    for place in ("prove", "branching"):
        monkeypatch.setattr(f"leaktight.verify.{place}.refute", weak)


def sent(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """The parts after a journey to another machine."""
    found: list[dict[str, Any]] = json.loads(json.dumps(parts, allow_nan=False))
    return found


def answered(network: Network, asked: Property, divided: Divided, **ways: Any) -> dict[str, Any]:
    answers = [prove_part(network, asked, part, **ways).to_json() for part in sent(divided.parts)]
    begun = json.loads(json.dumps(divided.verdict.to_json()))
    return joined(begun, answers, len(answers), 0.0) if answers else begun


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_together_answer_as_enumeration_does(shape: str, wide: bool) -> None:
    for seed in range(20, 23):
        network, asked, exact = tiny_question(shape, seed, 1e-2, wide=wide)
        found = answered(network, asked, divide(network, asked, 6, timeout=60), timeout=60)
        problem = f"{shape} {seed} {wide}: {found}, exactly {float(exact)}"
        assert found["status"] != ("refuted" if exact > 0 else "proved"), problem
        if wide and shape in ("clipped", "maximum"):
            continue  # no search splits these neurons
        assert found["status"] == ("proved" if exact > 0 else "refuted"), problem
        if found["margin"]["lower"] is not None:
            assert Fraction(found["margin"]["lower"]) <= exact, problem


def test_parts_that_look_for_bounds_of_their_own_answer_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tightened: list[int] = []

    def counted(*given: Any, **ways: Any) -> Any:
        tightened.append(1)
        return stages.tightened_before(*given, **ways)  # type: ignore[attr-defined]

    monkeypatch.setattr(stages, "tightened_before", stages.tightened, raising=False)
    monkeypatch.setattr("leaktight.verify.divide.WARM_UP", ())
    monkeypatch.setattr("leaktight.verify.parts.PART", (Stage(None, 0), Stage(Effort(2, 2), math.inf)))
    for shape, seed in (("chain", 25), ("per channel", 23)):  # there is something to divide
        network, asked, exact = tiny_question(shape, seed, 1e-2, wide=True)
        divided = divide(network, asked, 2, timeout=60)
        assert len(divided.parts) == 2
        with monkeypatch.context() as patch:
            patch.setattr(stages, "tightened", counted)
            found = answered(network, asked, divided, timeout=60)
        assert found["status"] == ("proved" if exact > 0 else "refuted"), shape
        if found["margin"]["lower"] is not None:
            assert Fraction(found["margin"]["lower"]) <= exact, shape
    assert tightened


def inside(network: Network, part: dict[str, Any], x: Tensor) -> Tensor:
    """Which of the inputs ``(batch, n)`` a part is about."""
    found = torch.zeros(len(x), dtype=torch.bool)
    for box in part.get("boxes", []):
        lower, upper = (torch.tensor(box[end], dtype=torch.float64) for end in ("lower", "upper"))
        found |= ((x >= lower) & (x <= upper)).all(1)
    values = network.values(x.reshape(-1, *network.inputs[0].shape[1:]))
    for domain in part.get("domains", []):
        within = torch.ones(len(x), dtype=torch.bool)
        for name, entry, side in domain["sides"]:
            node = network.by_name[name]
            kink = node.op.kink.expand(node.shape).reshape(-1)[entry]  # type: ignore[attr-defined]
            within &= side * (values[node.inputs[0]].flatten(1)[:, entry] - kink) >= 0
        found |= within
    return found


@pytest.mark.parametrize("wide", [False, True])
def test_every_unsafe_input_lies_in_a_part(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is confirmed here, so that the tree goes on around counterexamples."""
    for search in ("replay", "neurons", "leaf"):
        monkeypatch.setattr(f"leaktight.verify.search.{search}.confirm", lambda *_: None)
    for place in ("prove", "branching"):
        monkeypatch.setattr(f"leaktight.verify.{place}.refute", lambda *_, **__: (None, torch.tensor([torch.inf])))
    checked = 0
    for seed in range(21, 35, 2):
        network, asked, _ = tiny_question("residual", seed, 0.1, wide=wide)
        (case,) = asked.cases
        divided = divide(network, asked, 3, timeout=60)
        generator = torch.Generator().manual_seed(seed)
        x = torch.cat([case.region.sample(generator) for _ in range(2000)])
        unsafe = x[case.unsafe.margin(network.flat(x)) <= 0]  # type: ignore[union-attr]
        if divided.verdict.status is Status.REFUTED or not len(unsafe):
            continue
        within = torch.stack([inside(network, part, unsafe) for part in sent(divided.parts)])
        assert bool(within.any(0).all()), seed
        values = network.values(x.reshape(-1, *network.inputs[0].shape[1:]))
        for name, (lower, upper) in (sent(divided.parts)[0] if divided.parts else {}).get("known", {}).items():
            assert bool((values[name].flatten(1) >= torch.tensor(lower, dtype=torch.float64) - 1e-9).all())
            assert bool((values[name].flatten(1) <= torch.tensor(upper, dtype=torch.float64) + 1e-9).all())
        checked += len(divided.parts) > 1
    assert checked >= 3


def halves(network: Network, asked: Property) -> tuple[Bounding, list[dict[str, Any]]]:
    """A case's bounds, and the two sides of one of its unstable neurons in one question, as parts have them."""
    (case,) = asked.about(network)
    atoms = torch.full((1, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
    known = intermediate_bounds(network, case.region, 1 << 28)
    bounding = Bounding(network, case.region, known, open_questions(case, atoms))
    column = int(bounding.columns[0])
    node = next(name for name, part in bounding.activations.parts.items() if part.start <= column < part.stop)
    entry = column - bounding.activations.parts[node].start
    return bounding, [{"region": 0, "disjunct": 0, "sides": [[node, entry, side]], "bound": None} for side in (1, -1)]


def test_bounds_and_boxes_arrive_as_they_were_sent_to_the_last_digit() -> None:
    network, asked, _ = tiny_question("chain", 25, 1e-2, wide=True)
    bounding, _ = halves(network, asked)
    (sent_along,) = sent(({"known": _known(bounding)},))
    found = _floor(network, sent_along)
    assert len(found) > 1
    for name, interval in found.items():
        assert torch.equal(interval.lower, bounding.known[name].lower.double()), name
        assert torch.equal(interval.upper, bounding.known[name].upper.double()), name
    (case,) = asked.about(network)
    ends = torch.rand(2, 3, network.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pieces = [
        {"owner": 0, "lower": low.tolist(), "upper": (low + high).tolist()} for low, high in zip(*ends, strict=True)
    ]
    boxes = _boxes(sent(({"boxes": pieces},))[0], case, 1)
    assert torch.equal(boxes.lower, ends[0])
    assert torch.equal(boxes.upper, ends[0] + ends[1])


def test_a_part_is_the_side_that_it_names() -> None:
    """Both sides of a neuron: their least margins differ, and the lower one is that of the whole."""
    network, asked, _ = tiny_question("chain", 44, 0.3, wide=True)
    bounding, pieces = halves(network, asked)
    domains = domains_of(bounding, pieces)
    assert domains.above.flatten().tolist() == [True, False]
    assert domains.neuron.flatten().tolist() == [0, 0]
    (case,) = asked.cases
    x = torch.cat([case.region.sample(torch.Generator().manual_seed(seed)) for seed in range(500)])
    margins = case.unsafe.margin(network.flat(x))  # type: ignore[union-attr]
    for piece in pieces:
        own = margins[inside(network, {"domains": [piece]}, x)]
        verdict = prove_part(network, asked, {"case": 0, "attained": None, "known": {}, "domains": [piece]}, timeout=60)
        assert verdict.margin.lower is not None
        assert not len(own) or verdict.margin.lower <= float(own.min()) + 1e-9


def test_a_decision_about_a_neuron_that_does_not_bend_is_dropped() -> None:
    network, asked, _ = tiny_question("chain", 44, 0.3, wide=True)
    bounding, (above, _) = halves(network, asked)
    still = [int(c) for c in set(range(bounding.activations.width)) - set(bounding.columns.tolist())]
    if not still:
        bounding.columns = bounding.columns[1:]
        assert int((domains_of(bounding, [above]).neuron >= 0).sum()) == 0
    else:
        name, part = next((n, p) for n, p in bounding.activations.parts.items() if p.start <= still[0] < p.stop)
        piece = {**above, "sides": [*above["sides"], [name, still[0] - part.start, 1]]}
        assert int((domains_of(bounding, [piece]).neuron >= 0).sum()) == 1


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_balls_and_several_cases_are_divided(norm: Norm) -> None:
    network, _, _ = tiny_question("chain", 24, 0.1, wide=True)
    centre = torch.zeros(1, network.input_size, dtype=torch.float64)
    label = int(network.flat(centre).argmax())
    for radius in (0.05, 0.4):
        cases = (*robust(centre, label, radius, norm=norm).cases, *robust(centre, label, radius / 2, norm=norm).cases)
        asked = Property(cases)
        whole = prove(network, asked, timeout=60)
        found = answered(network, asked, divide(network, asked, 4, timeout=60), timeout=60)
        assert whole.status in (Status.PROVED, Status.REFUTED)
        assert found["status"] == whole.status.value


def verdict(status: str, lower: float | None, upper: float | None = None) -> dict[str, Any]:
    example = {"inputs": {}, "outputs": {}} if status == "refuted" else None
    about = {"reason": f"why {status}", "statistics": {"domains": 3, "cases": 1}, "counterexample": example}
    return {"status": status, "margin": {"lower": lower, "upper": upper}, **about}


@pytest.mark.parametrize(
    ("answers", "parts", "status", "lower"),
    [
        ([verdict("proved", 1.0), verdict("proved", 0.5)], 2, "proved", 0.5),
        ([verdict("proved", 3.0), verdict("proved", 2.5)], 2, "proved", 2.0),
        ([verdict("proved", 1.0)], 2, "timeout", None),
        ([verdict("proved", 1.0), verdict("unknown", -1.0)], 2, "unknown", -1.0),
        ([verdict("timeout", -2.0), verdict("unknown", None)], 2, "timeout", None),
        ([verdict("proved", 1.0), verdict("refuted", None, -0.5)], 3, "refuted", None),
        ([], 1, "timeout", None),
    ],
)
def test_the_answer_about_the_whole_is_the_worst(
    answers: list[dict[str, Any]], parts: int, status: str, lower: float | None
) -> None:
    found = joined(verdict("unknown", 2.0, 4.0), answers, parts, 1.0)
    assert (found["status"], found["margin"]["lower"]) == (status, lower)
    assert found["margin"]["upper"] == (-0.5 if status == "refuted" else 4.0)
    assert (found["counterexample"] is not None) == (status == "refuted")
    assert found["statistics"] == {"domains": 3 * (1 + len(answers)), "cases": 1, "parts": parts}


def test_what_is_all_in_parts_has_no_bound_of_its_own() -> None:
    found = joined(verdict("unknown", None), [verdict("proved", 0.25)], 1, 1.0)
    assert (found["status"], found["margin"]["lower"]) == ("proved", 0.25)
    assert found["reason"] == "the margin is at least 0.25 on the whole region, in one part"


def test_a_part_without_any_input_is_proved_and_has_no_bound() -> None:
    found = joined(verdict("unknown", None), [verdict("proved", 0.25), verdict("proved", None)], 2, 1.0)
    assert (found["status"], found["margin"]["lower"]) == ("proved", 0.25)
    empty = joined(verdict("unknown", None), [verdict("proved", None)], 1, 1.0)
    assert (empty["status"], empty["margin"]["lower"]) == ("proved", None)
    assert empty["reason"] == "the margin is at least inf on the whole region, in one part"


def test_where_no_neuron_bends_there_is_nothing_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The margin touches zero, which no bound decides, and a linear network has no neuron to go on with."""
    for place in ("prove", "branching"):
        monkeypatch.setattr(f"leaktight.verify.{place}.refute", lambda *_, **__: (None, torch.tensor([torch.inf])))
    network, asked, exact = tiny_question("chain", 26, 0.3, wide=True)
    touching = shifted(asked.cases[0], math.nextafter(float(exact), math.inf))  # type: ignore[arg-type]
    verdict = prove(network, Property((touching,)), timeout=60)
    assert verdict.status in (Status.UNKNOWN, Status.REFUTED)
