"""Numbers of other programs, and a check by ball arithmetic that knows nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chains import Array, chain, random_weights, residual
from networks import Draft

import leaktight as lt
from leaktight.models.ops import Conv, Linear
from leaktight.verify.lipschitz import convex, interior
from leaktight.verify.lipschitz.centred import centred
from leaktight.verify.lipschitz.certificate import certified, repaired
from leaktight.verify.lipschitz.fast import closed_form
from leaktight.verify.lipschitz.layers import layers


@pytest.fixture(scope="module")
def published(bench: Path) -> Path:
    pytest.importorskip("scipy")
    folder = bench / "lipschitz"
    if not folder.is_dir():
        pytest.skip(f"no published constants at {folder}")
    return folder


def matlab(place: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    found: dict[str, Any] = loadmat(place, simplify_cells=True)
    return found


def test_the_random_network_of_lipsdp(published: Path) -> None:
    place = published / "LipSDP" / "LipSDP" / "examples" / "saved_weights" / "random_weights.mat"
    weights = [np.asarray(w, np.float64) for w in matlab(place)["weights"]]
    found = lt.lipschitz(chain(weights, 0.0)).bounds
    assert found["product"] == pytest.approx(43.305574, rel=1e-6)
    assert found["liplt"] == pytest.approx(39.860916, rel=1e-6)
    assert found["fast"] == pytest.approx(39.901500, rel=1e-6)
    assert found["lipsdp"] == pytest.approx(36.482230, rel=1e-6)
    # all weights are positive, so the linear map attains the constant
    assert found["lipsdp"] >= float(np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2))


def test_the_demonstration_of_eclipse(published: Path) -> None:
    with np.load(published / "ECLipsE" / "demo" / "sampleweights" / "npz" / "lyr2n80test1.npz") as stored:
        weights = [stored[name].astype(np.float64) for name in ("w1", "w2")]
    found = lt.lipschitz(chain(weights, 0.0)).bounds
    assert found["fast"] == pytest.approx(0.80903519727888, rel=1e-9)
    assert found["product"] == pytest.approx(0.874981, rel=1e-6)
    # all weights are positive, so the linear map attains the constant, and LipSDP finds it
    assert found["lipsdp"] == pytest.approx(float(np.linalg.norm(weights[1] @ weights[0], 2)), rel=1e-6)


@pytest.mark.parametrize("kind", ["fnn2", "fnn3"])
def test_the_digits_networks_have_the_values_that_mosek_found(published: Path, kind: str) -> None:
    exports = published / "GLipSDP" / "Comparison" / "exports"
    known = matlab(exports / "lipschitz_summary_all_models.mat")["all_results"][kind]["individual"]
    for seed in range(10):
        stored = matlab(exports / f"{kind}_seed{seed}_weights.mat")
        weights = [stored[f"fc{i}_weight"].T.astype(np.float64) for i in range(1, int(kind[-1]) + 1)]
        weights[-1] = weights[-1][7:8]
        found = lt.lipschitz(chain(weights, 0.0)).bounds
        assert found["lipsdp"] == pytest.approx(known["Lip_LipSDP"][seed], rel=1e-6)
        assert found["liplt"] == pytest.approx(known["Lip_LT"][seed], rel=1e-5)
        assert found["product"] == pytest.approx(known["Lip_MP"][seed], rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_digits_networks_of_one_convolution_have_the_values_that_mosek_found(published: Path, seed: int) -> None:
    exports = published / "GLipSDP" / "Comparison" / "exports"
    known = matlab(exports / "lipschitz_summary_all_models.mat")["all_results"]["cnn2"]["individual"]
    stored = matlab(exports / f"cnn2_seed{seed}_weights.mat")
    draft = Draft(0)
    kernel = torch.from_numpy(stored["conv1_weight"]).double().reshape(3, 3, 1, 8).permute(3, 2, 0, 1).contiguous()
    at = draft.add(Conv(kernel, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), draft.input(1, 1, 8, 8))
    # values were flattened with columns first and channels last
    row = torch.from_numpy(stored["fc1_weight"][:, 7]).double().reshape(8, 8, 8).permute(2, 1, 0)
    network = draft.network(draft.add(Linear(row.reshape(1, -1)), draft.flatten(draft.leaky(at, 0.0))))
    for method, name, off in (("product", "MP", 1e-9), ("liplt", "LT", 1e-9), ("lipsdp", "LipSDP", 1e-6)):
        assert lt.lipschitz(network, method=method).upper == pytest.approx(known[f"Lip_{name}"][seed], rel=off)


@pytest.mark.parametrize(("depth", "value"), [(2, 0.8827180), (4, 0.5770962), (8, 0.1846373)])
def test_networks_of_growing_depth(published: Path, depth: int, value: float) -> None:
    """The published program chains the transposes of the layers behind the first."""
    place = published / "GLipSDP" / "Scalability" / "exported_mnist_models" / f"mlp_L{depth + 1}_W16.mat"
    layer = matlab(place)["params"]
    weights = [layer[f"linear_{i}_weight"].T.astype(np.float64) for i in range(1, depth + 1)]
    assert lt.lipschitz(chain(weights, 0.0), method="lipsdp").upper == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "fast", "searched"), [(16, 1.2e-5, 8.2e-9), (64, 4.4e-6, 8e-9)])
def test_sixty_four_layers(published: Path, width: int, fast: float, searched: float) -> None:
    """A solver's absolute tolerance ended at 3e-4 here."""
    place = published / "GLipSDP" / "Scalability" / "exported_mnist_models" / f"mlp_L65_W{width}.mat"
    layer = matlab(place)["params"]
    network = chain([layer[f"linear_{i}_weight"].T.astype(np.float64) for i in range(1, 65)], 0.0)
    assert lt.lipschitz(network, method="fast").upper <= fast
    assert lt.lipschitz(network, method="lipsdp").upper <= searched


@pytest.mark.slow
def test_a_residual_network_of_eight_blocks(published: Path) -> None:
    stored = matlab(published / "GLipSDP" / "Versatility" / "models" / "weights_mat" / "FC-R18.mat")
    blocks = [(stored[f"blocks_{k}_fc1_weight"], stored[f"blocks_{k}_fc2_weight"]) for k in range(8)]
    network = residual(stored["output_layer_weight"], blocks, stored["input_layer_weight"], 0.0)
    found = lt.lipschitz(network, method="lipsdp").upper
    assert 12.51 <= found <= 20.957  # MOSEK found 20.956


# ---- ball arithmetic ----


def matrix(weights: Sequence[Array], slope: float, multipliers: Sequence[Array], bound: float) -> Any:
    """``L^2 |x|^2 - |y|^2 - sum lam (v - a u)(u - v)`` as a matrix of balls, in the coordinates ``(x, v_1, ...)``."""
    import flint

    def ball(x: Array) -> Any:
        return flint.arb_mat([[flint.arb(float(e)) for e in row] for row in np.atleast_2d(x)])

    starts = np.concatenate([[0], np.cumsum([weights[0].shape[1], *(len(w) for w in weights[:-1])])])
    total = int(starts[-1])

    def placed(weight: Array, k: int) -> Any:
        wide = np.zeros((len(weight), total))
        wide[:, starts[k] : starts[k + 1]] = weight
        return ball(wide)

    scale = np.zeros((total, total))
    scale[: starts[1], : starts[1]] = np.eye(starts[1])
    last = placed(weights[-1], len(weights) - 1)
    found = ball(scale) * flint.arb(bound) ** 2 - last.transpose() * last
    for k, lam in enumerate(multipliers):
        u, v = placed(weights[k], k), placed(np.eye(len(lam)), k + 1)
        left, right = v - u * flint.arb(slope), u - v
        part = left.transpose() * ball(np.diag(lam)) * right
        found = found - (part + part.transpose()) * flint.arb(0.5)
    return found


def positive(found: Any) -> bool:
    """Whether all pivots of an elimination without exchanges are positive balls."""
    import flint

    rows = [[found[i, j] for j in range(found.ncols())] for i in range(found.nrows())]
    for k, row in enumerate(rows):
        if not row[k] > flint.arb(0):
            return False
        for other in rows[k + 1 :]:
            factor = other[k] / row[k]
            for j in range(k, len(row)):
                other[j] -= factor * row[j]
    return True


def test_ball_arithmetic_rejects_a_loose_solvers_answer_and_confirms_its_repair() -> None:
    flint, _ = pytest.importorskip("flint"), pytest.importorskip("cvxpy")
    slope, weights = 0.25, random_weights([3, 7, 6, 1], 0)
    network = centred(layers(chain(weights, slope)))
    start = closed_form(network)
    claimed, raw = convex.optimal(network, start.each, start.square, solver="scs", eps=1e-4)
    bound = repaired(network, raw, start.each, start.square)
    shares = (0.0, *(10.0**k for k in range(-9, 1)))  # of the closed form's, with which `repaired` mixes
    mixtures = [[(1 - t) * a + 1.5 * t * b for a, b in zip(raw, start.each, strict=True)] for t in shares]
    half = (1 - slope) / 2
    with flint.ctx.workprec(160):
        assert not positive(matrix(weights, slope, [lam / half**2 for lam in raw], claimed))
        assert any(positive(matrix(weights, slope, [lam / half**2 for lam in mixed], bound)) for mixed in mixtures)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slope", [0.0, 0.25])  # numbers with which all sectors' middles and halves are exact
def test_ball_arithmetic_confirms_the_certificates_and_nothing_smaller(seed: int, slope: float) -> None:
    flint = pytest.importorskip("flint")
    weights = random_weights([3, 6, 5, 2], seed)
    network = centred(layers(chain(weights, slope)))
    start = closed_form(network)
    multipliers = interior.optimal(network, start.each, start.square)
    bound = certified(network, multipliers)
    half = (1 - slope) / 2
    raw = [lam / half**2 for lam in multipliers]
    with flint.ctx.workprec(160):
        assert positive(matrix(weights, slope, raw, bound))
        assert not positive(matrix(weights, slope, raw, bound * (1 - 1e-6)))
