"""What dividing one hard property gains: CPU seconds of the division and of every part, and of whole runs.

    python -m benchmarks.parts NETWORK PROPERTY [--parts 8] [--timeout 600] [--only whole|parts|run] [--jobs 2]

``whole``: one process proves it as a whole. ``parts``: one process divides it, and proves one part after the other; it
prints their CPU seconds, and how long so many workers would take that each take the next part: what a machine with as
many free cores would show by the clock. ``run``: `leaktight run` with `--jobs`, once; its CPU seconds are those of all
its processes, and the elapsed ones say something only where nobody else computes.
"""

from __future__ import annotations

import argparse
import heapq
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def whole(network: Any, asked: Any, timeout: float) -> None:
    from leaktight.verify.prove import prove

    began = time.process_time()
    found = prove(network, asked, timeout=timeout)
    print(
        f"| whole | {found.status.value} | {found.margin.lower:.6g} | {time.process_time() - began:.1f} |", flush=True
    )


def elapsed(division: float, parts: list[float], workers: int) -> float:
    """When the last part ends, if each of the workers takes the next one as soon as it is idle."""
    free = [division] * workers
    for part in parts:
        heapq.heappush(free, heapq.heappop(free) + part)
    return max(free)


def in_parts(network: Any, asked: Any, parts: int, timeout: float) -> None:
    from leaktight.verify.divide import divide
    from leaktight.verify.parts import prove_part
    from leaktight.verify.run.joined import joined

    began = time.process_time()
    found = divide(network, asked, parts, timeout=timeout)
    division = time.process_time() - began
    print(f"division: {division:.1f} CPU s, {len(found.parts)} parts", flush=True)
    costs, answers = list[float](), []
    for part in found.parts:
        began = time.process_time()
        answers.append(prove_part(network, asked, part, timeout=timeout).to_json())
        costs.append(time.process_time() - began)
        print(f"part {len(costs)}: {answers[-1]['status']}, {costs[-1]:.1f} CPU s", flush=True)
    verdict = joined(found.verdict.to_json(), answers, len(answers), 0.0) if answers else found.verdict.to_json()
    print(f"| {len(costs)} parts | {verdict['status']} | {verdict['margin']['lower']} | {division + sum(costs):.1f} |")
    for workers in (1, 2, 4, 8):
        print(f"{workers} workers: {elapsed(division, costs, workers):.1f} s")


def run(given: argparse.Namespace) -> None:
    place = Path(tempfile.mkdtemp())
    lines = ["[networks]", f"n = {str(given.network.resolve())!r}", "[[verify]]", 'network = "n"']
    lines += [f"property = {str(given.property.resolve())!r}", f"timeout = {given.timeout}"]
    (place / "suite.toml").write_text("\n".join([*lines, f"split = {given.parts}\n"]))
    command = [sys.executable, "-m", "leaktight", "run", str(place / "suite.toml"), "--jobs", str(given.jobs)]
    command += ["--ledger", f"sqlite:///{place}/ledger.sqlite", "-o", str(place / "out.txt")]
    began = time.monotonic()
    said = subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"--jobs {given.jobs}: {cpu:.1f} CPU s, {time.monotonic() - began:.1f} s elapsed; {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("property", type=Path)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--only", choices=("whole", "parts", "run"))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from leaktight.models.load import load
    from leaktight.specs.vnnlib import read_property

    torch.set_num_threads(1)
    network, asked = load(given.network), read_property(given.property)
    if given.only in (None, "whole"):
        whole(network, asked, given.timeout)
    if given.only in (None, "parts"):
        in_parts(network, asked, given.parts, given.timeout)
    if given.only in (None, "run"):
        run(given)


if __name__ == "__main__":
    main()
