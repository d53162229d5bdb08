"""PyTorch modules, archives and state dicts: the network computes what the module computes, and files run no code."""

from __future__ import annotations

import functools
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leaktight.errors import ModelError, UnsupportedOperator, UsageError
from leaktight.models.checkpoint import read_checkpoint
from leaktight.models.load import load
from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.models.pytorch import read_archive, read_module, read_state_dict

pytest.importorskip("onnxscript")


class Residual(nn.Module):
    """Convolutions with batch normalisation, a skip connection, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.pool, self.head = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm(self.stem(x)), 0.2)
        x = F.max_pool2d(x + self.inner(x), 2)
        return self.head(self.drop(torch.flatten(self.pool(torch.cat([x, -x], 2)), 1)))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Written with functions and tensor methods only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(x @ self.weight.T + self.shift, 0.3)
        a, b = y.split([2, 3], dim=1)
        return torch.cat([torch.maximum(a, b[:, 1:]), (b - 0.5) / 3, a.clamp(-1, 1)], dim=1)


class Several(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        y = F.leaky_relu(self.left(a) - self.right(b))
        return y, y.sum(1, keepdim=True)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def prelu() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.PReLU(4), nn.Flatten(), nn.Linear(16, 3), nn.PReLU())
    module[1].weight.data = torch.tensor([-0.5, 0.0, 0.3, 1.7])
    return module


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.01), nn.BatchNorm1d(6), nn.Linear(6, 2), nn.Sigmoid())


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "mlp": (mlp, ((4,),)),
    "residual": (Residual, ((2, 4, 8),)),
    "functional": (Functional, ((4,),)),
    "prelu": (prelu, ((2, 5, 5),)),
    "normalised": (normalised, ((4,),)),
    "several": (Several, ((3,), (2,))),
}


def seasoned(build: Callable[[], nn.Module]) -> nn.Module:
    """A module whose normalisation layers have seen data."""
    torch.manual_seed(0)
    module = build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for buffer in (layer.running_mean, layer.running_var):
                buffer.data.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            layer.weight.data.uniform_(-1.5, 1.5)
    return module


def example(shapes: tuple[tuple[int, ...], ...], rows: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(rows, *shape, dtype=dtype) for shape in shapes)


def assert_computes_the_same(network: Network, module: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs = example(shapes, 20, torch.float64)
    with torch.no_grad():
        expected = module.double().eval()(*inputs)
    found = network(*inputs)
    for y, wanted in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, expected)), strict=True):
        assert y.shape == wanted.shape
        torch.testing.assert_close(y, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "rows"), [("mlp", 1), *((name, 4) for name in MODULES)])
def test_the_network_computes_what_the_module_computes(name: str, rows: int) -> None:
    build, shapes = MODULES[name]
    module = seasoned(build)
    network = read_module(module, example(shapes, rows))
    assert [port.shape for port in network.inputs] == [(1, *shape) for shape in shapes]
    assert network.batched
    assert_computes_the_same(network, module, shapes)


def test_weights_of_a_float64_module_stay_float64() -> None:
    module = seasoned(mlp).double()
    third = torch.tensor(1 / 3, dtype=torch.float64)
    with torch.no_grad():
        module[0].weight.fill_(float(third))  # type: ignore[operator, union-attr]
    network = read_module(module, torch.zeros(1, 4, dtype=torch.float64))
    assert network.inputs[0].dtype == "float64"
    linear = next(node.op for node in network if hasattr(node.op, "weight"))
    assert (linear.weight == third).all()


def test_trained_slopes_arrive_exactly() -> None:
    network = read_module(seasoned(prelu), torch.zeros(1, 2, 5, 5))
    slopes = next(node.op.left for node in network if isinstance(node.op, TwoSlope))
    assert slopes.flatten().tolist() == torch.tensor([-0.5, 0.0, 0.3, 1.7]).double().tolist()


def test_a_module_in_training_mode_is_read_in_evaluation_mode_and_left_alone() -> None:
    module = seasoned(Residual).train()
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = read_module(module, torch.randn(4, 2, 4, 8))
    assert module.training
    assert module.drop.training
    assert not module.norm.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert_computes_the_same(network, module, ((2, 4, 8),))


def test_the_onnx_model_that_replays_it_computes_the_same() -> None:
    import onnxruntime

    module = seasoned(prelu)
    network = read_module(module, torch.zeros(3, 2, 5, 5))
    assert network.source is not None
    assert network.source.onnx is not None
    session = onnxruntime.InferenceSession(network.source.onnx)
    x = torch.randn(1, 2, 5, 5)
    (y,) = session.run(None, {network.inputs[0].name: x.numpy()})
    np.testing.assert_allclose(y, network(x.double()).numpy(), rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]


def test_a_module_made_for_many_rows_is_read_with_all_of_them() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.leaky_relu(x.reshape(2, 6)) * 2

    assert read_module(Fixed(), torch.randn(4, 3)).inputs[0].shape == (4, 3)


def test_a_module_whose_rows_depend_on_each_other_is_read_with_all_of_them() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.leaky_relu(x - x.mean(0, keepdim=True))

    assert read_module(Centred(), torch.randn(4, 3)).inputs[0].shape == (4, 3)


def test_an_input_without_a_batch_axis_keeps_its_shape() -> None:
    network = read_module(nn.Sequential(nn.Linear(4, 2), nn.LeakyReLU()), torch.randn(4))
    assert network.inputs[0].shape == (4,)


def test_load_takes_modules_too() -> None:
    module = seasoned(normalised)
    assert_computes_the_same(load(module, torch.randn(2, 4)), module, ((4,),))


def test_reading_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        read_module(seasoned(mlp), torch.zeros(1, 4))
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in heard] == []


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


@pytest.mark.parametrize(
    ("module", "given", "error", "words"),
    [
        (Branching(), torch.ones(1, 3), ModelError, "<module Branching>: torch.export cannot trace it"),
        (mlp(), torch.ones(1, 5), ModelError, r"Sequential>: the module fails on the example input of shape \(1, 5\)"),
        (mlp(), "four", ModelError, "the example input is str; give a tensor"),
        (mlp(), (), ModelError, "the example input is empty"),
        (nn.LSTM(3, 3), torch.ones(1, 3), ModelError, "the module returns tuple"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), torch.ones(1, 3), UnsupportedOperator, "Softmax"),
    ],
)
def test_modules_that_cannot_be_read_are_refused_with_the_reason(
    module: nn.Module, given: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_module(module, given)


def test_without_onnxscript_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install leaktight\[pytorch\]"):
        read_module(mlp(), torch.zeros(1, 4))


# ---- .pt2 archives ---------------------------------------------------------------------------------------------------


def archive_of(folder: Path, module: nn.Module, *arguments: Tensor, rows_free: bool = False) -> Path:
    shapes = tuple({0: torch.export.Dim("rows")} for _ in arguments) if rows_free else None
    path = folder / "net.pt2"
    torch.export.save(torch.export.export(module, arguments, dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize(("name", "rows_free"), [("residual", False), ("mlp", True), ("several", True)])
def test_an_archive_is_read(tmp_path: Path, name: str, rows_free: bool) -> None:
    build, shapes = MODULES[name]
    module = seasoned(build).eval()
    path = archive_of(tmp_path, module, *example(shapes, 2 if rows_free else 1), rows_free=rows_free)
    network = read_archive(path)
    assert network.source is not None
    assert network.source.path == str(path)
    assert_computes_the_same(network, module, shapes)


def test_an_archive_in_training_mode_is_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path, seasoned(Residual).train(), torch.randn(2, 2, 4, 8))
    with pytest.raises(ModelError, match=r"is in training mode; .*call eval\(\)"):
        read_archive(path)


@functools.cache
def plain_archive() -> bytes:
    """An archive of `mlp` with a free number of rows."""
    buffer, shapes = io.BytesIO(), ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(mlp().eval(), (torch.zeros(2, 4),), dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


def copied(folder: Path) -> Path:
    path = folder / "net.pt2"
    path.write_bytes(plain_archive())
    return path


class Marks:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def rewritten(path: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    """Changes one part of an archive; a part that is not there is added."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(parts)).partition("/")[0]
    parts[f"{root}/{part}"] = change(parts.get(f"{root}/{part}", b""))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
EVIL = "__import__('pathlib').Path('MARK').touch()"


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        (MODEL, replaced("Symbol('s", f"{EVIL} or Symbol('s"), "is not a plain name"),
        (
            MODEL,
            replaced("torch.ops.aten.leaky_relu.default", "torch.hub.load"),
            "'torch.hub.load' is not a standard one",
        ),
        (
            MODEL,
            replaced("torch.ops.aten.leaky_relu.default", "torch.ops.aten.from_file.default"),
            "is not a standard one",
        ),
        (MODEL, replaced('"p_0_weight"', f'"x={EVIL}"'), "is not a plain name"),
        (
            MODEL,
            replaced('\\"type\\": \\"builtins.tuple\\"', '\\"type\\": \\"collections.defaultdict\\"'),
            "defaultdict",
        ),
        (MODEL, replaced('"forward_arg_names": ["input"]', f'"forward_arg_names": ["input={EVIL}"]'), "argument name"),
        (MODEL, replaced("Symbol('s", "9**9**9 + Symbol('s"), "is not a plain name"),
        (
            MODEL,
            replaced('{"as_float": 0.1}', '{"as_graph": {"name": "a", "graph": {}}}'),
            "it has an entry 'as_graph'",
        ),
        (MODEL, replaced('{"as_float": 0.1}', '{"as_operator": "torch.hub.load"}'), "it has an entry 'as_operator'"),
        (MODEL, lambda _: b"[1]", "it is not a JSON object"),
        (MODEL, lambda _: b"{", "it is not JSON"),
        (MODEL, lambda _: b"{}", "it is not an exported program"),
        (WEIGHTS, replaced('"use_pickle": false', '"use_pickle": true'), "is not a plain tensor"),
        (WEIGHTS, replaced('"path_name": "weight_0"', '"path_name": "../../../other"'), "is not a plain tensor"),
        ("data/aotinductor/model/model.so", lambda _: b"\x7fELF", "it may hold compiled or pickled code"),
        ("data/weights/model.pt", lambda _: b"\x80\x02.", "it may hold compiled or pickled code"),
        ("data/constants/custom_obj_0", lambda _: b"\x80\x02.", "it may hold compiled or pickled code"),
    ],
)
def test_an_archive_with_anything_but_plain_data_is_refused(
    tmp_path: Path, part: str, change: Callable[[bytes], bytes], words: str
) -> None:
    path = copied(tmp_path)
    rewritten(path, part, change)
    with pytest.raises(ModelError, match=words):
        read_archive(path)


def test_pickled_example_inputs_are_not_unpickled(tmp_path: Path) -> None:
    path, mark, evil = copied(tmp_path), tmp_path / "mark", io.BytesIO()
    torch.save(((torch.zeros(1, 4), Marks(mark)), {}), evil)
    rewritten(path, "data/sample_inputs/model.pt", lambda _: evil.getvalue())
    with pytest.raises(ModelError, match="the example inputs are not plain tensors"):
        read_archive(path)
    assert not mark.exists()


def test_metadata_and_extra_files_of_an_archive_do_not_reach_torch(tmp_path: Path) -> None:
    module = mlp().eval()
    path = archive_of(tmp_path, module, torch.zeros(1, 4))

    def poison(content: bytes) -> bytes:
        document = json.loads(content)
        document["graph_module"]["graph"]["nodes"][0]["metadata"]["stack_trace"] = f'File "a", line 1\n{EVIL}'
        document["guards_code"] = [EVIL]
        return json.dumps(document).encode()

    rewritten(path, MODEL, poison)
    rewritten(path, "extra/notes.txt", lambda _: b"import os")
    assert_computes_the_same(read_archive(path), module, ((4,),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "this is not a complete .pt2 archive"),
        (b"hello", "this is not a complete .pt2 archive"),
        ("half", "this is not a complete .pt2 archive"),
        ("other", "the archive has no models/model.json"),
    ],
)
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes | str | None, words: str) -> None:
    path = tmp_path / "net.pt2"
    if content == "half":
        whole = plain_archive()
        content = whole[: len(whole) // 2]
    elif content == "other":
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(1)}, buffer)
        content = buffer.getvalue()
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_archive(path)


# ---- state dicts -----------------------------------------------------------------------------------------------------

CODE = """
import torch
from torch import nn
from torch.nn import functional as F

input_shape = (2, 5, 5)

def build():
    return nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.PReLU(4), nn.Flatten(), nn.Linear(16, 3), nn.PReLU())

def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

def fails():
    raise RuntimeError("no data folder")

def text():
    return "net"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``mynets/shapes.py`` and ``mynets/plain.py`` in it."""
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").write_text("")
    (tmp_path / "mynets" / "shapes.py").write_text(CODE)
    (tmp_path / "mynets" / "plain.py").write_text(CODE.replace("input_shape = (2, 5, 5)", ""))
    (tmp_path / "mynets" / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def saved(home: Path, content: Any, name: str = "net.pt") -> Path:
    torch.save(content, home / name)
    return home / name


def test_a_state_dict_is_read_with_the_code_of_the_current_directory(home: Path) -> None:
    module, before = seasoned(prelu), list(sys.path)
    network = read_state_dict(saved(home, module.state_dict()), "mynets.shapes:build")
    assert network.inputs[0].shape == (1, 2, 5, 5)
    assert sys.path == before
    assert_computes_the_same(network, module, ((2, 5, 5),))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model_state_dict": {f"module.{key}": value for key, value in weights.items()}},
    ],
)
def test_a_state_dict_inside_a_training_checkpoint_is_found(home: Path, wrap: Callable[[Any], Any]) -> None:
    module = seasoned(mlp)
    found = read_checkpoint(str(saved(home, wrap(module.state_dict()))), "mynets.plain:mlp").module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in module.state_dict().items())


def test_load_takes_state_dicts_too(home: Path) -> None:
    module = seasoned(mlp)
    network = load(saved(home, module.state_dict()), architecture="mynets.plain:mlp")
    assert_computes_the_same(network, module, ((4,),))


def test_a_state_dict_keeps_its_precision(home: Path) -> None:
    module = seasoned(mlp).double()
    network = read_state_dict(saved(home, module.state_dict()), "mynets.plain:mlp")
    assert network.inputs[0].dtype == "float64"
    weights = [node.op.weight for node in network if hasattr(node.op, "weight")]
    assert torch.equal(weights[0], module[0].weight.detach())  # type: ignore[index]


def test_an_example_input_decides_the_shape(home: Path) -> None:
    network = read_state_dict(saved(home, prelu().state_dict()), "mynets.plain:build", torch.zeros(1, 2, 5, 5))
    assert network.inputs[0].shape == (1, 2, 5, 5)


@pytest.mark.parametrize(
    ("architecture", "error", "words"),
    [
        ("mynets.plain", UsageError, "package.module:factory is expected"),
        ("mynets.plain:build()", UsageError, "package.module:factory is expected"),
        ("mynets.absent:build", UsageError, "importing mynets.absent fails"),
        ("mynets.broken:build", UsageError, "importing mynets.broken fails .*nothing_of_this_name"),
        ("mynets.plain:absent", UsageError, "has no function or class 'absent'"),
        ("mynets.plain:fails", UsageError, "calling it without arguments fails .*no data folder"),
        ("mynets.plain:text", UsageError, "it returns str; an nn.Module is expected"),
        ("mynets.plain:mlp", ModelError, r"lacks 2.bias, 2.weight, 4.bias and has unknown 1.weight, 3.bias, 3.weight"),
        ("mynets.plain:build", UsageError, "the shape of the network's input is not known; .*input_shape"),
        (None, UsageError, "--architecture package.module:factory"),
    ],
)
def test_architectures_that_do_not_work_are_refused_with_the_reason(
    home: Path, architecture: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_state_dict(saved(home, prelu().state_dict()), architecture)


def test_weights_of_another_shape_are_refused_by_name(home: Path) -> None:
    weights = mlp().state_dict()
    weights["2.weight"] = torch.zeros(8, 9)
    with pytest.raises(ModelError, match=r"2\.weight has shape \(8, 9\), but mynets.plain:mlp needs \(8, 8\)"):
        read_state_dict(saved(home, weights), "mynets.plain:mlp")


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickled_module_is_refused_unless_trusted(home: Path, old_format: bool) -> None:
    module = seasoned(mlp)
    torch.save(module, home / "net.pt", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(ModelError, match=r"this file holds pickled code.*pass --trust only if you trust its author"):
        read_state_dict(home / "net.pt", "mynets.plain:mlp")
    architecture = "mynets.plain:mlp" if old_format else None
    assert_computes_the_same(read_state_dict(home / "net.pt", architecture, trust=True), module, ((4,),))


def test_code_in_a_refused_pickle_does_not_run(home: Path) -> None:
    for content in (Marks(home / "mark"), {"0.weight": Marks(home / "mark")}):
        with pytest.raises(ModelError, match="pickled code"):
            read_state_dict(saved(home, content), "mynets.plain:mlp")
    (home / "net.pt").write_bytes(pickle.dumps(Marks(home / "mark")))
    with pytest.raises(ModelError, match=r"net\.pt: "):
        read_state_dict(home / "net.pt", "mynets.plain:mlp")
    assert not (home / "mark").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "the file is empty"),
        (b"hello world", "this is not a checkpoint that torch can load"),
        (b"PK\x03\x04 and then nothing", "this is not a checkpoint that torch can load"),
        ([torch.ones(2)], "holds list, not a state dict"),
        ({"a": 3}, "entry 'a' is int, not a tensor"),
        ({}, "not a state dict"),
    ],
)
def test_files_that_hold_no_state_dict_are_refused(home: Path, content: Any, words: str) -> None:
    path = home / "net.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=words):
        read_state_dict(path, "mynets.plain:mlp")


def test_a_folder_is_refused(home: Path) -> None:
    with pytest.raises(ModelError, match="there is a folder"):
        read_state_dict(home / "mynets", "mynets.plain:mlp")
