"""How far ``verify``, ``certify``, ``leak`` and ``lipschitz`` run past ``--timeout S``: whole processes, by the clock.

    python -m benchmarks.limits FOLDER... [--commands verify,leak] [--timeout 2] [--instances 6] [--interrupt 3]

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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaktight.demo import NETWORK, PROVED

COMMANDS = ("verify", "certify", "leak", "lipschitz")


@dataclass(frozen=True)
class Run:
    """What became of one process: `own` are the seconds that its document counts, `peak` is its memory in MiB."""

    status: str
    wall: float
    own: float
    late: bool
    peak: float


def ask(arguments: Sequence[str], interrupt: float | None = None) -> Run:
    """One process; Ctrl-C ends it after `interrupt` seconds. Raises RuntimeError: it neither answered nor refused."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "leaktight", *arguments, "--format", "json"]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        pressed = began
        if interrupt is not None:
            ends = began + interrupt
            while process.poll() is None and time.perf_counter() < ends:
                time.sleep(0.01)
            pressed = time.perf_counter()
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
        if process.returncode is None:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode, peak = os.waitstatus_to_exitcode(status), used.ru_maxrss / 1024
        else:
            peak = 0.0
        wall = time.perf_counter() - (began if interrupt is None else pressed)
        out.seek(0)
        err.seek(0)
        said, told = out.read().decode(), err.read().decode()
    if process.returncode == 2:
        return Run(f"refused: {told.strip().splitlines()[-1]}", wall, 0.0, False, peak)
    if not said:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{told}")
    found = json.loads(said)
    states = {record["status"] for record in found.get("inputs", [])} | {found.get("status")}
    late = "timeout" in states or bool(found.get("timed_out"))
    status = found.get("status") or ("timeout" if late else "done")
    status += " (interrupted)" if found.get("interrupted") else ""
    return Run(status, wall, float(found["seconds"]), late, peak)


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
    late, asked, refused, peak = [], 0, 0, 0.0
    for name, limit, arguments in questions(command, folder, given):
        found = ask([*arguments, *(["--memory", given.memory] if given.memory else [])])
        refused += found.status.startswith("refused")
        asked, peak = asked + 1, max(peak, found.peak)
        if found.late or found.own > limit:
            late.append((found.wall - begin - limit, found.own - limit, f"{name} {found.status}"))
            print(f"  {late[-1][0]:6.2f} {late[-1][1]:6.2f} {late[-1][2]}", file=sys.stderr, flush=True)
        elif found.status.startswith("refused"):
            print(f"  {name} {found.status}", file=sys.stderr, flush=True)
    worst = max(late, default=(0.0, 0.0, "-"))
    own = max((own for _, own, _ in late), default=0.0)
    said = f"{asked - refused} | {len(late)} | {worst[0]:.2f} | {own:.2f} | {worst[2]} | {peak:.0f}"
    return f"| {command} | {folder.name} | {said} | {os.getloadavg()[0]:.1f} |"


def interrupted(command: str, folder: Path, given: argparse.Namespace, begin: float) -> str:
    """A line of the table of Ctrl-C: how long until there is an answer."""
    slow, count, silent = (0.0, "-"), 0, 0
    for name, _, arguments in questions(command, folder, given):
        arguments = arguments[: arguments.index("--timeout")]
        try:
            found = ask(arguments, begin + given.interrupt)
        except RuntimeError:
            silent += 1
            print(f"  no answer: {name}", file=sys.stderr, flush=True)
            continue
        if "interrupted" in found.status:
            count, slow = count + 1, max(slow, (found.wall, name))
    return f"| {command} | {folder.name} | {count} | {silent} | {slow[0]:.2f} | {slow[1]} | {os.getloadavg()[0]:.1f} |"


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
    parser.add_argument("--memory", help="a cap for each process; its peak is in the table")
    parser.add_argument("--interrupt", type=float, help="no limit, but Ctrl-C after so many seconds")
    given = parser.parse_args()
    if given.interrupt is None:
        print(f"limit {given.timeout:g} s\n")
        print("| command | family | asked | late | process, s beyond | own, s beyond | where | peak, MiB | load |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
    else:
        print(f"Ctrl-C after {given.interrupt:g} s\n")
        print("| command | family | interrupted | without an answer | s until it, at most | where | load |")
        print("|---|---|---|---|---|---|---|", flush=True)
    for command in given.commands.split(","):
        if command not in COMMANDS:
            parser.error(f"--commands: {command!r}; allowed: {', '.join(COMMANDS)}")
        begin = start(command)
        for folder in given.folders:
            print((row if given.interrupt is None else interrupted)(command, folder, given, begin), flush=True)


if __name__ == "__main__":
    main()
