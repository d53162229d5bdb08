"""Curves over slopes: how tight, how fast, and on public benchmarks.

    python -m benchmarks.leak [--inputs 100] [--repeats 3] [--public FOLDER [--cpu]] [--output FILE]

Times are CPU seconds on one thread, medians of the repeats. Losses are against plain CROWN at the same slope, at the
middles and the ends of all segments. A grid of 100 such certificates, which proves nothing in between, is beside it
(five of them measured, times 20).
`--public` names a folder with the families starv_hcas_leaky and glipsdp_mnist_leaky in the VNN-COMP form; with `--cpu`
its seconds, the timeouts too, are CPU seconds.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bounds import circumstances, interleaved, table
from benchmarks.networks import classified, network, recipes
from leaktight.models.load import load
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import ball
from leaktight.specs.unsafe import misclassified
from leaktight.specs.vnnlib import read_property
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.leak import closed_form, local, stepwise
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.leak import leak
from leaktight.verify.leak.plan import Plan
from leaktight.verify.leak.stages import Stage, first_margins
from leaktight.verify.leak.trace import trace
from leaktight.verify.leak.traced import Traced

LO, HI = 0.0, 0.3
TOLERANCE = 0.05
NAMES = ("3x100-0.1", "4x256-0.1")
TIGHT = ("network", "radius", "segments", "mean loss", "largest loss", "L0 width", "L1 width", "L1 / L0")
FAST = (
    "network",
    "plain CROWN s",
    "curve s",
    "curve / plain",
    "its segments, mean",
    "its largest loss",
    "16 segments / plain",
    "their largest loss",
    "grid of 100 / plain",
)
PUBLIC = ("instance", "status", "proved up to", "refuted from", "open", "seconds")


def case_of(name: str, hardened: bool, radius: float, inputs: int) -> tuple[Slopes, Case, str]:
    recipe = recipes(hardened)[name]
    net = network(recipe)
    x, labels = classified(net, inputs)
    case = Case(ball(x, radius), misclassified(labels, net.output_size))
    return Slopes.of(net), case, f"{recipe.name}, {'hardened' if hardened else 'plain'}"


def pointwise(slopes: Slopes, case: Case, a: float) -> Tensor:
    """Plain CROWN at one slope, ``(batch,)``."""
    return lower_bounds(slopes.at(a), case.region, case.unsafe.weights, engine="crown").amin(1)


def segments(slopes: Slopes, case: Case, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bounds at the ends of `count` equal segments ``(batch, count)``, and the ends of the segments.

    Rows that matter are bounded at every end, neurons at both ends of the range or, where that loses more, at five.
    """
    ends = torch.linspace(LO, HI, count + 1, dtype=torch.float64)
    stages = (Stage(count, 1), Stage(count, count, 0.5), Stage(count // 4, count // 4))
    found, _ = first_margins(slopes, case, ends, TOLERANCE, Effort(), stages)
    return found.at_lo.reshape(-1, count), found.at_hi.reshape(-1, count), ends


def losses(slopes: Slopes, case: Case, count: int) -> Tensor:
    low, high, ends = segments(slopes, case, count)
    found = []
    for k in range(count):
        for a, value in ((ends[k], low[:, k]), ((ends[k] + ends[k + 1]) / 2, low[:, k] / 2 + high[:, k] / 2)):
            found.append(pointwise(slopes, case, float(a)) - value)
    found.append(pointwise(slopes, case, HI) - high[:, -1])
    return torch.stack(found)


def curve_losses(slopes: Slopes, case: Case, curves: list[Traced]) -> float:
    """The largest loss at the ends and middles of all segments of adaptive curves."""
    worst = 0.0
    places = sorted({a for one in curves for s in one.segments for a in (s.lo, s.lo / 2 + s.hi / 2, s.hi)})
    for a in places:
        plain = pointwise(slopes, case, a).tolist()
        for own, one in zip(plain, curves, strict=True):
            worst = max(worst, own - max(s.chord.at(a) for s in one.segments if s.lo <= a <= s.hi))
    return worst


def tightness(inputs: int) -> list[list[str]]:
    rows = []
    for hardened in (False, True):
        for radius in (0.01, 0.03):
            slopes, case, title = case_of(NAMES[0], hardened, radius, min(inputs, 20))
            found = losses(slopes, case, 16)
            lo, hi = (torch.full((case.region.batch,), end, dtype=torch.float64) for end in (LO, HI))
            size = closed_form.rates(slopes, case.region, case.unsafe.weights, lo, hi).amax(1)
            low, high = local.joined(*stepwise.rates(slopes, case.region, case.unsafe.weights, LO, HI))
            wide, narrow = float((2 * size).mean()), float((high - low).mean())
            numbers = (float(found.mean()), float(found.max()), wide, narrow, narrow / wide)
            rows.append([title, str(radius), "16", *(f"{x:.4g}" for x in numbers)])
    return rows


def speed(inputs: int, repeats: int) -> list[list[str]]:
    rows = []
    for hardened in (False, True):
        for name in NAMES:
            slopes, case, title = case_of(name, hardened, 0.01, inputs)
            plan = Plan(tolerance=TOLERANCE, optimise=False, boxes=False, attack=False)
            curves: list[Traced] = []

            def curve(slopes: Slopes = slopes, case: Case = case, plan: Plan = plan, into: list = curves) -> Tensor:  # type: ignore[type-arg]
                into[:] = trace(slopes, case, LO, HI, plan)
                return torch.tensor(0)

            (plain, _), (adaptive, _), (fixed, _) = interleaved(
                [
                    lambda slopes=slopes, case=case: pointwise(slopes, case, 0.1),
                    curve,
                    lambda slopes=slopes, case=case: segments(slopes, case, 16)[0],
                ],
                repeats,
            )
            start = time.process_time()
            for a in torch.linspace(LO, HI, 100).tolist()[::20]:
                pointwise(slopes, case, a)
            grid = 20 * (time.process_time() - start)
            few = Case(case.region.select(slice(0, 20)), case.unsafe.select(slice(0, 20)))
            rows.append(
                [
                    title,
                    f"{plain:.3f}",
                    f"{adaptive:.3f}",
                    f"{adaptive / plain:.1f}",
                    f"{statistics.mean(len(one.segments) for one in curves):.1f}",
                    f"{curve_losses(slopes, few, curves[:20]):.4f}",
                    f"{fixed / plain:.1f}",
                    f"{float(losses(slopes, few, 16).max()):.4f}",
                    f"{grid / plain:.0f}",
                ]
            )
    return rows


def public(folder: Path, timeout: float) -> list[list[str]]:
    """starv_hcas_leaky, all; of glipsdp_mnist_leaky the first 20 that are known to hold."""
    rows = []
    for family, most in (("starv_hcas_leaky", None), ("glipsdp_mnist_leaky", 20)):
        for net, spec in _instances(folder / family, most):
            found = leak(load(net), read_property(spec), (LO, HI), timeout=timeout)
            curve = found.curve
            if curve is None:
                continue
            left = sum(b - a for a, b in curve.open)
            refuted = "-" if curve.refuted is None else f"{curve.refuted.slope:.6g}"
            end = "-" if curve.proved_up_to is None else f"{curve.proved_up_to:.6g}"
            name = f"{net.stem} {spec.stem}"
            rows.append([name, curve.status.value, end, refuted, f"{left:.4g}", f"{found.seconds:.2f}"])
            print(*rows[-1], file=sys.stderr)
    return rows


def _instances(folder: Path, most: int | None) -> list[tuple[Path, Path]]:
    known = {}
    with (folder / "truth.csv").open() as file:
        for row in csv.reader(file):
            known[tuple(Path(cell).name for cell in row[:2])] = row[3]
    found = []
    with (folder / "instances.csv").open() as file:
        for net, spec, *_ in csv.reader(file):
            if most is None or known.get((Path(net).name, Path(spec).name)) == "unsat":
                found.append((folder / net, folder / spec))
    return found[:most]


def main() -> None:
    parser = argparse.ArgumentParser(description="Curves over slopes.")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--public", type=Path, help="a folder with public families")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each public instance")
    parser.add_argument("--cpu", action="store_true", help="limit public instances by CPU seconds")
    parser.add_argument("--output", type=Path, help="a file to write the tables to")
    arguments = parser.parse_args()
    arguments.dtype, arguments.threads = "float64", 1
    torch.set_num_threads(1)
    if arguments.cpu:
        time.monotonic = time.process_time
    parts = [circumstances(arguments).replace("benchmarks.bounds", "benchmarks.leak")]
    if arguments.public:
        parts += ["Public benchmarks, slopes 0:0.3", table(PUBLIC, public(arguments.public, arguments.timeout))]
    else:
        parts += ["Tightness", table(TIGHT, tightness(arguments.inputs))]
        parts += ["Speed, radius 0.01", table(FAST, speed(arguments.inputs, arguments.repeats))]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if arguments.output:
        arguments.output.write_text(report)


if __name__ == "__main__":
    main()
