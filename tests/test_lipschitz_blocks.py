"""Residual blocks and max pooling on tori: bounds against the worst patterns of slopes and of places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from leaktight.errors import UnsupportedOperator
from leaktight.models.network import Network
from leaktight.models.ops import Maximum, Select, Sum
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz import spectra
from leaktight.verify.lipschitz.crude import crude
from leaktight.verify.lipschitz.fourier import fourier
from leaktight.verify.lipschitz.layers import layers
from leaktight.verify.lipschitz.lipschitz import lipschitz
from leaktight.verify.lipschitz.patterns import steepest_pattern
from leaktight.verify.lipschitz.sectors import Sector
from leaktight.verify.lipschitz.torus import chain
from tests.networks import Draft


def blocks(seed: int, slope: float, kernel: int = 3, behind: bool = True) -> Network:
    """A convolution, two residual blocks (with activations behind the sums, or none) and a convolution, on 4 x 4."""
    draft, padding = Draft(seed), kernel // 2
    z = draft.leaky(draft.conv(draft.input(1, 1, 4, 4), 2, kernel, padding=padding), slope)
    for order in (1, -1):
        inner = draft.leaky(draft.conv(z, 3, kernel, padding=padding), slope)
        inner = draft.conv(inner, 2, kernel, padding=padding)
        z = draft.add(Sum((1, 1)), *(inner, z)[::order])
        z = draft.leaky(z, slope) if behind else z
    return draft.network(draft.conv(z, 2, kernel, padding=padding))


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.3, 1.4])
def test_no_bound_of_residual_blocks_falls_below_the_worst_pattern(slope: float) -> None:
    for seed in range(2):
        network = blocks(seed, slope, behind=bool(seed % 2))
        found = fourier(network, deadline=0.0)
        worst = steepest_pattern(layers(network), Norm.L2, network=network, starts=2)
        assert min(found.product, found.fast, found.tuned) >= worst
        assert found.fast < 20 * worst


def test_residual_blocks_of_single_slopes_are_exact() -> None:
    network = blocks(1, 1.0, kernel=1)
    unit = torch.eye(network.input_size, dtype=torch.float64)
    true = float(torch.linalg.matrix_norm(network.flat(unit) - network.flat(0 * unit), 2))
    assert true * (1 - 1e-13) <= fourier(network, search=False).fast <= true * (1 + 1e-9)


@pytest.mark.slow
def test_multipliers_for_each_channel_are_no_better_than_for_each_neuron() -> None:
    network = blocks(0, 0.1)
    found = fourier(network)
    assert found.tuned < 0.9 * found.fast
    assert found.tuned >= lipschitz(network, method="lipsdp").upper * (1 - 1e-6)


def test_copies_need_no_mask_and_all_others_do() -> None:
    steps = chain(blocks(0, 0.9))
    first = steps[1].sector
    assert first is not None
    assert (first.low.tolist(), first.high.tolist()) == ([0.0] * 3 + [1.0] * 2, [1.0] * 5)
    network = blocks(0, 0.9)
    worst = steepest_pattern(layers(network), Norm.L2, network=network)
    assert spectra.certified(steps, spectra.closed_form) >= worst


def pooled(seed: int, kernel: int, stride: int, extent: int = 6) -> tuple[Network, Tensor]:
    """A padded convolution, a Leaky ReLU, max pooling and a padded convolution; and the windows' places."""
    draft = Draft(seed)
    z = draft.leaky(draft.conv(draft.input(1, 1, extent, extent), 2, 3, padding=1), 0.2)
    places = (
        torch.arange(2 * extent**2).reshape(1, 2, extent, extent).unfold(2, kernel, stride).unfold(3, kernel, stride)
    )
    places = places.reshape(*places.shape[:4], -1)
    z = draft.add(Maximum(), draft.add(Select(places, (1, 2, extent, extent)), z))
    return draft.network(draft.conv(z, 2, 3, padding=1)), places.reshape(-1, kernel * kernel)


def worst_choice(network: Network, places: Tensor, rounds: int = 8) -> float:
    """The largest norm that an ascent finds over slopes, and places that the maxima may be at."""
    nodes = list(network)
    ops = [node.op for node in nodes]
    front, back = (
        torch.autograd.functional.jacobian(op, torch.zeros(1, *network.by_name[node.inputs[0]].shape[1:]).double())
        for op, node in ((ops[1], nodes[1]), (ops[-1], nodes[-1]))
    )
    front, back = (m.reshape(int(np.prod(m.shape[: m.dim() // 2])), -1) for m in (front, back))
    generator, best = torch.Generator().manual_seed(0), 0.0
    for _ in range(4):
        choice = places[torch.arange(len(places)), torch.randint(places.shape[1], (len(places),), generator=generator)]
        for _ in range(rounds):
            left, sizes, right = torch.linalg.svd(back @ front[choice])
            best = max(best, float(sizes[0]))
            gain = (left[:, 0] @ back).unsqueeze(1) * (front @ right[0])[places]
            choice = places.gather(1, gain.argmax(1, keepdim=True)).squeeze(1)
    return best


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 3), (3, 1), (2, 1)])
def test_no_bound_of_max_pooling_falls_below_the_worst_choice(kernel: int, stride: int) -> None:
    for seed in range(2):
        network, places = pooled(seed, kernel, stride)
        found = fourier(network, deadline=0.0)
        worst = worst_choice(network, places)
        assert min(found.product, found.fast, found.tuned, crude(network, Norm.L2)) >= worst
        assert found.tuned < (3 if kernel == stride else 3 * kernel) * worst


def test_networks_with_max_pooling_are_bounded_whatever_the_time() -> None:
    network, places = pooled(0, 2, 2)
    found = lipschitz(network)
    assert found.method == "fourier"
    assert found.lower is not None
    assert 0 < found.lower <= found.upper
    late = lipschitz(network, method="fourier", timeout=1e-9)
    assert late.timed_out
    assert worst_choice(network, places) <= late.upper < torch.inf


def test_an_entry_counts_as_often_as_windows_hold_it() -> None:
    """One input under nine windows moves nine maxima: the constant of max pooling alone is 3."""
    draft = Draft(0)
    x = draft.conv(draft.input(1, 1, 5, 5), 1, 1)
    places = torch.arange(25).reshape(1, 1, 5, 5).unfold(2, 3, 1).unfold(3, 3, 1).reshape(1, 1, 3, 3, 9)
    network = draft.network(draft.add(Maximum(), draft.add(Select(places, (1, 1, 5, 5)), x)))
    weight = abs(float(network.by_name[x].op.weight))  # type: ignore[attr-defined]
    assert 3 * weight <= fourier(network).best <= 3 * weight * (1 + 1e-6)


def test_forms_that_are_not_diagonal_never_go_on_behind_a_pooling() -> None:
    from leaktight.errors import InternalError

    steps = list(chain(pooled(0, 2, 2)[0]))
    assert steps[0].sector is not None
    naked = replace(steps[0], sector=Sector(np.zeros(2), np.ones(2)))
    with pytest.raises(InternalError, match="diagonal"):
        spectra.certified([naked, *steps[1:]], spectra.closed_form)


@pytest.mark.parametrize("kind", ["unpadded", "of one", "difference", "across"])
def test_what_is_no_such_block_is_named(kind: str) -> None:
    draft = Draft(0)
    x = draft.input(1, 2, 4, 4)
    z = draft.leaky(draft.conv(x, 2, 3, padding=1), 0.1)
    if kind == "across":
        places = torch.arange(32).reshape(1, 2, 4, 4).movedim(1, -1).reshape(1, 1, 4, 4, 2)
        out = draft.add(Maximum(), draft.add(Select(places, (1, 2, 4, 4)), z))
    elif kind == "difference":
        inner = draft.conv(draft.leaky(draft.conv(z, 2, 3, padding=1), 0.1), 2, 3, padding=1)
        out = draft.add(Sum((1, -1)), inner, z)
    else:
        padding = 0 if kind == "unpadded" else 1
        inner = draft.conv(z, 2, 3, padding=padding)
        if kind != "of one":
            inner = draft.conv(draft.leaky(inner, 0.1), 2, 3, padding=2 if kind == "unpadded" else 1)
        out = draft.add(Sum((1, 1)), inner, z)
    with pytest.raises(UnsupportedOperator, match="--method fourier"):
        fourier(draft.network(out))
