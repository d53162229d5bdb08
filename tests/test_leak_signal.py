"""Signal factors: the formulas by simulation, the shares of stable neurons by hand and by sampling."""

from __future__ import annotations

import json

import pytest
import torch
from leaky import ask
from networks import Draft, build
from onnx_zoo import Maker

from leaktight.models.onnx import network_from_bytes
from leaktight.models.ops import Conv, Linear, TwoSlope
from leaktight.models.simplify import simplify
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm
from leaktight.verify.leak.signal import Layer, own_signal, signal


def box(*ends: tuple[float, float]) -> Box:
    lower, upper = torch.tensor([ends], dtype=torch.float64).unbind(-1)
    return Box(lower, upper)


def test_the_factors_are_what_random_signals_show() -> None:
    slopes = Slopes.of(build("fully_connected"))
    found = signal(slopes, Box(-torch.ones(1, 4).double(), torch.ones(1, 4).double()), 0.2, 1.7)
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for place, a in ((0, 0.2), (2, 1.7)):
        factors = found.layers[0].at[place]
        gradient = torch.where(z >= 0, 1.0, a).double()
        assert factors.slope == a
        assert factors.expected_gradient == pytest.approx(float(gradient.mean()), rel=1e-2)
        assert factors.gradient_variance == pytest.approx(float(gradient.var()), rel=1e-2)
        assert factors.squared_norm == pytest.approx(float(((gradient * z) ** 2).mean() / (z**2).mean()), rel=1e-2)


def test_weights_of_the_preserving_variance_preserve_squared_lengths() -> None:
    draft = Draft(1)
    at = draft.leaky(draft.linear(draft.leaky(draft.linear(draft.input(1, 500), 500), 0.3), 500), 0.3)
    network = draft.network(at)
    found = signal(Slopes.of(network), Box(torch.zeros(1, 500).double(), torch.zeros(1, 500).double()), 0.3, 0.3)
    variance = found.layers[1].at[0].preserving_variance
    assert found.layers[1].fan_in == 500
    assert variance is not None
    weight = draft.normal(500, 500, scale=variance**0.5)
    z = draft.normal(400, 500)
    after = torch.where(z >= 0, z, 0.3 * z) @ weight.mT
    assert float(after.square().mean() / z.square().mean()) == pytest.approx(1.0, rel=3e-2)


def test_fan_in_and_variance_are_those_of_the_layer_directly_in_front() -> None:
    draft = Draft(2)
    conv = draft.leaky(draft.conv(draft.input(1, 4, 5, 5), 6, 3, groups=2), 0.1)
    line = draft.leaky(draft.linear(draft.flatten(conv), 7), 0.1)
    bare = draft.leaky(draft.flatten(draft.leaky(line, 0.1)), 0.1)
    network = draft.network(bare)
    layers = signal(Slopes.of(network), Box(torch.zeros(1, 100).double(), torch.ones(1, 100).double()), 0.0, 1.0).layers
    assert [layer.fan_in for layer in layers] == [2 * 3 * 3, 6 * 3 * 3, None, None]
    weights = [node.op.weight for node in network if isinstance(node.op, Linear | Conv)]
    for layer, weight in zip(layers, weights, strict=False):
        assert layer.weight_variance == pytest.approx(float(((weight - weight.mean()) ** 2).mean()))
    assert layers[2].weight_variance is None
    assert layers[2].at[0].preserving_variance is None
    assert [layer.entries for layer in layers] == [54, 7, 7, 7]


def test_stable_neurons_by_hand() -> None:
    """Four neurons on their own inputs: one active, one inactive, two unstable."""
    draft = Draft(0)
    network = draft.network(draft.leaky(draft.input(1, 4), 0.1))
    found = signal(Slopes.of(network), box((0.0, 1.0), (-2.0, -1.0), (-1.0, 1.0), (-3.0, 0.5)), 0.0, 1.0)
    for factors in found.layers[0].at:
        assert (factors.active, factors.inactive, factors.unstable) == (0.25, 0.25, 0.5)


def test_a_neuron_behind_a_negative_scale_is_active_on_its_left() -> None:
    m = Maker(0)
    x = m.node("Mul", m.input(1, 2), m.constant([-1.0, 1.0]))
    network = simplify(
        network_from_bytes(
            m.build(m.node("Sigmoid", m.node("LeakyRelu", x, alpha=0.1))).SerializeToString(), path="m.onnx"
        )
    )
    assert any(isinstance(node.op, TwoSlope) and node.op.leak is not None for node in network)
    found = signal(Slopes.of(network), box((-2.0, -1.0), (-2.0, -1.0)), 0.0, 1.0)
    assert (found.layers[0].at[0].active, found.layers[0].at[0].inactive) == (0.5, 0.5)


@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "residual", "scaled"])
def test_sampled_neurons_agree_with_the_shares_on_average_over_the_batch(kind: str) -> None:
    question = ask(kind, 3, Norm.L2, 0.1)
    found = signal(question.slopes, question.region, -0.3, 1.4)
    inputs = [question.draw()[0] for _ in range(100)]
    for place, network in enumerate((question.slopes.at(-0.3), question.network, question.slopes.at(1.4))):
        values = [network.values(*x.split([port.size for port in network.inputs], -1)) for x in inputs]
        for name, layer in zip(question.slopes.nodes, found.layers, strict=True):
            op = network.by_name[name].op
            assert isinstance(op, TwoSlope)
            assert op.leak is not None
            z = torch.stack([value[network.by_name[name].inputs[0]] for value in values]) - op.kink
            side = torch.where(op.leak.flipped, -z, z)
            always = [float((side >= 0).all(0).double().mean()), float((side < 0).all(0).double().mean())]
            factors = layer.at[place]
            assert factors.active <= always[0]
            assert factors.inactive <= always[1]
            assert factors.active + factors.inactive + factors.unstable == pytest.approx(1)
            assert min(factors.active, factors.inactive, factors.unstable) >= 0
            assert factors.active + factors.inactive > 0


def test_layers_that_differ_have_no_common_slope() -> None:
    draft = Draft(0)
    network = draft.network(draft.leaky(draft.leaky(draft.input(1, 1), 0.1), 0.3))
    found = signal(Slopes.of(network), box((-1.0, 1.0)), 0.0, 0.5)
    assert found.slopes == (0.0, None, 0.5)
    assert [layer.at[1].slope for layer in found.layers] == [0.1, 0.3]


def test_a_layer_with_several_slopes_shows_their_means() -> None:
    draft = Draft(0)
    trained = torch.tensor([0.1, 0.3], dtype=torch.float64)
    network = draft.network(draft.leaky(draft.input(1, 2), trained))
    found = signal(Slopes.of(network), box((-1.0, 1.0), (-1.0, 1.0)), 0.0, 0.4)
    assert found.slopes[1] == pytest.approx(0.2)
    assert found.layers[0].at[2].squared_norm == pytest.approx((1 + 0.2**2 + 1 + 0.6**2) / 4)


@pytest.mark.parametrize("kind", ["fully_connected", "residual", "convolutional"])
def test_a_network_as_it_is_has_the_factors_of_its_own_slopes(kind: str) -> None:
    network = build(kind)
    regions = [box(*[(-0.1 * k, 0.2 * k)] * network.input_size) for k in (1, 3)]
    ours = [signal(Slopes.of(network), region, 0.0, 1.0).layers for region in regions]
    for k, (alone, both) in enumerate(zip(own_signal(network), own_signal(network, regions), strict=True)):
        first, second = (layers[k].at[1] for layers in ours)
        assert (alone.node, alone.fan_in, alone.weight_variance) == (ours[0][k].node, *_front(ours[0][k]))
        assert (alone.at[0].active, alone.at[0].inactive, alone.at[0].unstable) == (None, None, None)
        assert both.at[0].squared_norm == alone.at[0].squared_norm == first.squared_norm
        for side in ("active", "inactive", "unstable"):
            mean = (getattr(first, side) + getattr(second, side)) / 2
            assert getattr(both.at[0], side) == pytest.approx(mean)


def _front(layer: Layer) -> tuple[int | None, float | None]:
    return layer.fan_in, layer.weight_variance


def test_the_json_form() -> None:
    draft = Draft(0)
    network = draft.network(draft.leaky(draft.linear(draft.input(1, 2), 3), 0.5))
    document = json.loads(json.dumps(signal(Slopes.of(network), box((-1, 1), (-1, 1)), 0.0, 1.0).to_json()))
    assert document["slopes"] == [0.0, 0.5, 1.0]
    (layer,) = document["layers"]
    assert set(layer) == {"node", "entries", "fan_in", "weight_variance", "at"}
    assert (layer["entries"], layer["fan_in"]) == (3, 2)
    assert [factors["slope"] for factors in layer["at"]] == [0.0, 0.5, 1.0]
    assert set(layer["at"][0]) == {
        "slope",
        "expected_gradient",
        "gradient_variance",
        "squared_norm",
        "preserving_variance",
        "active",
        "inactive",
        "unstable",
    }
    assert layer["at"][2]["expected_gradient"] == 1.0
    assert layer["at"][2]["gradient_variance"] == 0.0
    assert layer["at"][0]["preserving_variance"] == 2 / 2
