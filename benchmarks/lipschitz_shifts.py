"""How far a margin moves with the leak, beside what is proven at one slope: 1000 pairs of an image and a slope.

    python -m benchmarks.lipschitz_shifts IMAGES LABELS [--images 250]

IMAGES, LABELS: idx files (.gz) of MNIST's test set, as for benchmarks.lipschitz_radii, whose network is trained with
slope 0 here too. For every image and every largest slope the smallest margin of the predicted class: its true change at
ten slopes up to the largest, the closed form's bound and the signed local one (leaktight.verify.leak); and beside them
what intervals of every neuron's change say, layer by layer, which the local bound starts from.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import leaktight as lt
from benchmarks.lipschitz_radii import trained
from leaktight.models.ops import Linear
from leaktight.models.slopes import Slopes
from leaktight.specs.data import read_data
from leaktight.specs.region import Norm, Region, ball
from leaktight.verify.leak import closed_form, local
from leaktight.verify.leak.intervals import over_range

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
    print("| slopes up to | pairs | true | local | local / true | layer by layer | closed form", end=" | ")
    print("outside the local bound | local above layer by layer |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    region = ball(inputs, 0.0, Norm.LINF)
    for largest in LARGEST:
        lo, hi = inputs.new_zeros(len(inputs)), inputs.new_full((len(inputs),), largest)
        with torch.no_grad():
            low, high = (end[:, 0] for end in local.rates(moving, region, rows, lo, hi)[:2])
            closed = closed_form.rates(moving, region, rows, lo, hi)[:, 0]
            first = (rows[:, 0] * scores).sum(1)
            ends = layer_by_layer(moving, region, rows, lo, hi)
            at = torch.linspace(0, largest, 11, dtype=torch.float64)[1:]
            changes = torch.stack([(rows[:, 0] * moving.at(a).flat(inputs)).sum(1) - first for a in at.tolist()])
        widths = at.unsqueeze(1)
        outside = int(((changes < low * widths - 1e-12) | (changes > high * widths + 1e-12)).any(0).sum())
        true, bound = changes.abs().amax(0), torch.maximum(low.abs(), high.abs()) * largest
        layered = torch.maximum(*(end.abs() for end in ends))
        wider = int((bound > layered * (1 + 1e-12)).sum())
        cells = (true.mean(), bound.mean(), (bound / true).median(), layered.mean(), (closed * largest).mean())
        found = " | ".join(f"{float(cell):.4g}" for cell in cells)
        print(f"| {largest} | {len(inputs)} | {found} | {outside} | {wider} |", flush=True)


def layer_by_layer(slopes: Slopes, points: Region, rows: Tensor, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of what the rows change by at points: of the last activation all values in the range less those at `lo`.

    At a point that is what intervals of changes say: both have the intervals of what is in front of them.
    """
    known, start = (over_range(slopes, points, lo, end)[slopes.nodes[-1]] for end in (hi, lo))
    less, more = (known.lower - start.upper).flatten(1), (known.upper - start.lower).flatten(1)
    last = slopes.network.nodes[-1].op
    assert isinstance(last, Linear)
    onto = (rows @ last.weight)[:, 0]
    plus, minus = onto.clamp(min=0), onto.clamp(max=0)
    return (plus * less + minus * more).sum(1), (plus * more + minus * less).sum(1)


if __name__ == "__main__":
    main()
