"""What engines owe each other and the truth: exactness, order, invariance, and a name for whatever they cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from networks import KINDS, Draft, build, fully_connected
from scipy.optimize import linprog  # type: ignore[import-untyped]
from torch import Tensor

from leaktight.errors import MissingRule, UsageError
from leaktight.models import ops
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Affine, Elementwise, Input, Linear, Op, Scale, Select, Sum, TwoSlope, leaky_relu
from leaktight.specs.region import Ball, Box, Norm, Region, ball
from leaktight.verify.bounds import engine, optimise
from leaktight.verify.bounds.engine import ENGINES, bound, engine_named, lower_bounds
from leaktight.verify.relax import leaky

Ends = tuple[Tensor, Tensor]
every_engine = pytest.mark.parametrize("engine", ENGINES)
LINEAR = ("crown", "alpha-crown")


def ends(
    network: Network, region: Region, engine: str, dtype: torch.dtype = torch.float64, memory: int | None = None
) -> Ends:
    """All outputs' bounds, ``(batch, outputs)`` each."""
    box = bound(network, region, engine=engine, dtype=dtype, memory=memory)
    low, high = (torch.cat([pair[i].flatten(1) for pair in box.outputs.values()], 1) for i in (0, 1))
    return low, high


def assert_same(found: Ends, expected: Ends, tolerance: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def region_of(norm: Norm, size: int, seed: int, radius: float = 0.5, clip: tuple[float, float] | None = None) -> Region:
    centre = torch.randn(3, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ball(centre if clip is None else centre.clamp(*clip), radius, norm, clip)


# ---- exactness ----


def matrix(network: Network) -> tuple[Tensor, Tensor]:
    """``W, b`` of a network that is affine everywhere, found by evaluation."""
    zero = network.flat(torch.zeros(1, network.input_size, dtype=torch.float64))[0]
    return (network.flat(torch.eye(network.input_size, dtype=torch.float64)) - zero).T, zero


@pytest.mark.parametrize("engine", LINEAR)
@pytest.mark.parametrize("kind", ["affine_only", "slope one"])
@pytest.mark.parametrize("norm", Norm)
def test_affine_networks_are_bounded_by_the_dual_norm_exactly(kind: str, norm: Norm, engine: str) -> None:
    network = build(kind, 3) if kind == "affine_only" else fully_connected(3, slope=1.0)
    region = region_of(norm, network.input_size, 1)
    weight, bias = matrix(network)
    centre = (region.lower + region.upper) / 2 if isinstance(region, Box) else region.centre  # type: ignore[attr-defined]
    dual = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: torch.inf}[norm]
    reach = 0.5 * torch.linalg.vector_norm(weight, ord=dual, dim=1)
    value = centre @ weight.T + bias
    assert_same(ends(network, region, engine), (value - reach, value + reach))


@every_engine
def test_one_affine_layer_over_a_box_is_exact(engine: str) -> None:
    draft = Draft(1)
    network = draft.network(draft.linear(draft.input(1, 5), 4))
    region = region_of(Norm.LINF, 5, 2)
    weight, bias = matrix(network)
    value, reach = (region.lower + region.upper) / 2 @ weight.T + bias, 0.5 * weight.abs().sum(1)
    assert_same(ends(network, region, engine), (value - reach, value + reach))


@every_engine
@pytest.mark.parametrize("kind", KINDS)
def test_a_point_is_bounded_by_its_own_output(kind: str, engine: str) -> None:
    network = build(kind, 5)
    x = torch.randn(2, network.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = network.flat(x)
    assert_same(ends(network, Box(x, x), engine), (y, y))


@pytest.mark.parametrize("engine", LINEAR)
@pytest.mark.parametrize("clip", [None, (-0.4, 0.3)])
@pytest.mark.parametrize("norm", Norm)
def test_networks_of_stable_neurons_are_exact(norm: Norm, clip: tuple[float, float] | None, engine: str) -> None:
    """On a region so small that no neuron changes its side, the network is affine, and its optimum is known."""
    network = fully_connected(8, (4, 6, 6, 3), 0.2)
    region = region_of(norm, 4, 4, 1e-3, clip)
    low, high = ends(network, region, engine)
    for i in range(region.batch):
        point = region.project((region.lower + region.upper) / 2)[i]
        assert stable_around(network, point, 4e-3)
        weight = torch.autograd.functional.jacobian(lambda x: network.flat(x.unsqueeze(0))[0], point)
        bias = network.flat(point.unsqueeze(0))[0] - weight @ point
        for row, offset, least, most in zip(weight, bias, low[i], high[i], strict=True):
            assert float(least) == pytest.approx(float(offset) + minimum(region, i, row), abs=1e-9)
            assert float(most) == pytest.approx(float(offset) - minimum(region, i, -row), abs=1e-9)


def stable_around(network: Network, point: Tensor, radius: float) -> bool:
    values = network.values(point + radius * torch.cat([torch.eye(4), -torch.eye(4)]).double())
    return all(bool(((z > 0).all(0) | (z < 0).all(0)).all()) for name, z in values.items() if name.startswith("Linear"))


def minimum(region: Region, i: int, row: Tensor) -> float:
    """The minimum of ``row . x`` over one region, by means that leaktight does not use."""
    if isinstance(region, Ball) and region.norm is Norm.L2:
        return l2_minimum(region, i, row)
    n = len(row)
    walls = list(zip(region.lower[i].tolist(), region.upper[i].tolist(), strict=True))
    if isinstance(region, Box):
        return float(linprog(row.numpy(), bounds=walls).fun)
    assert isinstance(region, Ball)
    # |x - centre|_1 <= radius with one more variable for each |x_i - centre_i|
    eye, centre = np.eye(n), region.centre[i].numpy()
    above = np.vstack([np.hstack([eye, -eye]), np.hstack([-eye, -eye]), np.hstack([np.zeros(n), np.ones(n)])])
    right = np.concatenate([centre, -centre, [float(region.radius[i])]])
    return float(linprog(np.concatenate([row.numpy(), np.zeros(n)]), above, right, bounds=walls + [(0, None)] * n).fun)


def l2_minimum(region: Ball, i: int, row: Tensor) -> float:
    """By enumeration: some coordinates stand at a wall, the others move along the gradient."""
    centre, radius, best = region.centre[i], float(region.radius[i]), np.inf
    room = torch.where(row > 0, centre - region.lower[i], region.upper[i] - centre)
    for fixed in product((False, True), repeat=len(row)):
        at = torch.tensor(fixed)
        left = radius**2 - float((room[at] ** 2).sum())
        if left < 0:
            continue
        free = torch.where(at, 0.0, row.abs())
        length = float(torch.linalg.vector_norm(free))
        step = torch.where(at, room, free * (left**0.5 / length) if length else 0.0)
        if bool((step <= room + 1e-15).all()):
            best = min(best, float(row @ centre - row.abs() @ step))
    return best


# ---- order ----


def truth(network: Network, lower: Tensor, upper: Tensor, objective: Tensor) -> float:
    """The smallest ``objective . f`` over a box, up to 1e-6 and never below it: a linear program for each pattern of
    active neurons.

    For fully connected networks with one hidden layer after another and Leaky ReLUs between them.
    """
    layers = [node.op for node in network if isinstance(node.op, Linear)]
    slopes = [float(node.op.left) for node in network if isinstance(node.op, TwoSlope)]
    best = np.inf
    for pattern in product((0, 1), repeat=sum(len(layer.weight) for layer in layers[:-1])):
        weight, bias = layers[0].weight.numpy(), layers[0].bias.numpy()  # type: ignore[union-attr]
        above, right, start = [], [], 0
        for layer, slope in zip(layers[1:], slopes, strict=True):
            active = np.array(pattern[start : start + len(weight)], dtype=bool)
            start += len(weight)
            sign = np.where(active, -1.0, 1.0)  # z >= 0 where active, else z <= 0
            above.append(sign[:, None] * weight)
            right.append(-sign * bias)
            gain = np.where(active, 1.0, slope)
            bias = layer.weight.numpy() @ (gain * bias) + layer.bias.numpy()  # type: ignore[union-attr]
            weight = layer.weight.numpy() @ (gain[:, None] * weight)
        row, walls = objective.numpy() @ weight, list(zip(lower.tolist(), upper.tolist(), strict=True))
        found = linprog(row, np.vstack(above), np.concatenate(right), bounds=walls)
        if found.status == 0:  # the solver's tolerance leaves its optimum; the network's value there is attained
            at = torch.from_numpy(found.x).clamp(lower, upper)
            best = min(best, float(objective @ network.flat(at.unsqueeze(0))[0]))
    return float(best)


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.7, 1.0, -1.0, 1.8])
@pytest.mark.parametrize("seed", range(2))
def test_interval_contains_crown_contains_optimised_crown_contains_the_truth(seed: int, slope: float) -> None:
    network = fully_connected(seed, (2, 3, 3, 2), slope)
    lower, upper = torch.tensor([[-1.0, -0.4]]).double(), torch.tensor([[0.7, 1.1]]).double()
    rows = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, -1.0]]).double()
    loose, crown, best = (
        lower_bounds(network, Box(lower, upper), rows.unsqueeze(0), engine=e)[0]
        for e in ("interval", "crown", "alpha-crown")
    )
    exact = torch.tensor([truth(network, lower[0], upper[0], row) for row in rows], dtype=torch.float64)
    assert bool((loose <= crown + 1e-12).all())
    assert bool((crown <= best).all())
    assert bool((best <= exact + 1e-12).all())
    if slope == 1:
        assert bool((exact <= best + 1e-6).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", Norm)
def test_crown_is_never_looser_than_intervals(kind: str, norm: Norm) -> None:
    network = build(kind, 6)
    region = region_of(norm, network.input_size, 6)
    (low, high), (better_low, better_high) = (ends(network, region, engine) for engine in ("interval", "crown"))
    assert bool((low <= better_low + 1e-12).all())
    assert bool((better_high <= high + 1e-12).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", Norm)
def test_optimised_slopes_are_never_looser_than_crown(kind: str, norm: Norm) -> None:
    network = build(kind, 6)
    region = region_of(norm, network.input_size, 6)
    (low, high), (better_low, better_high) = (ends(network, region, engine) for engine in LINEAR)
    assert bool((low <= better_low).all())
    assert bool((better_high <= high).all())


def test_optimised_slopes_gain_where_lines_can_turn() -> None:
    network, region = fully_connected(1, (3, 8, 8, 2), 0.1), region_of(Norm.LINF, 3, 1, 0.8)
    (low, high), (better_low, better_high) = (ends(network, region, engine) for engine in LINEAR)
    assert float((better_high - better_low).sum()) < 0.95 * float((high - low).sum())


def test_crown_on_one_unstable_neuron_is_what_a_hand_computes() -> None:
    """``y = phi(x1 + x2) - x1`` over [-1, 1]^2 with slope 0.1.

    Above, the chord over [-2, 2] is ``0.55 z + 0.9``, so ``y <= 0.9 - 0.45 x1 + 0.55 x2 <= 1.9``. Below, a ray of slope
    s gives ``(s - 1) x1 + s x2 >= -(1 - s) - s = -1`` whatever s is, and ``x = (1, -1)`` attains it.
    """
    draft = Draft(0)
    x = draft.input(1, 2)
    phi = draft.add(leaky_relu(0.1), draft.add(Linear(torch.ones(1, 2).double()), x))
    network = draft.network(draft.add(Sum((1, -1)), phi, draft.add(Select(torch.tensor([[0]]), (1, 2)), x)))
    low, high = ends(network, Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()), "crown")
    assert (float(low), float(high)) == pytest.approx((-1.0, 1.9), abs=1e-9)


# ---- metamorphic ----


def rewritten(network: Network, change: Callable[[Node], Node]) -> Network:
    return replace(network, nodes=tuple(change(node) for node in network.nodes))


@every_engine
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_order_of_neurons_does_not_matter(engine: str, dtype: torch.dtype) -> None:
    network = fully_connected(4, (4, 8, 7, 3), 0.3)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    first, second = [node.name for node in network if isinstance(node.op, Linear)][:2]

    def change(node: Node) -> Node:
        op = node.op
        if isinstance(op, Linear) and op.bias is not None and node.name == first:
            return replace(node, op=Linear(op.weight[order], op.bias[order]))
        if isinstance(op, Linear) and node.name == second:
            return replace(node, op=Linear(op.weight[:, order], op.bias))
        return node

    region = region_of(Norm.LINF, 4, 9)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    permuted, plain = ends(rewritten(network, change), region, engine, dtype), ends(network, region, engine, dtype)
    assert_same(permuted, plain, tolerance)


@every_engine
@pytest.mark.parametrize("factor", [2.0, 0.125, 1024.0])
def test_scaling_a_layer_and_unscaling_the_next_does_not_matter(engine: str, factor: float) -> None:
    network = fully_connected(4, (4, 8, 7, 3), 0.3)
    first, second = [node.name for node in network if isinstance(node.op, Linear)][:2]

    def change(node: Node) -> Node:
        op = node.op
        if isinstance(op, Linear) and op.bias is not None and node.name == first:
            return replace(node, op=Linear(op.weight * factor, op.bias * factor))
        if isinstance(op, Linear) and node.name == second:
            return replace(node, op=Linear(op.weight / factor, op.bias))
        return node

    region = region_of(Norm.L2, 4, 9)
    assert_same(ends(rewritten(network, change), region, engine), ends(network, region, engine))


@pytest.mark.parametrize("engine", LINEAR)
def test_an_affine_node_may_be_split_in_two(engine: str) -> None:
    network, nodes = fully_connected(4, (4, 8, 7, 3), 0.3), []
    renamed: dict[str, str] = {}
    for node in network:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        if isinstance(node.op, Linear):
            one = torch.ones(node.shape, dtype=torch.float64)
            nodes[-1] = replace(nodes[-1], op=Linear(node.op.weight / 4, None))
            assert node.op.bias is not None
            scale = Scale(4 * one, node.op.bias.expand(node.shape))
            nodes.append(Node(f"{node.name}_scaled", scale, (node.name,), node.shape))
            renamed[node.name] = nodes[-1].name
    outputs = tuple(replace(port, name=renamed[port.name]) for port in network.outputs)
    split = Network(tuple(nodes), network.inputs, outputs)
    region = region_of(Norm.L1, 4, 9)
    assert_same(ends(split, region, engine), ends(network, region, engine))


@pytest.mark.parametrize("engine", ["interval", "crown"])
@pytest.mark.parametrize("kind", ["relu_only", "affine_only", "max_pool", "clipped"])
def test_a_wider_region_never_has_tighter_intervals(kind: str, engine: str) -> None:
    network = build(kind, 2)
    centre = torch.randn(2, network.input_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    small, large = Box(centre - 1e-2, centre + 1e-2), Box(centre - 1.0, centre + 0.8)
    (low, high), (wide_low, wide_high) = ends(network, small, engine), ends(network, large, engine)
    assert bool((wide_low <= low).all())
    assert bool((high <= wide_high).all())


@every_engine
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_regions_gives_what_each_gives_alone(kind: str, engine: str) -> None:
    network = build(kind, 2)
    if engine == "alpha-crown" and kind not in ("residual", "max_pool", "several_outputs", "fully_connected"):
        pytest.skip("slow, and the four others say it")
    for norm in Norm:
        region = region_of(norm, network.input_size, 12)
        alone = [ends(network, region.select(slice(i, i + 1)), engine) for i in range(region.batch)]
        joined = torch.cat([low for low, _ in alone]), torch.cat([high for _, high in alone])
        assert_same(ends(network, region, engine), joined)


@every_engine
@pytest.mark.parametrize("memory", [1, 10_000, 100_000])
@pytest.mark.parametrize("kind", ["fully_connected", "residual", "max_pool", "several_outputs"])
def test_a_small_memory_gives_the_same_bounds(kind: str, memory: int, engine: str) -> None:
    network = build(kind, 2)
    region = region_of(Norm.LINF, network.input_size, 4 if memory == 1 else 12)  # of which it takes one at a time
    assert_same(ends(network, region, engine, memory=memory), ends(network, region, engine))


@pytest.mark.parametrize("slope", [-1.5, 0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_leaky_relu_is_a_pair_of_relus(engine: str, slope: float) -> None:
    """phi_s(z) = relu(z) - s relu(-z): two ways to write one function, whose bounds must meet around its values."""
    leaky = fully_connected(5, (3, 6, 2), slope)
    draft = Draft(0)
    first, last = (node.op for node in leaky if isinstance(node.op, Linear))
    z = draft.add(first, draft.input(1, 3))
    minus = draft.add(leaky_relu(0.0), draft.add(Sum((-1,)), z))
    scaled = draft.add(Scale(torch.full((1, 6), slope, dtype=torch.float64)), minus)
    pair = draft.network(draft.add(last, draft.add(Sum((1, -1)), draft.add(leaky_relu(0.0), z), scaled)))
    region = region_of(Norm.LINF, 3, 3)
    x = torch.cat([region.sample(torch.Generator().manual_seed(k)) for k in range(200)])
    y = leaky.flat(x).reshape(200, 3, -1)
    torch.testing.assert_close(pair.flat(x).reshape(200, 3, -1), y)
    for network in (leaky, pair):
        low, high = ends(network, region, engine)
        assert bool(((low <= y) & (y <= high)).all())
    if engine == "crown":
        (low, high), (pair_low, pair_high) = ends(leaky, region, engine), ends(pair, region, engine)
        assert float((high - low).sum()) <= float((pair_high - pair_low).sum()) + 1e-9


@pytest.mark.parametrize("tilt", [0.0, 1.0])
@pytest.mark.parametrize("slope", [0.1, 0.5, 0.8])
def test_the_default_ray_beats_one_that_never_turns(monkeypatch: pytest.MonkeyPatch, slope: float, tilt: float) -> None:
    networks = [fully_connected(seed, (4, 12, 12, 12, 3), slope) for seed in range(5)]
    region = region_of(Norm.LINF, 4, 3, 0.3)
    monkeypatch.setattr(engine, "turned_to", lambda *_: {})  # the second turn would make up for a bad first one

    def width() -> float:
        return sum(float((high - low).sum()) for low, high in (ends(n, region, "crown") for n in networks))

    chosen = width()
    monkeypatch.setattr(leaky, "rightwards", lambda *given: torch.full_like(given[1], tilt))
    assert chosen < width()


# ---- nothing is forgotten, and what is missing has a name ----


def examples() -> dict[type[Op], Network]:
    """For each operator a network that uses it between two others."""
    found: dict[type[Op], Network] = {}
    for kind in KINDS:
        network = build(kind, 0)
        for node in network:
            found.setdefault(type(node.op), network)
    return found


def concrete(kind: type[Op]) -> list[type[Op]]:
    below = [leaf for child in kind.__subclasses__() for leaf in concrete(child)]
    ours = kind.__module__ == ops.__name__ and not getattr(kind, "__abstractmethods__", None)
    return below or ([kind] if ours else [])


@every_engine
@pytest.mark.parametrize("kind", concrete(Op), ids=lambda kind: kind.__name__)  # type: ignore[type-abstract]
def test_every_engine_has_a_rule_for_every_operator(kind: type[Op], engine: str) -> None:
    network = examples()[kind]
    low, high = ends(network, region_of(Norm.LINF, network.input_size, 1, 0.1), engine)
    assert bool((torch.isfinite(low) & torch.isfinite(high)).all())


class Swish(Elementwise):
    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * torch.sigmoid(inputs[0])


class Sorted(Op):
    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sort(-1).values


@every_engine
@pytest.mark.parametrize("op", [Swish(), Sorted()], ids=["Swish", "Sorted"])
def test_a_missing_rule_is_named(op: Op, engine: str) -> None:
    draft = Draft(0)
    network = draft.network(draft.add(op, draft.linear(draft.input(1, 2), 2)))
    with pytest.raises(MissingRule, match=type(op).__name__):
        ends(network, region_of(Norm.LINF, 2, 1), engine)


def test_an_unknown_engine_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(UsageError, match="interval, crown, alpha-crown"):
        engine_named("deeppoly")


# ---- shapes of networks that invite mistakes ----


def two_outputs_on_one_node() -> Network:
    network = fully_connected(2, (3, 5, 2), 0.1)
    return replace(network, outputs=(network.outputs[0], network.outputs[0]))


@every_engine
def test_one_node_may_be_two_outputs(engine: str) -> None:
    network = two_outputs_on_one_node()
    region = region_of(Norm.LINF, 3, 1)
    rows = torch.tensor([[[1.0, 0, -1, 0], [1, 0, 1, 0], [0, 0.3, 0, 0.7]]]).double()
    low = lower_bounds(network, region, rows, engine=engine)
    x = torch.cat([region.sample(torch.Generator().manual_seed(k)) for k in range(100)])
    values = torch.einsum("bro,sbo->sbr", rows.expand(3, -1, -1), network.flat(x).reshape(100, 3, -1))
    assert bool((low <= values).all())
    if engine != "interval":
        assert low[:, 0].tolist() == pytest.approx([0.0] * 3, abs=1e-9)


@every_engine
def test_outputs_that_are_inputs_or_constants_are_exact(engine: str) -> None:
    draft = Draft(1)
    x, constant = draft.input(1, 2), draft.add(ops.Constant(draft.normal(1, 2)))
    network = draft.network(constant, x)
    region = region_of(Norm.LINF, 2, 1)
    value = network.flat(region.lower)[:, :2]
    low, high = torch.cat([value, region.lower], 1), torch.cat([value, region.upper], 1)
    assert_same(ends(network, region, engine), (low, high), 1e-12)


@pytest.mark.parametrize("engine", LINEAR)
def test_lines_that_turn_beside_the_path_do_not_matter(engine: str) -> None:
    """An unstable activation that leads to no output, and one in a branch that a pass does not enter."""
    draft = Draft(3)
    x, other = draft.input(1, 2), draft.input(1, 2)
    draft.leaky(draft.linear(other, 3), 0.1)
    aside = draft.leaky(draft.linear(x, 3), 0.2)
    y = draft.linear(draft.leaky(draft.linear(other, 3), 0.3), 2)
    network = draft.network(y, draft.linear(draft.leaky(draft.linear(aside, 3), 0.1), 1))
    low, high = ends(network, region_of(Norm.LINF, 4, 1, 2.0), engine)
    assert bool((low < high).all())


def test_a_target_that_is_met_spares_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    network, region = fully_connected(1, (3, 8, 8, 2), 0.1), region_of(Norm.LINF, 3, 1)
    rows = torch.eye(2).double().unsqueeze(0)
    plain = lower_bounds(network, region, rows, engine="crown")
    monkeypatch.setattr(optimise, "ascend", lambda *_: pytest.fail("searched for nothing"))
    found = lower_bounds(network, region, rows, engine="alpha-crown", target=torch.full((1, 2), -1e6).double())
    assert bool(((found > -1e6) & (found <= plain)).all())


def test_every_affine_operator_is_the_adjoint_of_its_adjoint() -> None:
    """``a . (W x) = (W^T a) . x``, and ``|W|`` and the terms that are counted cover what is summed."""
    for kind in KINDS:
        network = build(kind, 1)
        values = network.values(*(torch.randn(2, *port.shape).double() for port in network.inputs))
        for node in network:
            if not isinstance(node.op, Affine) or not node.inputs or isinstance(node.op, Input):
                continue
            inputs = [values[name] for name in node.inputs]
            a = torch.randn(2, *node.shape).double()
            back = node.op.adjoint(a, [network.by_name[name].shape for name in node.inputs])
            forth = (a * node.op.linear(*inputs)).sum()
            torch.testing.assert_close(sum((r * x).sum() for r, x in zip(back, inputs, strict=True)), forth)
            reach = [x.abs() for x in inputs]
            assert bool((node.op.magnitude(*reach) >= node.op.linear(*inputs).abs() - 1e-12).all())


def test_ports_of_the_examples_name_their_values() -> None:
    assert all(isinstance(port, Port) for kind in KINDS for port in build(kind).outputs)


def test_adam_climbs_along_a_ridge_where_signs_go_to_and_fro_across_it() -> None:
    def highest(by_signs: bool) -> float:
        tilts = {"a": torch.tensor([[[0.95, 0.1]]], dtype=torch.float64)}

        def value() -> Tensor:
            x, y = tilts["a"].unbind(-1)
            return -3 * (x - y - 0.3).abs() - (x + 0.5 * y - 0.2).abs()

        steps = [0.2 * 0.9**k for k in range(24)]
        return float(optimise.ascend(value, tilts, steps, lambda best: torch.ones_like(best) > 0, by_signs=by_signs))

    assert highest(by_signs=True) < -0.6
    assert highest(by_signs=False) > -0.3
