"""Convolutions on tori: bounds against dense matrices, and the traps of padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from itertools import product as combinations
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leaktight.errors import UnsupportedOperator
from leaktight.models.network import Network
from leaktight.models.ops import Conv, Linear, Scale, Select, leaky_relu
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz import spectra, tuned
from leaktight.verify.lipschitz.fourier import fourier
from leaktight.verify.lipschitz.gram import largest_eigenvalue
from leaktight.verify.lipschitz.hermitian import are_positive, symbols
from leaktight.verify.lipschitz.layers import layers
from leaktight.verify.lipschitz.lipschitz import lipschitz
from leaktight.verify.lipschitz.patterns import steepest_pattern
from leaktight.verify.lipschitz.quasi_newton import descend
from leaktight.verify.lipschitz.torus import Step, chain
from tests.networks import Draft, build


def dense_norm(network: Network) -> float:
    """The norm of a linear network, from its matrix."""
    unit = torch.eye(network.input_size, dtype=torch.float64)
    matrix = network.flat(unit) - network.flat(0 * unit)
    return float(torch.linalg.matrix_norm(matrix, 2))


SETTINGS = [
    (extent, kernel, stride, padding, dilation, groups)
    for extent, kernel, stride, padding, dilation, groups in combinations(
        (3, 6), (2, 3), (1, 2, 3), (0, 1, 2), (1, 2), (1, 2)
    )
    if dilation * (kernel - 1) < extent + 2 * padding
]


@pytest.mark.parametrize("axes", [1, 2])
def test_a_convolution_is_never_longer_than_its_norm(axes: int) -> None:
    for seed, (extent, kernel, stride, padding, dilation, groups) in enumerate(SETTINGS):
        draft = Draft(seed)
        x = draft.input(1, 2, *[extent] * axes)
        y = draft.conv(x, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
        network = draft.network(y)
        bound, true = spectra.product(chain(network)), dense_norm(network)
        assert bound >= true * (1 - 1e-13), (extent, kernel, stride, padding, dilation, groups)
        assert spectra.certified(chain(network), spectra.closed_form) >= true * (1 - 1e-13)


def test_for_large_images_the_norm_is_close() -> None:
    draft = Draft(0)
    y = draft.conv(draft.input(1, 1, 20, 20), 3, 4, stride=2, padding=1)
    network = draft.network(y)
    true = dense_norm(network)
    assert true * (1 - 1e-13) <= spectra.product(chain(network)) <= 1.05 * true


def test_uneven_padding_is_read_from_the_select_in_front() -> None:
    draft = Draft(2)
    x = draft.input(1, 2, 4, 3)
    places = torch.nn.functional.pad(torch.arange(24).reshape(1, 2, 4, 3), (0, 2, 1, 0), value=-1)
    y = draft.conv(draft.add(Select(places, (1, 2, 4, 3)), x), 3, 3)
    network = draft.network(y)
    (step,) = chain(network)
    assert step.window.before == (1, 0)
    assert step.window.after == (0, 2)
    assert fourier(network).best >= dense_norm(network) * (1 - 1e-13)


def test_a_chain_of_unpadded_convolutions_and_a_dense_layer_without_slopes_is_exact() -> None:
    draft = Draft(1)
    y = draft.conv(draft.conv(draft.input(1, 2, 8, 8), 4, 3, stride=2), 3, 2)
    network = draft.network(draft.linear(draft.flatten(y), 3))
    found = fourier(network, search=False).fast
    assert dense_norm(network) * (1 - 1e-13) <= found <= dense_norm(network) * (1 + 1e-9)


def there_and_back(slope: float) -> Network:
    """``phi(shift x)`` shifted back, minus ``phi(x)``: not zero at the edge, where the shift drops an entry."""
    draft = Draft(0)
    x = draft.input(1, 1, 8)
    first, second = torch.zeros(2, 1, 3, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    first[0, 0, 0] = first[1, 0, 1] = 1.0
    second[0, 0, 2], second[0, 1, 1] = 1.0, -1.0
    z = draft.leaky(draft.add(Conv(first, None, padding=(1,)), x), slope)
    return draft.network(draft.add(Conv(second, None, padding=(1,)), z))


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_padding_masks_what_lies_outside_whatever_the_slope(slope: float) -> None:
    network = there_and_back(slope)
    assert fourier(network).best >= 1  # x = (1, 0, .., 0) loses its last entry: the true constant is 1
    unit = torch.eye(8, dtype=torch.float64)
    assert float((network.flat(unit) - network.flat(0 * unit)).norm(dim=1).max()) == 1
    naked = [replace(step, sector=one) for step, one in zip(chain(network), sectors_without_mask(network), strict=True)]
    if 0.5 < slope < 1:  # without the mask the same code would prove what is wrong
        assert spectra.certified(naked, spectra.closed_form) < 1


def sectors_without_mask(network: Network) -> list[object]:
    from leaktight.verify.lipschitz.sectors import Sector

    (stage,) = layers(network).stages
    ends = [end.reshape(2, -1)[:, 0] for end in (stage.sector.low, stage.sector.high)]
    return [Sector(*ends), None]


def convolutions(seed: int, slope: float | Tensor) -> Network:
    draft = Draft(seed)
    stride, padding = 1 + seed % 2, seed % 3
    y = draft.leaky(draft.conv(draft.input(1, 2, 5, 5), 3, 3, stride=stride, padding=padding), slope)
    y = draft.leaky(draft.conv(y, 4, 2, padding=(seed // 2) % 2, groups=1), slope)
    return draft.network(draft.linear(draft.leaky(draft.linear(draft.flatten(y), 5), slope), 2))


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.1, 0.5, 1.0, 1.7])
def test_no_bound_falls_below_the_worst_pattern(slope: float) -> None:
    for seed in range(6):
        network = convolutions(seed, slope)
        found = fourier(network, deadline=0.0)
        worst = steepest_pattern(layers(network), Norm.L2, network=network, starts=2)
        assert min(found.product, found.fast, found.tuned) >= worst
        assert slope < 0 or found.fast <= found.product * (1 + 1e-6)


def test_multipliers_that_were_searched_for_are_better_and_no_better_than_one_for_each_neuron() -> None:
    network = convolutions(0, 0.1)
    found = fourier(network)
    assert found.tuned < 0.95 * found.fast
    dense = lipschitz(network, method="lipsdp")
    assert found.tuned >= dense.upper * (1 - 1e-6)


def test_descent_finds_the_least_value() -> None:
    def value(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().requires_grad_()
        found = (x - torch.tensor([1.0, -2.0])).pow(4).sum() + x.square().sum()
        return (torch.inf if bool((x > 3).any()) else float(found.detach())), torch.autograd.grad(found, x)[0]

    found = descend(value, torch.tensor([2.5, 2.5], dtype=torch.float64), 100)
    steepness = 4 * (found - torch.tensor([1.0, -2.0])) ** 3 + 2 * found
    assert steepness.abs().max() < 1e-2


def test_multipliers_whatever_prove_no_constant_that_is_too_small() -> None:
    network = convolutions(3, 0.2)
    steps = chain(network)
    worst = steepest_pattern(layers(network), Norm.L2, network=network)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        size = float(10 ** (4 * torch.rand((), generator=generator) - 2))

        def rule(k: int, wave: spectra.Wave, image: Tensor, size: float = size) -> Tensor:
            noise = torch.randn(len(image[0]), generator=generator, dtype=torch.float64).exp()
            return size * noise * spectra.closed_form(k, wave, image)

        assert spectra.certified(steps, rule) >= worst


def test_hermitian_matrices_are_proven_positive_and_others_are_not() -> None:
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(20, 6, 6, generator=generator, dtype=torch.complex128)
    good, none = half @ half.mH + 1e-3 * torch.eye(6, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    assert are_positive(good, none)
    least = torch.linalg.eigvalsh(good)[:, 0]
    assert not are_positive(good, least * 1.01)
    assert are_positive(good, least * 0.5)
    bad = good.clone()
    bad[7] -= (float(least[7]) + 1e-9) * torch.eye(6, dtype=torch.float64)
    assert not are_positive(bad, none)


def test_symbols_are_sums_over_taps() -> None:
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((3, 2, 3, 2))
    from leaktight.models.enclosure import exactly

    found, error = symbols(exactly(kernel), (2, 1), (5, 4))
    for i, j in combinations(range(5), range(4)):
        true = sum(
            kernel[:, :, s, t] * np.exp(2j * np.pi * (i * 2 * s / 5 + j * t / 4))
            for s, t in combinations(range(3), range(2))
        )
        assert (np.abs(found[i, j].numpy() - true) <= error.numpy()).all()
    assert float(error.max()) < 1e-12


@pytest.mark.parametrize("kind", ["max_pool", "residual", "branches", "several_inputs", "rearranged", "transposed"])
def test_what_is_no_chain_of_convolutions_is_named(kind: str) -> None:
    with pytest.raises(UnsupportedOperator, match="--method fourier"):
        fourier(build(kind))


@pytest.mark.parametrize("kind", ["per_channel", "scaled", "average_pool", "fully_connected", "two_slopes", "smooth"])
def test_chains_of_all_kinds_are_bounded(kind: str) -> None:
    network = build(kind, 1)
    found = fourier(network, search=False)
    assert found.best >= steepest_pattern(layers(network), Norm.L2, network=network)


def test_operators_that_shift_or_join_have_no_place_in_a_chain() -> None:
    draft = Draft(0)
    z = draft.linear(draft.input(1, 3, 4), 4)  # along the last axis alone
    with pytest.raises(UnsupportedOperator, match="Linear"):
        fourier(draft.network(draft.add(leaky_relu(0.1), z)))


@pytest.mark.parametrize(
    ("channels", "depth", "fast", "best"),
    [(8, 2, 7.8166, 7.64877), pytest.param(8, 4, 30.983, 27.54, marks=pytest.mark.slow)],
)
def test_trained_networks_have_the_values_of_the_literature(
    bench: Path, channels: int, depth: int, fast: float, best: float
) -> None:
    """Pauli et al. (GLipSDP): 7.64876 for two layers, equal to MOSEK's; 28.490 for four, where ours is smaller."""
    io = pytest.importorskip("scipy.io")
    place = bench / "lipschitz/GLipSDP/Scalability/exported_mnist_models" / f"cnn_C{depth + 1}_CH{channels}.mat"
    found = fourier(trained(io.loadmat(place, simplify_cells=True)["params"], channels, depth))
    assert found.fast == pytest.approx(fast, rel=1e-4)
    assert found.tuned <= best


def trained(
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]], channels: int, depth: int
) -> Network:
    """The convolutions behind the first, with ReLUs between them, on images of 28 by 28."""
    draft = Draft(0)
    at = draft.input(1, channels, 28, 28)
    for k in range(1, depth + 1):
        weight = torch.from_numpy(weights[f"conv_{k}_weight"]).double()
        at = draft.add(Conv(weight, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), at)
        at = draft.leaky(at, 0.0) if k < depth else at
    return draft.network(at)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 12]), st.sampled_from([0.0, 1e-3]), st.floats(-60, 60))
def test_gram_iteration_is_above_the_largest_eigenvalue_and_close(
    seed: int, size: int, error: float, power: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(7, size, size, dtype=torch.complex128, generator=generator) * 2.0 ** (power / 2)
    matrices = roots @ roots.mH
    off = torch.full((7,), error * float(matrices.abs().amax()), dtype=torch.float64)
    truth = float(torch.linalg.eigvalsh(matrices).amax())
    found = largest_eigenvalue(matrices, off)
    assert (truth + float(off[0])) * (1 - 1e-14) <= found <= (truth + float(off[0])) * (1 + 1e-8)


@pytest.mark.parametrize("share", [0.9, 1 - 1e-4])
def test_eigenvalues_that_are_too_small_prove_no_bound_that_is(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = torch.randn(3, 4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    matrices, right = roots @ roots.mH, torch.linalg.eigvalsh
    truth = float(right(matrices).amax())
    off = torch.full((3,), 1e-3 * truth, dtype=torch.float64)
    monkeypatch.setattr("torch.linalg.eigvalsh", lambda given: share * right(given))
    assert largest_eigenvalue(matrices, off) >= truth + float(off[0])


def test_gram_iteration_of_unit_matrices_zeros_and_numbers_out_of_range() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    unit = torch.eye(4, dtype=torch.complex128).expand(2, 4, 4)
    assert 1 <= largest_eigenvalue(unit, zero) <= 1 + 1e-8
    assert 1.25 <= largest_eigenvalue(unit, zero + 0.25) <= 1.25 + 1e-8
    assert 0 <= largest_eigenvalue(0 * unit, zero) <= 1e-100
    assert largest_eigenvalue(unit * torch.inf, zero) == torch.inf


def test_a_search_for_multipliers_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    draft = Draft(0)
    at = draft.leaky(draft.conv(draft.input(1, 2, 6, 6), 3, 3), 0.1)
    network = draft.network(draft.conv(at, 2, 3))
    fourier(network, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] <= told[-1][1] == told[0][1]


def test_a_search_at_few_frequencies_finds_what_a_search_at_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three padded convolutions on 12 x 12 points: multipliers that are feasible everywhere, and hardly worse."""
    draft, generator = Draft(0), torch.Generator().manual_seed(3)
    at = draft.input(1, 2, 12, 12)
    for k, (inner, outer) in enumerate(((2, 4), (4, 4), (4, 2))):
        kernel = torch.randn(outer, inner, 3, 3, generator=generator, dtype=torch.float64) / 4
        at = draft.add(Conv(kernel, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), at)
        at = draft.leaky(at, 0.1) if k < 2 else at
    network = draft.network(at)
    few = fourier(network)
    monkeypatch.setattr(tuned, "separable", lambda _: False)
    every = fourier(network)
    assert few.tuned < 0.95 * few.fast
    assert few.tuned <= every.tuned * 1.001


def strided(size: int, seed: int = 0) -> Network:
    """Two convolutions with strides and a dense layer, as they are in front of images' labels."""
    draft = Draft(seed)
    at = draft.input(1, 2, size, size)
    for channels in (4, 6):
        at = draft.leaky(draft.conv(at, channels, 4, stride=2, padding=1), 0.1)
    return draft.network(draft.linear(draft.flatten(at), 3))


@pytest.mark.parametrize("size", [7, 8, 24])
def test_forms_at_half_of_the_frequencies_say_what_they_are_at_the_others(size: int) -> None:
    steps, generator = chain(strided(size)), torch.Generator().manual_seed(0)
    ahead = spectra.Half.behind(steps[0])
    for before, step in pairwise(steps):
        points = [n // s for n, s in zip(before.points, before.window.stride, strict=True)]
        channels, axes = len(before.window.kernel.value), list(range(len(points)))
        field = torch.randn(*points, channels, channels, generator=generator, dtype=torch.complex128)
        field = field + field.flip(axes).roll([1] * len(axes), axes).conj()  # conjugate at opposite frequencies
        field, here = field.reshape(-1, channels, channels), spectra.Half.behind(step)
        assert len(ahead.kept) <= len(field) // 2 + 2
        assert torch.equal(here.before(step, ahead, field[ahead.kept]), spectra.handed(field, step)[here.kept])
        ahead = here


def test_a_search_from_few_frequencies_to_all_ends_where_one_at_all_does(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = chain(strided(24))
    symbols, looked = spectra.waves(steps), list[object]()
    monkeypatch.setattr(tuned, "waves", lambda some: looked.append(some[0].points) or spectra.waves(some))
    found = list[float]()
    for coarse in (tuned._COARSE, ()):
        monkeypatch.setattr(tuned, "_COARSE", coarse)
        with torch.no_grad():
            scales = tuned.optimal(steps, symbols)
            assert scales is not None
            found.append(spectra.certified(steps, lambda k, *_, s=scales: s[k], symbols))
    assert found[0] == pytest.approx(found[1], rel=5e-4)
    assert found[0] < 0.95 * spectra.certified(steps, spectra.closed_form, symbols)
    assert looked == [(16, 16)]


def test_coarser_tori_keep_their_strides_and_are_refused_where_too_small() -> None:
    steps = chain(strided(24))
    assert [step.points for step in steps] == [(28, 28), (14, 14), (7, 7)]
    some = tuned.coarser(steps, 2)
    assert some is not None
    assert [step.points for step in some] == [(16, 16), (8, 8), (4, 4)]
    assert some[-1].window.stride == (4, 4)
    assert tuned.coarser(steps, 4) is None


def test_slopes_that_multiply_beyond_float64_are_refused() -> None:
    draft = Draft(0)
    at = draft.leaky(draft.conv(draft.input(1, 2, 4, 4), 2, 3, padding=1), 1e200)
    at = draft.conv(draft.add(Scale(torch.full((2, 1, 1), 1e200, dtype=torch.float64)), at), 2, 3, padding=1)
    with pytest.raises(UnsupportedOperator, match="beyond the numbers of float64"):
        fourier(draft.network(at))


@pytest.mark.parametrize("behind", [False, True])
def test_fixed_slopes_of_channels_count_wherever_they_stand(behind: bool) -> None:
    """Behind the last convolution, or in front of a padded one: the map is linear, so that its norm is known."""
    draft = Draft(1)
    at = draft.conv(draft.input(1, 2, 5, 5), 3, 3, padding=1)
    at = draft.add(Scale(torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64).reshape(3, 1, 1)), at)
    network = draft.network(draft.conv(at, 2, 3, padding=1) if behind else at)
    true = dense_norm(network)
    assert true * (1 - 1e-13) <= spectra.certified(chain(network), spectra.closed_form) <= 2 * true


def test_strided_convolutions_of_a_trained_network_are_within_five_percent_of_power_iteration(bench: Path) -> None:
    """2C2F of Pauli et al., 4x4 with stride 2; power iteration is a lower bound."""
    io = pytest.importorskip("scipy.io")
    stored = io.loadmat(bench / "lipschitz/GLipSDP/Versatility/models/weights_mat/2C2F.mat", simplify_cells=True)
    for name, (channels, size) in {"features_0_conv_weight": (1, 28), "features_2_conv_weight": (16, 14)}.items():
        weight = torch.from_numpy(stored[name]).double().reshape(-1, channels, 4, 4)
        op, draft = Conv(weight, None, stride=(2, 2), padding=(1, 1), dilation=(1, 1)), Draft(0)
        network = draft.network(draft.add(op, draft.input(1, channels, size, size)))
        x = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(200):
            x = op.adjoint(op.linear(x), [x.shape])[0].reshape(x.shape)
            x = x / x.norm()
        least = float(op.linear(x).norm())
        assert least * (1 - 1e-13) <= spectra.product(chain(network)) <= 1.05 * least


def test_what_few_frequencies_found_counts_when_there_is_no_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = chain(strided(24))
    symbols, right, descents = spectra.waves(steps), tuned._Fall.fallen, list[int]()

    def last(fall: tuned._Fall, some: list[Step], *rest: Any) -> torch.Tensor:
        descents.append(len(some))
        found = right(fall, some, *rest)
        fall.deadline = -1.0
        return found

    monkeypatch.setattr(tuned._Fall, "fallen", last)
    with torch.no_grad():
        scales = tuned.optimal(steps, symbols)
    assert scales is not None
    assert len(descents) == 1
    found = spectra.certified(steps, lambda k, *_: scales[k], symbols)
    assert found < 0.97 * spectra.certified(steps, spectra.closed_form, symbols)


def test_a_search_begins_where_coarse_tori_are_defined_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """On few frequencies the closed form of all may be infeasible: then it is raised."""
    draft = Draft(0)
    at = draft.input(1, 1, 28, 28)
    for channels in (8, 16):
        at = draft.leaky(draft.conv(at, channels, 4, stride=2, padding=1), 0.0)
    means = Linear(draft.normal(20, 16).repeat_interleave(49, 1))  # all their weight is at one frequency
    steps = chain(draft.network(draft.linear(draft.leaky(draft.add(means, draft.flatten(at)), 0.0), 5)))
    symbols, began = spectra.waves(steps), list[float]()
    right = tuned.descend
    monkeypatch.setattr(
        tuned, "descend", lambda f, at, *rest, **ways: began.append(f(at)[0]) or right(f, at, *rest, **ways)
    )
    with torch.no_grad():
        start = tuned._closed_forms(steps, symbols)
        assert start is not None
        some = tuned.coarser(steps, 4)
        assert some is not None
        assert tuned._objective(some, spectra.waves(some), start, 4) is None
        assert tuned.optimal(steps, symbols) is not None
    assert len(began) == len(tuned._SQUARINGS)
    assert all(map(isfinite, began))
