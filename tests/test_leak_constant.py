"""The Lipschitz constant in the leak's report, and radii that follow the slope because of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from chains import chain, random_weights, worst
from networks import build

import leaktight as lt
from leaktight import cli
from leaktight.errors import UnsupportedOperator
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm, ball
from leaktight.verify.leak.constant import constant
from leaktight.verify.leak.leak import leak_of_data
from leaktight.verify.leak.transfer import of_margins, transferred
from leaktight.verify.report.check import check
from leaktight.verify.report.render import render

DIGITS = "leaktight/data/digits.onnx"
NORMS = {Norm.L2: 2, Norm.LINF: torch.inf, Norm.L1: 1}


@pytest.mark.parametrize("norm", list(Norm))
def test_the_curve_in_the_report_is_above_the_worst_pattern_at_every_slope(norm: Norm) -> None:
    weights = random_weights([3, 5, 4, 2], 2)
    found = constant(Slopes.of(chain(weights, 0.1)), (0.0, 0.8), norm)
    assert found is not None
    assert (found.segments[0].lo, found.segments[-1].hi) == (0.0, 0.8)
    for segment in found.segments[::3]:
        for a in (segment.lo, segment.hi):
            assert segment.upper >= worst(weights, a, NORMS[norm]) * (1 - 1e-13)


def test_margins_curves_are_below_what_the_whole_network_says_and_above_the_worst_pattern() -> None:
    weights = random_weights([3, 5, 4, 3], 7)
    moving = Slopes.of(chain(weights, 0.1))
    whole, own = (constant(moving, (0.0, 0.5), Norm.L2, wanted=wanted) for wanted in (None, True))
    assert whole is not None
    assert own is not None
    for label, other in ((0, 1), (2, 0)):
        crude, fine = (of_margins(found)(label, other) for found in (whole, own))
        row = weights[-1][label : label + 1] - weights[-1][other : other + 1]
        for a, b in zip(crude, fine, strict=True):
            assert b.upper <= a.upper * (1 + 1e-9)
            assert b.upper >= worst([*weights[:-1], row], a.lo, 2) * (1 - 1e-13)


def test_it_is_left_out_where_it_does_not_exist_or_nobody_wants_it_and_refused_where_it_was_asked_for() -> None:
    network = build("max_pool")
    moving = Slopes.of(network)
    assert constant(moving, (0.0, 0.5), Norm.L2) is None
    assert constant(Slopes.of(chain(random_weights([2, 3, 1], 0), 0.1)), (0.0, 1.0), Norm.L2, wanted=False) is None
    with pytest.raises(UnsupportedOperator, match="has no sector"):
        constant(moving, (0.0, 0.5), Norm.L2, wanted=True)
    wide = chain(random_weights([2, 300, 1], 0), 0.1)
    assert constant(Slopes.of(wide), (0.0, 1.0), Norm.L2) is None


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("wanted", [None, True])
def test_no_point_within_a_transferred_radius_changes_the_label_at_any_slope(norm: Norm, wanted: bool | None) -> None:
    network = chain(random_weights([4, 8, 6, 3], 3), 0.1)
    moving, generator = Slopes.of(network), torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    labels = network.flat(inputs).argmax(1)
    found = constant(moving, (0.0, 0.4), norm, wanted=wanted)
    assert found is not None
    radii = transferred(moving, inputs, labels, 0.0, 10.0, of_margins(found))
    tried = 0
    for x, label, parts in zip(inputs, labels.tolist(), radii, strict=True):
        for part in parts[::3]:
            for a in (part.lo, part.hi):
                scores = moving.at(a).flat(x[None])[0]
                if part.radius is None:
                    continue
                assert int(scores.argmax()) == label
                region = ball(x.repeat(64, 1), part.radius, norm)
                cloud = region.sample(generator).reshape(64, -1)
                assert bool((moving.at(a).flat(cloud).argmax(1) == label).all())
                tried += part.radius > 0
    assert tried > 20


def test_a_transferred_radius_is_near_the_true_one_of_a_linear_margin() -> None:
    """One neuron that stays positive: margin 2 x, constant 2, whatever the slope; the edge is at distance x."""
    eye = torch.eye(2, dtype=torch.float64).numpy()
    network = chain([eye, eye[[0, 0]] * [[1.0], [-1.0]]], 0.2)
    x, label = torch.tensor([[0.75, 0.0]], dtype=torch.float64), torch.tensor([0])
    found = constant(Slopes.of(network), (0.0, 1.0), Norm.L2, wanted=True)
    assert found is not None
    for part in transferred(Slopes.of(network), x, label, 0.0, 10.0, of_margins(found))[0]:
        assert part.radius is not None
        assert 0.7 <= part.radius < 0.75


def test_radii_over_data_are_never_smaller_for_it() -> None:
    network = lt.load(DIGITS)
    data = np.load("leaktight/data/digits.npz")
    inputs, labels = (torch.from_numpy(data[name][:2]) for name in ("x", "y"))
    ways = {"norm": "2", "radius": True}
    plain, more = (
        leak_of_data(network, inputs, labels, 0.2, (0.0, 0.3), lipschitz=wanted, **ways)  # type: ignore[arg-type]
        for wanted in (False, True)
    )
    for one, other in zip(plain.inputs, more.inputs, strict=True):
        assert one.curve.radius is not None
        assert other.curve.radius is not None
        for a, b in zip(one.curve.radius, other.curve.radius, strict=True):
            assert (a.lo, a.hi) == (b.lo, b.hi)
            assert (a.radius or 0.0) <= (b.radius or 0.0) <= 0.2


def test_the_document_and_the_page_carry_it(tmp_path: Path) -> None:
    place = tmp_path / "leak.json"
    asked = [DIGITS, "leaktight/data/digits-proved.vnnlib", "--slopes", "0:0.1", "--format", "json", "-o", str(place)]
    for more, there in (([], True), (["--no-lipschitz"], False)):
        assert cli.run(["leak", *asked, *more]) == 0
        document = json.loads(place.read_text())
        check(document, "the document")
        assert (document["lipschitz"] is not None) is there
        page = render(document, "html")
        assert ("The Lipschitz constant" in page) is there
