"""A cluster of several nodes on this machine: the same answers as here, whatever is lost meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import SUITE, Document, Inline, folder, told, wanted

from leaktight import cli
from leaktight.errors import UsageError
from leaktight.verify.run.pipeline import pipeline
from leaktight.verify.run.station import Station, renamed

pytest.importorskip("ray", reason="Ray is not installed: pip install 'leaktight[cluster]'")

from ray.cluster_utils import Cluster as Nodes

from leaktight.verify.run import cluster as clusters

Found = tuple[Document, str, int]
STORE = 80 << 20


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A cluster whose head has no room for workers, and two nodes with room for one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Nodes()
    found.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
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


def test_a_node_that_is_lost_costs_no_job(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = folder(tmp_path)
    expected, _, code = here(suite, monkeypatch)
    found, line, code_there = pipeline(wanted(suite, cluster=nodes.address, workers=2), losing(nodes, 2))
    assert len(nodes.worker_nodes) == 1
    assert told(found) == told(expected), line
    assert code_there == code
    assert not any(job["cached"] for job in found["jobs"])
    again, _, _ = pipeline(wanted(suite, resume=True, ledger=wanted(suite).ledger), None)
    assert all(job["cached"] for job in again["jobs"]), "the ledger is the same one"


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
    monkeypatch.setattr(clusters, "ROOM", 20.0)
    nodes.add_node(num_cpus=1, resources={"magic": 1}, object_store_memory=STORE)
    suite = hard(tmp_path, SPLIT)
    found, _, code = pipeline(wanted(suite, cluster=nodes.address))
    split, magic, without = found["jobs"]
    assert split["status"] == magic["status"] == "proved"
    assert split["result"]["statistics"]["parts"] == 6
    assert 0 < split["result"]["margin"]["lower"] <= magic["result"]["margin"]["upper"]
    assert without["error"]["kind"] == "bad input"
    assert without["error"]["message"] == "the cluster has no room for it within 20 s: it asks for gpu = 16"
    assert code == 2


@pytest.mark.slow
def test_a_cluster_of_this_machine_is_made_and_ended(tmp_path: Path) -> None:
    found, _, code = pipeline(wanted(folder(tmp_path), cluster="local", workers=2))
    assert ([job["status"] for job in found["jobs"]], code) == (["proved", "refuted", *6 * ["proved"]], 1)
    assert not clusters.ray.is_initialized()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


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
