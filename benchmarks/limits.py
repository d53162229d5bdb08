"""How far ``verify``, ``certify``, ``leak`` and ``lipschitz`` run past ``--timeout S``: whole processes, by the clock.

    python -m benchmarks.limits FOLDER... [--commands verify,leak] [--timeout 2] [--instances 6] [--only TEXT]

A folder holds instances.csv, as for benchmarks/vnncomp.py; instances are taken evenly from it. ``certify`` asks about
the first inputs of --data, ``lipschitz`` about the networks. What a process takes before it looks at its clock (the
interpreter, imports) is measured with the same command on the bundled network and taken off; reading the files is not.
"Process" is what is left beyond the limit; "own" is what the document's `seconds` say, which begin after reading. Only
those that end in a timeout, or after the limit, count. Both depend on who else computes: the load average is beside.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaktight.demo import NETWORK, PROVED

COMMANDS = ("verify", "certify", "leak", "lipschitz")


@dataclass(frozen=True)
class Run:
    """What became of one process: `own` are the seconds that its document counts."""

    status: str
    wall: float
    own: float
    late: bool


def ask(arguments: Sequence[str]) -> Run:
    """One process. Raises RuntimeError: it neither answered nor refused."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "leaktight", *arguments, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode == 2:
        return Run(f"refused: {done.stderr.strip().splitlines()[-1]}", wall, 0.0, False)
    if not done.stdout:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    found = json.loads(done.stdout)
    states = {record["status"] for record in found.get("inputs", [])} | {found.get("status")}
    late = "timeout" in states or bool(found.get("timed_out"))
    return Run(found.get("status") or ("timeout" if late else "done"), wall, float(found["seconds"]), late)


def start(command: str) -> float:
    """Seconds of the cheapest process of a command."""
    more = {"verify": [PROVED, "--engine", "interval"], "leak": [PROVED, "--slopes", "0.1:0.1", "--no-lipschitz"]}
    ways = [command, NETWORK, *more.get(command, ["--method", "product"])]
    if command == "certify":
        ways = ["verify", NETWORK, *more["verify"]]
    return min(ask([str(way) for way in ways]).wall for _ in range(3))


def spread(folder: Path, count: int, only: str) -> list[tuple[Path, Path]]:
    """So many instances of a folder, evenly taken from its list."""
    with (folder / "instances.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and only in ",".join(row)]
    step = max(1, len(rows) // count)
    return [(folder / row[0], folder / row[1]) for row in rows[::step][:count]]


def questions(command: str, folder: Path, given: argparse.Namespace) -> list[tuple[str, float, list[str]]]:
    """Name, limit and arguments of each process of a row."""
    pairs, limit = spread(folder, given.instances, given.only), given.timeout
    more = ["--timeout", str(limit)]
    if command == "verify":
        return [(f"{n.name} {p.name}", limit, [command, str(n), str(p), *more]) for n, p in pairs]
    if command == "leak":
        ways = ["--slopes", given.slopes, *more]
        return [(f"{n.name} {p.name}", limit, [command, str(n), str(p), *ways]) for n, p in pairs]
    networks = sorted((folder / "onnx").glob("*.onnx"))[: given.instances]
    if command == "lipschitz":
        return [(n.name, limit, [command, str(n), *more]) for n in networks]
    ways = [str(given.data), "--limit", str(given.inputs), *given.certify.split(), *more]
    return [(n.name, limit * given.inputs, [command, str(n), *ways]) for n in networks]


def row(command: str, folder: Path, given: argparse.Namespace, begin: float) -> str:
    """A line of the table."""
    late, asked, refused = [], 0, 0
    for name, limit, arguments in questions(command, folder, given):
        found = ask(arguments)
        refused += found.status.startswith("refused")
        asked += 1
        if found.late or found.own > limit:
            late.append((found.wall - begin - limit, found.own - limit, f"{name} {found.status}"))
            print(f"  {late[-1][0]:6.2f} {late[-1][1]:6.2f} {late[-1][2]}", file=sys.stderr, flush=True)
        elif found.status.startswith("refused"):
            print(f"  {name} {found.status}", file=sys.stderr, flush=True)
    worst = max(late, default=(0.0, 0.0, "-"))
    own = max((own for _, own, _ in late), default=0.0)
    load = os.getloadavg()[0]
    said = f"{asked - refused} | {len(late)} | {worst[0]:.2f} | {own:.2f} | {worst[2]} | {load:.1f}"
    return f"| {command} | {folder.name} | {said} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--commands", default="verify")
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--instances", type=int, default=6, help="of each folder")
    parser.add_argument("--only", default="", help="only instances whose line holds this text")
    parser.add_argument("--slopes", default="0:0.3", help="of leak")
    parser.add_argument("--data", type=Path, help="labelled inputs of certify")
    parser.add_argument("--inputs", type=int, default=2, help="how many of them")
    parser.add_argument("--certify", default="--epsilon 0.1 --clip 0 1", help="how certify asks about them")
    given = parser.parse_args()
    print(f"limit {given.timeout:g} s\n")
    print("| command | family | asked | late | process, s beyond | own, s beyond | where | load |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for command in given.commands.split(","):
        if command not in COMMANDS:
            parser.error(f"--commands: {command!r}; allowed: {', '.join(COMMANDS)}")
        begin = start(command)
        for folder in given.folders:
            print(row(command, folder, given, begin), flush=True)


if __name__ == "__main__":
    main()
