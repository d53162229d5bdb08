"""How the cost of Lipschitz bounds grows: with the depth, the width and the size of images.

    python -m benchmarks.lipschitz_growth [--only KIND:SIZE ...] [--seconds 60] [--record FILE] [--plot FILE]

KIND is depth (layers of 32), width (three layers) or image (two convolutions and a dense layer). Random networks with
slope 0.1. Every row is measured in a process of its own: CPU seconds on one thread, and the process's peak memory,
Python and torch included. The search for multipliers ends after --seconds, elapsed; it is said which searches did. All
constants are proven. --record: a file of rows, to which new ones are added; --plot draws all that stand there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import leaktight as lt
from benchmarks.lipschitz import chain, random_weights
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Conv, Input, Linear, Reshape, TwoSlope, leaky_relu
from leaktight.verify.lipschitz.fourier import fourier

CASES = {"depth": (2, 4, 8, 16, 32, 64), "width": (16, 64, 128, 256, 512, 1024), "image": (8, 16, 32, 64, 128)}
COLUMNS = ("kind", "size", "neurons", "cheap_s", "searched_s", "cheap", "searched", "stopped", "peak_mb")


def network(kind: str, size: int) -> Network:
    if kind == "image":
        return image(size)
    sizes = (32,) * size + (10,) if kind == "depth" else (size,) * 3 + (10,)
    return chain(random_weights(sizes), 0.1)


def image(size: int) -> Network:
    """Convolutions of 4x4 with stride 2 to 16 and 32 channels, and a dense layer."""
    generator = torch.Generator().manual_seed(0)
    nodes, channels, extent = [Node("x", Input(), (), (1, 3, size, size))], 3, size
    for k, out in enumerate((16, 32)):
        kernel = torch.randn(out, channels, 4, 4, generator=generator, dtype=torch.float64) / (16 * channels) ** 0.5
        channels, extent = out, extent // 2
        shape = (1, channels, extent, extent)
        nodes.append(Node(f"conv{k}", Conv(kernel, None, (2, 2), (1, 1), (1, 1)), (nodes[-1].name,), shape))
        nodes.append(Node(f"leaky{k}", leaky_relu(0.1), (nodes[-1].name,), shape))
    flat = channels * extent * extent
    nodes.append(Node("flat", Reshape(nodes[-1].shape, (1, flat)), (nodes[-1].name,), (1, flat)))
    weight = torch.randn(10, flat, generator=generator, dtype=torch.float64) / flat**0.5
    nodes.append(Node("out", Linear(weight), ("flat",), (1, 10)))
    ports = (Port("x", nodes[0].shape, "float64"),), (Port("out", (1, 10), "float64"),)
    return Network(tuple(nodes), *ports)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def row(kind: str, size: int, seconds: float) -> dict[str, Any]:
    asked = network(kind, size)
    if kind == "image":
        cheap, first = timed(lambda: fourier(asked, search=False).best)
        best, second = timed(lambda: lt.lipschitz(asked, method="fourier", timeout=seconds))
    else:
        cheap, first = timed(lambda: lt.lipschitz(asked, method="fast").upper)
        best, second = timed(lambda: lt.lipschitz(asked, method="lipsdp", timeout=seconds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    neurons = sum(node.size for node in asked if isinstance(node.op, TwoSlope))
    values = (kind, size, neurons, first, second, cheap, best.upper, best.timed_out, peak)
    return dict(zip(COLUMNS, values, strict=True))


def apart(kind: str, size: int, seconds: float) -> dict[str, Any]:
    """The row, from a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.lipschitz_growth",
        "--one",
        f"{kind}:{size}",
        "--seconds",
        str(seconds),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def plotted(rows: list[dict[str, Any]], place: Path) -> None:
    """Seconds and memory against depth, width and size of images, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.5), sharey=True)
    titles = {"depth": "layers of 32", "width": "width of 3 layers", "image": "width of the image"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        some = sorted((r for r in rows if r["kind"] == kind), key=lambda r: r["size"])
        for column, label in (("cheap_s", "closed form, s"), ("searched_s", "searched, s"), ("peak_mb", "memory, GB")):
            values = [r[column] / (1000 if column == "peak_mb" else 1) for r in some]
            (line,) = axis.loglog([r["size"] for r in some], values, marker="o", label=label)
            if column == "searched_s":
                cut = [(r["size"], r[column]) for r in some if r["stopped"]]
                axis.plot([x for x, _ in cut], [y for _, y in cut], "x", color=line.get_color(), markersize=11)
        axis.set_xlabel(title)
        axis.set_xticks([r["size"] for r in some], [str(r["size"]) for r in some])
        axis.minorticks_off()
    axes[0].legend(fontsize=8, title="x: stopped", title_fontsize=8)
    figure.tight_layout()
    figure.savefig(place, metadata={"Date": None} if place.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        kind, _, size = given.one.partition(":")
        print(json.dumps(row(kind, int(size), given.seconds)))
        return
    known = json.loads(given.record.read_text()) if given.record and given.record.exists() else []
    wanted = given.only if given.only is not None else [f"{k}:{n}" for k, sizes in CASES.items() for n in sizes]
    print(
        "| kind | size | neurons | Fast s | searched s | Fast | searched | peak MB |\n" + "|---" * 8 + "|", flush=True
    )
    for name in wanted:
        kind, _, size = name.partition(":")
        found = apart(kind, int(size), given.seconds)
        known = [r for r in known if (r["kind"], r["size"]) != (found["kind"], found["size"])] + [found]
        print(cells(found), flush=True)
        if given.record:
            given.record.write_text("[\n" + ",\n".join(json.dumps(r) for r in known) + "\n]\n")
    if given.plot:
        plotted(known, given.plot)


def cells(found: dict[str, Any]) -> str:
    cheap = (f"{found['cheap_s']:.2f}", f"{found['cheap']:.5g}")
    searched = f"{found['searched_s']:.1f}" + (" (stopped)" if found["stopped"] else "")
    parts = (found["kind"], found["size"], found["neurons"], cheap[0], searched, cheap[1], f"{found['searched']:.5g}")
    return "| " + " | ".join(map(str, (*parts, f"{found['peak_mb']:.0f}"))) + " |"


if __name__ == "__main__":
    main()
