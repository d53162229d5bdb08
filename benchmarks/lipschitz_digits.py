"""Lipschitz constants of the forty digits networks of Pauli et al. (GLipSDP), beside all that was published with them.

    python -m benchmarks.lipschitz_digits EXPORTS [--kinds fnn2 fnn3 cnn2 cnn3] [--seeds 10] [--timeout 300]

EXPORTS: GLipSDP's folder ``Comparison/exports``. Ten networks of each kind: two or three dense layers, or one or two
3x3 convolutions and a dense layer; ReLU, of ten outputs the eighth alone. Convolutions are unrolled here, as there.
Values are means; times are CPU seconds on one thread, each method alone with everything it needs. "off" is the largest
relative distance from the published value, over the networks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import leaktight as lt
from leaktight.models.network import Network
from leaktight.models.ops import Conv, Linear
from tests.networks import Draft

KINDS = ("fnn2", "fnn3", "cnn2", "cnn3")
# our method, and the name of the same in the published table
METHODS = (("product", "Lip_MP"), ("liplt", "Lip_LT"), ("fast", None), ("lipsdp", "Lip_LipSDP"))
_OUTPUT = 7


def matlab(place: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    found: dict[str, Any] = loadmat(place, simplify_cells=True)
    return found


def digits(place: Path, kind: str) -> Network:
    """One network from its file."""
    stored = {name: torch.from_numpy(x).double() for name, x in matlab(place).items() if name.endswith("weight")}
    return dense(stored) if kind.startswith("fnn") else convolutional(stored)


def dense(stored: dict[str, torch.Tensor]) -> Network:
    """Matrices are stored as ``(inputs, outputs)``."""
    draft, count = Draft(0), len(stored)
    at = draft.input(1, len(stored["fc1_weight"]))
    for k in range(1, count):
        at = draft.leaky(draft.add(Linear(stored[f"fc{k}_weight"].T.contiguous()), at), 0.0)
    return draft.network(draft.add(Linear(stored[f"fc{count}_weight"].T[_OUTPUT : _OUTPUT + 1].contiguous()), at))


def convolutional(stored: dict[str, torch.Tensor]) -> Network:
    """Kernels are stored as ``(height, width, inputs, outputs)``; values were flattened with columns first, channels
    last.
    """
    draft, channels = Draft(0), 1
    at = draft.input(1, 1, 8, 8)
    for k in range(1, len(stored)):
        kernel = stored[f"conv{k}_weight"].reshape(3, 3, channels, -1).permute(3, 2, 0, 1).contiguous()
        at = draft.leaky(draft.add(Conv(kernel, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), at), 0.0)
        channels = len(kernel)
    row = stored["fc1_weight"][:, _OUTPUT].reshape(8, 8, channels).permute(2, 1, 0)
    return draft.network(draft.add(Linear(row.reshape(1, -1)), draft.flatten(at)))


def row(exports: Path, kind: str, seeds: int, timeout: float) -> str:
    known = matlab(exports / "lipschitz_summary_all_models.mat")["all_results"][kind]["individual"]
    networks = [digits(exports / f"{kind}_seed{seed}_weights.mat", kind) for seed in range(seeds)]
    cells = [kind]
    for method, name in METHODS:
        values, seconds, stopped = [], [], 0
        for network in networks:
            began = time.process_time()
            found = lt.lipschitz(network, method=method, timeout=timeout)
            seconds.append(time.process_time() - began)
            values.append(found.upper)
            stopped += found.timed_out
        cell = f"{mean(values):.6g} ({mean(seconds):.2f}, at most {max(seconds):.2f}"
        cell += f", {stopped} stopped)" if stopped else ")"
        if name is not None:
            off = max(abs(ours / theirs - 1) for ours, theirs in zip(values, known[name][:seeds], strict=True))
            cell += f", off {off:.1e}"
        cells.append(cell)
    theirs = f"{mean(known['Lip_LipSDP'][:seeds]):.6g}"
    if "Lip_GLipSDP_c" in known:
        theirs += f"; GLipSDP {mean(known['Lip_GLipSDP_c'][:seeds]):.6g}"
    return "| " + " | ".join((*cells, theirs)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=300.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| kind | product (s) | LipLT (s) | Fast (s) | LipSDP (s) | published LipSDP |\n|---|---|---|---|---|---|")
    for kind in options.kinds:
        print(row(options.exports, kind, options.seeds, options.timeout), flush=True)


if __name__ == "__main__":
    main()
