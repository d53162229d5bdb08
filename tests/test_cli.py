"""The command line: exit codes, messages, streams."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leaktight import cli
from leaktight.demo import IMAGES, NETWORK, PROVED, REFUTED
from leaktight.errors import Contradiction
from leaktight.verify.bounds import auto_lirpa

Run = Callable[..., tuple[int, str, str]]
DATA = str(NETWORK.parent)
VERIFY = ["verify", str(NETWORK), str(PROVED)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


def model(*nodes: onnx.NodeProto, weight: object = None, shape: tuple[object, ...] = (1, 2)) -> bytes:
    """An ONNX file with an input ``x``, an initializer ``w`` and an output ``y``."""
    value = np.eye(2, dtype=np.float32) if weight is None else np.asarray(weight, dtype=np.float32)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2)),
    ]
    graph = helper.make_graph(list(nodes), "test", ends[:1], ends[1:], [numpy_helper.from_array(value, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


DENSE = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")


def claims_ten_gigabytes() -> bytes:
    proto = onnx.ModelProto()
    proto.ParseFromString(model(DENSE))
    tensor = proto.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([50_000, 50_000])
    return proto.SerializeToString()


def control_flow() -> bytes:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, (1, 2))],
    )
    return model(helper.make_node("If", ["w"], ["y"], name="fork", then_branch=branch, else_branch=branch))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("this-must-not-exist",))


NETWORKS = {
    "missing": (None, "there is no such file"),
    "empty": (b"", "empty"),
    "truncated": (NETWORK.read_bytes()[:9000], "truncated"),
    "not ONNX": (b"%PDF-1.7 and so on", "ONNX"),
    "ten gigabytes": (claims_ten_gigabytes(), "'w'"),
    "NaN weights": (model(DENSE, weight=[[1, float("nan")], [0, 1]]), "NaN"),
    "infinite weights": (model(DENSE, weight=[[1, float("inf")], [0, 1]]), "inf"),
    "unknown operator": (model(helper.make_node("Det", ["x"], ["y"], name="odd")), "leaktight ops"),
    "control flow": (control_flow(), "control flow"),
    "dynamic shape": (model(DENSE, shape=(1, "width")), "axis 1"),
}


@pytest.mark.parametrize(("content", "fragment"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_bad_network_is_refused_with_its_path(content: bytes | None, fragment: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run("inspect", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"leaktight: error: {path}")
    assert fragment in err
    assert "Traceback" not in err


DECLARED = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
BOUNDED = "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))\n"
PROPERTIES = {
    "missing": (None, "no such file"),
    "empty file": ("", "bad.vnnlib"),
    "other variables": (PROVED.read_text(), "64 input variables"),
    "empty region": (DECLARED + BOUNDED + "(assert (<= X_1 (- 1)))(assert (<= Y_0 0))", "X_1"),
    "unbounded region": (DECLARED + "(assert (>= X_0 0))(assert (<= Y_0 0))", "X_0"),
    "product of variables": (DECLARED + BOUNDED + "(assert (<= (* Y_0 Y_1) 0))", ":3:"),
    "unknown variable": (DECLARED + BOUNDED + "(assert (<= Z_0 0))", ":3:"),
    "missing bracket": (DECLARED + BOUNDED + "(assert (<= Y_0 0)", ":3:"),
    "unknown word": (DECLARED + BOUNDED + "(assort (<= Y_0 0))", ":3:2"),
}


@pytest.mark.parametrize(("text", "fragment"), PROPERTIES.values(), ids=PROPERTIES.keys())
def test_a_bad_property_is_refused_with_its_place(text: str | None, fragment: str, run: Run, tmp_path: Path) -> None:
    network, path = tmp_path / "net.onnx", tmp_path / "bad.vnnlib"
    network.write_bytes(model(DENSE))
    if text is not None:
        path.write_text(text)
    code, out, err = run("verify", network, path)
    assert (code, out) == (2, "")
    assert err.startswith("leaktight: error: ")
    assert str(path) in err
    assert fragment in err


CERTIFY = ["certify", NETWORK, IMAGES]
USAGES = {
    "no such command": (["prove"], "no such command 'prove'"),
    "no such option": ([*VERIFY, "--speed", "9"], "--speed"),
    "no argument": (["verify", NETWORK], "PROPERTY"),
    "no epsilon": (CERTIFY, "--epsilon"),
    "unknown format": ([*VERIFY, "--format", "yaml"], "yaml"),
    "unknown engine": (
        [*VERIFY, "--engine", "magic"],
        "allowed: auto, interval, crown, alpha-crown, branch, milp, auto-lirpa",
    ),
    "unknown engine for bounds": (["bounds", NETWORK, PROVED, "--engine", "auto-lirpa"], "allowed: interval, crown"),
    "other guarantee": ([*VERIFY, "--guarantee", "float32"], "allowed: real"),
    "unknown arithmetic": ([*VERIFY, "--dtype", "float16"], "float16"),
    "timeout of nothing": ([*VERIFY, "--timeout", "0"], "positive"),
    "timeout that is no number": ([*VERIFY, "--timeout", "soon"], "--timeout: 'soon'"),
    "no memory": ([*VERIFY, "--memory", "0G"], "--memory: '0G'"),
    "negative seed": ([*VERIFY, "--seed", "-1"], "--seed"),
    "no folder for the result": ([*VERIFY, "-o", "no/such/folder/x.json"], "--output: the folder no/such/folder"),
    "a folder as the result": ([*VERIFY, "-o", DATA], "is a folder"),
    "no folder for the counterexample": ([*VERIFY, "--counterexample", "no/such/x.npz"], "--counterexample"),
    "negative epsilon": ([*CERTIFY, "--epsilon", "-0.1"], "-0.1 is negative"),
    "epsilon is not a number": ([*CERTIFY, "--epsilon", "nan"], "'nan' is not a finite number"),
    "epsilon divides by zero": ([*CERTIFY, "--epsilon", "1/0"], "'1/0'"),
    "unknown norm": ([*CERTIFY, "--epsilon", "0.1", "--norm", "3"], "allowed: inf, 2, 1"),
    "clip upside down": ([*CERTIFY, "--epsilon", "0.1", "--clip", "1", "0"], "clip"),
    "zero standard deviation": ([*CERTIFY, "--epsilon", "0.1", "--std", "0"], "std"),
    "means that are no numbers": ([*CERTIFY, "--epsilon", "0.1", "--mean", "0.1,x"], "--mean: 'x'"),
    "labels beside labels": ([*CERTIFY, "--epsilon", "0.1", "--labels", IMAGES], "has its labels in itself"),
    "slopes that overflow": (["leak", NETWORK, PROVED, "--slopes", "0:1e30"], "--slopes: 0.0:1e+30 goes beyond 1e+09"),
    "a folder as the network": (["verify", DATA, PROVED], "this is a folder; give the path of a network"),
    "a folder as the centre": (
        ["lipschitz", NETWORK, "--center", DATA, "--radius", "1"],
        "cannot be read (Is a directory)",
    ),
    "an archive as the centre": (["lipschitz", NETWORK, "--center", IMAGES, "--radius", "1"], "neither an .npy file"),
    "a suite for a file": (["init", IMAGES], "this is no folder"),
    "infinite margin": ([*VERIFY, "--margin", "inf"], "--margin: 'inf' is not a finite number"),
    "one result to compare": (["report", "none.json", "--compare"], "exactly two results; got 1"),
    "radius without a centre": (["lipschitz", NETWORK, "--radius", "1"], "--center and --radius belong together"),
    "options of data for a property": (
        ["leak", NETWORK, PROVED, "--slopes", "0:1", "--radius", "--clip", "0", "1"],
        "--clip, --radius: only with --data",
    ),
    "a whole module for a state dict": (["inspect", "module.pt"], "a whole module that was pickled needs --trust"),
    "no slopes": (["leak", NETWORK, PROVED], "missing option '--slopes': The range of slopes, like 0:0.3."),
    "no property": (["verify", NETWORK], "missing argument 'PROPERTY': A VNN-LIB file"),
    "no such format": (
        [*VERIFY, "--format", "pdf"],
        "invalid value for '--format': 'pdf' is not one of 'text', 'json'",
    ),
    "missing data": (["certify", NETWORK, "none.npz", "--epsilon", "0.1"], "none.npz"),
    "unknown type of network": (["inspect", IMAGES], ".npz"),
}


@pytest.mark.parametrize(("arguments", "fragment"), USAGES.values(), ids=USAGES.keys())
def test_wrong_usage_exits_with_two_and_says_what_is_allowed(arguments: list[object], fragment: str, run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert fragment in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("inputs", "labels", "fragment"),
    [
        (np.zeros((2, 64)), [3, 10], "10"),
        (np.zeros((2, 64)), [3, -1], "-1"),
        (np.zeros((2, 63)), [3, 4], "63"),
        (np.full((2, 64), np.nan), [3, 4], "finite"),
        (np.zeros((3, 64)), [3, 4], "3"),
    ],
    ids=["label too large", "negative label", "wrong shape", "NaN", "counts differ"],
)
def test_data_that_does_not_fit_is_refused(
    inputs: object, labels: object, fragment: str, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=inputs, y=labels)
    code, out, err = run("certify", NETWORK, path, "--epsilon", "0.1")
    assert (code, out) == (2, "")
    assert err.startswith("leaktight: error: ")
    assert fragment in err


def test_inspect_says_which_neurons_a_property_leaves_stable(run: Run) -> None:
    code, out, _ = run("inspect", NETWORK, "--format", "json")
    alone = json.loads(out)
    assert code == 0
    assert "property" not in alone
    code, out, _ = run("inspect", NETWORK, "--property", PROVED, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["property"]["path"] == str(PROVED)
    for own, layer in zip(alone["signal"]["layers"], found["signal"]["layers"], strict=True):
        assert own["at"][0]["active"] is None
        assert sum(layer["at"][0][side] for side in ("active", "inactive", "unstable")) == pytest.approx(1)
    code, out, _ = run("inspect", NETWORK, "--property", PROVED)
    assert code == 0
    assert "unstable" in out


def test_a_pickle_is_refused_and_its_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.pt").write_bytes(pickle.dumps(Payload()))
    Path("factory.py").write_text("import torch\ndef make():\n    return torch.nn.Linear(2, 2)\n")
    code, out, err = run("inspect", "net.pt", "--architecture", "factory:make")
    assert (code, out) == (2, "")
    assert "--trust" in err
    assert not Path("this-must-not-exist").exists()


ANSWERS = {
    "proved": (VERIFY, 0, "proved"),
    "proved in float32": ([*VERIFY, "--dtype", "float32", "--memory", "512M"], 0, "proved"),
    "refuted": (["verify", NETWORK, REFUTED], 1, "refuted"),
    "unknown": (["verify", NETWORK, PROVED, "--engine", "interval"], 3, "unknown"),
    "timeout": (["verify", NETWORK, REFUTED, "--timeout", "1e-9"], 4, "timeout"),
}


@pytest.mark.parametrize(("arguments", "code", "status"), ANSWERS.values(), ids=ANSWERS.keys())
def test_the_exit_code_and_the_document_say_the_same(arguments: list[object], code: int, status: str, run: Run) -> None:
    found, out, err = run(*arguments, "--format", "json")
    document = json.loads(out)
    assert (found, document["status"], document["schema"]) == (code, status, "leaktight.verdict/1")
    assert err.count("\n") == 1
    assert err.startswith(f"leaktight: {status}: ")


second_opinion = pytest.mark.skipif(auto_lirpa.available() is None, reason="auto_LiRPA is not installed")


@second_opinion
def test_the_cross_check_reports_both_tools(run: Run) -> None:
    code, out, _ = run(*VERIFY, "--cross-check")
    assert code == 0
    assert re.search(r"cross-check +auto-lirpa \S+ \(crown\) says >= \d+", out)
    document = json.loads(run(*VERIFY, "--cross-check", "--format", "json")[1])
    assert document["cross_check"]["margin"]["lower"] <= document["margin"]["upper"]


@second_opinion
def test_an_answer_without_rounding_terms_says_so(run: Run) -> None:
    code, out, err = run(*VERIFY, "--engine", "auto-lirpa")
    assert code == 0
    assert "a second opinion, not a" in out
    assert "guarantee: unrounded" in err


def test_a_property_between_proof_and_counterexample_is_unknown(tmp_path: Path, run: Run) -> None:
    """x - x is zero, which intervals do not see: no proof, and no counterexample exists."""
    network, path = tmp_path / "net.onnx", tmp_path / "p.vnnlib"
    network.write_bytes(
        model(
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Relu", ["x"], ["s"]),
            helper.make_node("Sub", ["r", "s"], ["y"]),
        )
    )
    path.write_text(DECLARED + BOUNDED + "(assert (>= Y_0 0.5))")
    code, out, err = run("verify", network, path, "--engine", "interval")
    assert code == 3
    assert out.startswith("verdict    unknown")
    assert err.startswith("leaktight: unknown: ")


@pytest.mark.parametrize(
    "arguments",
    [
        VERIFY,
        ["bounds", NETWORK, PROVED],
        ["inspect", NETWORK],
        ["ops"],
        ["doctor"],
        ["demo"],
        ["certify", NETWORK, IMAGES, "--epsilon", "0.01", "--limit", "3", "--radius"],
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_json_is_one_document_on_stdout_or_in_the_file(arguments: list[object], tmp_path: Path, run: Run) -> None:
    code, out, _ = run(*arguments, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"].startswith("leaktight.")
    assert document["version"]
    path = tmp_path / "result.json"
    assert run(*arguments, "--format", "json", "-o", path)[:2] == (0, "")
    assert json.loads(path.read_text()).keys() == document.keys()
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_the_document_of_a_refutation_holds_what_the_interface_promises(run: Run) -> None:
    document = json.loads(run("verify", NETWORK, REFUTED, "--format", "json")[1])
    assert {
        "schema",
        "status",
        "margin",
        "counterexample",
        "engine",
        "guarantee",
        "reason",
        "seconds",
        "statistics",
        "network",
        "property",
        "version",
    } <= document.keys()
    assert np.shape(document["counterexample"]["inputs"]["image"]) == (1, 64)
    assert np.shape(document["counterexample"]["outputs"]["scores"]) == (1, 10)
    assert document["margin"]["upper"] <= 0
    assert document["network"]["path"] == str(NETWORK)
    assert len(document["property"]["sha256"]) == 64


def test_the_bounds_contain_what_the_network_computes(run: Run) -> None:
    import onnxruntime

    document = json.loads(run("bounds", NETWORK, PROVED, "--format", "json")[1])
    with np.load(IMAGES) as data:
        (scores,) = onnxruntime.InferenceSession(NETWORK).run(None, {"image": data["x"][:1]})
    ends = document["outputs"]["scores"]
    assert (np.array(ends["lower"]) <= scores[0]).all()
    assert (scores[0] <= np.array(ends["upper"])).all()


def test_certified_accuracy_is_at_most_attacked_accuracy_and_the_worst_answer_wins(run: Run) -> None:
    options = ["--epsilon", "8/255", "--clip", "0", "1", "--limit", "12", "--radius", "--format", "json"]
    code, out, _ = run(*CERTIFY, *options)
    document = json.loads(out)
    accuracy, records = document["accuracy"], document["inputs"]
    assert accuracy["certified"] <= accuracy["attacked"] <= accuracy["clean"]
    assert [record["index"] for record in records] == list(range(12))
    assert all(record["radius"] == pytest.approx(8 / 255) for record in records if record["status"] == "proved")
    assert (code == 1) == any(record["status"] == "refuted" for record in records)


@pytest.mark.parametrize("name", ["found.npz", "found.txt"])
def test_a_counterexample_is_written_to_its_file(name: str, tmp_path: Path, run: Run) -> None:
    assert run("verify", NETWORK, REFUTED, "--counterexample", tmp_path / name)[0] == 1
    assert (tmp_path / name).stat().st_size > 100


def test_no_counterexample_file_appears_for_a_proof(tmp_path: Path, run: Run) -> None:
    assert run(*VERIFY, "--counterexample", tmp_path / "found.npz")[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (RuntimeError("the first line\nthe second"), 70, "RuntimeError: the first line;"),
        (Contradiction("1.0 is not 2.0"), 70, "1.0 is not 2.0"),
        (MemoryError(), 70, "MemoryError"),
        (BrokenPipeError(32, "Broken pipe"), 70, "BrokenPipeError"),
        (SystemExit(0), 70, "SystemExit"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_no_failure_looks_like_an_answer(
    error: BaseException, code: int, fragment: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("leaktight.verify.prove.prove", fail)
    found, out, err = run(*VERIFY, "--format", "json")
    assert (found, out) == (code, "")
    assert fragment in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr("leaktight.verify.prove.prove", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("LEAKTIGHT_DEBUG", "1")
    code, _, err = run(*VERIFY)
    assert code == 70
    assert "Traceback" in err


def test_what_a_factory_prints_does_not_reach_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = "import torch\ndef make():\n    print('hello')\n    return torch.nn.Linear(2, 2)\n"
    Path("loud_factory.py").write_text(code)
    torch.save(torch.nn.Linear(2, 2).state_dict(), "net.pt")
    found, out, err = run("inspect", "net.pt", "--architecture", "loud_factory:make", "--format", "json")
    assert found == 0, err
    assert json.loads(out)["parameters"] == 6
    assert "hello" in err


def test_text_has_colours_only_where_they_are_wanted(run: Run) -> None:
    from leaktight.verify.report import text

    document = json.loads(run(*VERIFY, "--format", "json")[1])
    assert "\x1b[" in text.render(document, colour=True)
    assert "\x1b[" not in run(*VERIFY)[1]


def test_every_command_and_option_has_help() -> None:
    import typer

    root = typer.main.get_command(cli.app)
    commands = root.commands  # type: ignore[attr-defined]
    assert set(commands) == {
        *("verify", "certify", "bounds", "leak", "lipschitz", "run", "init", "history", "report"),
        *("inspect", "ops", "doctor", "demo"),
    }
    for command in commands.values():
        assert command.help
        names = {name for parameter in command.params for name in parameter.opts}
        assert {"--format", "--output", "-o"} <= names
        assert all(parameter.help for parameter in command.params if parameter.name != "help")


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leaktight", *map(str, arguments)],
        text=True,
        check=False,  # type: ignore[call-overload, no-any-return]
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from leaktight import cli; cli.run(['verify', '--help']); print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--timeout" in found.stdout
    loaded = {name.partition(".")[0] for name in found.stderr.split()}
    assert not loaded & {"torch", "onnx", "numpy", "onnxruntime", "auto_LiRPA", "vnnlib", "psutil", "rich"}


def test_importing_leaktight_imports_nothing_heavy() -> None:
    code = "import leaktight, sys; assert not {'torch', 'numpy', 'onnx', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_torch_without_the_tables_of_its_compiler_does_all_that_is_not_about_modules() -> None:
    commands = [
        (["verify", NETWORK, PROVED], 0),
        (["verify", NETWORK, REFUTED], 1),
        (["bounds", NETWORK, PROVED], 0),
        (["certify", NETWORK, IMAGES, "--epsilon", "0.06", "--limit", "4", "--timeout", "2"], None),
        (["leak", NETWORK, PROVED, "--slopes", "0:0.2"], None),
        (["lipschitz", NETWORK], 0),
    ]
    code = f"""
import sys
from leaktight.eager import eager_only
eager_only()
from leaktight.cli import run
for arguments, expected in {[([str(a) for a in arguments], code) for arguments, code in commands]!r}:
    found = run(arguments)
    assert found in ((0, 1, 3, 4) if expected is None else (expected,)), (arguments, found)
assert "torch._decomp.decompositions" not in sys.modules
import torch
from leaktight import load
network = load(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LeakyReLU(0.1)), example_input=torch.ones(1, 3))
assert network.output_size == 2
assert torch.ones(2, device="meta").sum().shape == ()
torch.Generator().manual_seed(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_LATE = """
from leaktight.eager import eager_only
eager_only()
import sys, torch
assert "torch.optim.adam" not in sys.modules or not torch.__version__.startswith("2.13")
"""
_NAMES = """
import importlib.metadata
import json
print(json.dumps({name: sorted(vars(module)) for name, module in sorted(sys.modules.items()) if "torch" in name[:8]}))
"""


def test_whoever_asks_torch_for_what_is_left_out_gets_the_whole_of_it() -> None:
    ask = """
torch.Generator().manual_seed(1)
assert "torch._decomp.decompositions" not in sys.modules
assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3)
assert "torch._decomp.decompositions" in sys.modules
assert torch.vmap is torch.func.vmap
"""
    late, whole = (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout
        for code in (_LATE + ask + _NAMES, "import sys, torch; torch.broadcast_shapes((2, 1), (1, 3))" + _NAMES)
    )
    missed = {name: names for name, names in json.loads(whole).items() if json.loads(late).get(name) != names}
    assert len(json.loads(whole)) > 400
    assert not missed


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        "torch.vmap(torch.sum)(torch.ones(2, 3))",
        "torch.cond(torch.tensor(True), lambda x: x + 1, lambda x: -x, (torch.ones(2),))",
        "torch.func.grad(lambda x: x * x)(torch.tensor(1.0))",
        "torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))",
        "torch.fx.symbolic_trace(torch.nn.Linear(2, 2))",
        "torch.jit.script(torch.nn.Linear(2, 2))(torch.ones(1, 2))",
        "torch.compile(torch.nn.Linear(2, 2), backend='eager')(torch.ones(1, 2))",
        "torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)",
        "torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged).sin()",
        "torch.distributions.Normal(0.0, 1.0).sample()",
        "torch.utils.data.DataLoader([1, 2])",
        "torch.ao.quantization.get_default_qconfig()",
        "torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False])).sum()",
        "torch.ones(2, device='meta').sum()",
        "torch.profiler.profile()",
        "torch.compiler.is_compiling()",
        "from torch.utils.data import DataLoader, TensorDataset",
        "from torch.optim import Adam; from torch.optim.lr_scheduler import StepLR",
        "import torch.fx.passes.shape_prop",
        "import torch._dynamo, torch._inductor, torch.onnx",
        "import torchgen.model",
        "torch.autograd.gradcheck(torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True))",
    ],
)
def test_each_door_to_what_is_left_out_opens(use: str) -> None:
    subprocess.run([sys.executable, "-c", _LATE + use], check=True, capture_output=True, timeout=120)


def test_other_versions_of_torch_are_imported_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from leaktight import eager

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for tested, finders in ((("2.0",), 0), (eager._TESTED, int(_torch_version() in eager._TESTED))):
        path = [finder for finder in sys.meta_path if finder is not eager._finder]
        monkeypatch.setattr(sys, "meta_path", path)
        monkeypatch.setattr(eager, "_TESTED", tested)
        eager.eager_only()
        assert sys.meta_path.count(eager._finder) == finders


def _torch_version() -> str:
    return ".".join(importlib.metadata.version("torch").split(".")[:2])


_AT_THE_END = """
import atexit, sys, threading, time
from leaktight import __main__ as entry
def late():
    time.sleep(0.3)
    print("thread")
entry.run = lambda arguments: (threading.Thread(target=late).start(), atexit.register(print, "atexit"), 3)[-1]
{before}
entry.main()
"""


@pytest.mark.parametrize("before", ["", "sys.setprofile(lambda *_: None)"])
def test_the_end_waits_for_threads_and_for_what_is_registered(before: str) -> None:
    code = _AT_THE_END.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "thread\natexit\n", "")


@pytest.mark.parametrize("said", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "0"}])
def test_threads_wait_briefly_unless_the_user_says_otherwise(
    said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from leaktight import __main__ as entry

    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {k: v for k, v in os.environ.items() if k not in names} | said
    monkeypatch.setattr(os, "environ", environment)
    entry._wait_briefly()
    found = {k: v for k, v in environment.items() if k in names}
    assert found == (said or {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"})


def test_a_profiler_of_the_process_gets_to_its_report() -> None:
    command = [sys.executable, "-m", "cProfile", "-m", "leaktight", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "function calls" in done.stdout


def test_every_public_name_is_there() -> None:
    import leaktight

    assert all(getattr(leaktight, name) is not None for name in leaktight.__all__)
    with pytest.raises(AttributeError):
        leaktight.no_such_name  # noqa: B018


def test_the_process_delivers_its_exit_code() -> None:
    found = process("verify", NETWORK, REFUTED)
    assert found.returncode == 1
    assert found.stdout.startswith("verdict        refuted")


def test_a_result_that_nobody_reads_is_not_an_answer() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = process(*VERIFY, stdout=writer)
    os.close(writer)
    assert found.returncode == 70
    assert "could not be written to stdout" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_result_on_a_full_disk_is_not_an_answer() -> None:
    with Path("/dev/full").open("w") as full:
        found = process(*VERIFY, stdout=full)
    assert found.returncode == 70
    assert "No space left" in found.stderr


@pytest.mark.parametrize(("closed", "code"), [(">&-", 70), ("2>&-", 0), (">&- 2>&- <&-", 70)])
def test_a_stream_that_is_closed_never_looks_like_a_refutation(closed: str, code: int, tmp_path: Path) -> None:
    words = shlex.join([sys.executable, "-m", "leaktight", *VERIFY])
    found = subprocess.run(["sh", "-c", f"{words} {closed}"], capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert "Traceback" not in found.stderr
    assert code == 0 or not found.stdout
    there = tmp_path / "verdict.txt"
    subprocess.run(["sh", "-c", f"{words} -o {there} {closed}"], check=True)
    assert there.read_text().startswith("verdict    proved")


@pytest.mark.parametrize(("form", "encoding", "shows"), [("text", "ascii", "Linf"), ("html", "utf-8", "L\N{INFINITY}")])
def test_a_terminal_that_lacks_a_character_gets_it_spelt_out(
    form: str, encoding: str, shows: str, tmp_path: Path
) -> None:
    """Documents that say themselves how they are encoded are not the terminal's."""
    there = tmp_path / "certified.json"
    asked = ["certify", NETWORK, IMAGES, "--epsilon", "0.01", "--limit", "1", "--format", "json", "-o", there]
    assert cli.run([str(word) for word in asked]) == 0
    found = subprocess.run(
        [sys.executable, "-m", "leaktight", "report", there, there, "--format", form],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert shows in found.stdout.decode(encoding)


def test_who_ends_it_with_sigterm_gets_what_ctrl_c_gets() -> None:
    code = """
import time
from leaktight import __main__ as entry, cli
entry.run = lambda words: cli._outcome(lambda: (print("at work", flush=True), time.sleep(60), 0)[-1])
entry.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "at work\n"
        it.terminate()
        assert it.communicate(timeout=60)[1] == "leaktight: interrupted; nothing was decided\n"
    assert it.returncode == 130


def test_a_home_that_cannot_be_written_to_is_not_talked_about(tmp_path: Path) -> None:
    there = tmp_path / "curve.json"
    assert cli.run(["lipschitz", str(NETWORK), "--method", "product", "--format", "json", "-o", str(there)]) == 0
    homeless = {name: word for name, word in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    found = process("report", there, "--format", "html", env={**homeless, "HOME": os.devnull})
    assert (found.returncode, found.stderr) == (0, "leaktight: report of 1 result\n")


def test_open_inputs_are_said_to_be_open_for_want_of_a_search(run: Run) -> None:
    hint = "1 left open by bounds alone: --timeout SECONDS searches them"
    ask = ["certify", NETWORK, IMAGES, "--epsilon", "0.1", "--limit", "1", "--clip", "0", "1"]
    assert hint in run(*ask)[2]
    for decided in (["--timeout", "5"], ["--engine", "crown"]):
        assert "searches them" not in run(*ask, *decided)[2]


def test_version_and_bare_call_explain_themselves() -> None:
    from leaktight.version import __version__

    assert process("--version").stdout == f"leaktight {__version__}\n"
    bare = process()
    assert "Commands:" in bare.stdout + bare.stderr
