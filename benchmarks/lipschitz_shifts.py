"""How far a margin moves with the leak, beside what is proven at one slope: 1000 pairs of an image and a slope.

    python -m benchmarks.lipschitz_shifts IMAGES LABELS [--images 250]

IMAGES, LABELS: idx files (.gz) of MNIST's test set, as for benchmarks.lipschitz_radii, whose network is trained with
slope 0 here too. For every image and every largest slope the smallest margin of the predicted class: its true change at
eleven slopes up to the largest, the closed form's bound and the signed local one (leaktight.verify.leak).
"""

from __future__ import annotations

import argparse

import torch

import leaktight as lt
from benchmarks.lipschitz_radii import trained
from leaktight.models.slopes import Slopes
from leaktight.specs.data import read_data
from leaktight.specs.region import Norm, ball
from leaktight.verify.leak import closed_form, local

LARGEST = (0.001, 0.01, 0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--images", dest="count", type=int, default=250)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(given.images, labels=given.labels)
    images, labels = torch.as_tensor(data.inputs).flatten(1).float(), torch.as_tensor(data.labels)
    images = images / 255 if float(images.max()) > 1 else images
    model = trained(images[:-1000], labels[:-1000], 0.0)
    network = lt.load(model.double(), torch.zeros(1, 784, dtype=torch.float64))
    moving, inputs = Slopes.of(network), images[-1000:].double()[: given.count]
    scores = network.flat(inputs)
    own = scores.argmax(1)
    unit = torch.eye(10, dtype=torch.float64)
    other = scores.masked_fill(unit[own].bool(), -torch.inf).argmax(1)
    rows = (unit[own] - unit[other]).unsqueeze(1)
    print("| slopes up to | pairs | true | local | local / true | closed form | outside the local bound |")
    print("|---|---|---|---|---|---|---|", flush=True)
    region = ball(inputs, 0.0, Norm.LINF)
    for largest in LARGEST:
        lo, hi = inputs.new_zeros(len(inputs)), inputs.new_full((len(inputs),), largest)
        with torch.no_grad():
            low, high = (end[:, 0] for end in local.rates(moving, region, rows, lo, hi)[:2])
            closed = closed_form.rates(moving, region, rows, lo, hi)[:, 0]
            first = (rows[:, 0] * scores).sum(1)
            changes = torch.stack([
                (rows[:, 0] * moving.at(a).flat(inputs)).sum(1) - first
                for a in torch.linspace(0, largest, 11).tolist()[1:]
            ])  # fmt: skip
        widths = torch.linspace(0, largest, 11, dtype=torch.float64)[1:].unsqueeze(1)
        outside = int(((changes < low * widths - 1e-12) | (changes > high * widths + 1e-12)).any(0).sum())
        true, bound = changes.abs().amax(0), torch.maximum(low.abs(), high.abs()) * largest
        cells = (true.mean(), bound.mean(), (bound / true).median(), (closed * largest).mean())
        found = " | ".join(f"{float(cell):.4g}" for cell in cells)
        print(
            f"| {largest} | {len(inputs)} | {found} | {outside} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
