"""The same answers wherever the arithmetic runs: on the processor, on a pretended device, on a GPU where one is.

The pretended device (tests/pretend.py) refuses what a GPU refuses, so that what passes here has its tensors where they
belong. Whether a GPU's arithmetic is what the error terms assume, only a GPU can show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from networks import KINDS, build, fully_connected
from pretend import DEVICE, ELSEWHERE, Elsewhere, Pretend
from questions import SHAPES, tiny_question
from torch import Tensor

import leaktight as lt
from leaktight.cli import run
from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.models.placed import PROCESSOR, placed
from leaktight.models.slopes import Slopes
from leaktight.specs.region import Norm, ball
from leaktight.verify import arithmetic, device
from leaktight.verify.bounds import auto_lirpa
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.curved import curvable, curved_bounds
from leaktight.verify.bounds.engine import ENGINES
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.parallel import each
from leaktight.verify.device import CPU, Device
from leaktight.verify.leak.constant import constant
from leaktight.verify.rounding import quotient
from leaktight.verify.search.replay import Replay
from leaktight.verify.verdict import Status

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.fixture
def there() -> Iterator[Pretend]:
    """The pretended device, which has to be used."""
    with Pretend() as pretended:
        yield pretended
    assert pretended.calls


def told(result: Any) -> Any:
    """A result's document without the time that it took."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(part) for key, part in value.items() if key != "seconds"}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    return timeless(result.to_json())


def regions(network: Network, norm: Norm = Norm.LINF, radius: float = 0.3) -> Any:
    generator = torch.Generator().manual_seed(1)
    return ball(torch.randn(2, network.input_size, generator=generator, dtype=torch.float64), radius, norm)


def assert_same_bounds(network: Network, region: Any, where: Device | str, tolerance: float = 0.0, **ways: Any) -> None:
    here, elsewhere = lt.bound(network, region, **ways), lt.bound(network, region, device=where, **ways)
    for name, ends in here.outputs.items():
        for mine, other in zip(ends, elsewhere.outputs[name], strict=True):
            assert not isinstance(other, Elsewhere)
            assert other.device == PROCESSOR
            torch.testing.assert_close(other, mine, rtol=tolerance, atol=tolerance)


FEW = ("branches", "convolutional", "transposed", "several_inputs", "max_pool", "rearranged")


@pytest.mark.parametrize("kind", FEW)
def test_bounds_come_back_from_a_device_the_same(kind: str, there: Pretend) -> None:
    network = build(kind, 1)
    assert_same_bounds(network, regions(network), DEVICE, engine="crown")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("engine", "norm"), [(e, norm) for e in ENGINES for norm in Norm if e != "alpha-crown" or norm is Norm.LINF]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_bounds_the_same_on_a_device(
    kind: str, engine: str, norm: Norm, dtype: torch.dtype, there: Pretend
) -> None:
    network = build(kind, 2)
    assert_same_bounds(network, regions(network, norm), DEVICE, engine=engine, dtype=dtype)


@pytest.mark.parametrize(("engine", "norm"), [("alpha-crown", Norm.LINF), ("interval", Norm.L2), ("crown", Norm.L1)])
def test_engines_and_norms_bound_the_same_on_a_device(engine: str, norm: Norm, there: Pretend) -> None:
    network = fully_connected(4, (3, 5, 4, 2))
    assert_same_bounds(network, regions(network, norm), DEVICE, engine=engine, dtype=torch.float32)


def same_verdict(network: Network, property: lt.Property, **ways: Any) -> lt.Verdict:
    """What both say."""
    here, elsewhere = (lt.prove(network, property, device=where, **ways) for where in ("cpu", DEVICE))
    assert told(here) == told(elsewhere)
    return elsewhere


# halved boxes, proved and refuted; linear programs
@pytest.mark.parametrize(
    ("shape", "seed", "wide", "engine"),
    [("per channel", 2, False, "auto"), ("chain", 3, False, "auto"), ("maximum", 3, True, "milp")],
)
def test_verdicts_come_back_from_a_device_the_same(
    shape: str, seed: int, wide: bool, engine: str, there: Pretend
) -> None:
    network, property, exact = tiny_question(shape, seed, 0.01, wide=wide)
    found = same_verdict(network, property, engine=engine)
    assert found.status is (Status.PROVED if exact > 0 else Status.REFUTED)


def test_neurons_are_split_on_a_device_as_here(there: Pretend) -> None:
    network = fully_connected(3, (13, 8, 3), 0.1)
    x = torch.rand(1, 13, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    asked = lt.robust(x, int(network.flat(x).argmax()), 0.3046875)
    found = same_verdict(network, asked)
    assert found.status is Status.PROVED
    assert found.statistics["domains"] > 5
    assert not there.reciprocals  # a search whose turns differ in a last place finds other bounds


def test_parabolas_bound_the_same_on_a_device(there: Pretend) -> None:
    network, limits = fully_connected(3, (5, 8, 6, 3), 0.1), {"memory": 2**28, "deadline": None, "late": lambda: False}
    region = regions(network, radius=0.5).select(slice(0, 1))
    assert curvable(network, region)

    def found(where: Device) -> dict[str, Interval]:
        with where.at_work():
            net, box = where.of((network, region))
            known = intermediate_bounds(net, box, limits["memory"])
            return curved_bounds(net, box, known, **limits)

    here, elsewhere = found(CPU), found(DEVICE)
    for name, z in here.items():
        assert isinstance(elsewhere[name].lower, Elsewhere)
        torch.testing.assert_close(elsewhere[name].lower.cpu(), z.lower, rtol=0, atol=0)
        torch.testing.assert_close(elsewhere[name].upper.cpu(), z.upper, rtol=0, atol=0)


SEARCHES = [
    (shape, wide, engine)
    for shape, wide, engine in product(SHAPES, (False, True), ("auto", "branch", "milp"))
    # neither neurons nor boxes are split there in little time
    if not (engine == "branch" and wide and shape in ("clipped", "maximum"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "wide", "engine"), SEARCHES)
@pytest.mark.parametrize("seed", [2, 3])
def test_every_search_ends_the_same_on_a_device(shape: str, seed: int, wide: bool, engine: str, there: Pretend) -> None:
    network, property, _ = tiny_question(shape, seed, 0.01, wide=wide)
    same_verdict(network, property, engine=engine)


def data(network: Network, count: int) -> tuple[Tensor, Tensor]:
    """Inputs in [0.1, 0.9], and their labels but for the first, which is wrong."""
    generator = torch.Generator().manual_seed(4)
    inputs = 0.8 * torch.rand(count, network.input_size, generator=generator, dtype=torch.float64) + 0.1
    labels = network.flat(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % network.output_size
    return inputs, labels


@pytest.mark.parametrize("norm", Norm)
def test_certificates_come_back_from_a_device_the_same(norm: Norm, there: Pretend) -> None:
    network = fully_connected(6, (3, 8, 8, 3), 0.1)
    ways: dict[str, Any] = {"norm": norm, "clip": (0.0, 1.0), "radius": True, "timeout": 100.0}
    here, elsewhere = (lt.certify(network, *data(network, 5), 0.1, device=where, **ways) for where in ("cpu", DEVICE))
    assert told(here) == told(elsewhere)
    assert {found.status for found in elsewhere.inputs} > {Status.REFUTED}


def test_a_curve_comes_back_from_a_device_the_same(there: Pretend) -> None:
    network = fully_connected(3, (2, 4, 2), 0.1)
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    asked = lt.robust(x, int(network.flat(x).argmax()), 0.05)
    here, elsewhere = (lt.leak(network, asked, (0.1, 0.1), engine="crown", device=where) for where in ("cpu", DEVICE))
    assert told(here) == told(elsewhere)
    assert elsewhere.status is Status.PROVED
    assert not there.reciprocals  # torch would have rounded them


def test_constants_that_are_asked_for_later_stay_on_the_processor() -> None:
    moving = Slopes.of(fully_connected(3, (2, 3, 2), 0.1))
    known = constant(moving, (0.1, 0.1), Norm.LINF, wanted=True)
    again = constant(moving, (0.1, 0.1), Norm.LINF, wanted=True)
    assert known is not None
    assert known.margins is not None
    assert again is not None
    assert again.margins is not None
    with Pretend(), DEVICE.at_work():
        there = list(known.margins(0, 1))
    assert there == list(again.margins(0, 1))


@pytest.mark.slow
def test_radii_along_slopes_come_back_from_a_device_the_same(there: Pretend) -> None:
    network = fully_connected(3, (2, 4, 2), 0.1)
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    label = network.flat(x).argmax(1)
    ways: dict[str, Any] = {"norm": Norm.L2, "radius": True, "lipschitz": True, "engine": "crown"}
    here, elsewhere = (
        lt.leak_of_data(network, x, label, 0.05, (0.1, 0.1), device=where, **ways) for where in ("cpu", DEVICE)
    )
    assert told(here) == told(elsewhere)
    assert not there.reciprocals


@pytest.mark.slow
@pytest.mark.parametrize("slopes", [(0.0, 0.3), (-0.3, 1.2)], ids=str)
@pytest.mark.parametrize("ways", [{}, {"meaning": "independent"}, {"engine": "branch"}], ids=str)
@pytest.mark.parametrize("kind", ["fully_connected", "convolutional", "residual", "per_channel"])
def test_every_curve_comes_back_from_a_device_the_same(
    kind: str, ways: dict[str, str], slopes: tuple[float, float], there: Pretend
) -> None:
    from test_leak import question

    _, network, case = question(kind, 1)
    asked = lt.Property((case,))
    here, elsewhere = (lt.leak(network, asked, slopes, device=where, **ways) for where in ("cpu", DEVICE))
    assert told(here) == told(elsewhere)
    assert not there.reciprocals


@pytest.mark.slow
@pytest.mark.parametrize("norm", Norm)
def test_curves_of_data_come_back_from_a_device_the_same(norm: Norm, there: Pretend) -> None:
    from test_leak import file_of

    from leaktight.models.simplify import simplify

    network = simplify(file_of("fully_connected", 2))
    ways: dict[str, Any] = {"norm": norm, "radius": True, "lipschitz": True}
    here, elsewhere = (
        lt.leak_of_data(network, *data(network, 4), 0.1, (0.0, 0.3), device=where, **ways) for where in ("cpu", DEVICE)
    )
    assert told(here) == told(elsewhere)
    assert not there.reciprocals


def test_sums_in_another_order_leave_bounds_sound_and_nearly_the_same() -> None:
    network = fully_connected(4, (3, 9, 8, 2), 0.1)
    region = regions(network)
    with Pretend(backwards=True):
        assert_same_bounds(network, region, DEVICE, 1e-12, engine="crown")
        found = lt.bound(network, region, engine="crown", dtype=torch.float32, device=DEVICE)
    exact = lt.bound(network, region, engine="crown")
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        y = network.flat(region.sample(generator)).reshape(found.lower.shape)
        assert bool(((found.lower <= y) & (y <= found.upper)).all())
    torch.testing.assert_close(found.lower, exact.lower, rtol=1e-4, atol=1e-4)


def test_a_quotient_is_rounded_once_on_every_device() -> None:
    """Of a tensor there and a plain number torch makes a product with the reciprocal, which may be off."""
    exact = [k / 49.0 for k in range(1, 200)]
    with Pretend() as elsewhere:
        numbers = torch.arange(1.0, 200.0, dtype=torch.float64, device=ELSEWHERE)
        assert quotient(numbers, 49.0).tolist() == exact
        assert not elsewhere.reciprocals
        assert (numbers / 49.0).tolist() != exact
    assert quotient(torch.arange(1.0, 200.0, dtype=torch.float64), 49.0).tolist() == exact


# ---- what the device is made of --------------------------------------------------------------------------------------


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    ours = torch.arange(4.0)
    with Pretend():
        theirs = ours.to(ELSEWHERE)
        whole = torch.tensor([0, 1], device=ELSEWHERE)
        refused: list[Callable[[], Any]] = [
            lambda: theirs + ours,
            lambda: torch.cat([theirs, ours]),
            lambda: theirs @ ours,
            lambda: torch.where(theirs > 0, theirs, ours),
            lambda: theirs.gather(0, torch.tensor([0])),
            lambda: ours[whole],
            lambda: theirs.index_put((torch.tensor([0, 1]),), torch.ones(2)),
            lambda: ours.add_(theirs),
            lambda: ours[0].add_(theirs[0]),
            lambda: theirs.numpy(),
            lambda: torch.rand(2, generator=torch.Generator(), device=ELSEWHERE),
            lambda: torch.stack([theirs[0], torch.tensor(1.0)]),
        ]
        for number, attempt in enumerate(refused):
            with pytest.raises((RuntimeError, TypeError)):
                print(number, attempt())
        assert (theirs * 2 + torch.tensor(1.0)).tolist() == [1.0, 3.0, 5.0, 7.0]
        assert theirs[torch.tensor([3, 0])].tolist() == theirs[[3, 0]].tolist() == [3.0, 0.0]
        theirs[1:3] = 7
        theirs[[0, 3]] = torch.tensor(5.0)
        assert theirs.tolist() == [5.0, 7.0, 7.0, 5.0]


def test_a_network_is_moved_once_and_comes_back_itself() -> None:
    network = build("per_channel", 0)
    with Pretend():
        moved = network.on(ELSEWHERE)
        assert moved.device == ELSEWHERE
        assert network.on(ELSEWHERE) is moved
        assert moved.on(ELSEWHERE) is moved
        assert moved.on(PROCESSOR) is network
        assert network.on(PROCESSOR) is network
        assert moved.digest == network.digest


def test_a_network_of_a_device_is_replayed_on_the_processor() -> None:
    network = build("several_inputs", 0)
    point = torch.linspace(-1, 1, network.input_size, dtype=torch.float64)
    here = Replay(network).run(point)
    with Pretend(), DEVICE.at_work():
        there = Replay(network.on(ELSEWHERE))
        with CPU.at_work():
            assert {name: x.tolist() for name, x in there.run(point.to(ELSEWHERE)).items()} == {
                name: x.tolist() for name, x in here.items()
            }


def test_only_what_lies_elsewhere_is_made_anew() -> None:
    network = build("residual", 0)
    value = (network, {"region": regions(network)}, [torch.ones(2)], "word", None)
    assert placed(value, PROCESSOR) is value
    with Pretend():
        moved = placed(value, ELSEWHERE)
        assert moved[0] is network.on(ELSEWHERE)
        assert moved[1]["region"].lower.device == moved[2][0].device == ELSEWHERE
        assert moved[3:] == ("word", None)


def test_slopes_are_set_on_the_processor_and_moved() -> None:
    network = build("per_channel", 0)
    a = torch.tensor([0.1, 0.3], dtype=torch.float64)
    here = Slopes.of(network).at(a)
    with Pretend(), DEVICE.at_work():
        there = DEVICE.of(Slopes.of(network)).at(DEVICE.of(a))
        assert there.device == ELSEWHERE
        assert there.on(PROCESSOR).digest == here.digest


def test_parts_come_one_after_the_other_where_there_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with Pretend(), DEVICE.at_work():
        made = list(each(lambda size: torch.ones(size), [1, 2, 3]))  # threads would know no device
    assert [x.device for x in made] == [ELSEWHERE] * 3


def test_a_default_device_of_the_users_own_changes_nothing() -> None:
    network, property, _ = tiny_question("chain", 3, 0.01)
    here = told(lt.prove(network, property))
    with Pretend() as elsewhere, torch.device(ELSEWHERE):
        assert told(lt.prove(network, property)) == here
        assert lt.bound(network, property.cases[0].region).lower.device == PROCESSOR
    assert elsewhere.calls < 10  # torch makes a tensor to say what the default is


def test_the_second_opinion_is_asked_on_the_processor(monkeypatch: pytest.MonkeyPatch, there: Pretend) -> None:
    def stub(network: Network, region: Any, objectives: Tensor, **_: Any) -> Tensor:
        assert {network.device, region.lower.device, objectives.device, torch.zeros(1).device} == {PROCESSOR}
        return torch.full((region.batch, objectives.shape[1]), -1e6)

    monkeypatch.setattr(auto_lirpa, "lower_bounds", stub)
    network = fully_connected(3, (2, 4, 2), 0.1)
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    asked = lt.robust(x, int(network.flat(x).argmax()), 0.05)
    found = lt.prove(network, asked, engine="auto-lirpa", device=DEVICE, effort=1e4)
    assert found.status is Status.UNKNOWN
    checked = lt.prove(network, asked, engine="interval", device=DEVICE, cross_check=True, effort=1e4)
    assert checked.cross_check is not None


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_shortened_products_are_noticed() -> None:
    with Pretend(backwards=True):
        arithmetic.check_arithmetic(ELSEWHERE)
    with Pretend(shortened=True), pytest.raises(UsageError, match=r"matrix products of torch\.float32"):
        arithmetic.check_arithmetic(ELSEWHERE)


@pytest.mark.parametrize(
    ("what", "name"),
    [("add", "sums"), ("sub", "differences"), ("mul", "products"), ("div", "quotients"), ("sqrt", "square roots"),
     ("mm", "matrix products"), ("bmm", "matrix products"), ("convolution", "convolutions")],
)  # fmt: skip
def test_results_that_are_off_in_the_last_place_are_noticed(what: str, name: str) -> None:
    class Sloppy(Pretend):
        def _computed(self, func: Any, operator: str, args: Any, kwargs: Any, flat: list[Any]) -> Any:
            found = super()._computed(func, operator, args, kwargs, flat)
            return torch.nextafter(found, 2 * found) if operator == what else found

    with Sloppy(), pytest.raises(UsageError, match=f": {name} of torch.float64 are not computed there as"):
        arithmetic.check_arithmetic(ELSEWHERE)


def test_smooth_functions_that_are_far_off_are_noticed() -> None:
    class Sloppy(Pretend):
        def _computed(self, func: Any, operator: str, args: Any, kwargs: Any, flat: list[Any]) -> Any:
            found = super()._computed(func, operator, args, kwargs, flat)
            return found * (1 + 2.0**-48) if operator == "tanh" else found

    with Sloppy(), pytest.raises(UsageError, match="values of tanh are not computed there as"):
        arithmetic.check_arithmetic(ELSEWHERE)


def test_flushed_numbers_are_noticed() -> None:
    class Flushing(Pretend):
        def _computed(self, func: Any, operator: str, args: Any, kwargs: Any, flat: list[Any]) -> Any:
            found = super()._computed(func, operator, args, kwargs, flat)
            if operator != "mul":
                return found
            return torch.where(found.abs() < torch.finfo(found.dtype).smallest_normal, 0.0, found)

    with Flushing(), pytest.raises(UsageError, match="products"):
        arithmetic.check_arithmetic(ELSEWHERE)


@pytest.mark.parametrize(
    ("name", "says"),
    [("gpu", "allowed: cpu, cuda, cuda:N"), ("cuda:", "allowed"), ("cuda:-1", "allowed"), ("meta", "allowed"),
     ("", "allowed"), ("CPU", "allowed")],
)  # fmt: skip
def test_a_device_that_has_no_name_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Device.named(name)


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch was built with CUDA")
@pytest.mark.parametrize("command", ["verify", "bounds", "leak", "certify"])
def test_a_torch_without_cuda_is_named(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["leaktight/data/digits.onnx", "leaktight/data/digits-proved.vnnlib"]
    more = {"leak": ["--slopes", "0:0.1"], "certify": ["--epsilon", "0.01"]}.get(command, [])
    if command == "certify":
        asked[1] = "leaktight/data/digits.npz"
    assert run([command, *asked, *more, "--device", "cuda"]) == 2
    assert "was built without CUDA; use --device cpu" in capfd.readouterr().err


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As if there were so many GPUs whose arithmetic was looked at."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(device, "_looked_at", lambda _: None)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    assert Device.named("cuda") == Device.named("cuda:0") == Device(torch.device("cuda:0"))
    assert Device.named("cuda:1").where.index == 1
    with pytest.raises(UsageError, match="no such GPU; torch finds cuda:0 to cuda:1"):
        Device.named("cuda:2")
    with_gpus(monkeypatch, 0)
    with pytest.raises(UsageError, match="no usable GPU"):
        Device.named("cuda")


def test_other_makers_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.version, "hip", "6.0")
    with pytest.raises(UsageError, match="AMD"):
        Device.named("cuda")


@pytest.mark.parametrize(
    "name", ["NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION"]
)
def test_settings_that_shorten_products_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    monkeypatch.setenv(name, "0")
    Device.named("cuda")
    monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match=f"{name}=1 changes how matrices are multiplied"):
        Device.named("cuda")


def test_products_in_tf32_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(UsageError, match="TF32"):
            Device.named("cuda")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_worker_processes_do_not_share_a_gpu(there: Pretend) -> None:
    network = fully_connected(6, (3, 4, 3), 0.1)
    lt.certify(network, *data(network, 2), 0.01, device=DEVICE)
    with pytest.raises(UsageError, match="leave out --jobs"):
        lt.certify(network, *data(network, 2), 0.01, device=DEVICE, jobs=2)


def test_too_little_memory_is_no_verdict(monkeypatch: pytest.MonkeyPatch, there: Pretend) -> None:
    network, property, _ = tiny_question("chain", 3, 0.01)
    lt.bound(network, property.cases[0].region, device=DEVICE)

    class Full(Pretend):
        def _computed(self, func: Any, operator: str, args: Any, kwargs: Any, flat: list[Any]) -> Any:
            if operator in ("mm", "bmm"):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")
            return super()._computed(func, operator, args, kwargs, flat)

    with Full(), pytest.raises(UsageError, match=r"not enough \(CUDA out of memory.*GiB\.\); give less with --memory"):
        lt.prove(network, property, device=DEVICE)


def test_half_of_a_gpus_free_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[torch.device]()

    def free(where: torch.device) -> tuple[int, int]:
        asked.append(where)
        return 6 << 30, 80 << 30

    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1 << 30)
    monkeypatch.setattr(torch, "get_default_device", lambda: torch.device("cuda:1"))
    assert default_memory() == 4 << 30
    assert asked == [torch.device("cuda:1")]


# ---- a GPU, where there is one ---------------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_bounds_nearly_the_same(engine: str, dtype: torch.dtype) -> None:
    tolerance = 1e-3 if dtype == torch.float32 else 1e-6
    for kind in KINDS:
        network = build(kind, 1)
        assert_same_bounds(network, regions(network), "cuda", tolerance, engine=engine, dtype=dtype)


@on_gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gpu_decides_the_same(shape: str) -> None:
    for seed, wide in product((2, 3), (False, True)):
        network, property, exact = tiny_question(shape, seed, 0.01, wide=wide)
        found = lt.prove(network, property, device="cuda", timeout=60)
        assert found.status is (Status.PROVED if exact > 0 else Status.REFUTED)
        assert found.margin.lower is None or found.margin.lower <= exact


@on_gpu
@pytest.mark.parametrize("norm", Norm)
def test_a_gpu_certifies_the_same(norm: Norm) -> None:
    network = fully_connected(6, (3, 8, 8, 3), 0.1)
    ways: dict[str, Any] = {"norm": norm, "clip": (0.0, 1.0), "radius": True, "timeout": 100.0}
    here, elsewhere = (lt.certify(network, *data(network, 5), 0.1, device=where, **ways) for where in ("cpu", "cuda"))
    assert [found.status for found in here.inputs] == [found.status for found in elsewhere.inputs]
    for mine, other in zip(here.inputs, elsewhere.inputs, strict=True):
        assert other.radius == pytest.approx(mine.radius, abs=1e-3)


@on_gpu
def test_a_gpu_draws_the_same_curve() -> None:
    network = fully_connected(3, (2, 4, 2), 0.1)
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    asked = lt.robust(x, int(network.flat(x).argmax()), 0.05)
    here, elsewhere = (lt.leak(network, asked, (0.1, 0.12), device=where) for where in ("cpu", "cuda"))
    assert elsewhere.curve is not None
    assert here.curve is not None
    assert elsewhere.status is here.status is Status.PROVED
    for a in (0.1, 0.105, 0.12):
        assert elsewhere.curve.lower(a) == pytest.approx(here.curve.lower(a), abs=1e-6)
