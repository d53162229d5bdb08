"""Upper bounds above worst patterns above attained quotients, in all norms; gates; anchored sectors and radii."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from leaktight.errors import InternalError, UnsupportedOperator, UsageError
from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.region import Norm, ball
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval, propagate
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.certify import certify
from leaktight.verify.lipschitz.anchored import _Trials, anchored_radius
from leaktight.verify.lipschitz.attained import attained
from leaktight.verify.lipschitz.chords import anchored
from leaktight.verify.lipschitz.gates import backwards, bounds, forwards
from leaktight.verify.lipschitz.jacobian import jacobian_bound
from leaktight.verify.lipschitz.layers import layers
from leaktight.verify.lipschitz.lipschitz import lipschitz
from leaktight.verify.lipschitz.patterns import steepest_pattern
from tests.networks import KINDS, build, fully_connected

SECTORED = [kind for kind in KINDS if kind != "max_pool"]
NETWORKS = [(kind, seed) for seed in range(7) for kind in SECTORED][:100]
MORE = [(kind, seed) for seed in range(7, 27) for kind in SECTORED][:300]


def check_the_order(kind: str, seed: int, norms: list[Norm]) -> None:
    network = build(kind, seed)
    stages = layers(network)
    for norm in norms:
        low = attained(network, norm, samples=2, seed=seed)
        worst = steepest_pattern(stages, norm, network=network, starts=2, seed=seed)
        high = min(jacobian_bound(stages, norm), lipschitz(network, norm=norm, method="liplt").upper) \
            if norm is not Norm.L2 else lipschitz(network, method="fast").upper  # fmt: skip
        assert worst <= high, norm
        assert low <= high, norm


@pytest.mark.parametrize(("kind", "seed"), NETWORKS)
def test_no_bound_is_below_a_pattern_or_a_quotient(kind: str, seed: int) -> None:
    check_the_order(kind, seed, [list(Norm)[seed % 3]])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), MORE)
def test_no_bound_is_below_a_pattern_or_a_quotient_on_many_more(kind: str, seed: int) -> None:
    check_the_order(kind, seed, list(Norm))


def jacobians(network: Network, count: int, seed: int, centre: Tensor | None = None, size: float = 1.0) -> Tensor:
    """Jacobians ``(count, outputs, inputs)`` at random inputs."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, network.input_size, generator=generator, dtype=torch.float64)
    points = points if centre is None else centre + size * (points / points.abs().amax(1, keepdim=True))
    found = [torch.autograd.functional.jacobian(lambda p: network.flat(p[None])[0], x) for x in points]
    return torch.stack(found)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("kind", SECTORED)
def test_gates_enclose_every_jacobian(kind: str, lines: bool) -> None:
    network = build(kind, 3)
    stages, true = layers(network), jacobians(network, 30, 0)
    ahead, back = forwards(stages), backwards(stages)
    unit = torch.eye(network.input_size, dtype=torch.float64)
    columns = bounds(ahead, unit, unit, lines=lines)
    unit = torch.eye(network.output_size, dtype=torch.float64)
    rows = bounds(back, unit, unit, lines=lines)
    for found in (rows, Interval(columns.lower.mT, columns.upper.mT)):
        slack = 1e-12 * (1 + true.abs().amax())  # of the samples, which are rounded
        assert bool((true >= found.lower - slack).all() and (true <= found.upper + slack).all())


def test_lines_are_tighter_than_products_of_intervals_and_exact_on_one_hidden_layer_of_nonnegative_weights() -> None:
    stages = layers(fully_connected(0, (4, 12, 12, 3), 0.1))
    for norm in (Norm.LINF, Norm.L1):
        assert jacobian_bound(stages, norm) < 0.95 * jacobian_bound(stages, norm, lines=False)
    with pytest.raises(InternalError, match="inf and 1"):
        jacobian_bound(stages, Norm.L2)


def test_a_small_ball_has_the_norm_of_its_jacobian() -> None:
    network = fully_connected(5, (4, 10, 10, 3), 0.2)
    centre = torch.randn(4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    true = torch.autograd.functional.jacobian(lambda p: network.flat(p[None])[0], centre)
    found = lipschitz(network, norm=Norm.LINF, method="jacobian", centre=centre, radius=1e-7).upper
    assert found == pytest.approx(float(true.abs().sum(1).max()), rel=1e-9)
    assert found >= float(true.abs().sum(1).max()) * (1 - 1e-14)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L1])
@pytest.mark.parametrize("kind", ["fully_connected", "per_channel", "residual", "two_slopes", "smooth"])
def test_local_bounds_hold_in_their_ball(kind: str, norm: Norm) -> None:
    network = build(kind, 4)
    centre = torch.randn(network.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = lipschitz(network, norm=norm, method="jacobian", centre=centre, radius=0.3).upper
    size = 0.3 if norm is Norm.LINF else 0.3 / network.input_size
    near = jacobians(network, 40, 5, centre, size).abs()
    assert float(near.sum(2 if norm is Norm.LINF else 1).max()) <= found * (1 + 1e-12)
    assert found <= lipschitz(network, norm=norm, method="jacobian").upper * (1 + 1e-9)


# ---- anchored ----


@pytest.mark.parametrize("kind", ["fully_connected", "relu_only", "per_channel", "two_slopes", "smooth", "clipped"])
def test_chords_from_the_point_lie_in_the_anchored_sector(kind: str) -> None:
    network = build(kind, 2)
    generator = torch.Generator().manual_seed(3)
    smaller = 0
    for _ in range(5):
        point = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
        at = propagate(network, ball(point, 0.0, Norm.L2))
        inside = intermediate_bounds(network, ball(point, 0.4, Norm.L2), default_memory())
        others = ball(point, 0.4, Norm.L2)
        cloud = torch.cat([others.sample(generator) for _ in range(60)])
        here, there = network.values(point), network.values(cloud)
        for node in network:
            if node.inputs and isinstance(node.op, TwoSlope):
                own = anchored(node, at, inside)
                before = (there[node.inputs[0]] - here[node.inputs[0]]).reshape(len(cloud), -1)
                after = (there[node.name] - here[node.name]).reshape(len(cloud), -1)
                chords = torch.where(before.abs() > 1e-9, after / before, torch.nan).numpy()
                with torch.no_grad():
                    assert not (chords < own.low - 1e-6).any()
                    assert not (chords > own.high + 1e-6).any()
                smaller += int((own.high - own.low < abs(node.op.right - node.op.left).numpy().max() - 1e-3).sum())
    assert smaller or kind in ("smooth", "clipped")


@pytest.mark.parametrize(("norm", "slope"), [("2", 0.0), ("2", 0.1), ("2", -0.5), ("2", 1.5), ("inf", 0.1), ("1", 0.1)])
def test_no_attack_within_an_anchored_radius(norm: str, slope: float) -> None:
    check_attacks(Norm.named(norm), slope, 1)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, -0.5, 1.5])
@pytest.mark.parametrize("norm", list(Norm))
def test_no_attack_within_many_more_anchored_radii(norm: Norm, slope: float) -> None:
    check_attacks(norm, slope, 20)


def check_attacks(norm: Norm, slope: float, count: int) -> None:
    network = fully_connected(1, (4, 6, 6, 3), slope)
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = network.flat(inputs).argmax(1)
    for x, label in zip(inputs, labels.tolist(), strict=True):
        found = anchored_radius(network, x, label, norm=norm)
        if found.radius > 0:
            cloud = descended(network, x, label, found.radius, norm)
            assert bool((network.flat(cloud).argmax(1) == label).all())
            assert all(found.radius * c < m for c, m in zip(found.constants, found.margins, strict=True))


def descended(network: Network, x: Tensor, label: int, radius: float, norm: Norm) -> Tensor:
    """Points of the ball at which the margin is small, by projected gradient steps from random points."""
    region = ball(x.repeat(30, 1), radius, norm)
    at = region.sample(torch.Generator().manual_seed(0)).reshape(30, -1)
    for _ in range(20):
        at = at.detach().requires_grad_()
        scores = network.flat(at)
        other = scores.masked_fill(torch.nn.functional.one_hot(torch.tensor(label), scores.shape[1]).bool(), -torch.inf)
        (slope,) = torch.autograd.grad((scores[:, label] - other.amax(1)).sum(), at)
        at = region.project(at - 0.2 * radius * slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return at.detach()


def test_a_constant_proves_no_radius_beyond_its_ball() -> None:
    trials = _Trials(np.zeros(2), margin=10.0)
    trials.learn(0.5, 1.0)  # ten would be safe, if the constant held there
    assert (trials.low, trials.constant) == (0.5, 1.0)
    trials.learn(4.0, 5.0)  # not safe, but a smaller ball is
    assert trials.low * 5.0 < 10.0
    assert trials.low == pytest.approx(2.0, rel=1e-9)
    trials.learn(3.0, np.inf)
    assert trials.constant == 5.0


def test_a_linear_network_has_its_exact_radius() -> None:
    network = fully_connected(0, (4, 5, 3), 1.0)
    x = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = int(network.flat(x[None]).argmax())
    matrix = torch.autograd.functional.jacobian(lambda p: network.flat(p[None])[0], x)
    scores = network.flat(x[None])[0]
    exact = min(float((scores[label] - scores[j]) / (matrix[label] - matrix[j]).norm()) for j in range(3) if j != label)
    found = anchored_radius(network, x, label).radius
    assert 0.99 * exact <= found <= exact


def test_a_wrong_label_and_a_known_radius_leave_nothing_to_find() -> None:
    network = fully_connected(0, (4, 5, 3), 0.1)
    x = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = int(network.flat(x[None]).argmax())
    assert anchored_radius(network, x, (label + 1) % 3).radius == 0
    assert anchored_radius(network, x, label, known=1e3, largest=1e3).radius == 0
    assert anchored_radius(network, x, label, known=1e3).radius == 0
    with pytest.raises(UsageError, match="5 entries"):
        anchored_radius(network, torch.zeros(5), label)
    with pytest.raises(UnsupportedOperator, match="Maximum"):
        anchored_radius(
            build("max_pool"), torch.zeros(9), int(build("max_pool").flat(torch.zeros(1, 9).double()).argmax())
        )


def test_certified_radii_are_the_larger_ones() -> None:
    network = fully_connected(2, (6, 20, 20, 4), 0.1)
    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = network.flat(inputs).argmax(1)
    lines = certify(network, inputs, labels, 1.0, norm="2", radius=True, engine="alpha-crown").inputs
    both = certify(network, inputs, labels, 1.0, norm="2", radius=True).inputs
    assert all((b.radius or 0) >= (a.radius or 0) for a, b in zip(lines, both, strict=True))
    assert any((b.radius or 0) > 1.02 * (a.radius or 0) for a, b in zip(lines, both, strict=True))
