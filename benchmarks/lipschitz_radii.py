"""Certified L2 radii of an MNIST-size network trained here: norms, closed form, LipSDP, anchored sectors, attack.

    python -m benchmarks.lipschitz_radii IMAGES LABELS [--slope 0] [--count 1000] [--anchored 100]

IMAGES, LABELS: idx files (.gz) of MNIST's test set, whose last thousand images are kept apart; the others are trained
on. Radii are those of the predicted class, so that every image has one, also where the prediction is wrong. CPU seconds
on one thread. Every radius but the attack's is proven; the attack's point is replayed in float64.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

import leaktight as lt
from leaktight.models.network import Network
from leaktight.specs.data import read_data
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz.anchored import anchored_radius
from leaktight.verify.lipschitz.methods import METHODS, Question

_ORDER = ((0, 1), (1, 3), (3, 4), (4, 5))
GLOBAL = ("product", "fast", "lipsdp")


def trained(images: Tensor, labels: Tensor, slope: float, hidden: int = 64, epochs: int = 20) -> nn.Sequential:
    """784 - 64 - 64 - 10, from a fixed seed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, hidden), nn.LeakyReLU(slope), nn.Linear(hidden, hidden), nn.LeakyReLU(slope),
        nn.Linear(hidden, 10),
    )  # fmt: skip
    return fitted(model, images, labels, epochs)


def fitted(model: nn.Sequential, images: Tensor, labels: Tensor, epochs: int) -> nn.Sequential:
    """The model, trained by Adam with weight decay."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def constants(network: Network) -> dict[str, np.ndarray]:
    """Of every method the proven constants of all margins, ``(10, 10)``."""
    found = {name: np.zeros((10, 10)) for name in GLOBAL}
    question = Question(network, Norm.L2)
    for i, j in combinations(range(10), 2):
        margin = question.of_margin(i, j)
        for name in GLOBAL:
            found[name][i, j] = found[name][j, i] = METHODS[name](margin)
    return found


def attacked(network: Network, x: Tensor, label: int, steps: int = 60) -> float:
    """The distance of a point with another label, found by steps to the nearest linearised boundary, then bisection."""
    best = np.inf
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        at = x.clone() if seed == 0 else x + 0.05 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        for _ in range(steps):
            scores = network.flat(at[None])[0]
            if int(scores.argmax()) != label:
                break
            jacobian = torch.autograd.functional.jacobian(lambda p: network.flat(p[None])[0], at)
            gaps, slopes = scores[label] - scores, jacobian[label] - jacobian
            far = gaps / slopes.norm(dim=1).clamp(min=1e-12)
            far[label] = torch.inf
            j = int(far.argmin())
            at = at - 1.02 * (gaps[j] + 1e-6) / slopes[j].square().sum() * slopes[j]
        if int(network.flat(at[None])[0].argmax()) == label:
            continue
        low, high = 0.0, 1.0  # along the way from x: the last crossing
        for _ in range(40):
            middle = (low + high) / 2
            wrong = int(network.flat((x + middle * (at - x))[None])[0].argmax()) != label
            low, high = (low, middle) if wrong else (middle, high)
        best = min(best, float((high * (at - x)).norm()))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--slope", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--anchored", type=int, default=100, help="so many images also get an anchored radius")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(given.images, labels=given.labels)
    images, labels = torch.as_tensor(data.inputs).flatten(1).float(), torch.as_tensor(data.labels)
    images = images / 255 if float(images.max()) > 1 else images
    model = trained(images[:-1000], labels[:-1000], given.slope)
    network = lt.load(model.double(), torch.zeros(1, 784, dtype=torch.float64))
    inputs, truth = images[-1000:].double(), labels[-1000:]
    predicted = network.flat(inputs).argmax(1)
    print(f"accuracy {float((predicted == truth).double().mean()):.3f} on 1000 images kept apart", flush=True)
    began = time.process_time()
    known = constants(network)
    whole = lt.lipschitz(network).bounds
    print(f"45 margins: {time.process_time() - began:.1f} s; the whole network: {dict(whole)}", flush=True)
    rows, spent = [], {"anchored": 0.0, "attack": 0.0}
    for x, label in zip(inputs[: given.count], predicted.tolist(), strict=False):
        scores = network.flat(x[None])[0].detach()
        margins = [(j, float(scores[label] - scores[j])) for j in range(10) if j != label]
        row = [min(m / known[name][label, j] for j, m in margins) for name in GLOBAL]
        row.insert(2, min(m for _, m in margins) / (2**0.5 * whole["lipsdp"]))
        t = time.process_time()
        row.append(anchored_radius(network, x, label).radius if len(rows) < given.anchored else np.nan)
        spent["anchored"] += time.process_time() - t
        t = time.process_time()
        row.append(attacked(network, x, label))
        spent["attack"] += time.process_time() - t
        rows.append(row)
        if len(rows) % 50 == 0 and len(rows) <= given.anchored:
            report(np.array(rows), spent)
    report(np.array(rows), spent)


def report(rows: np.ndarray, spent: dict[str, float]) -> None:
    names = ("product, pairs", "closed form, pairs", "LipSDP / sqrt 2", "LipSDP, pairs", "anchored", "attacked")
    print(f"| {len(rows)} images | " + " | ".join(names) + " |")
    some = rows[~np.isnan(rows[:, 4])]
    for which in (some, rows) if len(some) < len(rows) else (rows,):
        print(f"| mean radius of {len(which)} | " + " | ".join(f"{value:.4f}" for value in which.mean(0)) + " |")
    known = [rows[~np.isnan(rows[:, [a, b]]).any(1)] for a, b in _ORDER]
    ordered = [int((part[:, a] < part[:, b]).sum()) for part, (a, b) in zip(known, _ORDER, strict=True)]
    inside = int((np.nan_to_num(rows[:, :5]).max(1) >= rows[:, 5]).sum())
    each = {"anchored": round(spent["anchored"] / len(some), 2), "attack": round(spent["attack"] / len(rows), 2)}
    print(
        f"smaller than the next: {ordered}; attacked inside a proven ball: {inside}; seconds an image: {each}",
        flush=True,
    )


if __name__ == "__main__":
    main()
