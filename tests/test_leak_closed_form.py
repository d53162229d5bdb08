"""L0: no slope moves a margin by more than the closed formula says, and the norms in it are upper bounds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from leaky import EXACT_KINDS, ask, exact_rows
from networks import Draft, _matrix, build, fully_connected
from torch import Tensor

from leaktight.models.ops import Affine, Linear, Sum
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Box, Norm
from leaktight.verify.leak import closed_form, local
from leaktight.verify.leak.norms import affine_norms, length, spectral

DRAWS = 3


def number(x: float) -> Tensor:
    return torch.tensor([x], dtype=torch.float64)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_no_slope_moves_a_row_farther_than_its_constant_says(kind: str, seed: int, norm: Norm) -> None:
    question = ask(kind, seed, norm)
    rates = closed_form.rates(question.slopes, question.region, question.objectives, question.lo, question.hi)
    for _ in range(DRAWS):
        (x, a), (_, b) = question.draw(), question.draw()
        for i in range(len(x)):
            here, there = (exact_rows(question, i, x[i], float(s[i])) for s in (a, b))
            move = abs(Fraction(float(a[i])) - Fraction(float(b[i])))
            for r in range(len(here)):
                assert abs(here[r] - there[r]) <= move * Fraction(float(rates[i, r]))


@pytest.mark.parametrize("kind", ["branches", "smooth"])
def test_the_constant_holds_where_only_floating_point_can_evaluate(kind: str) -> None:
    question = ask(kind, 1)
    rates = closed_form.rates(question.slopes, question.region, question.objectives, question.lo, question.hi)
    for _ in range(200):
        (x, a), (_, b) = question.draw(), question.draw()
        here, there = ((question.objectives @ question.slopes.at(s).flat(x).unsqueeze(-1)).squeeze(-1) for s in (a, b))
        assert bool(((here - there).abs() <= (a - b).abs().unsqueeze(-1) * rates + 1e-12).all())


@pytest.mark.parametrize(("lo", "hi", "expected"), [(0.0, 0.5, 3 + 6), (-2.0, 0.5, 3 + 12), (0.0, 3.0, 18 + 18)])
def test_two_neurons_by_hand(lo: float, hi: float, expected: float) -> None:
    """``2 phi(3 phi(x))`` on [-1, 1].

    The second neuron's input reaches down to ``-3 hi``, with 2 behind it; the first one's to -1, with ``2 * 3`` times
    the second one's steepest slope behind it, which is 1, ``|lo|`` or ``|hi|``.
    """
    draft = Draft(0)
    first = draft.leaky(draft.input(1, 1), 0.1)
    inner = draft.add(Linear(torch.tensor([[3.0]], dtype=torch.float64)), first)
    outer = draft.add(Linear(torch.tensor([[2.0]], dtype=torch.float64)), draft.leaky(inner, 0.1))
    region = Box(number(-1.0)[None], number(1.0)[None])
    rate = closed_form.rates(Slopes.of(draft.network(outer)), region, torch.ones(1, 1, 1), number(lo), number(hi))
    assert float(rate) == pytest.approx(expected)


def test_paths_add_up() -> None:
    """``phi(x) + 2 phi(x)`` through two branches moves at most three times ``min(x, 0)``."""
    draft = Draft(0)
    z = draft.leaky(draft.input(1, 1), 0.1)
    double = draft.add(Linear(torch.tensor([[2.0]], dtype=torch.float64)), z)
    network = draft.network(draft.add(Sum((1, -1)), z, double))
    region = Box(number(-5.0)[None], number(1.0)[None])
    rate = closed_form.rates(Slopes.of(network), region, torch.ones(1, 1, 1), number(0.0), number(0.5))
    assert float(rate) == pytest.approx(15.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["convolutional", "transposed", "residual", "average_pool", "rearranged", "max_pool"])
def test_operator_norms_are_at_least_the_true_ones(kind: str, seed: int) -> None:
    network = build(kind, seed)
    checked = 0
    for node in network:
        if not isinstance(node.op, Affine) or not node.inputs:
            continue
        for at, norms in enumerate(affine_norms(network, node, node.op)):
            matrix = np.array(_matrix(network, node, at))
            for norm, order in ((Norm.LINF, np.inf), (Norm.L1, 1), (Norm.L2, 2)):
                true = np.linalg.norm(matrix, order)
                assert norms[norm] >= true * (1 - 1e-14)
                assert norms[norm] <= (true if norm is not Norm.L2 else 3 * true) * (1 + 1e-12)
            checked += 1
    assert checked


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 8), (60, 60)])
def test_the_spectral_norm_is_close_from_above(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-200, 1e-3, 1.0, 1e150):
        weight = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        true = float(torch.linalg.matrix_norm(weight / scale, 2)) * scale
        assert true * (1 - 1e-13) <= spectral(weight) <= 1.1 * true
    assert spectral(torch.zeros(shape, dtype=torch.float64)) == 0


def test_the_spectral_norm_covers_uncertain_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, error = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.full((5, 4), 0.1).double()
    bound = spectral(weight, error)
    for _ in range(200):
        off = (torch.randint(3, weight.shape, generator=generator) - 1).double() * 0.1
        assert float(torch.linalg.matrix_norm(weight + off, 2)) <= bound


@pytest.mark.parametrize("norm", Norm)
def test_lengths_are_rounded_upwards(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(2)
    order = {Norm.LINF: torch.inf, Norm.L2: 2.0, Norm.L1: 1.0}[norm]
    for scale in (1e-180, 1.0, 1e160):
        x = torch.randn(50, 9, generator=generator, dtype=torch.float64) * scale
        true = torch.linalg.vector_norm(x / scale, ord=order, dim=-1) * scale
        assert bool((length(x, norm) >= true).all())
        assert bool((length(x, norm) <= true * (1 + 1e-12)).all())
    assert float(length(torch.tensor([1.0, torch.inf]).double(), norm)) == torch.inf


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_signed_rates_lie_within_the_closed_form(kind: str) -> None:
    question = ask(kind, 4)
    given = (question.slopes, question.region, question.objectives, question.lo, question.hi)
    (low, high), rates = local.rates(*given, anchored=False), closed_form.rates(*given)
    assert bool((torch.maximum(-low, high) <= rates * (1 + 1e-12) + 1e-12).all())
    assert bool((high - low < 1.9 * rates).any())


def test_on_deep_networks_too() -> None:
    """There products of intervals grow faster than products of norms."""
    slopes = Slopes.of(fully_connected(0, (8, *[40] * 8, 3), 0.1))
    region = Box(-0.1 * torch.ones(1, 8).double(), 0.1 * torch.ones(1, 8).double())
    given = (slopes, region, torch.eye(3).double()[None], number(0.0), number(0.3))
    (low, high), rates = local.rates(*given), closed_form.rates(*given)
    assert bool((torch.maximum(-low, high) <= rates).all())
