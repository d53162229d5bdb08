"""Our bounds against auto_LiRPA's: one process, the same networks, inputs and number type, runs interleaved.

    python -m benchmarks.bounds [--only NAME] [--plain] [--inputs 100] [--repeats 5] [--dtype float64] [--threads N]
        [--output FILE]

Times are CPU seconds on one thread, or elapsed seconds on several, medians of the repeats. auto_LiRPA's do not contain
its building of the graph; ours contain everything. Its own Leaky ReLU is compared in plain bounds; with optimised
slopes, which version 0.3 has for the ReLU only, it gets every form of the network and every method, and an input counts
as proved if any of them proves it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.networks import Recipe, classified, network, recipes
from leaktight.models.network import Network
from leaktight.specs.region import Region, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.bounds import auto_lirpa
from leaktight.verify.bounds.engine import lower_bounds

# Networks and radii; at these, plain bounds prove about half of the inputs, so that there is something to gain.
CASES = (("3x100-0.1", 0.06), ("4x256-0.1", 0.045), ("conv-0.1", 0.07), ("5x100-0.3", 0.05))


@dataclass(frozen=True)
class Case:
    """Inputs of one network, with the margins' objectives ``(batch, rows, outputs)``."""

    recipe: Recipe
    radius: float
    network: Network
    region: Region
    objectives: Tensor

    @property
    def name(self) -> str:
        return f"{self.recipe.name}, slope {self.recipe.slope}, {'hardened' if self.recipe.hardened else 'plain'}"


def case_of(recipe: Recipe, radius: float, inputs: int) -> Case:
    net = network(recipe)
    x, labels = classified(net, inputs)
    return Case(recipe, radius, net, ball(x, radius), misclassified(labels, net.output_size).weights)


def proved(margins: Tensor) -> Tensor:
    return (margins > 0).all(1)


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    found = run()
    return clock() - start, found


def interleaved(runs: list[Callable[[], Tensor]], repeats: int) -> list[tuple[float, Tensor]]:
    """The median time and the last result of each run, all of them taking turns; one unmeasured turn first."""
    times: list[list[float]] = [[] for _ in runs]
    found = [run() for run in runs]
    for _ in range(repeats):
        for i, run in enumerate(runs):
            seconds, found[i] = timed(run)
            times[i].append(seconds)
    return [(statistics.median(seconds), result) for seconds, result in zip(times, found, strict=True)]


def plain_row(case: Case, repeats: int, dtype: torch.dtype) -> list[str]:
    """Plain CROWN: time, tightness on margins and on the box around the outputs, inputs proved."""
    eye = torch.eye(case.network.output_size, dtype=torch.float64)
    sides = torch.cat([eye, -eye])[None]
    opponent = auto_lirpa.Opponent(case.network, dtype=dtype)
    (their_time, theirs), (our_time, ours) = interleaved(
        [
            lambda: opponent.lower_bounds(case.region, case.objectives, method="crown"),
            lambda: lower_bounds(case.network, case.region, case.objectives, engine="crown", dtype=dtype),
        ],
        repeats,
    )
    looser = (ours < theirs - 1e-6 * theirs.abs().clamp(min=1)).double().mean()
    their_box = opponent.lower_bounds(case.region, sides, method="crown")
    our_box = lower_bounds(case.network, case.region, sides, engine="crown", dtype=dtype)
    radius = _radius(our_box) / _radius(their_box)
    return [
        case.name,
        f"{case.radius}",
        f"{their_time:.3f}",
        f"{our_time:.3f}",
        f"{our_time / their_time:.2f}",
        f"{looser:.1%}",
        f"{1 - float(radius.median()):.1%}",
        _count(proved(theirs)),
        _count(proved(ours)),
    ]


def _count(which: Tensor) -> str:
    return str(int(which.sum()))


def _radius(sides: Tensor) -> Tensor:
    """Half the width of a box given as its lower bounds and its negated upper bounds."""
    lower, upper = sides.chunk(2, 1)
    return (-upper - lower) / 2


def optimised_row(case: Case, repeats: int, dtype: torch.dtype) -> list[str]:
    """Optimised slopes: inputs proved by each, and our time in multiples of our own plain bounds."""
    goal = torch.zeros(1, case.objectives.shape[1], dtype=torch.float64)
    as_relus = auto_lirpa.Opponent(case.network, relus=True, dtype=dtype)
    as_leaky = auto_lirpa.Opponent(case.network, dtype=dtype)
    tries = [(as_leaky, "ibp"), (as_leaky, "crown"), (as_relus, "crown")]
    found = [proved(tool.lower_bounds(case.region, case.objectives, method=method)) for tool, method in tries]
    their_time, optimised = timed(lambda: as_relus.lower_bounds(case.region, case.objectives, method="alpha-crown"))
    every = torch.stack([*found, proved(optimised)]).any(0)
    (plain_time, plain), (our_time, ours) = interleaved(
        [
            lambda: lower_bounds(case.network, case.region, case.objectives, engine="crown", dtype=dtype),
            lambda: lower_bounds(
                case.network, case.region, case.objectives, engine="alpha-crown", dtype=dtype, target=goal, every=True
            ),
        ],
        repeats,
    )
    return [
        case.name,
        f"{case.radius}",
        _count(every),
        _count(proved(ours)),
        _count(proved(plain)),
        f"{their_time:.2f}",
        f"{our_time:.2f}",
        f"{our_time / plain_time:.1f}",
        _count(every & ~proved(ours)),
        _count(proved(ours) & ~every),
    ]


PLAIN = (
    "network",
    "radius",
    "auto_LiRPA s",
    "leaktight s",
    "time ratio",
    "margins looser",
    "output box tighter by",
    "proved by it",
    "proved by us",
)
OPTIMISED = (
    "network",
    "radius",
    "proved by it (any method)",
    "proved by us",
    "by our plain bounds",
    "its alpha-CROWN s",
    "ours s",
    "ours / our plain",
    "only it",
    "only we",
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def circumstances(arguments: argparse.Namespace) -> str:
    """Where, when and how the numbers came about."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    command = "python -m benchmarks.bounds " + " ".join(sys.argv[1:])
    return "\n".join(
        [
            f"- commit {commit.strip() or 'unknown'}; {time.strftime('%Y-%m-%d')}; `{command.strip()}`",
            f"- {model}, {os.cpu_count()} cores, {arguments.threads} used, load {os.getloadavg()[0]:.1f} at the end",
            f"- auto_LiRPA {auto_lirpa.available()}, torch {torch.__version__}, {arguments.dtype},"
            f" {arguments.inputs} inputs a network, medians of {arguments.repeats} runs",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Our bounds against auto_LiRPA's.")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--plain", action="store_true", help="leave out optimised slopes, where auto_LiRPA takes long")
    parser.add_argument("--threads", type=int, default=1, help="with several, times are elapsed ones")
    parser.add_argument("--output", type=Path, help="a file to write the tables to")
    arguments = parser.parse_args()
    if auto_lirpa.available() is None:
        sys.exit("auto_LiRPA is not installed; see CONTRIBUTING.md")
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    made = recipes()
    cases = [case_of(made[name], radius, arguments.inputs) for name, radius in CASES if arguments.only in name]
    parts = ["Plain CROWN", table(PLAIN, (plain_row(case, arguments.repeats, dtype) for case in cases))]
    if not arguments.plain:
        rows = (optimised_row(case, min(arguments.repeats, 3), dtype) for case in cases)
        parts += ["Optimised slopes", table(OPTIMISED, rows)]
    report = "\n\n".join([circumstances(arguments), *parts]) + "\n"
    print(report)
    if arguments.output:
        arguments.output.write_text(report)


if __name__ == "__main__":
    main()
