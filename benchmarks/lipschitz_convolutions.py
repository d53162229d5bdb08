"""Lipschitz bounds of convolutional networks in the Fourier domain, beside published ones.

    python -m benchmarks.lipschitz_convolutions BENCH [--seconds 40] [--only CHANNELS,CONVOLUTIONS ...]

BENCH: a folder with ``lipschitz/GLipSDP`` (weights of Pauli et al.) and ``oval21_2022/onnx``; what is missing is said.
Times are CPU seconds on one thread; --seconds limits the search for multipliers, in elapsed time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.models.ops import Conv, Linear, Maximum, Select, Sum
from leaktight.verify.lipschitz import spectra, tuned
from leaktight.verify.lipschitz.torus import Step, chain
from tests.networks import Draft

# channels, convolutions: GLipSDP's bound and seconds with MOSEK, as published
PUBLISHED = {
    (8, 2): (7.64876, 0.13),
    (8, 4): (28.490, 0.30),
    (8, 8): (274.0, 0.31),
    (8, 16): (11323.6, 0.89),
    (16, 2): (8.0268, 1.6),
    (16, 4): (36.100, 4.3),
    (16, 8): (177.6, 4.7),
    (16, 16): (8080.8, 16.0),
    (32, 2): (7.8521, 24.0),
    (32, 4): (38.206, 124.0),
    (32, 8): (261.3, 269.0),
    (32, 16): (10573.7, 548.0),
}


def trained(place: Path, channels: int, depth: int) -> Network:
    """The convolutions behind the first of a trained network, with ReLUs between them."""
    import scipy.io

    weights: dict[str, Any] = scipy.io.loadmat(place, simplify_cells=True)["params"]
    draft = Draft(0)
    at = draft.input(1, channels, 28, 28)
    for k in range(1, depth + 1):
        weight = torch.from_numpy(weights[f"conv_{k}_weight"]).double()
        at = draft.add(Conv(weight, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), at)
        at = draft.leaky(at, 0.0) if k < depth else at
    return draft.network(at)


def two_and_two(place: Path) -> Network:
    """2C2F of GLipSDP: 4x4 convolutions with stride 2 to 16 and 32 channels, dense layers of 100 and 10; ReLU."""
    import scipy.io

    stored: dict[str, Any] = scipy.io.loadmat(place, simplify_cells=True)
    draft = Draft(0)
    at = draft.input(1, 1, 28, 28)
    for name in ("features_0_conv_weight", "features_2_conv_weight"):
        weight = torch.from_numpy(stored[name]).double()
        weight = weight if weight.dim() == 4 else weight.unsqueeze(1)
        at = draft.leaky(draft.add(Conv(weight, None, stride=(2, 2), padding=(1, 1), dilation=(1, 1)), at), 0.0)
    at = draft.flatten(at)
    at = draft.leaky(draft.add(Linear(torch.from_numpy(stored["classifier_1_weight"]).double()), at), 0.0)
    return draft.network(draft.add(Linear(torch.from_numpy(stored["classifier_3_weight"]).double()), at))


def lenet(place: Path) -> Network:
    """LeNet5 of GLipSDP: 5x5 convolutions to 6 and 16 channels, averages of 2x2 behind each, dense layers; ReLU."""
    stored = _stored(place)
    draft = Draft(0)
    at, channels = draft.input(1, 1, 28, 28), 1
    for name, padding in (("net_0_weight", 2), ("net_3_weight", 0)):
        weight = stored[name].reshape(-1, channels, 5, 5)
        at = draft.leaky(draft.add(_convolution(weight, padding), at), 0.0)
        channels = len(weight)
        at = draft.add(_average(channels), at)
    at = draft.flatten(at)
    for name in ("net_7_weight", "net_9_weight"):
        at = draft.leaky(draft.add(Linear(stored[name]), at), 0.0)
    return draft.network(draft.add(Linear(stored["net_11_weight"]), at))


def residual(place: Path) -> Network:
    """C-R18 of GLipSDP: a 7x7 convolution, maxima of 2x2, eight residual blocks, averages of 2x2, a dense layer."""
    stored = _stored(place)
    draft = Draft(0)
    stem = _convolution(stored["stem_0_conv_weight"].unsqueeze(1), 3)
    at = draft.leaky(draft.add(stem, draft.input(1, 1, 28, 28)), 0.0)
    places = torch.arange(16 * 28 * 28).reshape(1, 16, 28, 28).unfold(2, 2, 2).unfold(3, 2, 2)
    at = draft.add(Maximum(), draft.add(Select(places.reshape(1, 16, 14, 14, 4), (1, 16, 28, 28)), at))
    for k in range(8):
        inner = draft.add(_convolution(stored[f"blocks_{k}_conv1_conv_weight"], 1), at)
        inner = draft.add(_convolution(stored[f"blocks_{k}_conv2_conv_weight"], 1), draft.leaky(inner, 0.0))
        at = draft.leaky(draft.add(Sum((1, 1)), inner, at), 0.0)
    at = draft.flatten(draft.add(_average(16), at))
    return draft.network(draft.add(Linear(stored["classifier_weight"]), at))


def _stored(place: Path) -> dict[str, torch.Tensor]:
    import scipy.io

    found = scipy.io.loadmat(place, simplify_cells=True)
    return {name: torch.from_numpy(found[name]).double() for name in found if name.endswith("weight")}


def _convolution(weight: torch.Tensor, padding: int) -> Conv:
    return Conv(weight.contiguous(), None, stride=(1, 1), padding=(padding,) * 2, dilation=(1, 1))


def _average(channels: int) -> Conv:
    quarter = torch.full((channels, 1, 2, 2), 0.25, dtype=torch.float64)
    return Conv(quarter, None, stride=(2, 2), padding=(0, 0), dilation=(1, 1), groups=channels)


VERSATILE: dict[str, tuple[Callable[[Path], Network], str]] = {
    "2C2F": (two_and_two, "at least 6.886"),
    "LeNet5ReLU": (lenet, "at least 9.519"),
    "C-R18": (residual, "at least 16.341"),
}
"""Networks of other kinds, with the largest Jacobian that was published with their weights."""


def measured(network: Network, seconds: float) -> str:
    """Cells of a row: product, closed form, tuned, each proven, with the CPU seconds of the last two."""
    steps: tuple[Step, ...] = chain(network)
    with torch.no_grad():
        symbols = spectra.waves(steps)
        first = time.process_time()
        fast = spectra.certified(steps, spectra.closed_form, symbols)
        second = time.process_time()
        scales = tuned.optimal(steps, symbols, time.monotonic() + seconds) or []
        found = spectra.certified(steps, lambda k, *_: scales[k], symbols)
        third = time.process_time()
    cells = (f"{spectra.product(steps):.6g}", f"{fast:.6g} ({second - first:.2f})")
    return " | ".join((*cells, f"{found:.6g} ({third - second:.1f})"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--only", nargs="*", default=[], help="these of the networks of Pauli et al., and no others")
    options = parser.parse_args()
    only = [tuple(map(int, pair.split(","))) for pair in options.only]
    torch.set_num_threads(1)
    print("| network | product | fast (s) | tuned (s) | published (s) |\n|---|---|---|---|---|")
    for channels, depth in only or PUBLISHED:
        value, took = PUBLISHED[channels, depth]
        name = f"cnn_C{depth + 1}_CH{channels}.mat"
        place = options.bench / "lipschitz/GLipSDP/Scalability/exported_mnist_models" / name
        if place.exists():
            row = measured(trained(place, channels, depth), options.seconds)
            print(f"| {channels} channels, {depth} convolutions | {row} | {value:.6g} ({took:g}) |", flush=True)
        else:
            print(f"skipped: {place} is missing", flush=True)
    if only:
        return
    for name, (build, least) in VERSATILE.items():
        place = options.bench / f"lipschitz/GLipSDP/Versatility/models/weights_mat/{name}.mat"
        if place.exists():
            print(f"| {name} | {measured(build(place), options.seconds)} | {least} |", flush=True)
        else:
            print(f"skipped: {place} is missing", flush=True)
    for name in ("cifar_base_kw", "cifar_wide_kw", "cifar_deep_kw"):
        place = options.bench / "oval21_2022/onnx" / f"{name}.onnx"
        if place.exists():
            print(f"| {name} | {measured(load(str(place)), options.seconds)} | |", flush=True)
        else:
            print(f"skipped: {place} is missing", flush=True)


if __name__ == "__main__":
    main()
