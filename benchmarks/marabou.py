"""Runs Marabou's command-line tool and `leaktight verify` on the same files, as whole processes, one after the other.

    python -m benchmarks.marabou --marabou PATH [--networks NAME...] [--epsilons E...] [--points N] [--timeout S]
        [--peers FILE [--peers-only]]

Networks: those of benchmarks/networks.py, trained by our own script. Property: within `epsilon` of a held-out digit,
in [0, 1], no other class's score reaches the digit's own. Marabou (``pip install maraboupy``, in an environment of its
own) takes ONNX and VNN-LIB from the command line, as we do. CPU seconds: the whole process, user and system.
Prints a Markdown table, one row for a network and an epsilon: how many each decides, what Marabou alone decides,
contradictions, CPU seconds over all points and the medians. The exit code is 1 after a contradiction.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.networks import classified, network, recipes

_OURS = {0: "unsat", 1: "sat", 3: "unknown", 4: "unknown"}
CROWN = {  # alpha-beta-CROWN's medians, measured on such networks on a busy machine with two cores
    ("3x100-0.1", 0.02): "5.0",
    ("3x100-0.1", 0.05): "5.0",
    ("3x100-0.1", 0.08): "7.6",
    ("4x256-0.1", 0.02): "6.0",
    ("4x256-0.1", 0.05): "13.6",
    ("4x256-0.1", 0.08): "24.8",
}


@dataclass(frozen=True)
class Run:
    """One process: sat, unsat or unknown, and what it took."""

    verdict: str
    seconds: float


def vnnlib(x: Tensor, label: int, epsilon: float, classes: int) -> str:
    """The negation of robustness, as VNN-LIB 1.0."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(x))]
    lines += [f"(declare-const Y_{k} Real)" for k in range(classes)]
    for i, centre in enumerate(x.tolist()):
        lines.append(f"(assert (>= X_{i} {max(0.0, centre - epsilon):.6f}))")
        lines.append(f"(assert (<= X_{i} {min(1.0, centre + epsilon):.6f}))")
    others = " ".join(f"(and (>= Y_{k} Y_{label}))" for k in range(classes) if k != label)
    return "\n".join([*lines, f"(assert (or {others}))"]) + "\n"


def ours(onnx: Path, question: Path, timeout: float) -> Run:
    command = [sys.executable, "-m", "leaktight", "verify", "--timeout", str(timeout), str(onnx), str(question)]
    found, seconds = _timed(command, timeout + 60)
    assert found is not None
    if found.returncode not in _OURS:
        raise RuntimeError(f"{' '.join(command)}: {found.stderr}")
    return Run(_OURS[found.returncode], seconds)


def marabous(program: Path, onnx: Path, question: Path, timeout: float) -> Run:
    command = [str(program), str(onnx), str(question), f"--timeout={timeout:.0f}", "--verbosity=0"]
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary"
        _, seconds = _timed([*command, f"--summary-file={summary}"], timeout + 60)
        said = summary.read_text().split()[:1] if summary.exists() else []
    return Run(said[0].lower() if said and said[0].lower() in ("sat", "unsat") else "unknown", seconds)


class Peers:
    """Marabou's runs by network, epsilon, point and timeout, kept in a file of JSON lines where one is given."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.runs = path, dict[str, Run]()
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                key, verdict, seconds = json.loads(line)
                self.runs[key] = Run(verdict, seconds)

    def add(self, key: str, run: Run) -> None:
        self.runs[key] = run
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps([key, run.verdict, run.seconds]) + "\n")


def _timed(command: list[str], timeout: float) -> tuple[subprocess.CompletedProcess[str] | None, float]:
    """What the process did (None: it had to be killed), and its CPU seconds."""
    before = _cpu_of_children()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        found = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        found = None
    return found, _cpu_of_children() - before


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, epsilon: float, mine: list[Run], theirs: list[Run], wrong: int) -> str:
    """One line of the table."""
    missed = sum(t.verdict != "unknown" and m.verdict == "unknown" for m, t in zip(mine, theirs, strict=False))
    cells: list[object] = [name, epsilon, len(mine)]
    for runs in (mine, theirs):
        cells += [
            f"{sum(r.verdict == 'unsat' for r in runs)} + {sum(r.verdict == 'sat' for r in runs)}" if runs else "-",
            f"{sum(r.seconds for r in runs):.1f}" if runs else "-",
            f"{statistics.median(r.seconds for r in runs):.2f}" if runs else "-",
        ]
    cells += [missed, wrong, CROWN.get((name, epsilon), "-")]
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "network", "epsilon", "points", "ours: unsat + sat", "CPU s", "median", "Marabou: unsat + sat", "CPU s", "median",
    "Marabou alone decides", "contradictions", "alpha-beta-CROWN's median",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marabou", type=Path, help="Marabou's program; without it only ours is run")
    parser.add_argument("--networks", nargs="+", default=["3x100-0.1", "4x256-0.1"])
    parser.add_argument("--epsilons", nargs="+", type=float, default=[0.02, 0.05, 0.08])
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--plain", action="store_true", help="networks that were not hardened in training")
    parser.add_argument("--log", type=Path, help="write a line for every process to this file")
    parser.add_argument(
        "--peers", type=Path, help="keep Marabou's runs in this file, and take those from it that it has"
    )
    parser.add_argument("--peers-only", action="store_true", help="run Marabou alone, to fill that file")
    arguments = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|", flush=True)
    known, contradictions, peers = recipes(hardened=not arguments.plain), 0, Peers(arguments.peers)
    for name in arguments.networks:
        net = network(known[name])
        points, labels = classified(net, arguments.points)
        for epsilon in arguments.epsilons:
            mine, theirs, wrong = list[Run](), list[Run](), 0
            for i, (x, label) in enumerate(zip(points, labels.tolist(), strict=True)):
                with tempfile.TemporaryDirectory() as folder:
                    question = Path(folder) / "robust.vnnlib"
                    question.write_text(vnnlib(x, label, epsilon, net.output_size))
                    if not arguments.peers_only:
                        mine.append(ours(known[name].path, question, arguments.timeout))
                    key = f"{known[name].path.stem} {epsilon} {i} {arguments.timeout}"
                    if key not in peers.runs and arguments.marabou:
                        peers.add(key, marabous(arguments.marabou, known[name].path, question, arguments.timeout))
                    if key in peers.runs:
                        theirs.append(peers.runs[key])
                        wrong += bool(mine) and {mine[-1].verdict, theirs[-1].verdict} == {"sat", "unsat"}
                if arguments.log:
                    with arguments.log.open("a") as file:
                        file.write(f"{name} {epsilon} {i} {mine[-1:]} {theirs[-1:]}\n")
            print(row(name, epsilon, mine, theirs, wrong), flush=True)
            contradictions += wrong
    return 1 if contradictions else 0


if __name__ == "__main__":
    sys.exit(main())
