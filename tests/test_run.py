"""Runs: answers as the single commands give them, whatever is killed meanwhile; and only what changed is asked anew."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import psutil
import pytest
import torch
from onnx import numpy_helper
from runs import SUITE, Inline, folder, told, wanted

from leaktight import cli
from leaktight.demo import NETWORK, PROVED
from leaktight.errors import MissingRule, PropertyError, UsageError
from leaktight.verify.report import render
from leaktight.verify.report.check import check
from leaktight.verify.run import ledger as ledgers
from leaktight.verify.run import pool as pools
from leaktight.verify.run import worker
from leaktight.verify.run.pipeline import pipeline

Document = dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Document:
    found, _, code = pipeline(wanted(folder(tmp_path_factory.mktemp("undisturbed"))))
    assert code == 1
    return found


def test_a_run_answers_what_the_single_commands_answer(
    undisturbed: Document, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [job["status"] for job in undisturbed["jobs"]] == ["proved", "refuted", *6 * ["proved"]]
    assert [job["passes"] for job in undisturbed["jobs"]] == [True, False, *6 * [True]]
    assert cli.run(["verify", str(NETWORK), str(PROVED), "--timeout", "30", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["margin"] == undisturbed["jobs"][0]["result"]["margin"]
    (failure,) = undisturbed["gate"]["failures"]
    assert failure["job"] == "verify digits refuted.vnnlib"
    assert failure["message"].startswith("refuted: an input in the region has an unsafe output")


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "verify.run.worker" in " ".join(child.cmdline())]


def kill_a_worker(how: int, after: int, did: list[int]) -> Callable[[int, int], None]:
    """A progress that sends a signal to a worker, once, when `after` jobs are done and it is working on the next."""

    def progress(done: int, total: int) -> None:
        if done >= after and not did:
            (did.append(children()[0]) if children() else None)
            threading.Timer(0.01, os.kill, (did[0], how)).start()

    return progress


def test_a_killed_worker_costs_its_job_which_is_named_and_answered_on_resuming(
    undisturbed: Document, tmp_path: Path
) -> None:
    suite, did = folder(tmp_path), list[int]()
    found, line, code = pipeline(wanted(suite), kill_a_worker(signal.SIGKILL, 2, did))
    assert did
    errors = [job for job in found["jobs"] if job["status"] == "error"]
    assert len(errors) == 1
    assert errors[0]["error"]["kind"] == "crash"
    assert "the worker was killed by SIGKILL while it was working on it" in errors[0]["error"]["message"]
    assert errors[0]["result"] is None
    assert not errors[0]["passes"]
    assert (code, "1 error" in line) == (70, True), "a crash is never an answer"
    assert [one for one in told(found) if one[1] != "error"] == [
        one for one, job in zip(told(undisturbed), found["jobs"], strict=True) if job["status"] != "error"
    ]
    again, _, code = pipeline(wanted(suite, resume=True))
    assert (told(again), code) == (told(undisturbed), 1)
    assert [job["cached"] for job in again["jobs"]] == [job["status"] != "error" for job in found["jobs"]]


def test_a_worker_that_hangs_is_killed_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "GRACE", 0.3)
    suite, did = folder(tmp_path, SUITE.replace("timeout = 30", "timeout = 0.4")), list[int]()
    found, _, code = pipeline(wanted(suite), kill_a_worker(signal.SIGSTOP, 1, did))
    errors = [job["error"] for job in found["jobs"] if job["error"] is not None]
    assert [error["kind"] for error in errors] == ["deadline"]
    assert "it did not keep to its time limit" in errors[0]["message"]
    assert code == 70
    assert sum(job["status"] == "proved" for job in found["jobs"]) >= 5
    assert not psutil.pid_exists(did[0]) or psutil.Process(did[0]).status() == psutil.STATUS_ZOMBIE


def test_a_killed_runner_loses_nothing_and_leaves_no_worker(undisturbed: Document, tmp_path: Path) -> None:
    suite = folder(tmp_path)
    ledger = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    command = [sys.executable, "-m", "leaktight", "run", str(suite), "--jobs", "1", "--ledger", ledger]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    done = 0
    while done < 2 and child.poll() is None:
        time.sleep(0.02)
        workers = psutil.Process(child.pid).children() or workers
        done = recorded(tmp_path)
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    done = recorded(tmp_path)
    assert 2 <= done < len(undisturbed["jobs"])
    again, _, _ = pipeline(wanted(suite, resume=True))
    assert told(again) == told(undisturbed)
    assert sum(job["cached"] for job in again["jobs"]) == done
    assert recorded(tmp_path) == len(undisturbed["jobs"]), "every job has exactly one result"


def recorded(path: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{path / 'ledger.sqlite'}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM leaktight_results").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


def check_two_at_once(suite: Path, undisturbed: Document) -> None:
    found: list[Document] = []
    threads = [threading.Thread(target=lambda: found.append(pipeline(wanted(suite))[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [told(one) for one in found] == 2 * [told(undisturbed)]
    assert recorded(suite.parent) == len(undisturbed["jobs"])
    assert sum(not job["cached"] for one in found for job in one["jobs"]) == len(undisturbed["jobs"])


def test_two_runners_at_once_do_no_job_twice(
    undisturbed: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)
    check_two_at_once(folder(tmp_path), undisturbed)


@pytest.mark.slow
def test_two_runners_with_workers_do_no_job_twice(undisturbed: Document, tmp_path: Path) -> None:
    check_two_at_once(folder(tmp_path), undisturbed)


class Waiting(Inline):
    """Workers that write down how long they are waited for while they have nothing to do."""

    idly: ClassVar[list[float]] = []

    def wait(self, seconds: float) -> list[tuple[Any, Document]]:
        if not self.busy:
            self.idly.append(seconds)
        return super().wait(seconds)


MANY = """\
[networks]
n = "net.onnx"
[[lipschitz]]
network = "n"
method = "product"
norm = "inf"
seed = [{seeds}]
"""


def test_what_another_runner_answers_meanwhile_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that begins beside another one, which then answers everything, does not wait for anybody."""
    suite = folder(tmp_path, MANY.format(seeds=", ".join(map(str, range(16)))))
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)
    first, _, _ = pipeline(wanted(suite))
    assert recorded(tmp_path) == 16
    ask = ledgers.Ledger.results
    monkeypatch.setattr(ledgers.Ledger, "results", lambda *_: monkeypatch.setattr(ledgers.Ledger, "results", ask) or {})
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Waiting)
    Waiting.idly.clear()
    second, _, _ = pipeline(wanted(suite, resume=True))
    assert [job["cached"] for job in second["jobs"]] == 16 * [True]
    assert [job["result"] for job in second["jobs"]] == [job["result"] for job in first["jobs"]]
    assert recorded(tmp_path) == 16
    assert sum(Waiting.idly) == 0


def scaled(content: bytes, factor: float) -> bytes:
    """The same network with other weights in its last layer."""
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    tensor = proto.graph.initializer[-2]
    tensor.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(tensor), tensor.name))
    return proto.SerializeToString()


def test_only_what_changed_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'{SUITE}\n[networks.other]\npath = "other.onnx"\n\n[[verify]]\nname = "of another"\nnetwork = "other"\n'
    text += 'property = "proved.vnnlib"\n'
    text = text.replace("seed = [0, 1, 2, 3, 4, 5]", "seed = [0, 1]")
    (tmp_path / "other.onnx").write_bytes(scaled(NETWORK.read_bytes(), 1.5))
    suite = folder(tmp_path, text)
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)

    def asked(**more: Any) -> list[str]:
        found, _, _ = pipeline(wanted(suite, resume=True, **more))
        return [job["name"] for job in found["jobs"] if not job["cached"]]

    everything = asked()
    assert len(everything) == 5
    assert asked() == []
    suite.write_text(text.replace('"certified_accuracy >= 0.6"', '"certified_accuracy >= 0.1"\ntags = "x"'))
    assert asked() == [], "what is required of an answer is no part of the question"
    (tmp_path / "moved.onnx").write_bytes((tmp_path / "net.onnx").read_bytes())
    suite.write_text(text.replace('"net.onnx"', '"moved.onnx"'))
    assert asked() == [], "where a network lies is no part of the question"
    (tmp_path / "other.onnx").write_bytes(scaled(NETWORK.read_bytes(), 1.25))
    assert asked() == ["of another"], "a network with another meaning"
    suite.write_text(text.replace("seed = [0, 1]", "seed = [0, 7]"))
    assert asked() == ["seeds seed=7"], "another question"
    (tmp_path / "proved.vnnlib").write_text(PROVED.read_text() + "\n; changed\n")
    assert asked() == ["verify digits proved.vnnlib", "of another"], "another property"
    monkeypatch.setattr("leaktight.verify.run.asked.__version__", "99")
    assert len(asked()) == 5, "another version proves everything anew"


def renamed(content: bytes, old: str, new: str) -> bytes:
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = new if value.name == old else value.name
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    return proto.SerializeToString()


def test_networks_that_differ_in_names_only_are_told_apart(tmp_path: Path) -> None:
    """VNN-LIB 2.0 names inputs and outputs: a name decides what is asked."""
    from leaktight.models.load import load
    from leaktight.verify.run.answer import identity

    paths = []
    for place, content in enumerate((NETWORK.read_bytes(), renamed(NETWORK.read_bytes(), "image", "picture"))):
        paths.append(tmp_path / f"{place}.onnx")
        paths[-1].write_bytes(content)
    first, second = map(load, paths)
    assert first.digest == second.digest
    assert identity(first) != identity(second)
    assert identity(first) == identity(load(NETWORK))
    for change in ({"dtype": "float64"}, {"shape": (64, 1)}, {"name": "else"}):
        port = dataclasses.replace(first.outputs[0], **change)  # type: ignore[arg-type]
        other = copy.copy(first)
        object.__setattr__(other, "outputs", (port,))
        assert identity(other) != identity(first), change


def test_what_cannot_be_read_is_an_error_of_its_jobs_alone(tmp_path: Path) -> None:
    text = SUITE.replace("seed = [0, 1, 2, 3, 4, 5]", "seed = 0")
    text += '\n[networks.broken]\npath = "broken.onnx"\n[[verify]]\nname = "of the broken"\nnetwork = "broken"\n'
    text += 'property = "proved.vnnlib"\n'
    text += '\n[[verify]]\nname = "of no property"\nnetwork = "digits"\nproperty = "suite.toml"\n'
    suite = folder(tmp_path, text)
    (tmp_path / "broken.onnx").write_bytes(NETWORK.read_bytes()[:5000])
    found, line, code = pipeline(wanted(suite))
    by_name = {job["name"]: job for job in found["jobs"]}
    for name, file in (("of the broken", "broken.onnx"), ("of no property", "suite.toml")):
        assert by_name[name]["error"]["kind"] == "bad input"
        assert file in by_name[name]["error"]["message"]
    assert by_name["verify digits proved.vnnlib"]["status"] == "proved"
    assert (code, "2 error" in line) == (2, True)


GREEDY = "import torch\n\ndef build():\n    torch.zeros(1 << 33)\n    return torch.nn.Linear(2, 2)\n"


def test_a_worker_cannot_take_more_memory_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "net.pt")
    text = '[networks.n]\npath = "net.pt"\narchitecture = "greedy:build"\n[[verify]]\nnetwork = "n"\n'
    suite = folder(tmp_path, f'{text}property = "proved.vnnlib"\n')
    monkeypatch.chdir(tmp_path)
    found, _, code = pipeline(wanted(suite, memory=3 << 30))
    assert "allocate" in found["jobs"][0]["error"]["message"]
    assert code == 2


@pytest.mark.parametrize(
    ("raised", "kind", "fragment"),
    [
        (MemoryError(), "memory", "raise --memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory", "raise --memory"),
        (RuntimeError("odd"), "internal", "RuntimeError: odd"),
        (MissingRule("no rule"), "internal", "MissingRule: no rule"),
        (PropertyError("a.vnnlib:3: what"), "bad input", "a.vnnlib:3: what"),
    ],
)
def test_what_a_worker_raises_gets_a_name(raised: Exception, kind: str, fragment: str) -> None:
    class Failing:
        @staticmethod
        def seconds(_task: object) -> float:
            raise raised

    reply = worker._answered({"kind": "verify"}, Failing, io.StringIO(), None)
    assert reply["error"]["kind"] == kind
    assert fragment in reply["error"]["message"]


def test_workers_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers end before they are ready"):
        pipeline(wanted(folder(tmp_path), memory=30 << 20))


def test_constants_and_curves_are_jobs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        f'{SUITE.partition("[[certify]]")[0]}[[lipschitz]]\nnetwork = "digits"\nmethod = "product"\nnorm = ["inf", 2]\n'
    )
    text += 'require = "lipschitz <= 1e9"\n[[lipschitz]]\nname = "small"\nnetwork = "digits"\nmethod = "product"\n'
    text += (
        'require = "lipschitz < 0.001"\n[[leak]]\nnetwork = "digits"\nproperty = "proved.vnnlib"\nslopes = "0:0.1"\n'
    )
    text += 'require = ["proved_up_to >= 0.1", "margin > 0"]\nengine = "crown"\n'
    monkeypatch.setattr("leaktight.verify.run.runner.Pool", Inline)
    found, _, code = pipeline(wanted(folder(tmp_path, text)))
    assert [job["status"] for job in found["jobs"]] == ["proved", "done", "done", "done"]
    assert [job["passes"] for job in found["jobs"]] == [True, True, True, False]
    (failure,) = found["gate"]["failures"]
    assert failure["message"].startswith("lipschitz < 0.001: it is ")
    assert code == 1
    assert check(json.loads(json.dumps(found)), "the run") is None
    assert "lipschitz < 0.001" in render.render(found, "text")


def test_suites_know_every_engine_and_method() -> None:
    from typing import get_args

    from leaktight.verify.lipschitz.methods import METHODS
    from leaktight.verify.prove import engine_names
    from leaktight.verify.run.schema import Engine, Lipschitz

    assert set(get_args(Engine)) == set(engine_names())
    method = get_args(Lipschitz.model_fields["method"].annotation)[0]
    assert set(get_args(method)) == {"auto", *METHODS}
