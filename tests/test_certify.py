"""Certification of labelled inputs: statuses, margins and radii against attack, and what is refused."""

from __future__ import annotations

import time
from functools import cache
from itertools import product

import pytest
import torch
from networks import build, fully_connected
from rows import mostly_slow
from torch import Tensor

from leaktight.errors import DataError, PropertyError, UsageError
from leaktight.models.network import Network
from leaktight.models.normalise import normalised
from leaktight.specs.property import Case
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.bounds.engine import ENGINES
from leaktight.verify.certification import Certification
from leaktight.verify.certified_radius import certified_radius
from leaktight.verify.certify import certify
from leaktight.verify.leak.leak import leak_of_data
from leaktight.verify.search.attack import attack
from leaktight.verify.verdict import Status

COUNT = 12


@cache
def network() -> Network:
    return fully_connected(6, (3, 8, 8, 3), 0.1)


def inputs(count: int = COUNT, size: int = 3) -> Tensor:
    return 0.8 * torch.rand(count, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1


def predictions(count: int = COUNT) -> Tensor:
    return network().flat(inputs(count)).argmax(1)


def lowest_margins(
    labels: Tensor, epsilon: float | Tensor, norm: Norm, clip: tuple[float, float] | None = None
) -> Tensor:
    """The margins that an attack of its own seed attains, evaluated in float64."""
    region = ball(inputs(len(labels)), epsilon, norm, clip)
    case = Case(region, misclassified(labels, 3))
    found = attack(network(), case, seed=77, restarts=4)
    points = torch.stack([region.project(found.points[:, k]) for k in range(found.points.shape[1])])
    return torch.stack([case.unsafe.margin(network().flat(x)) for x in points]).amin(0)


SIZES = (0.0, 0.02, 0.1, 0.6)
WITHIN = (0.0, 1.0)


@pytest.mark.parametrize(
    ("norm", "epsilon", "clip"),
    mostly_slow(
        Norm,
        SIZES,
        (None, WITHIN),
        quick=[*product(Norm, SIZES[2:], [WITHIN]), *((norm, 0.1, None) for norm in Norm), (Norm.L2, 0.0, WITHIN)],
    ),
)
def test_no_attack_contradicts_a_certificate(norm: Norm, epsilon: float, clip: tuple[float, float] | None) -> None:
    labels = predictions()
    labels[::4] = (labels[::4] + 1) % 3  # some are wrong from the start
    result = certify(network(), inputs(), labels, epsilon, norm=norm, clip=clip)
    attained = lowest_margins(labels, epsilon, norm, clip)
    for found, low in zip(result.inputs, attained.tolist(), strict=True):
        assert found.margin.lower is not None
        assert found.margin.upper is not None
        assert found.margin.lower <= found.margin.upper
        assert found.margin.lower <= low
        assert (found.status is Status.PROVED) == (found.margin.lower > 0)
        if found.status is Status.PROVED:
            assert low > 0
        if found.status is Status.REFUTED:
            check_counterexample(result, found.index, labels)
    assert result.accuracy["certified"] <= result.accuracy["attacked"]
    assert result.accuracy["certified"] <= result.accuracy["clean"]


def check_counterexample(result: Certification, index: int, labels: Tensor) -> None:
    found = result.inputs[index]
    assert found.counterexample is not None
    point = torch.from_numpy(found.counterexample.point).unsqueeze(0)
    move = point - inputs(len(labels))[index]
    length = torch.linalg.vector_norm(move, ord={"inf": torch.inf, "2": 2, "1": 1}[result.norm.value])
    assert float(length) <= result.epsilon * (1 + 1e-12)
    scores = network().flat(point)[0]
    others = torch.cat([scores[: labels[index]], scores[labels[index] + 1 :]])
    assert bool(scores[labels[index]] <= others.max())


def test_misclassified_inputs_are_refuted_with_themselves() -> None:
    labels = (predictions() + 1) % 3
    result = certify(network(), inputs(), labels, 0.05)
    for found, x in zip(result.inputs, inputs(), strict=True):
        assert found.status is Status.REFUTED
        assert found.counterexample is not None
        assert found.counterexample.point.tolist() == x.tolist()
    assert result.accuracy == {"clean": 0.0, "certified": 0.0, "attacked": 0.0}
    assert result.status is Status.REFUTED


def test_inputs_are_answered_in_order_and_alone_as_in_company() -> None:
    labels = predictions(70)  # more than one group
    together = certify(network(), inputs(70), labels, 0.03, engine="crown")
    assert [found.index for found in together.inputs] == list(range(70))
    assert [found.label for found in together.inputs] == labels.tolist()
    for i in (0, 33, 65):
        alone = certify(network(), inputs(70)[i : i + 1], labels[i : i + 1], 0.03, engine="crown").inputs[0]
        assert alone.status is together.inputs[i].status
        assert alone.margin.lower == pytest.approx(together.inputs[i].margin.lower, abs=1e-9)


def test_a_wider_ball_is_never_easier() -> None:
    labels = predictions()
    results = [certify(network(), inputs(), labels, e, engine="interval") for e in (0.0, 0.01, 0.05, 0.2)]
    lowers = torch.tensor([[found.margin.lower or 0.0 for found in result.inputs] for result in results])
    assert bool((lowers.diff(dim=0) <= 0).all())


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("engine", ["auto", "crown", "interval"])
def test_radii_are_sound_and_nearly_all_that_the_engine_can_prove(norm: Norm, engine: str) -> None:
    labels = predictions()
    result = certify(network(), inputs(), labels, 0.4, norm=norm, engine=engine, radius=True)
    radii = torch.tensor([found.radius for found in result.inputs], dtype=torch.float64)
    assert bool(((radii >= 0) & (radii <= 0.4)).all())
    assert bool((radii > 0).any())
    assert bool((lowest_margins(labels, radii, norm) > 0)[radii > 0].all())
    for found in result.inputs:
        assert (found.status is Status.PROVED) == (found.radius == 0.4)
    chosen = [i for i, r in enumerate(radii.tolist()) if 0 < r < 0.4][:3]
    for i in chosen:
        for share, expected in ((1.0, True), (1.0 + 0.01, False)):
            size = float(radii[i]) * share + (0.0 if expected else 0.4 / 512)
            again = certify(network(), inputs()[i : i + 1], labels[i : i + 1], size, norm=norm, engine=engine)
            assert (again.inputs[0].status is Status.PROVED) == expected or engine == "auto"


@pytest.mark.parametrize(
    "norm", [Norm.LINF, *(pytest.param(norm, marks=pytest.mark.slow) for norm in (Norm.L2, Norm.L1))]
)
def test_a_radius_without_a_limit_is_sound_and_nearly_all_that_the_engine_can_prove(norm: Norm) -> None:
    x, labels = inputs()[:2], predictions()[:2]
    radii = [certified_radius(network(), x[i], int(labels[i]), norm=norm, engine="crown") for i in range(2)]
    assert min(radii) > 0
    assert bool((lowest_margins(labels, torch.tensor(radii, dtype=torch.float64), norm) > 0).all())
    for i, radius in enumerate(radii):
        for share, proved in ((0.999, True), (1.02, False)):
            found = certify(network(), x[i : i + 1], labels[i : i + 1], share * radius, norm=norm, engine="crown")
            assert (found.inputs[0].status is Status.PROVED) == proved


@pytest.mark.parametrize("scale", [1e-7, 1e5])
def test_a_radius_grows_with_the_units_of_the_input(scale: float) -> None:
    x, label = inputs()[0], int(predictions()[0])
    known = certified_radius(network(), x, label, engine="crown")
    scaled = normalised(network(), [0.0], [scale])
    assert certified_radius(scaled, scale * x, label, engine="crown") == pytest.approx(scale * known, rel=0.02)


def test_what_is_misclassified_has_no_radius_and_what_never_loses_has_any() -> None:
    assert certified_radius(network(), inputs()[0], int(predictions()[0] + 1) % 3) == 0.0
    nearly_constant = normalised(network(), [0.0], [1e30])
    label = int(network().flat(torch.zeros(1, 3, dtype=torch.float64)).argmax())
    assert certified_radius(nearly_constant, inputs()[0], label, engine="interval") > 1e8


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (inputs(2), predictions(3), r"shape \[2, 3\] and labels \[3\]"),
        (inputs(3), predictions(2), r"shape \[3, 3\] and labels \[2\]"),
        (inputs(1)[0], predictions(1)[0], r"shape \[3\] and labels \[\]"),
        (inputs(0), predictions(1)[:0], "at least one"),
        (inputs(2, 4), predictions(2), "4 entries, and the network 3 inputs"),
        (inputs(2), predictions(2) + 0.5, "labels are torch.float32"),
    ],
)
def test_inputs_and_labels_that_do_not_fit_are_refused(x: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        certify(network(), x, labels, 0.1)
    with pytest.raises(DataError, match=message):
        leak_of_data(network(), x, labels, 0.1, (0.0, 0.3))


def test_narrower_balls_have_larger_radii_on_the_whole() -> None:
    """The L1 ball lies in the L2 ball, which lies in the box."""
    x, labels = inputs()[:3], predictions()[:3]
    attained = {norm: certify(network(), x, labels, 2.0, norm=norm, radius=True) for norm in Norm}
    total = {norm: sum(found.radius or 0.0 for found in result.inputs) for norm, result in attained.items()}
    assert total[Norm.LINF] < total[Norm.L2] < total[Norm.L1]


@pytest.mark.parametrize("engine", ["auto", "milp"])
def test_complete_radii_are_enclosed_by_proof_and_counterexample(engine: str) -> None:
    """Between them lies the true radius; they come as close as bisection goes, and beyond what bounds alone prove."""
    bent, x = fully_connected(6, (3, 6, 6, 3), -0.7), inputs(2)
    labels = bent.flat(x).argmax(1)
    bounded = certify(bent, x, labels, 0.7, engine="crown", radius=True)
    result = certify(bent, x, labels, 0.7, engine=engine, radius=True, timeout=60)
    for found, before in zip(result.inputs, bounded.inputs, strict=True):
        assert found.radius is not None
        assert before.radius is not None
        assert found.radius > before.radius
        assert found.status in (Status.PROVED, Status.REFUTED)
        assert (found.refuted_radius is None) == (found.status is Status.PROVED)
        assert found.radius == 0.7 or (found.refuted_radius or 9) - found.radius <= 0.7 / 1024 * (1 + 1e-9)
        case = Case(ball(x[found.index : found.index + 1], found.radius), misclassified(labels[found.index :][:1], 3))
        assert float(attack(bent, case, seed=5, restarts=4).margins.min()) > 0


def test_an_l1_radius_is_decided_by_linear_programs() -> None:
    labels = predictions(4)
    result = certify(network(), inputs(4), labels, 0.6, engine="milp", radius=True, timeout=30, norm=Norm.L1)
    radii = torch.tensor([found.radius for found in result.inputs], dtype=torch.float64)
    assert bool((lowest_margins(labels, radii, Norm.L1) > 0)[radii > 0].all())
    for found in result.inputs:
        assert found.radius == 0.6 or (found.refuted_radius or 9) - (found.radius or 0) <= 0.6 / 1024 * (1 + 1e-9)


def test_misclassified_inputs_have_no_radius() -> None:
    result = certify(network(), inputs(), (predictions() + 1) % 3, 0.1, radius=True)
    assert [found.radius for found in result.inputs] == [0.0] * COUNT


def test_a_time_limit_does_not_spoil_the_radii_of_later_inputs() -> None:
    """The limit is for each input; what the first ones used is not taken from the last."""
    labels = predictions(40)
    free = certify(network(), inputs(40), labels, 0.4, engine="crown", radius=True)
    limited = certify(network(), inputs(40), labels, 0.4, engine="crown", radius=True, timeout=0.25)
    assert [found.radius for found in limited.inputs] == [found.radius for found in free.inputs]


@pytest.mark.parametrize("timeout", [0.001, 0.05])
def test_the_time_limit_of_each_input_is_kept(timeout: float) -> None:
    wide = fully_connected(5, (12, 150, 150, 150, 150, 5), 0.1)
    x = inputs(8, 12)
    began = time.process_time()
    result = certify(wide, x, wide.flat(x).argmax(1), 0.5, timeout=timeout, radius=True)
    assert time.process_time() - began <= 8 * timeout + 1.0
    assert all(found.status in (Status.TIMEOUT, Status.REFUTED, Status.PROVED) for found in result.inputs)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_every_engine_proves_a_ball_without_radius(engine: str) -> None:
    result = certify(network(), inputs(), predictions(), 0.0, engine=engine)
    assert result.status is Status.PROVED
    assert result.accuracy == {"clean": 1.0, "certified": 1.0, "attacked": 1.0}


def test_float32_proves_no_more_than_float64_and_nothing_false() -> None:
    labels = predictions()
    single, double = (
        certify(network(), inputs(), labels, 0.05, engine="crown", dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    for a, b in zip(single.inputs, double.inputs, strict=True):
        assert a.margin.lower is not None
        assert b.margin.lower is not None
        assert a.margin.lower <= b.margin.lower
        assert a.margin.lower == pytest.approx(b.margin.lower, abs=1e-3)


def test_images_of_any_shape_are_certified() -> None:
    convolutional = build("convolutional", 2)
    x = inputs(3, 32).reshape(3, 2, 4, 4)
    labels = convolutional.flat(x.flatten(1)).argmax(1)
    assert certify(convolutional, x, labels, 1e-4).status is Status.PROVED


def test_bad_arguments_are_refused_with_what_is_allowed() -> None:
    labels = predictions()
    with pytest.raises(UsageError, match="auto, interval, crown, alpha-crown"):
        certify(network(), inputs(), labels, 0.1, engine="deeppoly")
    with pytest.raises(UsageError, match="cannot certify"):
        certify(network(), inputs(), labels, 0.1, engine="auto-lirpa")
    for epsilon in (-0.1, float("nan"), float("inf")):
        with pytest.raises(PropertyError, match="epsilon"):
            certify(network(), inputs(), labels, epsilon)
    with pytest.raises(PropertyError, match="label 3"):
        certify(network(), inputs(), labels + 3 - labels, 0.1)
    with pytest.raises(PropertyError, match="norm"):
        certify(network(), inputs(), labels, 0.1, norm=3)
    with pytest.raises(PropertyError, match="clip"):
        certify(network(), inputs(), labels, 0.1, clip=(0.9, 1.0))
    with pytest.raises(UsageError, match="timeout"):
        certify(network(), inputs(), labels, 0.1, timeout=0)


def test_progress_counts_the_inputs() -> None:
    seen: list[tuple[int, int]] = []
    certify(network(), inputs(70), predictions(70), 0.0, engine="interval", progress=lambda *at: seen.append(at))
    assert seen[-1] == (70, 70)
    assert seen == sorted(seen)
