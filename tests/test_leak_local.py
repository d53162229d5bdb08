"""L1: the rate at which a margin moves with the slope lies within the bounds, for every input and slope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from leaky import EXACT_KINDS, ask, exact_rows
from networks import Draft, fully_connected
from torch import Tensor

from leaktight.capabilities import EXAMPLES, smallest_network
from leaktight.errors import MissingRule
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Affine, Input, Linear, Maximum, Select, Shape, TwoSlope, leaky_relu
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm
from leaktight.verify.leak import closed_form, local
from leaktight.verify.leak.intervals import over_range
from leaktight.verify.leak.jacobian import secants

DRAWS = 3


def box(*ends: tuple[float, float]) -> Box:
    lower, upper = torch.tensor([ends], dtype=torch.float64).unbind(-1)
    return Box(lower, upper)


def number(x: float) -> Tensor:
    return torch.tensor([x], dtype=torch.float64)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_input_and_slope_moves_faster_than_the_rates_say(kind: str, seed: int, norm: Norm) -> None:
    question = ask(kind, seed, norm)
    given = (question.slopes, question.region, question.objectives, question.lo, question.hi)
    anchored, anywhere = local.rates(*given), local.rates(*given, anchored=False)
    for _ in range(DRAWS):
        (x, a), (_, b) = question.draw(), question.draw()
        for i in range(len(x)):
            start, here, there = (exact_rows(question, i, x[i], float(s[i])) for s in (question.lo, a, b))
            for r in range(len(here)):
                for (low, high), begin, s in ((anchored, start, question.lo[i]), (anywhere, there, b[i])):
                    shift, move = here[r] - begin[r], Fraction(float(a[i])) - Fraction(float(s))
                    ends = sorted(move * Fraction(float(end[i, r])) for end in (low, high))
                    assert ends[0] <= shift <= ends[1]


def test_folded_scales_leave_activations_whose_leaky_side_is_the_right_one() -> None:
    ops = [
        ask("flipped", seed).network.by_name[name].op for seed in range(3) for name in ask("flipped", seed).slopes.nodes
    ]
    turned = [op.leak.flipped.flatten().any() for op in ops if isinstance(op, TwoSlope) and op.leak is not None]
    assert sum(map(bool, turned)) >= 3


def test_interval_jacobians_are_the_extremes_over_all_secants() -> None:
    """``c W2 S W1`` with every slope in S free in [a, 1]: each entry's extremes take each slope at one of its ends."""
    draft = Draft(3)
    first = draft.leaky(draft.input(1, 3), 0.2)
    second = draft.leaky(draft.linear(first, 5), 0.2)
    network = draft.network(draft.linear(second, 2))
    slopes = Slopes.of(network)
    region = Box(-100 * torch.ones(1, 3).double(), 100 * torch.ones(1, 3).double())
    rows = draft.normal(1, 4, 2)
    ends = number(0.2), number(0.3)
    known = over_range(slopes, region, *ends)
    each = secants((slopes.at(ends[0]), slopes.at(ends[1])), rows, known, known, slopes.nodes)
    found = {name: coefficients for name, coefficients, _ in each}[first]
    inner, outer = (node.op.weight for node in network if isinstance(node.op, Linear))
    for r in range(4):
        for j in range(3):
            behind = [
                sum(Fraction(float(rows[0, r, k])) * Fraction(float(outer[k, i])) for k in range(2)) for i in range(5)
            ]
            products = [x * Fraction(float(inner[i, j])) for i, x in enumerate(behind)]
            least, most = (sum(pick(p, p * Fraction(float(ends[0]))) for p in products) for pick in (min, max))
            low, high = (Fraction(float(end[0, r, 0, j])) for end in (found.lower, found.upper))
            assert least - Fraction(1, 10**12) <= low <= least
            assert most <= high <= most + Fraction(1, 10**12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["branches", "smooth"])
def test_rates_hold_where_only_floating_point_can_evaluate(kind: str, seed: int) -> None:
    question = ask(kind, seed)
    low, high = local.rates(question.slopes, question.region, question.objectives, question.lo, question.hi)
    for _ in range(200):
        x, a = question.draw()
        values = [
            (question.objectives @ question.slopes.at(s).flat(x).unsqueeze(-1)).squeeze(-1) for s in (question.lo, a)
        ]
        move = (a - question.lo).unsqueeze(-1)
        assert bool((values[1] - values[0] >= move * low - 1e-12).all())
        assert bool((values[1] - values[0] <= move * high + 1e-12).all())


def one_neuron(slope: float = 0.1, *, weight: float = 1.0) -> Network:
    """``weight * phi(x)``."""
    draft = Draft(0)
    z = draft.leaky(draft.input(1, 1), slope)
    return draft.network(draft.add(Linear(torch.tensor([[weight]], dtype=torch.float64)), z))


@pytest.mark.parametrize(
    ("ends", "weight", "expected"),
    [
        ((1.0, 2.0), 1.0, (0.0, 0.0)),
        ((-2.0, -1.0), 1.0, (-2.0, -1.0)),
        ((-2.0, 3.0), 1.0, (-2.0, 0.0)),
        ((-2.0, 3.0), -4.0, (0.0, 8.0)),
    ],
)
def test_one_neuron_moves_by_its_negative_part(
    ends: tuple[float, float], weight: float, expected: tuple[float, float]
) -> None:
    low, high = local.rates(
        Slopes.of(one_neuron(weight=weight)), box(ends), torch.ones(1, 1, 1), number(-0.5), number(1.5)
    )
    assert float(low) == pytest.approx(expected[0], rel=1e-12, abs=1e-300)
    assert float(high) == pytest.approx(expected[1], rel=1e-12, abs=1e-300)


def test_two_stable_neurons_in_a_row_by_hand() -> None:
    """``phi(phi(x)) = a^2 x`` for ``x < 0 < a``: its rate is ``2 a x``, and from ``lo`` on ``(a + lo) x``."""
    draft = Draft(0)
    network = draft.network(draft.leaky(draft.leaky(draft.input(1, 1), 0.1), 0.1))
    given = (Slopes.of(network), box((-2.0, -1.0)), torch.ones(1, 1, 1), number(0.25), number(0.5))
    low, high = local.rates(*given, anchored=False)
    assert (float(low), float(high)) == pytest.approx((-2.0, -0.5))
    low, high = local.rates(*given)
    assert (float(low), float(high)) == pytest.approx((-1.5, -0.5))


def test_a_secant_over_the_kink_has_the_other_side_s_slope_on_a_part_of_its_way_only() -> None:
    """``phi(phi(-1) + 1/10)`` falls over the kink: a third of its way, at least, is on the right."""
    draft = Draft(0)
    first = draft.leaky(draft.input(1, 1), 0.1)
    moved = draft.add(Linear(torch.ones(1, 1).double(), torch.tensor([0.1]).double()), first)
    given = (Slopes.of(draft.network(draft.leaky(moved, 0.1))), box((-1.0, -1.0)), torch.ones(1, 1, 1))
    low, high = local.rates(*given, number(0.0), number(0.3))
    assert (float(low), float(high)) == pytest.approx((-1.0, -1 / 3))


def test_a_maximum_moves_by_no_less_than_the_slowest_entry_that_may_be_the_largest() -> None:
    """``max(phi(x), phi(y))`` with ``x = -1`` and ``y`` around it, and ``phi(z)`` that is never the largest."""
    draft = Draft(0)
    rows = draft.add(Select(torch.arange(3).reshape(1, 1, 3), (1, 3)), draft.leaky(draft.input(1, 3), 0.1))
    given = (Slopes.of(draft.network(draft.add(Maximum(), rows))), box((-1, -1), (-3, -0.5), (-50, -40)))
    low, high = local.rates(*given, torch.ones(1, 1, 1), number(0.25), number(0.5))
    assert (float(low), float(high)) == pytest.approx((-3.0, -0.5))


def forward(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """Bounds of ``f_a(x) - f_0(x)`` for ``a`` in [0, largest], from intervals of what each layer's neurons move by."""
    low = high = torch.zeros_like(x)
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        u = x @ weight.T + bias
        plus, minus = weight.clamp(min=0).T, weight.clamp(max=0).T
        p, q = low @ plus + high @ minus, high @ plus + low @ minus
        if place == len(weights) - 1:
            return p, q
        x = u.relu()
        low, high = torch.where(u + p < 0, largest * (u + p), u + p) - x, (u + q).relu() - x
    raise ValueError("no layers")


@pytest.mark.parametrize("widths", [(4, 9, 2), (6, 20, 20, 3), (8, 50, 50, 50, 3), (8, *[30] * 6, 3)])
@pytest.mark.parametrize("largest", [0.01, 0.1, 0.4])
def test_at_points_rates_are_within_what_neurons_move_by_layer_by_layer(widths: Sequence[int], largest: float) -> None:
    slopes = Slopes.of(fully_connected(1, widths, 0.1))
    x = torch.randn(40, widths[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    affine = [node.op for node in slopes.network if isinstance(node.op, Linear)]
    weights = [op.weight for op in affine]
    biases = [torch.zeros(()).double() if op.bias is None else op.bias for op in affine]
    rows = torch.randn(1, 1, widths[-1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights[-1], biases[-1] = rows[0] @ weights[-1], biases[-1] @ rows[0].T
    lo, hi = x.new_zeros(40), x.new_full((40,), largest)
    low, high = (end[:, 0] for end in local.rates(slopes, Box(x, x), rows, lo, hi))
    p, q = (end[:, 0] for end in forward(weights, biases, x, largest))
    assert bool((largest * low >= p - 1e-9 * (q - p)).all())
    assert bool((largest * high <= q + 1e-9 * (q - p)).all())
    for share in (0.1, 0.5, 1.0):
        a = share * largest
        shift = ((slopes.at(a).flat(x) - slopes.at(0.0).flat(x)) * rows[0]).sum(1)
        assert bool((shift >= a * low - 1e-12).all())
        assert bool((shift <= a * high + 1e-12).all())


def test_better_intervals_give_better_rates() -> None:
    """Known to be negative, the input of a neuron moves it for sure."""
    given = (Slopes.of(one_neuron()), box((-2.0, 3.0)), torch.ones(1, 1, 1), number(0.0), number(0.5))
    known = over_range(*given[:2], *given[3:])
    (name,) = given[0].network.by_name[given[0].nodes[0]].inputs
    tighter = {**known, name: replace(known[name], upper=number(-1.0).reshape(known[name].upper.shape))}
    low, high = local.rates(*given, known=tighter)
    assert (float(low), float(high)) == pytest.approx((-2.0, -1.0))


def test_a_batch_is_each_of_its_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ask("residual", 2)
    low, high = local.rates(question.slopes, question.region, question.objectives, question.lo, question.hi)
    monkeypatch.setattr(local, "_BYTES", 1)
    parts = local.rates(question.slopes, question.region, question.objectives, question.lo, question.hi)
    assert torch.allclose(parts[0], low, rtol=1e-12)
    for i in range(len(low)):
        one = slice(i, i + 1)
        alone = local.rates(
            question.slopes, question.region.select(one), question.objectives[one], question.lo[one], question.hi[one]
        )
        assert torch.allclose(alone[0], low[one], rtol=1e-12)
        assert torch.allclose(alone[1], high[one], rtol=1e-12)


def test_only_the_chosen_nodes_count() -> None:
    """``phi(phi(x))`` with a first slope of 1/10 and a second one that moves: its rate is the first one's value."""
    draft = Draft(0)
    first = draft.leaky(draft.input(1, 1), 0.1)
    second = draft.leaky(first, 0.1)
    slopes = Slopes.of(draft.network(second), [second])
    low, high = local.rates(slopes, box((-2.0, -1.0)), torch.ones(1, 1, 1), number(0.25), number(0.5))
    assert (float(low), float(high)) == pytest.approx((-0.2, -0.1))


@pytest.mark.parametrize("operator", [name for name in EXAMPLES if name != "Constant"])
def test_every_operator_has_a_rule_in_both(operator: str) -> None:
    """The operator's smallest network with a Leaky ReLU in front."""
    plain = smallest_network(EXAMPLES[operator]())
    front = Node("a", leaky_relu(0.1), ("x",), (1, 4))
    behind = [replace(node, inputs=("a",) * len(node.inputs)) for node in plain.nodes[1:]]
    slopes = Slopes.of(replace(plain, nodes=(plain.nodes[0], front, *behind)), ["a"])
    rows = torch.eye(plain.output_size, dtype=torch.float64)[None]
    region = Box(-torch.ones(1, 4).double(), torch.ones(1, 4).double())
    lo, hi = number(-0.5), number(1.5)
    (low, high), rate = local.rates(slopes, region, rows, lo, hi), closed_form.rates(slopes, region, rows, lo, hi)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        x, a = region.sample(generator), -0.5 + 2 * torch.rand(1, generator=generator, dtype=torch.float64)
        moved = slopes.at(a).flat(x) - slopes.at(lo).flat(x)
        assert bool((moved >= (a - lo) * low - 1e-12).all())
        assert bool((moved <= (a - lo) * high + 1e-12).all())
        assert bool((moved.abs() <= (a - lo) * rate + 1e-12).all())


class _Foreign(Affine):
    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def magnitude(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def adjoint(self, coefficients: Tensor, shapes: object) -> tuple[Tensor, ...]:
        return (coefficients,)

    forward_terms = 1
    adjoint_terms = 1


def test_an_operator_without_a_rule_is_named() -> None:
    shape: Shape = (1, 2)
    nodes = (
        Node("x", Input(), (), shape),
        Node("a", leaky_relu(0.1), ("x",), shape),
        Node("y", _Foreign(), ("a",), shape, "Odd_1"),
    )
    network = Network(nodes, (Port("x", shape),), (Port("y", shape),))
    with pytest.raises(MissingRule, match=r"_Foreign \(node 'Odd_1'\)"):
        local.rates(Slopes.of(network), box((0, 1), (0, 1)), torch.eye(2)[None], number(0.0), number(0.1))


def test_rows_that_join_to_a_margin_join_their_rates() -> None:
    low, high = torch.tensor([[-1.0, -3.0, 2.0]]), torch.tensor([[0.0, -2.0, 5.0]])
    assert [float(x) for x in local.joined(low, high)] == [-3.0, 5.0]
