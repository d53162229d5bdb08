"""What `leaktight run` costs beside a bare loop, and what is left of a run whose processes are killed.

    python -m benchmarks.pipeline FOLDER [--count N] [--engine E] [--runner-kills 4] [--worker-kills 10] [--seed 0]

FOLDER holds an instances.csv of the VNN-COMP. Four things are run on its first N instances: the bare loop of one
process; a run with two workers; two runs at once on one ledger, of one worker each; and a run with two workers of
which the runner is killed (kill -9) and started again with --resume, and workers are killed, all at random moments.
CPU seconds of all processes are compared, and the answers of the runs; the exit code is 1 if they differ, or a job
has not exactly one.

Answers of a search that ends with its time differ from run to run; of --engine alpha-crown (bounds and attack alone)
they depend on nothing but the question, so that margins and counterexamples can be compared to the last digit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

MEMORY = 2 << 30  # of each worker; they hand half of it on to the proof


def bare(suite: Path, engine: str) -> None:
    """The loop that the run is compared with."""
    import torch

    from leaktight.models.load import load
    from leaktight.specs.vnnlib import read_property
    from leaktight.verify.prove import prove

    torch.set_num_threads(1)
    networks: dict[str, Any] = {}
    for network, property, timeout in csv.reader(suite.open()):
        if network not in networks:
            networks[network] = load(network)
        asked = {"engine": engine, "timeout": float(timeout), "memory": MEMORY // 2}
        prove(networks[network], read_property(property), **asked).to_json()


def cpu_of(*command: str) -> float:
    """The CPU seconds of a command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_command(suite: Path, ledger: Path, result: Path, *more: str, jobs: int = 2) -> list[str]:
    where = ["--ledger", f"sqlite:///{ledger}", "--format", "json", "-o", str(result), "--memory", str(MEMORY)]
    return ["-m", "leaktight", "run", str(suite), "--jobs", str(jobs), *where, *more]


def both(suite: Path, ledger: Path, results: list[Path]) -> None:
    """Runs that go on at the same time, of one worker each."""
    commands = [run_command(suite, ledger, result, "--resume", jobs=1) for result in results]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for child in [subprocess.Popen([sys.executable, *command], **quiet) for command in commands]:
        child.wait()


def recorded(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM leaktight_results").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def disturbed(suite: Path, ledger: Path, result: Path, kills: list[tuple[int, str]]) -> tuple[int, int]:
    """Runs with --resume until it ends by itself. Returns how many runners and workers were killed."""
    runners = workers = 0
    kills = sorted(kills)
    while True:
        child = subprocess.Popen(
            [sys.executable, *run_command(suite, ledger, result, "--resume")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = workers
        while child.poll() is None:
            time.sleep(0.005)
            if not kills or recorded(ledger) < kills[0][0]:
                continue
            time.sleep(random.random() * 0.05)
            if kills[0][1] == "runner":
                kills.pop(0)
                child.kill()
                runners += 1
                break
            found = psutil.Process(child.pid).children()
            if found:  # else the runner has just been started
                kills.pop(0)
                random.choice(found).send_signal(signal.SIGKILL)
                workers += 1
        child.wait()
        # 70: jobs of killed workers are to be answered again; 2: too many were killed as they started
        if child.returncode not in (-signal.SIGKILL, 70) and not (child.returncode == 2 and workers > before):
            return runners, workers


def answers(result: Path) -> dict[str, tuple[str, Any]]:
    """The status, margin and counterexample of every job."""
    found = json.loads(result.read_text())
    return {
        job["name"]: (job["status"], (job["result"] or {}).get("margin"), (job["result"] or {}).get("counterexample"))
        for job in found["jobs"]
    }


def answered(ledger: Path) -> list[int]:
    """How many answers that are no errors each job has."""
    with sqlite3.connect(ledger) as connection:
        rows = connection.execute("SELECT count(*) FROM leaktight_results WHERE status <> 'error' GROUP BY key")
        return [count for (count,) in rows]


def own(result: Path) -> int:
    """How many jobs a run answered itself."""
    return sum(not job["cached"] for job in json.loads(result.read_text())["jobs"])


def written(rows: list[list[str]], engine: str) -> str:
    """The instances as a suite whose jobs have this engine."""
    networks = {path: f"n{place}" for place, path in enumerate(dict.fromkeys(row[0] for row in rows))}
    text = ["[networks]", *(f"{name} = {json.dumps(path)}" for path, name in networks.items())]
    for path, timeout in dict.fromkeys((row[0], row[2]) for row in rows):
        properties = [row[1] for row in rows if (row[0], row[2]) == (path, timeout)]
        text += ["[[verify]]", f"network = {json.dumps(networks[path])}", f"engine = {json.dumps(engine)}"]
        text += [f"timeout = {float(timeout)}", f"property = {json.dumps(properties)}"]
    return "\n".join(text) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--engine", default="alpha-crown")
    parser.add_argument("--runner-kills", type=int, default=4)
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", action="store_true", help="only run the bare loop on FOLDER, a CSV file")
    given = parser.parse_args()
    if given.bare:
        bare(given.folder, given.engine)
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    random.seed(given.seed)
    place = Path(tempfile.mkdtemp())
    instances, suite = place / "instances.csv", place / "suite.toml"
    with (given.folder / "instances.csv").open(newline="") as file, instances.open("w", newline="") as copy:
        rows = [[*(str(given.folder / name) for name in row[:2]), row[2]] for row in csv.reader(file)][: given.count]
        csv.writer(copy).writerows(rows)
    suite.write_text(written(rows, given.engine))
    start = cpu_of("-c", "import torch, onnxruntime, leaktight.verify.prove, leaktight.models.load")
    alone = cpu_of(__file__, str(instances), "--engine", given.engine, "--bare")
    whole = cpu_of(*run_command(suite, place / "whole.sqlite", place / "whole.json"))
    again = cpu_of(*run_command(suite, place / "whole.sqlite", place / "again.json", "--resume"))
    pair = [place / "first.json", place / "second.json"]
    both(suite, place / "both.sqlite", pair)
    moments = [random.randrange(1, len(rows) - 20) for _ in range(given.runner_kills + given.worker_kills)]
    kinds = ["runner"] * given.runner_kills + ["worker"] * given.worker_kills
    kills = list(zip(moments, kinds, strict=True))
    runners, workers = disturbed(suite, place / "broken.sqlite", place / "broken.json", kills)
    print("| jobs | start-up of a process | bare loop | run, 2 workers | run again, --resume | throughput |")
    print("|---|---|---|---|---|---|")
    share = (alone - start) / (whole - 3 * start)
    cells = [
        len(rows),
        f"{start:.1f}",
        f"{alone:.1f}",
        f"{whole:.1f}",
        f"{again:.1f}",
        f"{share:.0%}, {alone / whole:.0%}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |")
    expected = answers(place / "whole.json")
    print("\nverdicts:", dict(Counter(status for status, _, _ in expected.values())))
    fine = len(expected) == len(rows)
    told = f"{runners} runners and {workers} workers killed"
    shares = " and ".join(str(own(one)) for one in pair)
    for says, results, ledger in (
        (told, [place / "broken.json"], place / "broken.sqlite"),
        (f"two runners at once, which answered {shares}", pair, place / "both.sqlite"),
    ):
        same = all(answers(result) == expected for result in results)
        once = answered(ledger) == len(rows) * [1]
        print(f"{says}: {'the same answers' if same else 'OTHER ANSWERS'},", end=" ")
        print("exactly one a job" if once else "NOT ONE A JOB")
        fine &= same and once
    fine &= sum(own(one) for one in pair) == len(rows)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
