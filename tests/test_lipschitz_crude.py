"""What is there within any time limit: a bound from sums of absolute weights, and what was proven before the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from chains import chain, random_weights, worst
from networks import KINDS, Draft, build

import leaktight as lt
from leaktight.models.ops import Conv
from leaktight.specs.region import Norm
from leaktight.verify.clock import TimeUp
from leaktight.verify.lipschitz import fourier as of_fourier
from leaktight.verify.lipschitz import lipschitz as door
from leaktight.verify.lipschitz.crude import crude

ORDERS = {Norm.L2: 2, Norm.LINF: np.inf, Norm.L1: 1}


@pytest.mark.parametrize("norm", ORDERS)
def test_no_pattern_of_slopes_gets_past_the_sums(norm: Norm) -> None:
    """Nor do they lose anything where a network is one matrix without signs, beyond what the norm itself loses."""
    for seed in range(6):
        weights, slopes = random_weights([3, 5, 4, 2], seed), [[-2.0, 0.1, 1.7, 0.0, 1.0], [0.3, -0.5, 0.0, 2.0]]
        assert crude(chain(weights, slopes), norm) >= worst(weights, slopes, ORDERS[norm])
    matrix = np.abs(random_weights([4, 3], 1)[0])
    exact = np.sqrt(np.linalg.norm(matrix, 1) * np.linalg.norm(matrix, np.inf))
    exact = exact if norm is Norm.L2 else np.linalg.norm(matrix, ORDERS[norm])
    assert exact <= crude(chain([matrix], 0.0), norm) <= exact * (1 + 1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "max_pool"])
def test_no_two_inputs_get_past_the_sums(kind: str) -> None:
    """Of every kind of network: joins, skips, transposed and grouped convolutions, padding, several inputs."""
    network, generator = build(kind), torch.Generator().manual_seed(0)
    for norm, order in ORDERS.items():
        bound = crude(network, norm)
        for _ in range(20):
            x = torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
            y = x + 10 ** float(torch.randint(-3, 2, (1,), generator=generator)) * torch.randn(
                x.shape, generator=generator, dtype=torch.float64
            )
            apart = torch.linalg.vector_norm(network.flat(y) - network.flat(x), order)
            assert float(apart) <= bound * float(torch.linalg.vector_norm(y - x, order)) * (1 + 1e-9)


def test_weights_known_up_to_an_error_are_taken_at_their_largest() -> None:
    weight = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    draft = Draft(0)
    at = draft.add(
        lt.models.ops.Linear(weight, weight_error=torch.full((1, 2), 0.5, dtype=torch.float64)), draft.input(2)
    )
    network = draft.network(at)
    assert 4.0 <= crude(network, Norm.LINF) <= 4.0 * (1 + 1e-12)
    assert 2.5 <= crude(network, Norm.L1) <= 2.5 * (1 + 1e-12)


def test_an_overflow_proves_nothing() -> None:
    huge = [np.full((2, 2), 1e200), np.full((2, 2), 1e200)]
    assert crude(chain(huge, 0.5), Norm.LINF) == np.inf


@pytest.mark.parametrize("method", ["product", "fast", "lipsdp", "auto"])
def test_where_not_even_the_matrices_come_in_time_the_sums_stand(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    network = chain(random_weights([4, 8, 8, 2], 0), 0.1)

    def never(*_: object) -> float:
        raise TimeUp

    methods = dict.fromkeys(door.METHODS, never)
    monkeypatch.setattr(door, "METHODS", methods)
    found = lt.lipschitz(network, method=method, timeout=1e-3)
    assert found.upper == crude(network, Norm.L2)
    assert found.timed_out


def test_a_closed_form_stands_where_the_time_ends_in_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(0)
    at = draft.input(1, 2, 6, 6)
    kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = draft.leaky(draft.add(Conv(kernel, None, (1, 1), (1, 1), (1, 1)), at), 0.1)
    network = draft.network(draft.add(Conv(kernel.transpose(0, 1).contiguous(), None, (1, 1), (1, 1), (1, 1)), at))
    whole = of_fourier.fourier(network)

    def late(*_: object) -> list[torch.Tensor]:
        raise TimeUp

    search: Callable[..., object] = late
    monkeypatch.setattr(of_fourier, "optimal", search)
    cut = of_fourier.fourier(network, deadline=1.0)
    assert (cut.product, cut.fast, cut.tuned) == (np.inf, whole.fast, np.inf)
    assert whole.best <= cut.best < np.inf
