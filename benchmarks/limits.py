"""How far ``leaktight verify --timeout S`` runs past its limit: whole processes, wall seconds.

    python -m benchmarks.limits FOLDER... [--timeout 2] [--instances 6] [--only TEXT]

A folder holds instances.csv, as for benchmarks/vnncomp.py; instances are taken evenly from it. What a process takes
before it looks at its clock (the interpreter, imports) is measured on the bundled network and taken off. Only those
that end in a timeout count.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from leaktight.demo import NETWORK, PROVED


def wall(network: Path, prop: Path, timeout: float) -> tuple[str, float]:
    """The status, and the seconds of one process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "leaktight", "verify", str(network), str(prop), "--timeout", str(timeout)]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    return (json.loads(done.stdout)["status"] if done.stdout else f"exit {done.returncode}"), seconds


def spread(folder: Path, count: int, only: str) -> list[tuple[Path, Path]]:
    """So many instances of a folder, evenly taken from its list."""
    with (folder / "instances.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and only in ",".join(row)]
    step = max(1, len(rows) // count)
    return [(folder / row[0], folder / row[1]) for row in rows[::step][:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--instances", type=int, default=6, help="of each folder")
    parser.add_argument("--only", default="", help="only instances whose line holds this text")
    arguments = parser.parse_args()
    start = min(wall(NETWORK, PROVED, 60.0)[1] for _ in range(3))
    print(f"start {start:.2f} s, limit {arguments.timeout:g} s\n")
    print("| family | timeouts | most beyond the limit, s | where |\n|---|---|---|---|", flush=True)
    for folder in arguments.folders:
        late = []
        for network, prop in spread(folder, arguments.instances, arguments.only):
            status, seconds = wall(network, prop, arguments.timeout)
            if status == "timeout" or status.startswith("exit"):
                late.append((seconds - start - arguments.timeout, f"{network.name} {prop.name} {status}"))
        worst = max(late, default=(0.0, "-"))
        print(f"| {folder.name} | {len(late)} | {worst[0]:.2f} | {worst[1]} |", flush=True)


if __name__ == "__main__":
    main()
