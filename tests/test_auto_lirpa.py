"""The second opinion: auto_LiRPA on our networks. Its bounds must contain samples and agree with hand and with ours."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import redirect_stdout
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from leaktight.errors import UnsupportedOperator, UsageError
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import (
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Input,
    Linear,
    Maximum,
    Op,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sum,
    Tanh,
    TwoSlope,
    leaky_relu,
)
from leaktight.specs.region import Box, Norm, Region, ball
from leaktight.verify.bounds import auto_lirpa
from leaktight.verify.bounds.engine import lower_bounds as ours
from leaktight.verify.bounds.traceable import Traceable

needs_auto_lirpa = pytest.mark.skipif(auto_lirpa.available() is None, reason="auto_LiRPA is not installed")


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def chain(shape: tuple[int, ...], *steps: tuple[Op, tuple[int, ...]], outputs: tuple[int, ...] = (-1,)) -> Network:
    """Operators one after the other; the outputs are the values of the steps of these numbers."""
    nodes = [Node("x", Input(), (), shape)]
    for i, (op, after) in enumerate(steps):
        nodes.append(Node(f"v{i}", op, (nodes[-1].name,), after))
    found = tuple(Port(nodes[1:][i].name, nodes[1:][i].shape) for i in outputs)
    return Network(tuple(nodes), (Port("x", shape),), found)


def fully_connected(*sizes: int, slope: float | Tensor = 0.1, scale: float = 1.0) -> Network:
    steps: list[tuple[Op, tuple[int, ...]]] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        if i:
            steps.append((leaky_relu(slope), (1, before)))
        steps.append((Linear(numbers(after, before) * scale / before**0.5, numbers(after) / 10), (1, after)))
    return chain((1, sizes[0]), *steps)


def convolutional() -> Network:
    return chain(
        (1, 2, 6, 6),
        (Conv(numbers(3, 2, 3, 3) / 3, numbers(3), (2, 1), (1, 0)), (1, 3, 3, 4)),
        (TwoSlope(numbers(1, 3, 1, 1), numbers(1, 3, 1, 1), numbers(3, 1, 1), numbers(3, 1, 1)), (1, 3, 3, 4)),
        (Conv(numbers(3, 1, 2, 2), None, (1, 1), (0, 0), (1, 2), groups=3), (1, 3, 2, 2)),
        (leaky_relu(0.3), (1, 3, 2, 2)),
        (ConvTranspose(numbers(3, 2, 2, 2), numbers(2), (2, 2), (0, 0), (0, 0), (1, 1)), (1, 2, 4, 4)),
        (Tanh(), (1, 2, 4, 4)),
        (Reshape((1, 2, 4, 4), (1, 32)), (1, 32)),
        (Linear(numbers(3, 32) / 5), (1, 3)),
    )


def pooling() -> Network:
    windows = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [9, 10, 13, 14], [10, 10, 11, -1]])
    return chain(
        (1, 16),
        (Linear(numbers(16, 16) / 4, numbers(16)), (1, 16)),
        (leaky_relu(0.01), (1, 16)),
        (Reshape((1, 16), (1, 4, 4)), (1, 4, 4)),
        (Select(windows[None], (1, 4, 4)), (1, 5, 4)),
        (Maximum(), (1, 5)),
        (Scale(numbers(5), numbers(1, 5)), (1, 5)),
        (Clip(-0.5, 0.75), (1, 5)),
        (Linear(numbers(2, 5)), (1, 2)),
    )


def residual() -> Network:
    """Two inputs, two outputs, a skip connection, a join, a constant, and a value of three axes."""
    nodes = (
        Node("a", Input(), (), (1, 3)),
        Node("b", Input(), (), (1, 2)),
        Node("c", Constant(numbers(1, 1)), (), (1, 1)),
        Node("joined", Concat(-1), ("a", "c", "b"), (1, 6)),
        Node("z", Linear(numbers(6, 6) / 2, numbers(6)), ("joined",), (1, 6)),
        Node("h", leaky_relu(numbers(1, 6)), ("z",), (1, 6)),
        Node("sum", Sum((-1, 1)), ("joined", "h"), (1, 6)),
        Node("grid", Reshape((1, 6), (1, 2, 3)), ("sum",), (1, 2, 3)),
        Node("rows", Linear(numbers(2, 3), numbers(2)), ("grid",), (1, 2, 2)),
        Node("s", Sigmoid(), ("rows",), (1, 2, 2)),
    )
    return Network(nodes, (Port("a", (1, 3)), Port("b", (1, 2))), (Port("s", (1, 2, 2)), Port("z", (1, 6))))


def unbatched() -> Network:
    return chain((4,), (Linear(numbers(3, 4)), (3,)), (leaky_relu(0.2), (3,)), (Linear(numbers(2, 3)), (2,)))


NETWORKS = {"convolutional": convolutional, "pooling": pooling, "residual": residual, "unbatched": unbatched}


def about(network: Network, radius: float, norm: Norm = Norm.LINF, batch: int = 3) -> Region:
    return ball(numbers(batch, network.input_size), radius, norm)


def both_sides(network: Network) -> Tensor:
    eye = torch.eye(network.output_size, dtype=torch.float64)
    return torch.cat([eye, -eye])[None]


def sampled_minimum(network: Network, region: Region, objectives: Tensor, count: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = [(objectives @ network.flat(region.sample(generator)).unsqueeze(-1)).squeeze(-1) for _ in range(count)]
    return torch.stack(values).amin(0)


def assert_contains_samples(network: Network, region: Region, method: str, dtype: torch.dtype = torch.float64) -> None:
    objectives = both_sides(network)
    found = auto_lirpa.lower_bounds(network, region, objectives, method=method, dtype=dtype)
    assert found.shape == (region.batch, objectives.shape[1])
    assert torch.isfinite(found).all()
    assert (found <= sampled_minimum(network, region, objectives) + (1e-4 if dtype == torch.float32 else 1e-9)).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("relus", [False, True])
def test_the_traceable_module_computes_what_the_network_computes(name: str, relus: bool) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name]()
    x, module = numbers(5, network.input_size), Traceable(network, relus=relus)
    with torch.no_grad():
        torch.testing.assert_close(module(module.arrange(x)), network.flat(x), rtol=1e-12, atol=1e-12)


@needs_auto_lirpa
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", auto_lirpa.METHODS)
def test_bounds_of_every_operator_contain_sampled_outputs(name: str, method: str) -> None:
    torch.manual_seed(2)
    network = NETWORKS[name]()
    assert_contains_samples(network, about(network, 0.1), method)


@needs_auto_lirpa
@pytest.mark.parametrize("slope", [-2.0, -0.5, 0.0, 0.01, 0.3, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("method", auto_lirpa.METHODS)
def test_bounds_contain_sampled_outputs_for_any_slope(slope: float, method: str) -> None:
    torch.manual_seed(3)
    network = fully_connected(4, 12, 12, 3, slope=slope)
    for norm in Norm:
        assert_contains_samples(network, about(network, 0.4, norm), method)


@needs_auto_lirpa
@pytest.mark.parametrize("method", auto_lirpa.METHODS)
def test_float32_bounds_contain_sampled_outputs(method: str) -> None:
    torch.manual_seed(4)
    network = fully_connected(4, 12, 3, slope=torch.linspace(-1, 2, 12, dtype=torch.float64)[None])
    assert_contains_samples(network, about(network, 0.4), method, torch.float32)


@needs_auto_lirpa
def test_bounds_of_one_neuron_are_the_ones_computed_by_hand() -> None:
    # y = 2 phi(x) - x on [-1, 3] with slope 0.25. Intervals: phi in [-0.25, 3], so y in [-0.5 - 3, 6 + 1].
    # Linear bounds: 2 phi >= 2 x because 3 > 1, so y >= x >= -1;
    # phi <= 0.8125 x + 0.5625, so y <= 0.625 * 3 + 1.125 = 3.
    nodes = (
        Node("x", Input(), (), (1, 1)),
        Node("h", leaky_relu(0.25), ("x",), (1, 1)),
        Node("both", Concat(-1), ("x", "h"), (1, 2)),
        Node("y", Linear(torch.tensor([[-1.0, 2.0]], dtype=torch.float64)), ("both",), (1, 1)),
    )
    network = Network(nodes, (Port("x", (1, 1)),), (Port("y", (1, 1)),))
    box = Box(torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64))
    for method, expected in (("ibp", (-3.5, -7.0)), ("crown", (-1.0, -3.0))):
        found = auto_lirpa.lower_bounds(network, box, both_sides(network), method=method)
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))


@needs_auto_lirpa
@pytest.mark.parametrize("norm", list(Norm))
def test_plain_bounds_are_at_least_as_tight_as_theirs_with_relus(norm: Norm) -> None:
    torch.manual_seed(5)
    network = fully_connected(5, 15, 15, 15, 4, slope=0.2)
    region, objectives = about(network, 0.3, norm), both_sides(network)
    theirs = auto_lirpa.Opponent(network, relus=True).lower_bounds(region, objectives, method="crown")
    found = ours(network, region, objectives, engine="crown")  # a second turn of the last lines makes some tighter
    assert bool((found >= theirs - 1e-9).all())
    assert bool((found <= theirs + 1e-9).any())


@needs_auto_lirpa
def test_optimised_slopes_are_at_least_as_tight_as_plain_ones() -> None:
    torch.manual_seed(6)
    network = fully_connected(5, 20, 20, 3, slope=0.1)
    region, objectives = about(network, 0.3), both_sides(network)
    opponent = auto_lirpa.Opponent(network, relus=True)
    plain, optimised = (opponent.lower_bounds(region, objectives, method=m) for m in ("crown", "alpha-crown"))
    assert (optimised >= plain - 1e-9).all()
    assert (optimised - plain).mean() > 1e-3


@needs_auto_lirpa
def test_balls_of_different_radii_are_bounded_each_with_its_own() -> None:
    torch.manual_seed(7)
    network, objectives = fully_connected(4, 10, 2), both_sides(fully_connected(4, 10, 2))
    centres, radii = numbers(3, 4), torch.tensor([0.1, 0.5, 1.0])
    together = auto_lirpa.lower_bounds(network, ball(centres, radii, Norm.L2), objectives)
    for i in range(3):
        alone = auto_lirpa.lower_bounds(network, ball(centres[i : i + 1], radii[i], Norm.L2), objectives)
        torch.testing.assert_close(together[i : i + 1], alone)


@needs_auto_lirpa
@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ("forward", UnsupportedOperator, "node 'v1': auto_LiRPA's forward bounds are unsound on a Leaky ReLU"),
        ("forward+backward", UnsupportedOperator, "forward bounds are unsound"),
        ("CROWN-IBP", UsageError, "method 'CROWN-IBP' is not offered; allowed: ibp, crown, alpha-crown"),
    ],
)
def test_methods_not_known_to_be_sound_are_refused_by_name(method: str, error: type[Exception], words: str) -> None:
    network = fully_connected(2, 3, 2)
    with pytest.raises(error, match=words.replace("+", r"\+")):
        auto_lirpa.lower_bounds(network, about(network, 0.1), both_sides(network), method=method)


def test_an_operator_that_would_need_a_huge_matrix_is_refused_with_its_name() -> None:
    index = torch.arange(5000).flip(0)[None]
    network = chain((1, 5000), (Select(index, (1, 5000)), (1, 5000)))
    with pytest.raises(UnsupportedOperator, match="node 'v0': operator Select"):
        Traceable(network)


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_lirpa, "available", lambda: None)
    network = fully_connected(2, 3, 2)
    with pytest.raises(UsageError, match="pip install --no-deps auto_LiRPA"):
        auto_lirpa.lower_bounds(network, about(network, 0.1), both_sides(network))


def _process() -> tuple[object, ...]:
    root = logging.getLogger()
    patched = hasattr(torch._C.Node, "__getitem__")
    return list(root.handlers), root.level, torch.get_default_dtype(), patched, sys.getrecursionlimit()


@needs_auto_lirpa
def test_using_it_leaves_stdout_logging_and_torch_as_they_were() -> None:
    network, said = fully_connected(2, 3, 2), io.StringIO()
    before = _process()
    with redirect_stdout(said):
        auto_lirpa.lower_bounds(network, about(network, 0.1), both_sides(network), method="alpha-crown")
    assert said.getvalue() == ""
    assert before == _process()


@needs_auto_lirpa
def test_the_first_use_in_a_process_works_and_is_silent() -> None:
    program = (
        "import leaktight.verify.bounds.auto_lirpa as a, tests.test_auto_lirpa as t\n"
        "n = t.fully_connected(2, 3, 2)\na.lower_bounds(n, t.about(n, 0.1), t.both_sides(n))\n"
        "import sys; assert sys.getrecursionlimit() == 1000"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
