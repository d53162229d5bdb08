"""The steps of the recursion are above the true ones, in exact rational arithmetic, and hardly above them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from chains import chain, random_weights, residual, worst
from numpy.typing import NDArray

import leaktight as lt
from leaktight.models.network import Network, Node, Port
from leaktight.models.ops import Input, Linear, leaky_relu
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm
from leaktight.verify.lipschitz import dense, enlarged
from leaktight.verify.lipschitz.centred import centred
from leaktight.verify.lipschitz.certificate import repaired
from leaktight.verify.lipschitz.curve import curve
from leaktight.verify.lipschitz.ellipsoid import NotContained
from leaktight.verify.lipschitz.fast import closed_form
from leaktight.verify.lipschitz.layers import layers
from leaktight.verify.lipschitz.methods import Question

Exact = NDArray[Any]


def exact(matrix: NDArray[Any]) -> Exact:
    """Rational numbers; a complex matrix as the real one of twice the size, with which sums and products go along."""
    if np.iscomplexobj(matrix):
        matrix = np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
    return np.array([[Fraction(float(x)) for x in row] for row in matrix], dtype=object)


def solved(matrix: Exact, right: Exact) -> Exact:
    """``matrix^(-1) right``, of a positive definite matrix."""
    both = np.concatenate([matrix, right], axis=1)
    for k in range(len(matrix)):
        both[k] = both[k] / both[k, k]
        for i in range(len(matrix)):
            if i != k:
                both[i] = both[i] - both[i, k] * both[k]
    return both[:, len(matrix) :]


def is_positive_definite(matrix: Exact) -> bool:
    rest = matrix.copy()
    for k in range(len(rest)):
        if rest[k, k] <= 0:
            return False
        rest[k + 1 :] = rest[k + 1 :] - np.outer(rest[k + 1 :, k] / rest[k, k], rest[k])
    return True


def hermitian(generator: np.random.Generator, size: int, complicated: bool) -> NDArray[Any]:
    root = generator.standard_normal((size, size))
    root = root + 1j * generator.standard_normal((size, size)) if complicated else root
    found: NDArray[Any] = root @ root.conj().T
    return (found + found.conj().T) / 2


@pytest.mark.parametrize("complicated", [False, True])
@pytest.mark.parametrize("uncertain", [0.0, 1e-3])
def test_images_are_above_those_of_all_maps_within_their_errors(complicated: bool, uncertain: float) -> None:
    generator = np.random.default_rng(0)
    for seed in range(40):
        out, width, aliases = generator.integers(1, 4, 3)
        shape = (1, aliases, out, width)
        symbol = generator.standard_normal(shape) + (1j * generator.standard_normal(shape) if complicated else 0.0)
        error = np.full((out, width), uncertain)
        before = None if seed % 3 == 0 else np.stack([hermitian(generator, width, complicated) for _ in range(aliases)])
        found = enlarged.spread(symbol, error, None if before is None else before[None])
        moved = [np.sign(generator.standard_normal()) * uncertain * np.ones((out, width)) for _ in range(aliases)]
        moved = moved if seed % 2 else [uncertain * np.sign(f.real) for f in symbol[0]]
        maps = [exact(f) + exact(m + 0 * f) for f, m in zip(symbol[0], moved, strict=True)]
        forms = [
            exact(np.eye(width) + 0 * symbol[0, 0, 0, 0]) if before is None else exact(q)
            for q in ([0] * aliases if before is None else before)
        ]
        true = sum(f @ q @ f.T for f, q in zip(maps, forms, strict=True)) / Fraction(int(aliases))
        assert is_positive_definite(exact(found[0]) - true)
        if not uncertain:
            assert np.abs(exact(found[0]) - true).max() <= 1e-13 * np.abs(found).max() + 1e-12


@pytest.mark.parametrize("complicated", [False, True])
@pytest.mark.parametrize("room", [1.0, 1e-3, 1e-9])
def test_forms_behind_slopes_are_above_the_least(complicated: bool, room: float) -> None:
    generator = np.random.default_rng(1)
    for _ in range(40):
        size = int(generator.integers(1, 4))
        image = hermitian(generator, size, complicated) * 2.0 ** int(generator.integers(-20, 20))
        middle, half = generator.random(size) - 0.3, generator.random(size) * (generator.random(size) < 0.8)
        unit = generator.random(size) + 0.5
        most = np.linalg.eigvalsh(image / np.sqrt(np.outer(unit, unit)))[-1]
        scale = unit * most * (1 + room)
        found = enlarged.grown(middle, half, image[None], scale)[0]
        true = least(middle, half, image, scale)
        assert is_positive_definite(exact(found) - true)
        size_of_true = float(max(true.diagonal()))
        assert np.abs(exact(found) - true).max() <= size_of_true * 1e-13 / room**2 * size


def least(middle: NDArray[Any], half: NDArray[Any], image: NDArray[Any], scale: NDArray[Any]) -> Exact:
    """The right-hand side of (1) in the module's docstring, for exactly these numbers."""
    twice = 2 if np.iscomplexobj(image) else 1
    m, r, t = (np.diag(exact(np.tile(x, twice)[None])[0]) for x in (middle, half, scale))
    s, loose = exact(image), np.tile(half, twice) > 0
    gap = (t - s)[loose][:, loose]
    grown = s + s[:, loose] @ solved(gap, s[loose]) if loose.any() else s
    return m @ grown @ m + r @ t @ r


def test_what_rounding_takes_from_a_square_is_bounded_entry_by_entry() -> None:
    generator = np.random.default_rng(0)
    for complicated in (False, True):
        factor, rows = (hermitian(generator, 5, complicated) for _ in range(2))
        weight = generator.random(5)
        found, lost = enlarged._square_of_product(factor[None], rows[None], weight)
        side = exact(factor) @ exact(rows)
        off = np.abs(exact(found[0]) - side.T @ side).astype(np.float64) @ np.tile(weight, len(side) // 5)
        assert (off > 0).any()
        assert (off <= np.tile(lost[0], len(side) // 5)).all()


def test_what_rounding_took_is_added_to_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    right, generator, size = enlarged._square_of_product, np.random.default_rng(3), 3
    noise = hermitian(generator, size, False)

    def worse(factor: Any, rows: Any, weight: Any) -> Any:
        found, lost = right(factor, rows, weight)
        return found - noise, lost + np.abs(noise) @ weight

    monkeypatch.setattr(enlarged, "_square_of_product", worse)
    image = hermitian(generator, size, False)
    middle, half, scale = generator.random(size) - 0.5, generator.random(size), np.full(size, 100.0)
    found = enlarged.grown(middle, half, image[None], scale)[0]
    assert is_positive_definite(exact(found) - least(middle, half, image, scale))


@pytest.mark.parametrize("off", [1e-3, -1e-3, 0.1])
def test_a_wrong_inverse_does_no_harm(off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right, generator = torch.linalg.solve_triangular, np.random.default_rng(2)
    monkeypatch.setattr(enlarged.torch.linalg, "solve_triangular", lambda *a, **k: right(*a, **k) * (1 - off))
    for complicated in (False, True):
        image, half = hermitian(generator, 3, complicated), np.full(3, 0.5)
        scale = np.full(3, 2 * np.linalg.eigvalsh(image)[-1])
        found = enlarged.grown(half, half, image[None], scale)[0]
        assert is_positive_definite(exact(found) - least(half, half, image, scale))


def test_an_inverse_that_is_none_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.linalg.solve_triangular
    monkeypatch.setattr(enlarged.torch.linalg, "solve_triangular", lambda *a, **k: right(*a, **k) * 1.5)
    with pytest.raises(NotContained):
        enlarged.grown(np.ones(2), np.ones(2), np.eye(2)[None], np.full(2, 3.0))


def test_multipliers_that_are_too_small_and_numbers_out_of_range_prove_nothing() -> None:
    one, image = np.ones(2), np.array([[[2.0, 1.0], [1.0, 2.0]]])
    assert enlarged.grown(one, one, image, np.full(2, 3.0001)).max() < np.inf
    for scale in (3.0, 2.9999, -1.0, np.nan):
        with pytest.raises(NotContained):
            enlarged.grown(one, one, image, np.full(2, scale))
    with pytest.raises(NotContained):
        enlarged.spread(np.full((1, 1, 2, 2), 1e200), np.zeros((2, 2)), None)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.1, 0.9, 1.0, 1.5, "mixed"])
@pytest.mark.parametrize("sizes", [(9, 3, 5, 2), (3, 9, 3), (4, 4, 4, 4, 4), (2, 6, 1)])
def test_a_chain_has_what_forms_from_the_last_to_the_first_prove(slope: float | str, sizes: tuple[int, ...]) -> None:
    weights = random_weights(sizes, 3)
    slopes = [[1.0, *[0.3] * (n - 1)] for n in sizes[1:-1]] if isinstance(slope, str) else slope
    network = layers(chain(weights, slopes))
    links = dense.links(network)
    assert links is not None
    found, start = dense.certified(links), closed_form(centred(network))
    assert found >= worst(weights, slopes, 2) * (1 - 1e-14)
    assert found == pytest.approx(repaired(centred(network), start.each, start.each, start.square), rel=1e-9)
    assert found <= start.square**0.5 * (1 + 1e-11)


def test_deep_chains_are_proven_as_closely_as_shallow_ones() -> None:
    """What rounding takes is a share of each form, whose smallest direction is half as long as its largest."""
    network = layers(chain(random_weights([20] * 60, 0), 0.0))
    assert dense.certified(dense.links(network) or []) <= closed_form(centred(network)).square ** 0.5 * (1 + 1e-10)


def test_links_are_the_linear_maps_in_turn() -> None:
    weights = random_weights((9, 3, 5, 2), 0)
    found = dense.links(layers(chain(weights, 0.1))) or []
    assert np.allclose(
        np.linalg.multi_dot([link.symbol[0, 0].numpy() for link in reversed(found)]), np.linalg.multi_dot(weights[::-1])
    )
    assert [link.loose for link in found] == [True, True, False]


def test_an_activation_on_the_input_itself_is_a_link_and_neither_a_skip_nor_many_outputs_are() -> None:
    generator = np.random.default_rng(0)
    square = [generator.standard_normal((3, 3)) for _ in range(4)]
    weight = torch.from_numpy(square[0])
    nodes = [Node("x", Input(), (), (1, 3)), Node("leaky", leaky_relu(0.1), ("x",), (1, 3))]
    nodes.append(Node("linear", Linear(weight), ("leaky",), (1, 3)))
    network = Network(tuple(nodes), (Port("x", (1, 3), "float64"),), (Port("linear", (1, 3), "float64"),))
    found, truth = dense.certified(dense.links(layers(network)) or []), worst([np.eye(3), square[0]], 0.1, 2)
    assert truth * (1 - 1e-14) <= found <= np.linalg.norm(square[0], 2) * (1 + 1e-11)
    assert dense.links(layers(chain([square[0], np.ones((600, 3))], 0.1))) is None
    assert dense.links(layers(residual(square[0], [(square[1], square[2])], square[3], 0.1))) is None


def test_bounds_of_a_range_of_slopes_are_those_of_the_range_and_not_of_the_slope_in_the_file() -> None:
    weights = random_weights([3, 5, 4, 2], 5)
    network = chain(weights, 0.9)
    found = curve(Slopes.of(network), 0.0, 0.9, Question(network, Norm.L2), ends=[0.0, 0.9])
    assert found[0].upper >= worst(weights, 0.0, 2) * (1 - 1e-14)


def test_a_network_that_does_not_depend_on_its_inputs_has_the_constant_zero() -> None:
    weights = random_weights([3, 5, 4, 2], 0)
    weights[1] = 0 * weights[1]
    assert lt.lipschitz(chain(weights, 0.1), method="fast").upper == 0
