"""Lipschitz constants beside published ones and beside general solvers.

    python -m benchmarks.lipschitz TABLE [--public FOLDER] [--python FILE] [--layers N ...]

TABLE: published (needs the folder of public weights), solvers (needs cvxpy; Clarabel takes minutes), slopes, eclipse
and uniform (need eclipse-nn, in the Python that --python names; --layers of uniform).
Times are CPU seconds on one thread. "Certified" is what `leaktight.lipschitz` returns: proven with all roundings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import leaktight as lt
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input, Linear, Sum, leaky_relu
from leaktight.verify.lipschitz import convex, interior
from leaktight.verify.lipschitz.centred import centred
from leaktight.verify.lipschitz.certificate import certified, repaired
from leaktight.verify.lipschitz.fast import closed_form
from leaktight.verify.lipschitz.layers import layers

Array = NDArray[np.float64]
Row = Sequence[object]


class Draft:
    """Linear layers and Leaky ReLUs, one after the other."""

    def __init__(self, size: int) -> None:
        self.nodes, self.size = [Node("x", Input(), (), (1, size))], size

    def linear(self, weight: Array, at: str | None = None) -> str:
        return self._add(Linear(torch.from_numpy(np.ascontiguousarray(weight, np.float64))), len(weight), at)

    def leaky(self, slope: float) -> str:
        return self._add(leaky_relu(slope), self.nodes[-1].size, None)

    def sum(self, a: str, b: str) -> str:
        self.nodes.append(Node(f"n{len(self.nodes)}", Sum((1, 1)), (a, b), self.nodes[-1].shape))
        return self.nodes[-1].name

    def _add(self, op: Any, width: int, at: str | None) -> str:
        self.nodes.append(Node(f"n{len(self.nodes)}", op, (at or self.nodes[-1].name,), (1, width)))
        return self.nodes[-1].name

    def network(self) -> Network:
        last = self.nodes[-1]
        ports = Port("x", (1, self.size), "float64"), Port(last.name, last.shape, "float64")
        return Network(tuple(self.nodes), ports[:1], ports[1:])


def chain(weights: Sequence[Array], slope: float) -> Network:
    draft = Draft(weights[0].shape[1])
    for weight in weights[:-1]:
        draft.linear(weight)
        draft.leaky(slope)
    draft.linear(weights[-1])
    return draft.network()


def random_weights(sizes: Sequence[int], seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((m, n)) / n**0.5 for n, m in pairwise(sizes)]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def measured(name: str, network: Network, reference: object, methods: Sequence[str]) -> Row:
    """The certified bounds of some methods, each with its time."""
    cells: list[object] = [name]
    for method in methods:
        found, seconds = timed(lambda method=method: lt.lipschitz(network, method=method, timeout=400))
        cells.append(f"{found.upper:.7g} ({seconds:.2f}{', stopped' if found.timed_out else ''})")
    return [*cells, reference]


def matlab(place: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    found: dict[str, Any] = loadmat(place, simplify_cells=True)
    return found


def published(folder: Path) -> Iterator[Row]:
    yield ("network", "product", "LipLT", "Fast", "LipSDP", "published")
    every, some = ("product", "liplt", "fast", "lipsdp"), ("product", "fast", "lipsdp")
    known = matlab(folder / "LipSDP/LipSDP/examples/saved_weights/random_weights.mat")["weights"]
    yield measured("LipSDP random_weights", chain([np.asarray(w, np.float64) for w in known], 0.0), "36.482", every)
    known = matlab(folder / "LipSDP/LipSDP/examples/saved_weights/mnist_weights.mat")["weights"]
    reference = "24.365, and 24.320 by a multiplier that is invalid"
    yield measured("LipSDP mnist_weights", chain([np.asarray(w, np.float64) for w in known], 0.0), reference, every)
    with np.load(folder / "ECLipsE/demo/sampleweights/npz/lyr2n80test1.npz") as demo:
        network = chain([demo[name].astype(np.float64) for name in ("w1", "w2")], 0.0)
    yield measured("ECLipsE's demonstration, 4-80-1", network, "0.809035197 (Fast)", every)
    models = folder / "GLipSDP/Scalability/exported_mnist_models"
    values = matlab(folder / "GLipSDP/Scalability/results/results_all_FC_trained.mat")["L_LipSDP_mat"]
    depths = (2, 4, 8, 16, 32, 64)
    for width, d in (
        (16, 2),
        (16, 4),
        (16, 8),
        (32, 4),
        (64, 2),
        (64, 4),
        (64, 8),
        (64, 16),
        (16, 32),
        (16, 64),
        (64, 64),
    ):
        layer = matlab(models / f"mlp_L{d + 1}_W{width}.mat")["params"]
        weights = [layer[f"linear_{i}_weight"].T for i in range(1, d + 1)]
        value = values[(64, 32, 16).index(width), depths.index(d)]
        row = measured(f"MLP {width} wide, {d} deep", chain(weights, 0.0), f"{value:.7g} (MOSEK)", some)
        yield (*row[:2], "", *row[2:])
    stored = matlab(folder / "GLipSDP/Versatility/models/weights_mat/FC-R18.mat")
    yield measured("FC-R18, 8 residual blocks", residual(stored), "20.95600 (MOSEK, 70 s)", every)
    for width, value in ((100, "18.797 / 15.912"), (400, "19.920 / -")):
        found = matlab(folder / f"ECLipsE/mnist/lyr3n{width}test1.mat")["weights"]
        network = chain([np.asarray(w, np.float64) for w in found], 0.0)
        methods = every if width == 100 else every[:-1]
        row = measured(f"ECLipsE MNIST 784-{width}-{width}-10", network, f"{value} (Fast / LipSDP)", methods)
        yield row if width == 100 else (*row[:-1], "", row[-1])


def residual(stored: dict[str, Any]) -> Network:
    draft = Draft(784)
    draft.linear(stored["input_layer_weight"])
    at = draft.leaky(0.0)
    for k in range(8):
        draft.linear(stored[f"blocks_{k}_fc1_weight"], at)
        draft.leaky(0.0)
        at = draft.sum(at, draft.linear(stored[f"blocks_{k}_fc2_weight"]))
    draft.linear(stored["output_layer_weight"], at)
    return draft.network()


def solvers() -> Iterator[Row]:
    yield ("sizes", "solver", "claimed", "certified", "seconds")
    for sizes in ((10, 20, 20, 1), (10, 40, 40, 1), (10, 50, 50, 1)):
        network = centred(layers(chain(random_weights(sizes), 0.5)))
        start = closed_form(network)
        own, seconds = timed(lambda n=network, s=start: interior.optimal(n, s.each, s.square))
        yield (sizes, "ours", "", f"{certified(network, own):.12g}", f"{seconds:.2f}")
        ways: tuple[tuple[str, dict[str, float]], ...] = (
            ("scs", {"eps": 1e-5}),
            ("scs", {"eps": 1e-7}),
            ("clarabel", {}),
        )
        for solver, options in ways:
            (claimed, raw), seconds = timed(
                lambda n=network, s=start, name=solver, o=options: convex.optimal(n, s.each, s.square, solver=name, **o)
            )
            proven = repaired(network, raw, start.each, start.square)
            yield (sizes, f"{solver} {options or ''}", f"{claimed:.12g}", f"{proven:.12g}", f"{seconds:.2f}")


def slopes() -> Iterator[Row]:
    yield ("sizes", "slope", "product", "LipLT", "Fast", "LipSDP", "the curve of slope 0", "attained")
    for sizes in ((10, 50, 1), (10, 50, 50, 1), (10, 20, 20, 20, 20, 1)):
        weights = random_weights(sizes)
        curve = lt.lipschitz(chain(weights, 0.0), slopes=(0.0, 1.0), method="fast").curve or ()
        for a in (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0):
            found = lt.lipschitz(chain(weights, a))
            on_curve = min(segment.upper for segment in curve if segment.lo <= a <= segment.hi)
            yield (sizes, a, *(f"{value:.6g}" for value in (*found.bounds.values(), on_curve, found.lower or 0.0)))


_ECLIPSE = """
import json, sys
import torch
from eclipse_nn.LipConstEstimator import LipConstEstimator
import time
for weights, slope, methods in json.load(sys.stdin):
    found = []
    for method in methods:
        began = time.process_time()
        tensors = [torch.tensor(w, dtype=torch.float64) for w in weights]
        ends = dict(alphas=[slope] * (len(tensors) - 1), betas=[1.0] * (len(tensors) - 1))
        try:
            found.append(float(LipConstEstimator(weights=tensors, **ends).estimate(method)))
        except Exception as error:
            found.append(type(error).__name__)
        found.append(time.process_time() - began)
    print("row", json.dumps(found))
"""


_BOTH = ("ECLipsE_Fast", "ECLipsE")


def theirs(python: str, cases: Sequence[tuple[Sequence[Array], float, Sequence[str]]]) -> list[list[Any]]:
    """For each case and method the value that eclipse-nn finds, or its error's name, and the CPU seconds."""
    import json
    import subprocess

    asked = json.dumps([([w.tolist() for w in weights], slope, methods) for weights, slope, methods in cases])
    ran = subprocess.run([python, "-c", _ECLIPSE], input=asked, capture_output=True, text=True, check=True)
    return [json.loads(line[4:]) for line in ran.stdout.splitlines() if line.startswith("row ")]


def eclipse(python: str) -> Iterator[Row]:
    """Beside eclipse-nn. The exact constant is known at slope 1; the product of norms is never below any of them."""
    yield ("sizes", "slope", "eclipse-nn Fast", "eclipse-nn SDP", "our Fast", "our LipSDP", "product")
    cases = [
        (sizes, random_weights(sizes), a)
        for sizes in ((10, 50, 50, 1), (10, 20, 20, 20, 20, 1))
        for a in (0.0, 0.001, 0.01, 0.1, 0.5, 1.0)
    ]
    answers = theirs(python, [(weights, a, _BOTH) for _, weights, a in cases])
    for (sizes, weights, a), (fast, _, dear, _) in zip(cases, answers, strict=True):
        own = [lt.lipschitz(chain(weights, a), method=name).upper for name in ("fast", "lipsdp", "product")]
        yield (sizes, a, *(value if isinstance(value, str) else f"{value:.6g}" for value in (fast, dear, *own)))


_FIGURE = {2: (0.925, 0.843), 5: (0.905, 0.81), 10: (0.915, 0.83), 20: (0.88, 0.765), 30: (0.86, 0.738)}
"""Of layers of 80 the ratios to the product of norms in ECLipsE's figure: Fast and ECLipsE."""
_AFFORDED = 5  # layers up to which its SDP is run


def uniform(python: str, layers: Sequence[int]) -> Iterator[Row]:
    """Networks 4-80-...-80-1 with uniform weights, scaled to norms uniform in [0.4, 1.8], ReLU: ratios to the product
    of norms, with CPU seconds. ECLipsE's demonstration network of that size has positive weights, too."""
    yield ("layers", "product", "eclipse-nn Fast", "eclipse-nn SDP", "our Fast", "our LipSDP", "figure: Fast, ECLipsE")
    for count in layers:
        generator = np.random.default_rng(count)
        weights = [generator.random((m, n)) for n, m in pairwise((4, *(80,) * (count - 1), 1))]
        weights = [w * generator.uniform(0.4, 1.8) / np.linalg.norm(w, 2) for w in weights]
        (found,) = theirs(python, [(weights, 0.0, _BOTH if count <= _AFFORDED else _BOTH[:1])])
        fast, fast_s, dear, dear_s = (*found, "not run", 0.0)[:4]
        network = chain(weights, 0.0)
        whole = lt.lipschitz(network, method="product").upper
        ours = [timed(lambda n=network, m=name: lt.lipschitz(n, method=m).upper) for name in ("fast", "lipsdp")]
        cells = [
            value if isinstance(value, str) else f"{value / whole:.5f} ({seconds:.1f})"
            for value, seconds in ((fast, fast_s), (dear, dear_s), *ours)
        ]
        yield (count, f"{whole:.6g}", *cells, ", ".join(map(str, _FIGURE.get(count, ()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("published", "solvers", "slopes", "eclipse", "uniform"))
    parser.add_argument("--python", default="python")
    parser.add_argument("--public", type=Path, default=Path("../shared/bench/lipschitz"))
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 5, 10, 20, 30])
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways = {
        "published": (given.public,),
        "eclipse": (given.python,),
        "uniform": (given.python, given.layers),
    }.get(given.table, ())
    for place, row in enumerate(globals()[given.table](*ways)):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if place == 0:
            print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main()
