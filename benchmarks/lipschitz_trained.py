"""Lipschitz bounds of a small convolutional network of MNIST that is trained here, at several slopes.

    python -m benchmarks.lipschitz_trained IMAGES LABELS [--slopes 0 0.1] [--epochs 10] [--seconds 10]

IMAGES, LABELS: idx files (.gz) of MNIST's test set, whose last thousand images are kept apart; the others are trained
on. The network: 4x4 convolutions with stride 2 to 16 and 32 channels, dense layers of 100 and 10, Leaky ReLUs. Beside
the bounds the constants of both convolutions by themselves, and what power iteration attains of them. Times are CPU
seconds on one thread; --seconds limits the search for multipliers, in elapsed time.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

import leaktight as lt
from benchmarks.lipschitz_convolutions import measured
from benchmarks.lipschitz_radii import fitted
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Conv, Input
from leaktight.specs.data import read_data
from leaktight.verify.lipschitz import spectra
from leaktight.verify.lipschitz.torus import chain


def trained(images: Tensor, labels: Tensor, slope: float, epochs: int) -> nn.Sequential:
    """From a fixed seed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.LeakyReLU(slope),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.LeakyReLU(slope),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.LeakyReLU(slope), nn.Linear(100, 10),
    )  # fmt: skip
    return fitted(model, images, labels, epochs)


def norms(network: Network, steps: int = 200) -> list[str]:
    """Of each convolution the proven norm with its stride, over what power iteration attains."""
    found = []
    for node in network:
        if isinstance(node.op, Conv):
            op, shape = node.op, network.by_name[node.inputs[0]].shape
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            for _ in range(steps):
                x = op.adjoint(op.linear(x), [x.shape])[0].reshape(x.shape)
                x = x / x.norm()
            least = float(op.linear(x).norm())
            nodes = Node("x", Input(), (), shape), Node("y", op, ("x",), node.shape)
            proven = spectra.product(chain(Network(nodes, (Port("x", shape),), (Port("y", node.shape),))))
            found.append(f"{proven:.5g} / {least:.5g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--slopes", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(given.images, labels=given.labels)
    images, labels = torch.as_tensor(data.inputs).reshape(-1, 1, 28, 28).float(), torch.as_tensor(data.labels)
    images = images / 255 if float(images.max()) > 1 else images
    print("| slope | accuracy | product | fast (s) | tuned (s) | auto: best, method, attained (s) | norms / attained |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for slope in given.slopes:
        model = trained(images[:-1000], labels[:-1000], slope, given.epochs)
        right = float((model(images[-1000:]).argmax(1) == labels[-1000:]).double().mean())
        network = lt.load(model.double(), torch.zeros(1, 1, 28, 28, dtype=torch.float64))
        row, began = measured(network, given.seconds), time.process_time()
        whole = lt.lipschitz(network)
        spent = time.process_time() - began
        best = f"{whole.upper:.6g}, {whole.method}, {whole.lower:.6g} ({spent:.1f})"
        print(f"| {slope:g} | {right:.3f} | {row} | {best} | {', '.join(norms(network))} |", flush=True)


if __name__ == "__main__":
    main()
