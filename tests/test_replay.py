"""What is called a counterexample: exactly inside the region, and unsafe when the file itself is run."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from twins import fully_connected, identity, onnx_twin, random_weights

from leaktight.errors import Contradiction, ModelError, UsageError
from leaktight.models.network import Network, Source
from leaktight.specs.property import Case
from leaktight.specs.region import Ball, Box, Norm, ball
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.radius import distance
from leaktight.verify.search.counterexample_file import write_counterexample
from leaktight.verify.search.membership import lies_inside, settle
from leaktight.verify.search.refute import refute
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample

DOUBLES = st.floats(-1e3, 1e3, allow_nan=False)


def doubles(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def below(bound: float, *, strict: bool = False) -> Unsafe:
    """The unsafe set ``y_0 <= bound`` of a network with one output."""
    return Unsafe(torch.ones(1, 1, 1, dtype=torch.float64), doubles(bound), torch.tensor([0]), torch.tensor([strict]))


def above(bound: float) -> Unsafe:
    return Unsafe(-torch.ones(1, 1, 1, dtype=torch.float64), doubles(-bound), torch.tensor([0]))


def test_replay_computes_what_onnxruntime_computes_for_the_file() -> None:
    weights = random_weights([4, 16, 3], 0)
    point = torch.linspace(-1, 1, 4, dtype=torch.float64)
    session = onnxruntime.InferenceSession(onnx_twin(weights, 0.1), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": point.float().unsqueeze(0).numpy()})
    found = Replay(fully_connected(weights)).run(point)
    assert found["y"].dtype == np.float32
    assert found["y"].shape == (1, 3)
    np.testing.assert_allclose(found["y"], expected, rtol=1e-5, atol=1e-6)


def test_a_network_without_a_file_is_evaluated_in_the_dtype_it_declares() -> None:
    weights = random_weights([4, 16, 3], 0)
    point = torch.linspace(-1, 1, 4, dtype=torch.float64)
    by_hand = Replay(fully_connected(weights, file=False)).run(point)["y"]
    assert by_hand.dtype == np.float32
    np.testing.assert_allclose(by_hand, Replay(fully_connected(weights)).run(point)["y"], rtol=1e-5, atol=1e-6)


def test_external_weights_are_found_beside_the_file(tmp_path: Path) -> None:
    weights = random_weights([4, 16, 3], 0)
    network = fully_connected(weights)
    content = onnx_twin(weights, 0.1, tmp_path)
    source = Source("twin.onnx", "", content, str(tmp_path))
    outside = Network(network.nodes, network.inputs, network.outputs, source=source)
    point = torch.ones(4, dtype=torch.float64)
    np.testing.assert_array_equal(Replay(outside).run(point)["y"], Replay(network).run(point)["y"])


def test_a_file_that_onnxruntime_refuses_is_a_model_error() -> None:
    network = identity()
    broken = Network(network.nodes, network.inputs, network.outputs, source=Source("broken.onnx", "", b"not a model"))
    with pytest.raises(ModelError, match=r"broken\.onnx: onnxruntime.*cannot open"):
        Replay(broken).run(torch.zeros(1, dtype=torch.float64))


@given(DOUBLES, st.floats(0, 1), DOUBLES)
def test_settled_points_are_float32_numbers_inside_the_box_if_it_holds_one(low: float, width: float, at: float) -> None:
    high = low + width
    point = float(settle(identity(), Box(doubles(low), doubles(high)), doubles(at))[0, 0])
    assert low <= point <= high
    down = np.float32(low) if float(np.float32(low)) >= low else np.nextafter(np.float32(low), np.float32(np.inf))
    assert float(down) > high or point == float(np.float32(point))


def test_a_constant_that_float32_lacks_keeps_a_point_inside_and_runs_the_nearest_float32() -> None:
    case = Case(Box(doubles(0.1), doubles(0.1)), below(1.0))
    example = confirm(identity(), case, doubles(0.1))
    assert example is not None
    assert example.point.tolist() == [0.1]
    assert example.inputs["x"].tolist() == [[np.float32(0.1)]]


def test_a_decimal_between_two_floats_settles_on_a_neighbour() -> None:
    low, high = np.nextafter(0.1, 0), 0.1  # encloses some decimal; nothing inside
    region = Box(doubles(low), doubles(high), doubles(high), doubles(low))
    assert float(settle(identity(), region, doubles(0.5))[0, 0]) in (low, high)


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), radius=st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 0.3, 7.0]))
def test_settled_points_lie_in_the_ball_in_rational_arithmetic(norm: Norm, seed: int, radius: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(1, 5, generator=generator, dtype=torch.float64)
    region = ball(centre, radius, norm, clip=(0, 1))
    points = centre + 2 * radius * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    for point in settle(identity(5), region, points).tolist():
        moves = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point, centre[0].tolist(), strict=True)]
        length = sum(moves) if norm is Norm.L1 else sum(move**2 for move in moves)
        assert length <= Fraction(radius) ** (1 if norm is Norm.L1 else 2)
        assert all(0 <= value <= 1 for value in point)
        assert radius < 1e-3 or point == [float(np.float32(value)) for value in point]


def test_membership_sees_what_float64_distances_round_away() -> None:
    region = ball(torch.zeros(1, 2, dtype=torch.float64), 5.0, Norm.L2)
    assert isinstance(region, Ball)
    assert lies_inside(region, torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert not lies_inside(region, torch.tensor([3.0, np.nextafter(4.0, 5.0)], dtype=torch.float64))


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-160, 1.0, 1e160, 1e200])
def test_distances_whose_squares_underflow_or_overflow_are_what_they_are(norm: Norm, scale: float) -> None:
    """Squares of 1e-200 are zero: a point three radii away was said to lie in the ball, at the distance 0."""
    region, move = ball(torch.zeros(1, 2, dtype=torch.float64), scale, norm), Fraction(scale) * Fraction(7, 10)
    assert isinstance(region, Ball)
    for share in (Fraction(1, 2), 1, 3):
        point = torch.tensor([float(move * share), float(move * share)], dtype=torch.float64)
        exact = [Fraction(x) for x in point.tolist()]
        square = sum(exact) ** 2 if norm is Norm.L1 else sum(x * x for x in exact)
        assert lies_inside(region, point) == (square <= Fraction(scale) ** 2)
        found = distance(norm, torch.zeros(2, dtype=torch.float64), Counterexample({}, {}, point.numpy(), -1.0))
        assert square <= Fraction(found) ** 2 <= square * Fraction(1 + 1e-6)
    still = Counterexample({}, {}, np.zeros(2), -1.0)
    assert distance(norm, torch.zeros(2, dtype=torch.float64), still) == 0.0


def test_an_input_that_only_float32_rounding_makes_unsafe_is_no_counterexample() -> None:
    rounded = float(np.float32(0.1))
    assert rounded > 0.1  # a cast to float32 would leave the region [0, 0.1] and cross the threshold
    case = Case(Box(doubles(0.0), doubles(0.1)), above(0.1 + 1e-9))
    assert confirm(identity(), case, doubles(0.1)) is None
    assert confirm(identity(), Case(Box(doubles(0.1), doubles(0.1)), above(0.1 + 1e-9)), doubles(0.1)) is None
    assert confirm(identity(), Case(Box(doubles(0.0), doubles(0.2)), above(0.1 + 1e-9)), doubles(0.15)) is not None


@pytest.mark.parametrize(("strict", "found"), [(False, True), (True, False)])
def test_a_tie_is_unsafe_unless_the_condition_is_strict(strict: bool, found: bool) -> None:
    case = Case(Box(doubles(0.5), doubles(1.0)), below(0.5, strict=strict))
    example = confirm(identity(), case, doubles(0.5))
    assert (example is not None) == found
    assert example is None or example.margin == 0.0


def test_outputs_that_are_not_a_number_are_no_counterexample() -> None:
    huge = np.float32(3e38)
    overflow = (np.array([[huge], [huge]]), np.zeros(2, np.float32))
    network = fully_connected([overflow, (np.array([[1, -1]], np.float32), np.zeros(1, np.float32))])
    case = Case(Box(doubles(10.0), doubles(20.0)), below(1.0))
    assert np.isnan(Replay(network).run(torch.tensor([15.0]))["y"]).all()
    assert confirm(network, case, doubles(15.0)) is None
    assert refute(network, case)[0] is None


def test_a_file_that_computes_something_else_is_a_contradiction_with_both_numbers() -> None:
    network = identity()
    tripled = onnx_twin([(np.full((1, 1), 3, np.float32), np.zeros(1, np.float32))], 0.1)
    liar = Network(network.nodes, network.inputs, network.outputs, source=Source("liar.onnx", "", tripled))
    with pytest.raises(Contradiction, match=r"onnxruntime computes .*1\.5.* leaktight .*0\.5"):
        confirm(liar, Case(Box(doubles(0.0), doubles(0.5)), above(0.4)), doubles(0.5))
    with pytest.raises(Contradiction):  # also where the file's own answer is the safe one
        confirm(liar, Case(Box(doubles(0.0), doubles(0.5)), below(1.0)), doubles(0.5))


def test_confirm_refuses_several_regions() -> None:
    box = Box(torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="one region"):
        confirm(identity(), Case(box, below(0.0)), doubles(0.0))


def test_a_written_counterexample_reproduces_its_outputs_in_onnxruntime(tmp_path: Path) -> None:
    weights = random_weights([3, 8, 2], 1)
    network = fully_connected(weights)
    unsafe = Unsafe(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64), doubles(1e6), torch.tensor([0]))
    example, _ = refute(network, Case(Box(-torch.ones(1, 3).double(), torch.ones(1, 3).double()), unsafe))
    assert example is not None
    write_counterexample(tmp_path / "found.npz", example)
    stored = np.load(tmp_path / "found.npz")
    session = onnxruntime.InferenceSession(onnx_twin(weights, 0.1), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["y"], {"x": stored["x"]})[0], stored["y"], rtol=1e-5, atol=1e-6)
    write_counterexample(tmp_path / "found.txt", example)
    text = (tmp_path / "found.txt").read_text()
    numbers = {name: float(value) for name, value in re.findall(r"\((\w+) ([^)\s]+)\)", text)}
    assert [numbers[f"X_{i}"] for i in range(3)] == example.point.tolist()
    assert [np.float32(numbers[f"Y_{i}"]) for i in range(2)] == example.outputs["y"].flatten().tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.npz", "found.txt"]


def test_a_counterexample_for_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    example, _ = refute(identity(), Case(Box(doubles(0.0), doubles(1.0)), below(2.0)))
    assert example is not None
    with pytest.raises(UsageError, match="folder that does not exist"):
        write_counterexample(tmp_path / "nowhere" / "found.npz", example)
    with pytest.raises(UsageError, match="is a folder"):
        write_counterexample(tmp_path, example)
