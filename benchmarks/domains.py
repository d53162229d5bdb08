"""How a search over neurons grows: domains per second, bytes per domain and unstable neurons by width and depth.

    python -m benchmarks.domains [--seconds S] [--widths W...] [--depths D...] [--plot FILE] [--million] [--profile]

Random networks of 64 inputs with slope 0.1; a question that no search settles within the time, so that domains pile
up. CPU seconds of this process. --million puts a million domains into a pool and says what the process then holds.
--profile says what the time of the largest network goes into. Prints Markdown; --plot draws the table.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import Search
from leaktight.verify.search.questions import open_questions
from leaktight.verify.search.splits import Pool

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from networks import fully_connected

_INPUTS, _OUTPUTS, _SLOPE, _RADIUS, _MEMORY = 64, 10, 0.1, 0.03, 2 << 30


@dataclass(frozen=True)
class Grown:
    """What a search of one network came to. `bytes_`: those that a waiting domain takes. `course`: round by round,
    domains, CPU seconds and bytes of the pool."""

    width: int
    depth: int
    unstable: int
    domains: int
    seconds: float
    bytes_: float
    course: tuple[tuple[int, float, int], ...]

    @property
    def cells(self) -> tuple[object, ...]:
        rate = self.domains / self.seconds
        return (self.width, self.depth, self.unstable, self.domains, f"{rate:.0f}", f"{self.bytes_:.0f}")


def question(width: int, depth: int) -> tuple[Network, Case]:
    """A network and a margin that is below zero by far in the relaxation alone."""
    network = fully_connected(0, (_INPUTS, *[width] * depth, _OUTPUTS), _SLOPE)
    centre = torch.zeros(1, _INPUTS, dtype=torch.float64)
    region = ball(centre, _RADIUS, Norm.LINF)
    weights = torch.zeros(1, 1, _OUTPUTS, dtype=torch.float64)
    weights[0, 0, 0], weights[0, 0, 1] = 1.0, -1.0
    level = float((network.flat(centre) @ weights[0].mT).squeeze())
    return network, Case(region, Unsafe(weights, torch.full((1, 1), level).double(), torch.zeros(1).long()))


def search(width: int, depth: int) -> Search:
    network, case = question(width, depth)
    known = intermediate_bounds(network, case.region, _MEMORY)
    nothing = torch.full((1, 1), -torch.inf, dtype=torch.float64)
    return Search(Bounding(network, case.region, known, open_questions(case, nothing)), lambda: False, _MEMORY)


def grown(width: int, depth: int, seconds: float) -> Grown:
    """Rounds of a search for so many CPU seconds."""
    running = search(width, depth)
    before, began, course = running.domains, time.process_time(), list[tuple[int, float, int]]()
    while time.process_time() - began < seconds and len(running.waiting):
        running.round()
        course.append((running.domains - before, time.process_time() - began, running.waiting.bytes))
    count = len(running.waiting)
    held = running.waiting.read(torch.arange(count))
    taken = sum(getattr(held, name).nbytes for name in held.__dataclass_fields__) / max(count, 1)
    domains, spent, _ = course[-1]
    return Grown(width, depth, len(running.bounding.columns), domains, spent, taken, tuple(course))


def million(width: int, depth: int) -> str:
    """What a process holds with a million domains of one network, twenty decisions deep, in a pool."""
    running = search(width, depth)
    some = running.waiting.read(torch.zeros(1000, dtype=torch.long))
    for level in range(20):
        some = some.deepened(torch.full((1000,), level % len(running.bounding.columns)), torch.ones(1000).bool())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pool = Pool(some)
    for _ in range(999):
        pool.add(some)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{len(pool)} domains of {len(running.bounding.columns)} neurons that bend, {width}x{depth}, 20 decisions each:"
        f" {pool.bytes / len(pool):.0f} bytes a domain, at most {peak / 1e6:.2f} GB in the process"
        f" ({before / 1e6:.2f} GB before)"
    )


def plot(rows: list[Grown], path: Path) -> None:
    """Three pictures side by side: the rate by width, a domain's bytes by neurons, and the course of the searches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "leaktight"
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    rate, size, course = figure.subplots(1, 3)
    depths = sorted({row.depth for row in rows})
    for depth in depths:
        some, label = [row for row in rows if row.depth == depth], f"{depth} hidden layers"
        rate.loglog([r.width for r in some], [r.domains / r.seconds for r in some], "o-", label=label)
        size.loglog([r.unstable for r in some], [r.bytes_ for r in some], "o-", label=label)
    for row in (row for row in rows if row.depth == depths[-1]):
        counts = [d for d, _, _ in row.course]
        course.loglog(counts, [t for _, t, _ in row.course], label=f"{row.width} wide, CPU s")
        course.loglog(counts, [b / 1e8 for _, _, b in row.course], "--", label=f"{row.width} wide, 100 MB")
    rate.set(xlabel="width", ylabel="domains per CPU second")
    size.set(xlabel="neurons that bend", ylabel="bytes of a waiting domain")
    course.set(xlabel=f"domains ({depths[-1]} hidden layers)", ylabel="CPU seconds; pool in 100 MB")
    for axes in (rate, size, course):
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--widths", nargs="+", type=int, default=[50, 100, 200, 400])
    parser.add_argument("--depths", nargs="+", type=int, default=[2, 4, 6])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if arguments.million:
        print(million(max(arguments.widths), max(arguments.depths)))
        return 0
    head = ("width", "hidden layers", "neurons that bend", "domains", "domains / CPU s", "bytes / domain")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    rows = []
    for depth in arguments.depths:
        for width in arguments.widths:
            rows.append(grown(width, depth, arguments.seconds))
            print("| " + " | ".join(map(str, rows[-1].cells)) + " |", flush=True)
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.profile:
        profile, text = cProfile.Profile(), io.StringIO()
        profile.runcall(grown, max(arguments.widths), max(arguments.depths), arguments.seconds)
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(12)
        print("\n" + text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
