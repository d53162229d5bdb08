"""Lipschitz constants are proven: no pair of inputs, no pattern of slopes and no other program gets past them."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from chains import chain, random_weights, residual, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import KINDS, build

import leaktight as lt
from leaktight.errors import PropertyError, UnsupportedOperator, UsageError
from leaktight.models.enclosure import exactly
from leaktight.specs.region import Norm, ball
from leaktight.verify.lipschitz import convex, ellipsoid, interior, primal_dual, sweeps
from leaktight.verify.lipschitz.barrier import derivatives, point, problem
from leaktight.verify.lipschitz.barrier import gradient as barrier_gradient
from leaktight.verify.lipschitz.centred import centred, middle_and_half
from leaktight.verify.lipschitz.certificate import certified, repaired
from leaktight.verify.lipschitz.fast import closed_form
from leaktight.verify.lipschitz.layers import layers
from leaktight.verify.lipschitz.methods import OWN, usual
from leaktight.verify.lipschitz.sectors import Sector

ORDERS = {"2": 2, "inf": np.inf, "1": 1}
SECTORED = [kind for kind in KINDS if kind != "max_pool"]
SLOPES = (-2.0, -1.0, -0.3, 0.0, 0.01, 0.1, 0.5, 1.0, 1.7, 3.0)


@pytest.mark.parametrize("norm", ["2", "inf", "1"])
@settings(max_examples=8)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(SLOPES), min_size=10, max_size=10), st.sampled_from([1, 2]))
def test_no_method_falls_below_the_worst_pattern(norm: str, seed: int, slopes: list[float], hidden: int) -> None:
    sizes = [3, *([5, 4] if hidden == 2 else [7]), 2]
    weights, each = random_weights(sizes, seed), [slopes[:5], slopes[5:9]] if hidden == 2 else [slopes[:7]]
    true = worst(weights, each, ORDERS[norm])
    found = lt.lipschitz(chain(weights, each), norm=norm)
    assert {"product", "liplt"} < set(found.bounds) or norm != "2"
    for name, upper in found.bounds.items():
        assert upper >= true * (1 - 1e-13), name
    assert found.lower is not None
    assert found.lower <= true * (1 + 1e-13)


@pytest.mark.parametrize("norm", ["2", "inf", "1"])
@pytest.mark.parametrize("kind", SECTORED)
def test_no_two_inputs_get_past_the_bound(kind: str, norm: str) -> None:
    """Of every kind of network, everywhere and in a ball."""
    for seed in range(1):
        network = build(kind, seed)
        centre = torch.full((network.input_size,), 0.3, dtype=torch.float64)
        region, order = ball(centre.unsqueeze(0), 0.2, Norm.named(norm)), ORDERS[norm]
        generator = torch.Generator().manual_seed(seed)
        for found, inside in (
            (lt.lipschitz(network, norm=norm), False),
            (lt.lipschitz(network, norm=norm, centre=centre, radius=0.2), True),
        ):
            assert found.lower is not None
            assert found.lower <= found.upper
            for _ in range(20):
                x, y = (
                    region.sample(generator)
                    if inside
                    else 3 * torch.randn(1, network.input_size, generator=generator, dtype=torch.float64)
                    for _ in range(2)
                )
                apart = torch.linalg.vector_norm(network.flat(x) - network.flat(y), order)
                assert float(apart) <= found.upper * float(torch.linalg.vector_norm(x - y, order)) * (1 + 1e-12) + 1e-14


@pytest.mark.parametrize("kind", SECTORED)
def test_stages_say_how_differences_move(kind: str) -> None:
    for seed in range(3):
        network = build(kind, seed)
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(1, network.input_size, generator=generator, dtype=torch.float64) for _ in range(2))
        parts = [port.size for port in network.inputs]
        before, after = (network.values(*point.split(parts, -1)) for point in (x, y))
        moved = {name: (after[name] - before[name])[0].flatten().numpy() for name in before}
        found = layers(network)
        state = (y - x)[0].numpy() if found.first is None else found.first.value @ (y - x)[0].numpy()
        for stage in found.stages:
            u = state if stage.weight is None else stage.weight.value @ state
            assert np.allclose(u, moved[network.by_name[stage.name].inputs[0]], atol=1e-12)
            v = moved[stage.name]
            assert ((v - stage.sector.low * u) * (stage.sector.high * u - v) >= -1e-12).all()
            fed = v if stage.feed is None else stage.feed.value @ v
            state = fed if stage.keep is None else stage.keep.value @ state + fed
        last = state if found.last is None else found.last.value @ state
        assert np.allclose(last, (network.flat(y) - network.flat(x))[0].numpy(), atol=1e-12)


@settings(max_examples=200)
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_middle_and_half_cover_the_sector(a: float, b: float) -> None:
    from fractions import Fraction

    low, high = min(a, b), max(a, b)
    middle, half = (float(x[0]) for x in middle_and_half(Sector(np.array([low]), np.array([high]))))
    assert Fraction(middle) - Fraction(half) <= Fraction(low)
    assert Fraction(middle) + Fraction(half) >= Fraction(high)
    assert (half == 0) == (low == high)


def test_a_linear_network_is_exact_in_every_method() -> None:
    weights = random_weights([6, 9, 7, 4], 3)
    for norm, order in ORDERS.items():
        truth = float(np.linalg.norm(weights[2] @ weights[1] @ weights[0], order))
        found = lt.lipschitz(chain(weights, 1.0), norm=norm)
        assert found.lower is not None
        assert truth * (1 - 1e-9) <= found.lower <= truth * (1 + 1e-13)
        for name, upper in found.bounds.items():
            assert truth * (1 - 1e-13) <= upper, name
            assert name == "product" or upper <= truth * (1 + 1e-9), name


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5])
def test_the_network_on_which_full_multipliers_are_wrong_keeps_its_constant(slope: float) -> None:
    """``phi(x + 1) - phi(x)`` rises by ``1 - slope`` at most; full multipliers "prove" 5e-6."""
    weights = [np.array([[1.0], [1.0]]), np.array([[1.0, -1.0]])]
    found = lt.lipschitz(chain(weights, slope), method="lipsdp")
    assert 1 - slope <= found.upper <= 1 - slope + 1e-6


@pytest.mark.parametrize("name", ["liplt", "fast", "lipsdp"])
def test_two_identities_have_the_constant_one(name: str) -> None:
    found = lt.lipschitz(chain([np.eye(3), np.eye(3)], 0.0), method=name)
    assert 1 <= found.upper <= 1 + 1e-6


@pytest.mark.parametrize("solver", [None, *OWN])
@pytest.mark.parametrize("scales", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1e-80, 1e80, 1e80), (1e80, 1e-80, 1e80)])
def test_dead_layers_and_extreme_scales_are_answered_with_no_more_than_the_product(
    scales: tuple[float, ...], solver: str | None
) -> None:
    weights = random_weights([2, 3, 3, 3, 2], 0)
    network = chain([scale * weight for scale, weight in zip((*scales, 1.0), weights, strict=True)], 0.25)
    most = lt.lipschitz(network, method="product").upper * (1 + 1e-9)
    found = lt.lipschitz(network, method="lipsdp", solver=solver)
    assert (found.lower or 0.0) <= found.upper <= most
    assert lt.lipschitz(network, method="fast").upper <= most


def test_a_dead_network_has_the_constant_zero() -> None:
    weights = random_weights([3, 4, 2], 0)
    for norm in ORDERS:
        found = lt.lipschitz(chain([weights[0], 0 * weights[1]], 0.0), norm=norm)
        assert (found.lower, found.upper) == (0, 0)


def test_the_order_of_methods() -> None:
    """LipSDP is below the closed form, which is below the product."""
    for seed, slope in enumerate((0.0, 0.1, 0.5, 0.9)):
        found = lt.lipschitz(chain(random_weights([6, 8, 8, 3], seed), slope)).bounds
        assert found["lipsdp"] <= found["fast"] * (1 + 1e-9)
        assert found["fast"] <= found["product"] * (1 + 1e-9)


def test_bounds_fall_as_the_slope_rises() -> None:
    weights = random_weights([4, 6, 6, 6, 2], 1)
    known = [lt.lipschitz(chain(weights, a)).bounds for a in (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0)]
    for name in known[0]:
        values = [bounds[name] for bounds in known]
        assert all(b <= a * (1 + 1e-8) for a, b in itertools.pairwise(values)), name


def test_splitting_and_scaling_layers_changes_little() -> None:
    weights = random_weights([4, 6, 5, 2], 2)
    plain = lt.lipschitz(chain(weights, 0.1), method="lipsdp").upper
    scaled = [weights[0] * 1e6, weights[1] * 1e-9, weights[2] * 1e3]
    assert lt.lipschitz(chain(scaled, 0.1), method="lipsdp").upper == pytest.approx(plain, rel=1e-6)
    order = np.random.default_rng(0).permutation(6)
    permuted = [weights[0][order], weights[1][:, order], weights[2]]
    assert lt.lipschitz(chain(permuted, 0.1), method="lipsdp").upper == pytest.approx(plain, rel=1e-6)


def test_a_residual_block_is_not_more_than_its_parts() -> None:
    generator = np.random.default_rng(0)
    first, outer = generator.standard_normal((5, 4)), generator.standard_normal((2, 5))
    blocks = [(generator.standard_normal((3, 5)), 0.3 * generator.standard_normal((5, 3))) for _ in range(2)]
    network = residual(outer, blocks, first, 0.1)
    found = lt.lipschitz(network)
    assert [stage.keep is None for stage in layers(network).stages] == [True, False, False]
    assert found.lower is not None
    assert found.lower <= found.upper <= found.bounds["product"] / 1.5
    norms = [np.linalg.norm(m, 2) for m in (first, outer)]
    crude = norms[0] * norms[1] * np.prod([1 + np.linalg.norm(a, 2) * np.linalg.norm(b, 2) for a, b in blocks])
    assert found.bounds["product"] <= crude * (1 + 1e-9)


def test_a_ball_without_kinks_has_the_norm_of_its_jacobian() -> None:
    network = build("fully_connected", 4)
    centre = torch.tensor([0.5, -0.4, 0.7, 0.1], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: network.flat(x)[0], centre.unsqueeze(0))[:, 0].numpy()
    for norm, order in ORDERS.items():
        found = lt.lipschitz(network, norm=norm, centre=centre, radius=1e-6)
        assert found.scope == "local"
        assert found.upper == pytest.approx(float(np.linalg.norm(jacobian, order)), rel=1e-9)


# ---- solvers propose, certificates decide ----


def test_the_derivatives_of_the_barrier_are_its_differences() -> None:
    network = centred(layers(build("branches", 0)))
    start = closed_form(network)
    asked = problem(network, start.each, start.square)
    generator = torch.Generator().manual_seed(0)
    mu = 2 + torch.rand(sum(asked.sizes), generator=generator, dtype=torch.float64)
    way = torch.randn(len(mu) + 1, generator=generator, dtype=torch.float64)

    def at(step: float) -> tuple[float, torch.Tensor, torch.Tensor]:
        here = point(asked, 3.0 + step * float(way[0]), mu + step * way[1:])
        assert here is not None
        return here.barrier, *derivatives(asked, here, 0.0)

    (low, gradient_low, _), (_, gradient, hessian), (high, gradient_high, _) = at(-1e-5), at(0.0), at(1e-5)
    assert (high - low) / 2e-5 == pytest.approx(float(gradient @ way), rel=1e-6)
    assert torch.allclose((gradient_high - gradient_low) / 2e-5, hessian @ way, rtol=1e-5, atol=1e-6)
    here = point(asked, 3.0, mu)
    assert here is not None
    by_rho, by_mu = barrier_gradient(asked, here)
    assert torch.allclose(torch.cat([torch.tensor([by_rho], dtype=torch.float64), by_mu]), gradient, rtol=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_no_multipliers_whatever_prove_too_much(seed: int) -> None:
    """Random ones around the closed form's: either they prove nothing, or something true."""
    weights = random_weights([3, 5, 4, 2], seed)
    network = centred(layers(chain(weights, 0.1)))
    start, generator = closed_form(network), np.random.default_rng(seed)
    true = worst(weights, 0.1, 2)
    for spread in (0.01, 1.0):
        multipliers = [lam * np.exp(spread * generator.standard_normal(len(lam))) for lam in start.each]
        assert certified(network, multipliers) >= true * (1 - 1e-13)
        assert true * (1 - 1e-13) <= repaired(network, multipliers, start.each, start.square) < np.inf


def test_forms_that_are_too_small_are_enlarged_until_they_are_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """With positive weights the linear map attains the constant; arithmetic that is a thousandth off finds less."""
    weights = [np.abs(weight) for weight in random_weights([4, 8, 6, 3], 0)]
    truth = float(np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2))
    network = centred(layers(chain(weights, 0.0)))
    start = closed_form(network)
    multipliers = interior.optimal(network, start.each, start.square)
    assert truth <= certified(network, multipliers) <= truth * (1 + 1e-7)
    right = ellipsoid.advance
    for share in (1e-3, 1e-4):
        monkeypatch.setattr(ellipsoid, "advance", lambda *given, share=share: right(*given) * (1 - share))
        assert truth <= certified(network, multipliers) <= truth * 1.02


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_multipliers_that_are_no_positive_numbers_prove_nothing(bad: float) -> None:
    network = centred(layers(chain(random_weights([3, 4, 2], 0), 0.1)))
    start = closed_form(network)
    assert certified(network, start.each) < np.inf
    spoiled = [lam.copy() for lam in start.each]
    spoiled[0][1] = bad
    assert certified(network, spoiled) == np.inf


@pytest.mark.parametrize(
    ("solver", "loss"),
    [("clarabel", 1e-6), ("scs", 1e-2), ("primal-dual", 1e-6), ("sweeps", 1e-4), ("newton", 1e-9), ("descent", 1e-2)],
)
def test_general_solvers_agree_and_only_their_repaired_answers_count(solver: str, loss: float) -> None:
    if solver in convex.SOLVERS:
        pytest.importorskip("cvxpy")
    weights = random_weights([5, 12, 12, 1], 0)
    own = lt.lipschitz(chain(weights, 0.3), method="lipsdp").upper
    theirs = lt.lipschitz(chain(weights, 0.3), method="lipsdp", solver=solver).upper
    assert own * (1 - 1e-6) <= theirs <= own * (1 + loss)


@pytest.mark.parametrize("method", ["liplt", "lipsdp", "scs", "fourier", "jacobian"])
def test_what_comes_too_late_still_proves_something(method: str) -> None:
    """LipLT falls back to the product, multipliers to the closed form's, a solver's process is ended."""
    network = chain(random_weights([5, 12, 12, 1], 0), 0.3)
    ways = {"method": "lipsdp", "solver": "scs"} if method == "scs" else {"method": method}
    norm = "inf" if method == "jacobian" else 2
    whole = lt.lipschitz(network, norm=norm, **ways).upper  # type: ignore[arg-type]
    cut = lt.lipschitz(network, norm=norm, timeout=1e-3, **ways)  # type: ignore[arg-type]
    assert cut.timed_out
    assert whole * (1 - 1e-9) <= cut.upper < np.inf
    if method in ("lipsdp", "scs"):
        assert cut.upper == pytest.approx(lt.lipschitz(network, method="fast").upper, rel=1e-6)


def test_a_solver_with_time_enough_answers_from_its_own_process() -> None:
    pytest.importorskip("cvxpy")
    network = chain(random_weights([3, 6, 1], 0), 0.3)
    own = lt.lipschitz(network, method="lipsdp").upper
    assert own * (1 - 1e-6) <= lt.lipschitz(network, method="lipsdp", solver="scs", timeout=100).upper <= own * 1.001


def test_the_question_whether_a_bound_can_be_reached_ends_early() -> None:
    """What is enough is found, and what duality excludes is not looked for to the end."""
    network = centred(layers(chain(random_weights([4, 10, 10, 2], 0), 0.1)))
    start = closed_form(network)
    best = certified(network, primal_dual.optimal(network, start.each, start.square))
    for share, reached in ((1.05, True), (0.95, False)):
        steps: list[int] = []
        wanted = (share * best) ** 2
        found = primal_dual.optimal(
            network, start.each, start.square, enough=wanted, progress=lambda k, _, steps=steps: steps.append(k)
        )
        assert (certified(network, found) ** 2 <= wanted) == reached
        assert len(steps) < 10


DEEP = {
    "chain": chain(random_weights([4] + [5] * 12 + [2], 0), 0.1),
    "blocks": residual(
        random_weights([5, 2], 1)[0],
        [(a, 0.5 * b) for a, b in itertools.pairwise(random_weights([5] * 21, 2))][::2],
        random_weights([4, 5], 3)[0],
        0.0,
    ),
}


@pytest.mark.parametrize(("kind", "loss"), [("chain", 3e-3), ("blocks", 0.02)])
def test_sweeps_over_a_few_stages_end_where_all_stages_together_do(
    kind: str, loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "_SWEEPS", tuple((gap, 15) for gap, _ in sweeps._SWEEPS))
    network = centred(layers(DEEP[kind]))
    start = closed_form(network)
    assert len(sweeps.windows([stage.neurons for stage in network.stages], 15)) >= 6
    best = certified(network, primal_dual.optimal(network, start.each, start.square))
    found = certified(network, sweeps.optimal(network, start.each, start.square))
    assert best * (1 - 1e-5) <= found <= best * (1 + loss)
    assert best < 0.6 * certified(network, start.each)


@pytest.mark.parametrize("kind", DEEP)
def test_every_window_of_a_sweep_leaves_multipliers_that_prove_what_it_says(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square that a sweep works with is the one that its multipliers prove, wherever it is broken off."""
    monkeypatch.setattr(sweeps, "_SWEEPS", ((3.0, 15), (0.3, 15)))
    network = centred(layers(DEEP[kind]))
    start = closed_form(network)
    squares, right = list[float](), sweeps._Search._take

    def taken(search: sweeps._Search, *given: object) -> None:
        right(search, *given)  # type: ignore[arg-type]
        bound = certified(network, search.asked.multipliers(torch.cat(search.mu)))
        assert bound**2 <= search.rho * start.square * (1 + 1e-7)
        squares.append(search.rho)

    monkeypatch.setattr(sweeps._Search, "_take", taken)
    sweeps.optimal(network, start.each, start.square)
    assert len(squares) >= 8
    assert squares == sorted(squares, reverse=True)


def test_deep_networks_are_swept_and_end_at_their_deadline_with_what_is_feasible() -> None:
    weights = random_weights([16] * 50, 0)
    network = centred(layers(chain(weights, 0.1)))
    start = closed_form(network)
    assert usual(network) == "sweeps"
    late = sweeps.optimal(network, start.each, start.square, deadline=time.monotonic())
    assert all(np.array_equal(a, b) for a, b in zip(late, start.each, strict=True))
    least = certified(network, start.each)
    assert certified(network, sweeps.optimal(network, start.each, start.square, deadline=time.monotonic() + 1)) < least


def test_a_raw_answer_of_a_loose_solver_is_rejected_and_its_repair_accepted() -> None:
    cvxpy = pytest.importorskip("cvxpy")
    assert "SCS" in cvxpy.installed_solvers()
    network = centred(layers(chain(random_weights([5, 12, 12, 1], 0), 0.3)))
    start = closed_form(network)
    claimed, raw = convex.optimal(network, start.each, start.square, solver="scs", eps=1e-5)
    best = certified(network, interior.optimal(network, start.each, start.square))
    assert not certified(network, raw) <= claimed
    assert best * (1 - 1e-9) <= repaired(network, raw, start.each, start.square) <= best * 1.01


# ---- what is refused ----


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        ({"norm": "3"}, "norm '3' is not known; allowed: inf, 2, 1"),
        ({"method": "network"}, "'network' is not known; allowed: auto, product, liplt"),
        ({"method": "lipsdp", "norm": "inf"}, "those that do: auto, product, liplt"),
        ({"method": "lipsdp", "solver": "mosek"}, "allowed: primal-dual, sweeps, newton, descent, clarabel, scs"),
        ({"solver": "scs"}, "--solver scs is of --method lipsdp; --method is auto"),
        ({"radius": 0.1}, "belong together"),
        ({"centre": torch.zeros(3), "radius": 0.1}, "the centre has 3 entries; the network has 4 inputs"),
        ({"centre": torch.zeros(4), "radius": -0.1}, "must be a finite number >= 0"),
        ({"slopes": (1.0, 0.0)}, "give the lower slope first"),
        ({"slopes": (0.0, 1.0), "centre": torch.zeros(4), "radius": 0.1}, "global"),
        ({"timeout": 0.0}, "not a positive number"),
    ],
)
def test_questions_that_make_no_sense_are_refused(ways: dict[str, object], says: str) -> None:
    with pytest.raises((UsageError, PropertyError), match=says.replace("(", r"\(")):
        lt.lipschitz(build("fully_connected"), **ways)  # type: ignore[arg-type]


def test_an_activation_without_a_sector_is_named() -> None:
    with pytest.raises(UnsupportedOperator, match=r"node 'Maximum_\d+': Maximum has no sector.*leaktight bounds"):
        lt.lipschitz(build("max_pool"))


def test_a_solver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(UsageError, match=r"needs cvxpy, which is not installed.*--method fast"):
        lt.lipschitz(build("fully_connected"), method="lipsdp", solver="scs")


@pytest.mark.parametrize("fault", ["fails", "finds nothing"])
def test_a_solver_that_fails_is_named_with_what_would_work(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cvxpy = pytest.importorskip("cvxpy")

    def solve(*_: object, **__: object) -> None:
        if fault == "fails":
            raise cvxpy.error.SolverError("numerical trouble")

    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    says = "--solver scs: it " + ("failed .numerical trouble." if fault == "fails" else "found nothing")
    with pytest.raises(UsageError, match=f"{says}.*--method fast"):
        lt.lipschitz(build("fully_connected"), method="lipsdp", solver="scs")


def test_time_that_runs_out_leaves_what_is_proven() -> None:
    weights = random_weights([20, 80, 80, 80, 10], 0)
    found = lt.lipschitz(chain(weights, 0.0), timeout=0.05)
    assert found.timed_out
    assert np.isfinite(found.upper)
    assert found.upper >= lt.lipschitz(chain(weights, 0.0), method="fast").lower  # type: ignore[operator]


def test_a_bound_below_what_inputs_attain_is_an_error_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from leaktight.errors import InternalError
    from leaktight.verify.lipschitz import lipschitz as door

    monkeypatch.setattr(door, "_bounds", lambda *_: ({"product": 1e-3}, False))
    with pytest.raises(InternalError, match="inputs attain"):
        lt.lipschitz(chain(random_weights([3, 4, 2], 0), 0.1))


def test_the_worst_pattern_stands_beside_the_bound_and_is_the_true_one_on_a_tiny_network() -> None:
    weights = random_weights([3, 5, 4, 2], 1)
    found = lt.lipschitz(chain(weights, 0.1))
    assert found.pattern is not None
    assert found.pattern == pytest.approx(worst(weights, 0.1, 2), rel=0.05)
    assert found.pattern <= worst(weights, 0.1, 2) * (1 + 1e-12)
    assert found.pattern <= found.upper


def test_positive_matrices_are_proven_and_others_are_not() -> None:
    from leaktight.models.enclosure import Enclosure
    from leaktight.verify.lipschitz.norms import spectral
    from leaktight.verify.lipschitz.positive import _factors, is_positive_semidefinite

    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 40):
        basis, _ = np.linalg.qr(generator.standard_normal((size, size)))
        for least, proven in ((1.0, True), (1e-6, True), (-1e-6, False), (-1.0, False)):
            values = np.concatenate([[least], 1 + generator.random(size - 1)])
            matrix = (basis * values) @ basis.T
            scale = np.exp(5 * generator.standard_normal(size))
            scaled = scale[:, None] * (matrix + matrix.T) / 2 * scale
            assert is_positive_semidefinite(exactly(scaled)) is proven
            wide = Enclosure(matrix, np.full_like(matrix, 2.0))
            assert not is_positive_semidefinite(wide)
        assert not _factors(np.eye(size), 0.1, 0.1 - 1e-3)
        assert _factors(np.eye(size), 0.1, 0.1 + 1e-3)
        rectangle = generator.standard_normal((size, 7))
        truth = float(np.linalg.norm(rectangle, 2))
        assert truth * (1 - 1e-14) <= spectral(exactly(rectangle)) <= truth * (1 + 1e-9)
        left, _, right = np.linalg.svd(rectangle)
        moved = rectangle + 0.01 * np.outer(np.sign(left[:, 0]), np.sign(right[0]))
        uncertain = Enclosure(rectangle, np.full_like(rectangle, 0.01))
        assert spectral(uncertain) >= float(np.linalg.norm(moved, 2)) * (1 - 1e-14)


@pytest.mark.parametrize("method", ["fast", "lipsdp"])
def test_a_proof_that_would_end_long_after_the_deadline_is_not_begun(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    network = chain([generator.normal(size=(9, 6)), generator.normal(size=(5, 9))], 0.1)
    product = lt.lipschitz(network, method="product").upper
    assert lt.lipschitz(network, method=method, timeout=100).upper < product
    monkeypatch.setattr("leaktight.verify.lipschitz.methods._SPEED", 1.0)
    assert lt.lipschitz(network, method=method, timeout=5).upper == product


def test_steps_in_float32_end_where_those_in_float64_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where float32 sees no feasible point at all, the search begins again in float64."""
    network = centred(layers(chain(random_weights([4, 20, 20, 20, 2], 0), 0.1)))
    start = closed_form(network)
    bound = certified(network, primal_dual.optimal(network, start.each, start.square))
    monkeypatch.setattr(primal_dual, "_ROUGH", np.inf)
    assert certified(network, primal_dual.optimal(network, start.each, start.square)) == pytest.approx(bound, rel=3e-6)
    monkeypatch.setattr(primal_dual, "_ROUGH", 2e-3)
    monkeypatch.setattr(primal_dual, "sharpened", lambda *_: None)
    assert certified(network, primal_dual.optimal(network, start.each, start.square)) == pytest.approx(bound, rel=3e-6)


@pytest.mark.parametrize("size", [1e160, 1e300])
@pytest.mark.parametrize("method", ["product", "fast", "lipsdp", "fourier"])
def test_numbers_out_of_range_end_in_no_bound_or_in_a_true_one(method: str, size: float) -> None:
    """One layer that is huge, and all of them, whose product overflows: what is said holds, and nothing crashes."""
    weights = random_weights([3, 5, 4, 2], 0)
    for place in range(3):
        huge = [size * weight if k == place else weight for k, weight in enumerate(weights)]
        assert lt.lipschitz(chain(huge, 0.1), method=method).upper >= size * worst(weights, 0.1, 2) * (1 - 1e-12)
    assert lt.lipschitz(chain([size * weight for weight in weights], 0.1), method=method).upper == np.inf
