"""A cluster of several nodes on this machine: the same answers as here, whatever is lost meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import Document, Inline, folder, hard, told, wanted

from leaktight import cli
from leaktight.errors import UsageError
from leaktight.verify.run.job import digest_of
from leaktight.verify.run.pipeline import pipeline
from leaktight.verify.run.station import Station, renamed
from leaktight.version import __version__

pytest.importorskip("ray", reason="Ray is not installed: pip install 'leaktight[cluster]'")

from ray import exceptions as faults
from ray.cluster_utils import Cluster as Nodes

from leaktight.verify.run import cluster as clusters
from leaktight.verify.run import remote

Found = tuple[Document, str, int]
STORE = 80 << 20


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def head() -> dict[str, Any]:
    """How the first node is started, besides the usual."""
    return {}


@pytest.fixture
def nodes(head: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A cluster whose head has no room for workers, and two nodes with room for one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Nodes()
    found.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False, **head)
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=STORE)
    yield found
    found.shutdown()


def here(suite: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """The run without any process beside this one."""
    with monkeypatch.context() as patch:
        patch.setattr("leaktight.verify.run.runner.Pool", Inline)
        return pipeline(wanted(suite, ledger=f"sqlite:///{suite.parent / 'here.sqlite'}"))


def losing(nodes: Nodes, after: int) -> Callable[[int, int], None]:
    """A progress that kills a node, once, when so many jobs are done."""

    def progress(done: int, total: int) -> None:
        if after <= done < total and len(nodes.worker_nodes) == 2:
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    return progress


def test_a_node_that_is_lost_costs_no_job(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    suite = folder(tmp_path)
    expected, _, code = here(suite, monkeypatch)
    found, line, code_there = pipeline(wanted(suite, cluster=nodes.address, workers=2), losing(nodes, 2))
    assert len(nodes.worker_nodes) == 1
    assert told(found) == told(expected), line
    assert code_there == code
    assert not any(job["cached"] for job in found["jobs"])
    again, _, _ = pipeline(wanted(suite, resume=True, ledger=wanted(suite).ledger), None)
    assert all(job["cached"] for job in again["jobs"]), "the ledger is the same one"
    assert capfd.readouterr().out == "", "what Ray says of its nodes is no part of a result"


PORT = free_port()


@pytest.mark.slow
@pytest.mark.parametrize("head", [{"ray_client_server_port": PORT}], ids=["client server"])
def test_a_cluster_is_reached_through_rays_client(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Files are sent, since relative paths lead elsewhere on the nodes; and one of these is lost."""
    pytest.importorskip("grpc", reason="Ray's client is not installed: pip install 'ray[client]'")
    folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    suite, sent = Path("suite.toml"), list[str]()
    expected, _, code = here(suite, monkeypatch)
    ship = clusters.Cluster._ship
    monkeypatch.setattr(
        clusters.Cluster, "_ship", lambda crew, slot, paths: (sent.extend(paths), ship(crew, slot, paths))
    )
    there = wanted(suite, cluster=f"ray://127.0.0.1:{PORT}", workers=2)
    found, line, code_there = pipeline(there, losing(nodes, 2))
    assert len(nodes.worker_nodes) == 1
    assert {"net.onnx", "data.npz", "proved.vnnlib", "refuted.vnnlib"} == set(sent)
    assert (told(found), code_there) == (told(expected), code), line
    assert [job["network"]["path"] for job in found["jobs"]] == len(found["jobs"]) * ["net.onnx"]
    assert not remote.ray.is_initialized()
    again, _, _ = pipeline(wanted(suite, resume=True, ledger=there.ledger))
    assert all(job["cached"] for job in again["jobs"]), "the ledger is the runner's own"
    assert capfd.readouterr().out == "", "what Ray says is no part of a result"


SPLIT = """\
[networks]
n = "net.onnx"
[[verify]]
network = "n"
property = "hard.vnnlib"
split = 6
timeout = 60
[[verify]]
name = "with resources"
network = "n"
property = "hard.vnnlib"
resources = { cpu = 0.5, magic = 1 }
[[verify]]
name = "without room"
network = "n"
property = "hard.vnnlib"
seed = 1
resources = { gpu = 16 }
"""


@pytest.mark.slow
def test_a_property_is_split_over_nodes_and_resources_are_respected(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "ROOM", 60.0)
    nodes.add_node(num_cpus=1, resources={"magic": 1}, object_store_memory=STORE)
    suite = hard(tmp_path, SPLIT)
    found, _, code = pipeline(wanted(suite, cluster=nodes.address))
    split, magic, without = found["jobs"]
    assert split["status"] == magic["status"] == "proved"
    assert split["result"]["statistics"]["parts"] == 6
    assert 0 < split["result"]["margin"]["lower"] <= magic["result"]["margin"]["upper"]
    assert without["error"]["kind"] == "bad input"
    assert without["error"]["message"] == "the cluster has no room for it within 60 s: it asks for gpu = 16"
    assert code == 2


@pytest.mark.slow
def test_a_cluster_of_this_machine_is_made_and_ended(tmp_path: Path) -> None:
    found, _, code = pipeline(wanted(folder(tmp_path), cluster="local", workers=2))
    assert ([job["status"] for job in found["jobs"]], code) == (["proved", "refuted", *6 * ["proved"]], 1)
    assert not remote.ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("somewhere", "--cluster: 'somewhere' is no address of a cluster; write it like ray://HOST:10001"),
        ("ray://", "--cluster: 'ray://' is no address of a cluster"),
        ("127.0.0.1:PORT", "--cluster: 127.0.0.1:PORT cannot be reached"),
        ("ray://127.0.0.1:PORT", "--cluster: ray://127.0.0.1:PORT cannot be reached"),
        ("127.0.0.1:99999", "--cluster: 127.0.0.1:99999 cannot be reached"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_before_any_work(
    address: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = str(free_port())
    suite, ledger = folder(tmp_path), tmp_path / "ledger.sqlite"
    where = address.replace("PORT", port)
    assert cli.run(["run", str(suite), "--cluster", where, "--ledger", f"sqlite:///{ledger}"]) == 2
    assert f"leaktight: error: {message.replace('PORT', port)}" in capfd.readouterr().err
    assert not ledger.exists()


def test_a_machine_without_the_files_gets_copies(tmp_path: Path) -> None:
    """A station as it is on another machine: the answer is the one from here, and names the files as they are here."""
    folder(tmp_path)
    network, property = str(tmp_path / "net.onnx"), str(tmp_path / "proved.vnnlib")
    question = {"engine": "auto", "timeout": 30.0, "seed": 0, "dtype": "float64"}
    digests = {path: digest_of(path) for path in (network, property)}
    task = {
        "kind": "verify",
        "network": {"path": network},
        "files": {"property": property},
        "question": question,
        "digests": {"property": digests[property]},
        "shipped": digests,
    }
    contents = {path: Path(path).read_bytes() for path in digests}
    station = Station(None)
    try:
        for path in digests:
            Path(path).unlink()
        assert station.begin(task, {}) == {"missing": [network, property]}
        assert station.begin(task, {network: contents[network], property: b"other"}) == {"missing": [property]}
        found = station.begin(task, contents)
        while "reply" not in found:
            found = station.wait()
        document = found["reply"]["document"]
        assert document["status"] == "proved"
        assert document["network"] == {"path": network, "sha256": digests[network]}
        assert document["property"] == {"path": property, "sha256": digests[property]}
        os.kill(station.pool.workers[0].process.pid, signal.SIGKILL)
        while "reply" not in (found := station.begin(task, {})):
            pass
        assert found["reply"].get("error", {}).get("kind", "proved") in ("crash", "proved")
    finally:
        station.close()
    assert not station.folder.exists()


def test_paths_of_copies_are_said_as_the_user_knows_them() -> None:
    names = {"/tmp/copy/a.onnx": "nets/a.onnx"}
    error = {"error": {"message": "/tmp/copy/a.onnx: node 3 is odd"}, "inputs": [{"x": 1}], "numbers": [1.0, 2.0]}
    assert renamed(error, names)["error"]["message"] == "nets/a.onnx: node 3 is odd"
    assert renamed(error, names)["numbers"] == [1.0, 2.0]


METHODS = ("ready", "begin", "wait", "close")


class Actors:
    """Stands for Ray: calls whose answers the test decides."""

    def __init__(self) -> None:
        self.answers: dict[object, Any] = {}
        self.calls: list[tuple[object, str, tuple[Any, ...]]] = []
        self.asked: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, _: type) -> Any:
        return self

    def options(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return SimpleNamespace(remote=lambda *_: SimpleNamespace(**{name: self.method(name) for name in METHODS}))

    def method(self, name: str) -> Any:
        def remote(*arguments: Any) -> object:
            call = object()
            self.calls.append((call, name, arguments))
            return call

        return SimpleNamespace(remote=remote)

    def kill(self, _: object) -> None:
        pass

    def put(self, value: bytes) -> bytes:
        return value

    def wait(self, calls: list[object], **_: Any) -> tuple[list[object], list[object]]:
        return [call for call in calls if call in self.answers], []

    def get(self, call: Any, **_: Any) -> Any:
        if isinstance(call, list):
            return [None for _ in call]
        answer = self.answers[call]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, answer: Any) -> None:
        """Decides what the last call comes to."""
        self.answers[self.calls[-1][0]] = answer


READY = {"version": __version__, "machine": "m"}


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    found = Actors()
    monkeypatch.setattr(remote, "ray", found)
    return found


def one(actors: Actors, answer: Any = READY) -> clusters.Cluster:
    """A cluster with one worker, which has said that it is ready."""
    crew = clusters.Cluster("auto", 1, 1, None)
    actors.answer(answer)
    assert list(crew.wait(0)) == []
    return crew


def given(crew: clusters.Cluster, path: Path, **more: Any) -> None:
    task = {"kind": "identify", "network": {"path": str(path)}, **more}
    crew.give(crew.idle[0], "t", task)


def test_a_task_is_given_to_other_machines_until_it_has_been_lost_too_often(actors: Actors, tmp_path: Path) -> None:
    crew = one(actors)
    given(crew, folder(tmp_path))
    for loss in range(clusters.LOSSES + 1):
        assert actors.calls[-1][1] == "begin"
        actors.answer(faults.NodeDiedError("node 7 died"))
        done = list(crew.wait(0))
        assert not crew.idle
        assert bool(done) == (loss == clusters.LOSSES)
        actors.answer(READY)
        done = done or list(crew.wait(0))
    ((token, reply),) = done
    assert token == "t"
    assert reply["error"]["kind"] == "crash"
    assert "was lost 4 times (" in reply["error"]["message"]
    list(crew.wait(0))
    assert len(crew.idle) == 1


def test_a_machine_without_a_sign_of_life_is_given_up(actors: Actors, tmp_path: Path) -> None:
    crew = one(actors)
    given(crew, folder(tmp_path))
    actors.answer({})
    list(crew.wait(0))
    assert actors.calls[-1][1] == "wait", "it is still busy"
    crew.workers[0].since -= clusters.ROOM
    list(crew.wait(0))
    assert actors.calls[-1][1] == "ready", "another worker is asked for"
    assert crew.again[0].token == "t"


def test_files_are_sent_once_and_a_change_is_noticed(actors: Actors, tmp_path: Path) -> None:
    crew, suite = one(actors), folder(tmp_path)
    given(crew, suite)
    actors.answer({"missing": [str(suite)]})
    list(crew.wait(0))
    assert actors.calls[-1][2][1] == {str(suite): suite.read_bytes()}
    actors.answer({"missing": [str(suite)]})
    ((_, reply),) = crew.wait(0)
    assert reply["error"]["message"] == f"{suite}: it changed while the run was going on; run again"
    given(crew, tmp_path / "gone.onnx")
    ((_, reply),) = crew.wait(0)
    assert reply["error"]["message"].endswith("gone.onnx: it cannot be read (No such file or directory)")


def test_a_task_with_resources_of_its_own_gets_a_worker_of_its_own(actors: Actors, tmp_path: Path) -> None:
    crew = one(actors)
    given(crew, folder(tmp_path), resources={"cpu": 3.0, "gpu": 1.0, "memory": 2.0**30, "magic": 1.0})
    wanted = {"num_cpus": 3.0, "num_gpus": 1.0, "memory": 2**30, "resources": {"magic": 1.0}}
    assert actors.asked[-1] == {**wanted, "max_restarts": 0, "max_task_retries": 0}
    actors.answer(READY)
    list(crew.wait(0))
    assert actors.calls[-1][1] == "begin"


def test_what_makes_a_cluster_unusable_is_said(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"m has leaktight 0\.0\.0, and this is .*; install the same one"):
        one(actors, {**READY, "version": "0.0.0"})
    missing = faults.RayTaskError("ready", "trace", ModuleNotFoundError("No module named 'leaktight'"))
    with pytest.raises(UsageError, match="a machine of it cannot be used: No module named 'leaktight'"):
        one(actors, missing)
    with pytest.raises(UsageError, match="it is gone"):
        one(actors, ConnectionError("broken pipe"))
    crew = clusters.Cluster("auto", 1, 1, None)
    for _ in range(clusters.LOSSES):
        actors.answer(faults.NodeDiedError("out of room"))
        list(crew.wait(0))
    actors.answer(faults.NodeDiedError("out of room"))
    with pytest.raises(UsageError, match="its workers end before they are ready"):
        list(crew.wait(0))
    monkeypatch.setattr(clusters, "ROOM", -1.0)
    with pytest.raises(UsageError, match="it has no room for a worker"):
        list(clusters.Cluster("auto", 1, 1, None).wait(0))


FAILED = "Initialization failure from server:\nTraceback (most recent call last):\n  File x\n\n{}\n"
FORKING = FAILED.format("RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err.")


@pytest.mark.parametrize(
    ("raised", "tries", "message"),
    [
        (2 * [ConnectionError(FORKING)], 3, None),
        (
            9 * [ConnectionError(FORKING)],
            3,
            "server: RuntimeError: Starting Ray client server failed. See ray_client_s",
        ),
        (
            [ConnectionError(FAILED.format("ValueError: no token"))],
            1,
            "from server: ValueError: no token; see that Ray's",
        ),
        ([RuntimeError("Version mismatch: 2.9\nand more")], 1, "ray://there:1: Version mismatch: 2.9; see that Ray's"),
    ],
)
def test_a_client_server_that_fails_to_start_is_asked_again(
    raised: list[Exception], tries: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, left = list[str](), list(raised)

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        if left:
            raise left.pop()

    monkeypatch.setattr(remote, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    monkeypatch.setattr(remote, "check", lambda _: None)
    if message is None:
        remote._connect("ray://there:1", 1)
    else:
        with pytest.raises(UsageError) as caught:
            remote._connect("ray://there:1", 1)
        assert message in str(caught.value)
    assert asked == tries * ["ray://there:1"]


def test_work_that_is_cancelled_leaves_no_reply(actors: Actors, tmp_path: Path) -> None:
    crew = one(actors)
    given(crew, folder(tmp_path))
    actors.answer({"reply": {"identity": "i"}})
    crew.cancel("t")
    assert list(crew.wait(0)) == []
    assert not crew.busy
    assert actors.calls[-1][1] == "ready"


def test_what_ray_prints_is_kept_from_the_results(actors: Actors) -> None:
    before = sys.stdout
    with one(actors):
        assert sys.stdout is sys.stderr
    assert sys.stdout is before
