"""What worker processes gain in ``leaktight certify --jobs N``, on digits: whole processes, elapsed and CPU seconds.

    python -m benchmarks.workers [--inputs 1000] [--network 3x100-0.1] [--jobs 0,1,2] [--options "--epsilon 0.05 ..."]

0 stands for no workers at all, with --threads threads. The results of every number of workers are compared with the
first's: everything but the seconds has to be the same, and the statuses are those without workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.networks import digits, network, recipes


def run(arguments: Sequence[str], threads: int) -> tuple[dict[str, Any], float, float]:
    """The document of one process, its elapsed seconds, and its CPU seconds with those of its workers."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "leaktight", "certify", *arguments, "--format", "json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    elapsed, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), elapsed, cpu


def results(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "seconds"} for one in document["inputs"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--network", default="3x100-0.1")
    parser.add_argument("--jobs", default="0,1,2")
    parser.add_argument("--threads", type=int, default=1, help="of the process without workers")
    parser.add_argument("--options", default="--epsilon 0.05 --clip 0 1")
    given = parser.parse_args()
    recipe = recipes()[given.network]
    network(recipe)
    first, labels, last, more = digits()
    x, y = torch.cat([last, first])[: given.inputs], torch.cat([more, labels])[: given.inputs]
    print(
        "| workers | elapsed, s | CPU, s | proved | refuted | open | load |\n|---|---|---|---|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "digits.npz"
        np.savez(data, x=x.numpy(), y=y.numpy())
        same: list[dict[str, Any]] | None = None
        statuses: list[str] | None = None
        for jobs in map(int, given.jobs.split(",")):
            ways = [str(recipe.path), str(data), *given.options.split(), *(["--jobs", str(jobs)] if jobs else [])]
            document, elapsed, cpu = run(ways, given.threads)
            found = [one["status"] for one in document["inputs"]]
            counts = [found.count(word) for word in ("proved", "refuted")]
            rest = " | ".join(map(str, [*counts, len(found) - sum(counts)]))
            print(f"| {jobs or 'none'} | {elapsed:.1f} | {cpu:.1f} | {rest} | {os.getloadavg()[0]:.1f} |", flush=True)
            if jobs and same is not None and results(document) != same:
                print(f"--jobs {jobs}: other results than with fewer workers")
            if statuses is not None and found != statuses:
                differ = sum(a != b for a, b in zip(found, statuses, strict=True))
                print(f"--jobs {jobs}: {differ} other statuses than without workers")
            same, statuses = (results(document) if jobs else same), statuses or found


if __name__ == "__main__":
    main()
