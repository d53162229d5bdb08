"""Runs the instances of VNN-COMP folders in one process and compares the verdicts with known ones.

    python benchmarks/vnncomp.py FOLDER... [--timeout S] [--cpu] [--engine NAME] [--only TEXT] [--json FILE]

A folder holds instances.csv (network, property, timeout; no header) and, where verdicts are known, truth.csv (with a
header; columns onnx, vnnlib, verdict: sat, unsat or unknown). Prints a Markdown table, one row a folder. A verdict that
contradicts a known one is printed in full, and the exit code is then 1. With --cpu all seconds, the timeout's too, are
CPU seconds of this process: what a machine that is shared with others leaves comparable.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from leaktight.errors import InputError, UnsupportedOperator
from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.specs.vnnlib import read_property
from leaktight.verify.prove import prove

clock = time.perf_counter
_EXPECTED = {"sat": "refuted", "unsat": "proved"}


@dataclass(frozen=True)
class Outcome:
    """One instance: what was answered, what is known, and how long it took (reading included)."""

    network: str
    property: str
    status: str
    known: str
    seconds: float
    reason: str

    @property
    def contradicts(self) -> bool:
        wanted = _EXPECTED.get(self.known)
        return wanted is not None and self.status in ("proved", "refuted") and self.status != wanted


def truths(folder: Path) -> dict[tuple[str, str], str]:
    """The known verdicts by network and property."""
    if not (folder / "truth.csv").exists():
        return {}
    with (folder / "truth.csv").open(newline="") as file:
        return {(row["onnx"], row["vnnlib"]): row["verdict"] for row in csv.DictReader(file)}


def run(folder: Path, engine: str, limit: float, only: str) -> Iterator[Outcome]:
    """Answers the instances of a folder, one after the other."""
    known, networks = truths(folder), dict[str, Network | InputError]()
    with (folder / "instances.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and only in ",".join(row)]
    for onnx, vnnlib, timeout, *_ in rows:
        began = clock()
        status, reason = answer(networks, folder, onnx, vnnlib, engine, min(limit, float(timeout)))
        yield Outcome(onnx, vnnlib, status, known.get((onnx, vnnlib), "unknown"), clock() - began, reason)


def answer(
    networks: dict[str, Network | InputError], folder: Path, onnx: str, vnnlib: str, engine: str, timeout: float
) -> tuple[str, str]:
    """The status and the reason; networks are read once."""
    try:
        if onnx not in networks:
            networks[onnx] = load(folder / onnx)
    except InputError as error:
        networks[onnx] = error
    network = networks[onnx]
    if isinstance(network, InputError):
        return ("refused" if isinstance(network, UnsupportedOperator) else "unreadable"), str(network)
    try:
        verdict = prove(network, read_property(folder / vnnlib), engine=engine, timeout=timeout)
    except InputError as error:
        return "refused", str(error)
    return verdict.status.value, verdict.reason


def row(folder: Path, outcomes: list[Outcome], seconds: float) -> str:
    """The folder's line of the table."""
    status = Counter(o.status for o in outcomes)
    known = Counter(o.known for o in outcomes)
    right = Counter(o.known for o in outcomes if _EXPECTED.get(o.known) == o.status)
    times = sorted(o.seconds for o in outcomes)
    cells = [
        folder.name,
        len(outcomes),
        f"{right['unsat']} / {known['unsat']}",
        f"{right['sat']} / {known['sat']}",
        status["proved"],
        status["refuted"],
        status["unknown"] + status["timeout"],
        status["refused"] + status["unreadable"],
        sum(o.contradicts for o in outcomes),
        f"{seconds:.1f}",
        f"{1000 * times[len(times) // 2]:.0f}",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


COLUMNS = (
    "family",
    "instances",
    "proved of known unsat",
    "refuted of known sat",
    "proved",
    "refuted",
    "open",
    "refused",
    "contradictions",
    "seconds",
    "median ms",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for an instance, at most (default 120)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--only", default="", help="only instances whose line holds this text")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true", help="measure and limit CPU seconds")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.cpu:
        global clock
        clock = time.monotonic = time.process_time
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    everything: dict[str, list[Outcome]] = {}
    for folder in arguments.folders:
        began = clock()
        everything[folder.name] = list(run(folder, arguments.engine, arguments.timeout, arguments.only))
        print(row(folder, everything[folder.name], clock() - began), flush=True)
    if arguments.json:
        document = {name: [asdict(o) for o in outcomes] for name, outcomes in everything.items()}
        arguments.json.write_text(json.dumps(document, indent=1))
    wrong = [o for outcomes in everything.values() for o in outcomes if o.contradicts]
    for outcome in wrong:
        print(f"contradiction: {outcome}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
