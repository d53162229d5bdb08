"""Certification in worker processes, and what Ctrl-C and the clock leave of one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import fully_connected
from torch import Tensor

from leaktight.errors import UsageError, WorkerFailed
from leaktight.models.network import Network
from leaktight.verify.certification import Certification
from leaktight.verify.certify import certify
from leaktight.verify.report.check import check
from leaktight.verify.run import inputs as room
from leaktight.verify.verdict import Status

COUNT = 71  # groups of five, and a last one of one


@cache
def network() -> Network:
    return fully_connected(6, (3, 8, 8, 3), 0.1)


def questions(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Inputs and labels, some of them wrong."""
    x = 0.8 * torch.rand(count, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1
    labels = network().flat(x).argmax(1)
    labels[::9] = (labels[::9] + 1) % 3
    return x, labels


class Crew:
    """Workers within this process, each of which keeps its task for a while; `broken`: the reply to one of them."""

    broken: Mapping[str, Any] | None = None
    stops_after = 10**6
    size = 0

    def __init__(self, size: int, memory: int, advice: str) -> None:
        type(self).size, self.memory = size, memory
        assert "resume" not in advice
        self.tasks: dict[int, tuple[Any, Any]] = {}
        self.random, self.done = random.Random(size), 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def idle(self) -> list[int]:
        return [worker for worker in range(self.size) if worker not in self.tasks]

    def give(self, worker: int, token: Any, task: Mapping[str, Any]) -> None:
        self.tasks[worker] = (token, json.loads(json.dumps(task)))

    def wait(self, _: float) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        if self.done == self.stops_after:
            raise KeyboardInterrupt
        token, task = self.tasks.pop(self.random.choice(list(self.tasks)))
        self.done += 1
        if self.broken is not None and task["start"] == 5:
            yield token, {"error": self.broken}
        else:
            yield token, {"document": room.answer(task, None)}


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> type[Crew]:
    own = type("OwnCrew", (Crew,), {})
    monkeypatch.setattr(room, "Pool", own)
    return own


def plain(found: Certification) -> list[dict[str, Any]]:
    return [replace(one, seconds=0.0).to_json() for one in found.inputs]


def test_any_number_of_workers_gives_the_same_results_in_the_same_order(crew: type[Crew]) -> None:
    x, labels = questions()
    found = [certify(network(), x, labels, 0.05, radius=True, jobs=jobs) for jobs in (1, 2, 5, 1000)]
    assert crew.size == 15
    assert all(plain(one) == plain(found[0]) for one in found)
    assert [one.index for one in found[0].inputs] == list(range(COUNT))
    here = certify(network(), x, labels, 0.05, radius=True)
    assert [one.status for one in here.inputs] == [one.status for one in found[0].inputs]
    assert {one.status for one in here.inputs} == {Status.PROVED, Status.REFUTED}


def test_real_workers_do_what_this_process_does() -> None:
    x, labels = questions(40)
    seen: list[tuple[int, int]] = []
    found = certify(network(), x, labels, 0.05, timeout=60, jobs=2, progress=lambda *at: seen.append(at))
    here = certify(network(), x, labels, 0.05, timeout=60)
    assert [one.status for one in here.inputs] == [one.status for one in found.inputs]
    assert not found.interrupted
    assert seen[-1] == (40, 40)
    assert seen == sorted(seen)
    for one, at, label in zip(found.inputs, x, labels, strict=True):
        if one.status is Status.REFUTED:
            assert one.counterexample is not None
            point = torch.from_numpy(one.counterexample.point)
            assert float((point - at).abs().max()) <= 0.05 * (1 + 1e-12)
            scores = network().flat(point.unsqueeze(0))[0]
            assert float(scores[label]) <= float(scores[torch.arange(3) != label].max())


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ({"kind": "crash", "message": "the worker was killed by SIGKILL"}, WorkerFailed),
        ({"kind": "deadline", "message": "it did not keep to its time limit"}, WorkerFailed),
        ({"kind": "internal", "message": "ZeroDivisionError: division by zero"}, WorkerFailed),
        ({"kind": "memory", "message": "it needed more memory than a worker may use; raise --memory"}, UsageError),
        ({"kind": "bad input", "message": "it changed"}, UsageError),
    ],
)
def test_a_worker_that_fails_is_an_error_that_says_where(
    broken: dict[str, str], kind: type[Exception], crew: type[Crew]
) -> None:
    crew.broken = broken
    with pytest.raises(kind, match=f"inputs 5 to 9: {broken['message']}"):
        certify(network(), *questions(), 0.05, jobs=2)


def check_what_is_left(found: Certification, done: int, radius: bool = False) -> None:
    """Whoever was answered is; of the others nothing is claimed."""
    x, labels = questions(len(found.inputs))
    whole = certify(network(), x, labels, found.epsilon)
    assert found.interrupted
    assert found.to_json()["interrupted"] is True
    check(json.loads(json.dumps(found.to_json(), allow_nan=False)), "result.json")
    assert [one.index for one in found.inputs] == list(range(len(x)))
    assert [one.label for one in found.inputs] == labels.tolist()
    assert sum(one.status is not Status.UNKNOWN for one in found.inputs) == done
    for one, true in zip(found.inputs, whole.inputs, strict=True):
        assert one.predicted == true.predicted
        assert one.status in (true.status, Status.UNKNOWN)
        assert one.margin.lower is None or one.margin.lower <= true.margin.upper + 1e-12
        assert one.margin.upper is not None
        assert true.margin.lower is not None
        assert one.margin.upper >= true.margin.lower
        assert (one.radius is not None) == radius


@pytest.mark.parametrize("radius", [False, True])
def test_ctrl_c_keeps_the_groups_that_are_done(radius: bool, crew: type[Crew]) -> None:
    crew.stops_after = 4
    found = certify(network(), *questions(), 0.05, jobs=2, radius=radius)
    check_what_is_left(found, 20, radius)


@pytest.mark.parametrize(("after", "engine"), [(0, "crown"), (1, "crown"), (1, "auto")])
def test_ctrl_c_keeps_what_is_proven_by_then(after: int, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: before anything, in the second group, and after the first bounds of the first."""
    real, calls = room.answer_group.__globals__["Group"]._bound, iter(range(10**6))

    def bound(*given: Any) -> None:
        if next(calls) == after:
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr("leaktight.verify.inputs.Group._bound", bound)
    found = certify(network(), *questions(), 0.2, engine=engine)
    proved = sum(one.status is Status.PROVED for one in found.inputs)
    assert found.interrupted
    assert proved == 0 if after == 0 else proved > 0
    monkeypatch.undo()
    check_what_is_left(found, sum(one.status is not Status.UNKNOWN for one in found.inputs))


def test_ctrl_c_within_a_complete_answer_ends_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says itself that it was interrupted, and nothing else is asked."""
    asked = []

    def answered(*_: object, **__: object) -> object:
        asked.append(1)
        margin = SimpleNamespace(lower=-0.5, upper=None)
        return SimpleNamespace(interrupted=True, counterexample=None, status=Status.UNKNOWN, margin=margin)

    monkeypatch.setattr("leaktight.verify.inputs.prove", answered)
    monkeypatch.setattr("leaktight.verify.inputs.Group._attack", lambda *_: None)
    found = certify(network(), *questions(), 0.9, timeout=60)
    assert found.interrupted
    assert asked == [1]
    assert Status.TIMEOUT not in {one.status for one in found.inputs}


def test_the_time_limit_of_inputs_is_that_of_their_radii_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, not for each way in which radii are looked for."""
    limits = []
    real = room.answer_group.__globals__["find_radii"]

    def find(group: Any, budget: Any) -> None:
        limits.append(budget.deadline)
        real(group, budget)

    monkeypatch.setattr("leaktight.verify.answered.find_radii", find)
    began = room.answer_group.__globals__["time"].monotonic()
    found = certify(network(), *questions(8), 2.0, norm=2, radius=True, timeout=0.05)
    assert limits
    assert limits[0] <= began + 8 * 0.05 + 0.2
    assert all(one.radius is not None for one in found.inputs)


def test_the_number_of_workers_is_at_least_one() -> None:
    with pytest.raises(UsageError, match="--jobs must be at least 1; got 0"):
        certify(network(), *questions(2), 0.05, jobs=0)
