"""The clock: what runs past its time limit is broken off, says that the time was up, and claims nothing false."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from onnx_zoo import Maker
from questions import SHAPES, tiny_question

import leaktight as lt
from leaktight.models.network import Network
from leaktight.models.onnx import network_from_bytes
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Property
from leaktight.verify import clock
from leaktight.verify.bounds.engine import ENGINES, bound
from leaktight.verify.bounds.parallel import each
from leaktight.verify.clock import GRACE, Alarm, TimeUp, alarm, tick
from leaktight.verify.lipschitz.methods import METHODS
from leaktight.verify.prove import prove
from leaktight.verify.report.check import check
from leaktight.verify.verdict import Status

LOOKS = (2, 9, 40, 160)


def leap(monkeypatch: pytest.MonkeyPatch, looks: int) -> Callable[[], bool]:
    """Time leaps far beyond every limit when the clock is looked at for so many times; whether it has."""
    real, seen = time.monotonic, [0]

    def now() -> float:
        return real() + (1e6 if seen[0] >= looks else 0.0)

    def looked() -> float:
        seen[0] += 1
        return now()

    monkeypatch.setattr(time, "monotonic", now)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=looked))
    return lambda: seen[0] >= looks


def test_an_alarm_rings_once_and_after_its_grace() -> None:
    tick()  # nobody has set one
    with alarm(time.monotonic() + 60) as mine:
        tick()
        mine.at = time.monotonic() - 1e-6
        with pytest.raises(TimeUp):
            tick()
        tick()
        assert mine.rung
    with alarm(5.0) as mine:
        assert mine.at == 5.0 + GRACE
    with alarm(None):
        tick()


def test_an_alarm_within_another_rings_no_later() -> None:
    with alarm(100.0), alarm(200.0) as inner:
        assert inner.at == 100.0 + GRACE
    with alarm(200.0), alarm(100.0) as inner:
        assert inner.at == 100.0 + GRACE
    with alarm(200.0) as outer, alarm(None) as inner:
        assert inner.at == outer.at
    with alarm(time.monotonic() - 60) as outer:
        with pytest.raises(TimeUp), alarm(None):
            tick()
        assert not outer.rung
        with pytest.raises(TimeUp):
            tick()


def test_an_alarm_is_heard_in_the_threads_that_work_for_it() -> None:
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with alarm(time.monotonic() - 60) as mine, pytest.raises(TimeUp):
                list(each(lambda _: tick(), range(4)))
            assert isinstance(mine, Alarm)
            assert mine.rung
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("engine", [*ENGINES, "auto", "branch", "milp"])
@pytest.mark.parametrize("wide", [False, True])
def test_whenever_the_time_is_up_nothing_false_is_claimed(
    engine: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On properties that fail, and on some that hold, by a thousandth, with the leap at several steps."""
    rung = 0
    for seed, looks in enumerate(LOOKS):
        network, asked, exact = tiny_question(SHAPES[seed], seed, 1e-3, wide=wide)
        with monkeypatch.context() as patch:
            leapt = leap(patch, looks)
            verdict = prove(network, asked, engine=engine, timeout=1000)
            rung += leapt()
        assert verdict.status is not (Status.REFUTED if exact > 0 else Status.PROVED)
        assert verdict.margin.lower is None or verdict.margin.lower <= exact
        assert not verdict.interrupted
        if leapt():
            assert verdict.status in (Status.TIMEOUT, Status.REFUTED, Status.PROVED)
            assert "interrupted" not in verdict.reason
        if verdict.status is Status.PROVED:
            assert exact > 0
    assert rung


def leaky_file() -> Network:
    """A small ONNX file, as it was read."""
    m = Maker(3)
    at = m.input(1, 4)
    for inputs, outputs in ((4, 6), (6, 6), (6, 3)):
        weight, bias = (m.constant(m.random.normal(size=size) / 2) for size in ((outputs, inputs), (outputs,)))
        at = m.node("Gemm", at, weight, bias, transB=1)
        at = at if outputs == 3 else m.node("LeakyRelu", at, alpha=0.2)
    return network_from_bytes(m.build(at).SerializeToString(), path="small.onnx")


@pytest.mark.parametrize("looks", LOOKS)
def test_a_curve_of_which_the_time_ran_out_is_whole_and_true(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = leaky_file()
    centre = torch.full((1, 4), 0.4, dtype=torch.float64)
    label = int(network.flat(centre).argmax())
    asked = lt.robust(centre, label=label, epsilon=0.2)
    leapt = leap(monkeypatch, looks)
    found = lt.leak(network, asked, (0.0, 0.5), timeout=1000)
    assert leapt()
    assert not found.interrupted
    assert found.curve is not None
    assert found.status in (Status.TIMEOUT, Status.REFUTED, Status.PROVED)
    assert (found.curve.segments[0].lo, found.curve.segments[-1].hi) == (0.0, 0.5)
    (case,) = asked.fitted(4, 3)
    points = case.region.select(torch.zeros(200).long()).sample(torch.Generator().manual_seed(1))
    moving = Slopes.of(network)
    for a in (0.0, 0.17, 0.5):
        least = float(case.unsafe.margin(moving.at(torch.full((200,), a).double()).flat(points)).amin())
        assert found.curve.lower(a) <= least + 1e-9


def test_bounds_without_a_limit_look_at_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they cannot depend on it."""
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: pytest.fail("looked")))
    network, asked, _ = tiny_question("chain", 0, 1e-3)
    (case,) = asked.about(network)
    assert bound(network, case.region).lower.isfinite().all()
    assert prove(network, asked).status is Status.PROVED


def test_properties_of_several_cases_end_when_the_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network, asked, exact = tiny_question("chain", 1, 1e-3)
    (case,) = asked.about(network)
    assert exact < Fraction(0)
    leap(monkeypatch, 2)
    verdict = prove(network, Property((case, case, case)), engine="branch", timeout=1000)
    assert verdict.status in (Status.TIMEOUT, Status.REFUTED)


def test_a_curve_that_is_traced_stands_when_the_time_ends_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> None:
        raise TimeUp

    network = leaky_file()
    asked = lt.robust(torch.full((1, 4), 0.4, dtype=torch.float64), label=0, epsilon=0.2)
    whole = lt.leak(network, asked, (0.0, 0.5)).curve
    monkeypatch.setattr("leaktight.verify.leak.drawing.settled", late)
    found = lt.leak(network, asked, (0.0, 0.5)).curve
    assert whole is not None
    assert found is not None
    assert (found.segments[0].lo, found.segments[-1].hi) == (0.0, 0.5)
    for a in (0.0, 0.25, 0.5):
        assert found.lower(a) == pytest.approx(whole.lower(a), rel=1e-9)


@pytest.mark.parametrize("looks", [1, 10, 60])
def test_inputs_of_which_the_time_ran_out_are_timeouts(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = leaky_file()
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = network.flat(x).argmax(1)
    leapt = leap(monkeypatch, looks)
    found = lt.certify(network, x, labels, 0.3, timeout=1000, radius=True)
    assert leapt()
    assert not found.interrupted
    assert Status.UNKNOWN not in {one.status for one in found.inputs}
    assert all(one.radius is not None for one in found.inputs)


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_a_constant_of_which_the_time_ran_out_is_one(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never below what inputs attain, whatever was cut short; without any time still the product of norms."""
    network = leaky_file()
    best = lt.lipschitz(network, norm=norm)
    assert best.lower is not None
    known = []
    for looks in (1, 5, 20, 60):
        with monkeypatch.context() as patch:
            leapt = leap(patch, looks)
            found = lt.lipschitz(network, norm=norm, timeout=1000)
            cut = leapt()
        assert found.timed_out == cut
        assert best.lower <= found.upper
        assert found.upper >= best.upper * (1 - 1e-6)
        assert found.lower is not None
        assert found.lower <= found.upper
        known.append(cut)
    assert any(known)


def test_ctrl_c_in_a_method_leaves_the_constants_that_are_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("leaktight.verify.lipschitz.lipschitz.METHODS", {**METHODS, "fast": interrupted})
    found = lt.lipschitz(leaky_file())
    assert found.interrupted
    assert set(found.bounds) == {"product", "liplt"}
    assert found.to_json()["interrupted"] is True
    check(found.to_json(), "result.json")
    monkeypatch.setattr("leaktight.verify.lipschitz.lipschitz.METHODS", {**METHODS, "product": interrupted})
    with pytest.raises(KeyboardInterrupt):
        lt.lipschitz(leaky_file())
