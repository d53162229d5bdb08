"""What a run on a Ray cluster costs beside one of worker processes, with a node that is killed on the way.

    python -m benchmarks.cluster FOLDER [--count 200] [--nodes 3] [--hard NETWORK PROPERTY --parts 12 --timeout 120]

FOLDER holds an instances.csv of the VNN-COMP. Its first N instances are run by as many worker processes as there are
nodes, and by a local cluster of nodes with one core each, of which one is killed after a third of the jobs. With
--hard, one property is proved as a whole, and in parts over the cluster. CPU seconds are those of all processes that
this one started, looked at ten times a second. The exit code is 1 if the verdicts differ.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

Document = dict[str, Any]


class Meter:
    """CPU seconds of this process and of all that it started, while it is open."""

    def __enter__(self) -> Meter:
        self.seen: dict[tuple[int, float], float] = {}
        self.over = threading.Event()
        self.began, self.own = time.monotonic(), time.process_time()
        self._look()
        self.before = dict(self.seen)
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self._look()
        others = sum(cpu - self.before.get(one, 0.0) for one, cpu in self.seen.items())
        self.cpu, self.wall = others + time.process_time() - self.own, time.monotonic() - self.began

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self._look()

    def _look(self) -> None:
        for child in psutil.Process().children(recursive=True):
            try:
                times = child.cpu_times()
                self.seen[child.pid, child.create_time()] = times.user + times.system
            except psutil.Error:  # it is over
                continue


def verdicts(found: Document) -> list[tuple[str, str]]:
    return [(job["name"], job["status"]) for job in found["jobs"]]


def row(name: str, found: Document, meter: Meter) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in found["counts"].items() if count)
    print(f"| {name} | {counts} | {meter.cpu:.1f} | {meter.wall:.1f} |", flush=True)


def hard_suite(place: Path, given: argparse.Namespace) -> Path:
    network, property = (Path(path).resolve() for path in given.hard)
    (place / "hard.toml").write_text(
        f'[networks]\nn = "{network}"\n[[verify]]\nnetwork = "n"\nproperty = "{property}"\nname = "hard"\n'
        f"timeout = {given.timeout}\n"
    )
    (place / "parts.toml").write_text(f"{(place / 'hard.toml').read_text()}split = {given.parts}\n")
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--hard", nargs=2, metavar=("NETWORK", "PROPERTY"))
    parser.add_argument("--parts", type=int, default=12)
    parser.add_argument("--timeout", type=float, default=120.0)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    from leaktight.verify.run.pipeline import Wanted, pipeline

    place = Path(tempfile.mkdtemp())
    suite = place / "instances.csv"
    with (given.folder / "instances.csv").open(newline="") as file, suite.open("w", newline="") as copy:
        rows = list(csv.reader(file))[: given.count]
        csv.writer(copy).writerows([*(str(given.folder / name) for name in row[:2]), row[2]] for row in rows)

    def ask(suite: Path, name: str, progress: Callable[[int, int], None] | None = None, **more: Any) -> Document:
        ledger = f"sqlite:///{place / name}.sqlite"
        with Meter() as meter:
            found, _, _ = pipeline(Wanted(suite=suite, ledger=ledger, memory=2 << 30, **more), progress)
        row(name, found, meter)
        return found

    print("| run | verdicts | CPU s | seconds elapsed |\n|---|---|---|---|")
    plain = ask(suite, "worker processes", workers=given.nodes)
    with Meter() as meter:
        nodes = Cluster()
        nodes.add_node(num_cpus=0, object_store_memory=100 << 20, include_dashboard=False)
        for _ in range(given.nodes):
            nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    print(f"| starting the cluster | | {meter.cpu:.1f} | {meter.wall:.1f} |", flush=True)
    killed: list[Any] = []

    def kill(done: int, total: int) -> None:
        if done >= total // 3 and not killed:
            killed.append(next(iter(nodes.worker_nodes)))
            nodes.remove_node(killed[0], allow_graceful=False)

    whole = ask(suite, "cluster, undisturbed", cluster=nodes.address, workers=given.nodes)
    broken = ask(suite, "cluster, a node killed", kill, cluster=nodes.address, workers=given.nodes)
    same = verdicts(plain) == verdicts(whole) == verdicts(broken) and bool(killed)
    if given.hard:
        hard_suite(place, given)
        nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
        one = ask(place / "hard.toml", "hard property, whole", workers=1)
        parts = ask(place / "parts.toml", f"hard property, {given.parts} parts", cluster=nodes.address)
        same &= verdicts(one) == verdicts(parts)
        print("margins:", *(job["result"]["margin"] for found in (one, parts) for job in found["jobs"]))
    nodes.shutdown()
    print("the same verdicts" if same else "OTHER VERDICTS")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
