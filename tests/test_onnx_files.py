"""Files: what is read from them besides the graph, and how the broken, hostile and unsupported ones are refused."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_zoo import Maker, zoo_model

from leaktight.errors import InputError, InternalError, UsageError
from leaktight.models.load import load
from leaktight.models.onnx import network_from_bytes, read_onnx, supported
from leaktight.models.readers.node import reads


def affine_model(weight: Any = None, **changes: Any) -> ModelProto:
    """``y = x W + b``, small and correct, before the test changes something."""
    m = Maker(0, changes.get("opset", 17))
    x = m.input(*changes.get("shape", ("batch", 2)))
    w = m.constant(np.eye(2) if weight is None else weight)
    return m.build(m.node("Gemm", x, w))


def one_node(
    kind: str,
    *,
    shape: tuple[int | str, ...] = (1, 4),
    opset: int = 17,
    constants: tuple[Any, ...] = (),
    inputs: int = 1,
    **attributes: Any,
) -> ModelProto:
    m = Maker(0, opset)
    given = [m.input(*shape) for _ in range(inputs)]
    made = [m.constant(c, np.asarray(c).dtype if np.asarray(c).dtype.kind == "i" else np.float32) for c in constants]
    return m.build(m.node(kind, *given, *made, **attributes))


def changed(model: ModelProto, change: Callable[[ModelProto], Any]) -> ModelProto:
    change(model)
    return model


def external(location: str, offset: int | str = 0, length: int | None = 16) -> ModelProto:
    """A model whose weight lies in another file."""
    model = affine_model()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, **({} if length is None else {"length": length})}
    tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in entries.items())
    return model


def claim(model: ModelProto, *dims: int) -> ModelProto:
    model.graph.initializer[0].dims[:] = dims
    return model


def with_input_type(kind: int) -> ModelProto:
    m = Maker(0)
    x = m.input(1, 2)
    m.inputs[0].type.tensor_type.elem_type = kind
    return m.build(m.node("Identity", x))


def circle() -> ModelProto:
    m = Maker(0)
    x = m.input(1, 2)
    m.nodes += [
        helper.make_node("Add", [x, "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    return m.build("b")


def twice() -> ModelProto:
    m = Maker(0)
    x = m.input(1, 2)
    m.nodes += [helper.make_node("Relu", [x], ["a"], name="n"), helper.make_node("Abs", [x], ["a"], name="n2")]
    return m.build("a")


def control_flow(kind: str) -> ModelProto:
    m = Maker(0)
    x = m.input(1, 2)
    body = helper.make_graph(
        [helper.make_node("Relu", [x], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    attributes = {"then_branch": body, "else_branch": body} if kind == "If" else {"body": body}
    m.nodes.append(helper.make_node(kind, [m.constant([True], np.bool_)], ["y"], name="control", **attributes))
    return m.build("y")


def giant_constant() -> ModelProto:
    m = Maker(0)
    return m.build(m.node("Add", m.input(1, 1), m.node("ConstantOfShape", m.whole(10**10))))


def beyond_float64() -> ModelProto:
    """Finite numbers, whose products are not."""
    model = affine_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((2, 2), 1e300), "c2"))
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1e30))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def constants_of(kind: str, *constants: Any, rounds: int = 1, **attributes: Any) -> ModelProto:
    """A small file whose constants, put together by one operator again and again, are large, or do not fit."""
    m = Maker(0)
    found = [m.constant(c, np.asarray(c).dtype) for c in constants]
    for _ in range(rounds):
        found = [m.node(kind, *found, **attributes)] * len(found)
    return m.build(m.node("Add", m.input(1, 1), m.node("ReduceMean", found[0], keepdims=0)))


LONG = np.ones((20_000, 1), np.float32)


def second_pool_output() -> ModelProto:
    m = Maker(0)
    pooled, indices = m.node("MaxPool", m.input(1, 1, 4), outputs=2, kernel_shape=[2])
    return m.build(pooled, m.node("Relu", indices))


WHOLE = affine_model().SerializeToString()

# what the file holds (bytes, a model, or a function that lays it out in a folder), and words of the message
REFUSED: dict[str, tuple[bytes | ModelProto | Callable[[Path], None], tuple[str, ...]]] = {
    "missing": (lambda _path: None, ("no such file",)),
    "directory": (lambda path: path.mkdir(), ("not a regular file",)),
    "empty": (b"", ("is empty",)),
    "text": (b"this is no network\n", ("not an ONNX model",)),
    "zeros": (bytes(100), ("not an ONNX model",)),
    "truncated": (WHOLE[:-30], ("truncated",)),
    "half": (WHOLE[: len(WHOLE) // 2], ("truncated",)),
    "truncated archive": (gzip.compress(WHOLE)[:-20], ("gzip archive is truncated",)),
    "archive of nonsense": (gzip.compress(b"nonsense"), ("not an ONNX model",)),
    "ten gigabytes long": (lambda path: _sparse_file(path, 10 * 2**30), ("10737418240 bytes", "at most")),
    "ten gigabytes claimed": (
        claim(affine_model(), 50_000, 50_000),
        ("initializer 'c2'", "10000000000 bytes", "holds 16"),
    ),
    "overflowing dimensions": (claim(affine_model(), 2**40, 2**40), ("initializer 'c2'", "holds 16")),
    "negative dimension": (claim(affine_model(), -1, 2), ("initializer 'c2'", "negative")),
    "input of ten billion entries": (one_node("Relu", shape=(1, 10**10)), ("input 'x1'", "at most")),
    "constant of a shape of ten billion": (giant_constant(), ("ConstantOfShape", "at most")),
    "expansion to ten billion": (
        one_node("Expand", shape=(1, 1), constants=(np.asarray([10**5, 10**5]),)),
        ("Expand", "at most"),
    ),
    "sum of constants of 400 million": (constants_of("Add", LONG, LONG.T), ("Add", "400000000", "at most")),
    "choice of constants of 400 million": (
        constants_of("Where", LONG > 0, LONG, LONG.T),
        ("Where", "400000000", "at most"),
    ),
    "whole numbers of 400 million": (
        constants_of("Mod", LONG.astype(np.int64), LONG.T.astype(np.int64)),
        ("Mod", "400000000", "at most"),
    ),
    "constants doubled thirty times": (
        constants_of("Concat", LONG, LONG, rounds=30, axis=0),
        ("Concat", "at most"),
    ),
    "constants that do not fit": (constants_of("Add", LONG[:2], LONG[:3]), ("Add", "[2, 1], [3, 1]", "do not fit")),
    "padding of ten billion": (
        one_node("MaxPool", shape=(1, 1, 4), kernel_shape=[10**10], pads=[10**10, 10**10]),
        ("MaxPool", "at most"),
    ),
    "windows of 250 billion": (
        one_node("AveragePool", shape=(1, 1, 10**6), kernel_shape=[5 * 10**5]),
        ("AveragePool", "at most"),
    ),
    "external data above the folder": (external("../weights.bin"), ("'../weights.bin'", "inside the model's folder")),
    "external data at an absolute path": (external("/etc/passwd"), ("inside the model's folder",)),
    "external data behind a link": (lambda path: _linked(path), ("inside the model's folder",)),
    "external data missing": (external("weights.bin"), ("'weights.bin'", "does not exist")),
    "external data beyond the end": (lambda path: _with_data(path, external("w.bin", offset=8)), ("which holds 16",)),
    "external data before the start": (lambda path: _with_data(path, external("w.bin", offset=-8)), ("from -8 on",)),
    "external length that differs": (lambda path: _with_data(path, external("w.bin", length=8)), ("points at 8",)),
    "external offset that is no number": (
        lambda path: _with_data(path, external("w.bin", offset="x")),
        ("not a number",),
    ),
    "NaN weight": (affine_model([[1, np.nan], [0, 1]]), ("'Gemm4'", "'c2'", "NaN or infinite")),
    "infinite weight": (affine_model([[1, np.inf], [0, 1]]), ("'Gemm4'", "'c2'", "NaN or infinite")),
    "weights that overflow": (beyond_float64(), ("Gemm4", "beyond float64")),
    "infinite slope": (one_node("LeakyRelu", alpha=float("inf")), ("LeakyRelu3", "alpha", "finite")),
    "unknown operator": (one_node("Erf"), ("Erf3", "operator Erf is not supported", "Conv, ", "leaktight ops")),
    "softmax": (one_node("Softmax"), ("Softmax3", "largest logit")),
    "if": (control_flow("If"), ("'control'", "control flow")),
    "loop": (control_flow("Loop"), ("'control'", "control flow")),
    "scan": (control_flow("Scan"), ("'control'", "control flow")),
    "custom domain": (one_node("Relu", domain="com.example"), ("com.example.Relu", "custom domain")),
    "circle": (circle(), ("'first'", "'second'", "in a circle")),
    "dangling operand": (
        changed(affine_model(), lambda m: m.graph.node[0].input.__setitem__(0, "gone")),
        ("'gone'", "nothing in the file"),
    ),
    "dangling output": (
        changed(affine_model(), lambda m: setattr(m.graph.output[0], "name", "gone")),
        ("'gone'", "nothing in the file"),
    ),
    "value defined twice": (twice(), ("'n2'", "'a'", "defined already")),
    "indices of a pool": (second_pool_output(), ("output 1 of node", "no rule")),
    "weights of integers": (
        one_node("MatMul", shape=(1, 2), constants=(np.eye(2, dtype=np.int64),)),
        ("int64", "floating-point"),
    ),
    "mixed precision": (
        changed(affine_model(), lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(2), "c2"))),
        ("float32, float64", "one type"),
    ),
    "integer input": (with_input_type(TensorProto.INT64), ("input 'x1'", "INT64")),
    "boolean input": (with_input_type(TensorProto.BOOL), ("input 'x1'", "BOOL")),
    "half precision input": (with_input_type(TensorProto.FLOAT16), ("input 'x1'", "FLOAT16")),
    "free axis that matters": (
        affine_model(shape=("batch", "features")),
        ("input 'x1'", "axis 1 is free ('features')"),
    ),
    "empty axis": (affine_model(shape=(0, 2)), ("input 'x1'", "axis 0 is empty")),
    "unknown rank": (
        changed(affine_model(), lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        ("input 'x1'", "known shape"),
    ),
    "no input": (changed(affine_model(), lambda m: m.graph.ClearField("input")), ("no input",)),
    "no operator set": (changed(affine_model(), lambda m: m.ClearField("opset_import")), ("not an ONNX model",)),
    "old operator set": (affine_model(opset=6), ("operator set 6", "7 to")),
    "operator set of the future": (affine_model(opset=999), ("operator set 999",)),
    "product of two values": (one_node("Mul", inputs=2), ("Mul", "not linear")),
    "matrix product of two values": (one_node("MatMul", shape=(4, 4), inputs=2), ("MatMul", "not linear")),
    "division by a value": (one_node("Div", inputs=2), ("Div", "not linear")),
    "division by zero": (one_node("Div", constants=(0.0,)), ("'c2'", "has zeros")),
    "dropout in training": (
        changed(
            one_node("Dropout", constants=(0.5,)),
            lambda m: (
                m.graph.node[0].input.append("on"),
                m.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "on")),
            ),
        ),
        ("training",),
    ),
    "linear resizing": (one_node("Resize", shape=(1, 1, 4), mode="linear"), ("mode 'linear'", "nearest")),
    "cast to integers": (one_node("Cast", to=TensorProto.INT32), ("int32", "'x1'")),
    "attribute without a rule": (one_node("Relu", mystery=1), ("attribute 'mystery' has no rule",)),
    "attribute of another type": (one_node("LeakyRelu", alpha=3), ("'alpha'", "INT", "FLOAT")),
    "input without a rule": (one_node("Relu", constants=(1.0,)), ("input 1 has no rule",)),
    "missing operand": (one_node("Reshape"), ("input 1 is missing",)),
    "shape that does not fit": (one_node("Reshape", constants=(np.asarray([3, 2]),)), ("[1, 4]", "[3, 2]")),
    "kernel larger than the value": (
        one_node("MaxPool", shape=(1, 1, 3), kernel_shape=[5]),
        ("MaxPool3", "does not fit"),
    ),
    "operands that do not fit": (one_node("Add", constants=(np.ones(3),)), ("[1, 4], [3]", "do not fit together")),
    "weight of another width": (one_node("MatMul", constants=(np.ones((3, 2)),)), ("MatMul",)),
    "index out of range": (one_node("Gather", constants=(np.asarray([7]),), axis=1), ("outside [-4, 3]",)),
    "computed indices": (one_node("Gather", inputs=2), ("'x2'", "a constant is allowed")),
    "sparse weights": (changed(affine_model(), lambda m: m.graph.sparse_initializer.add()), ("sparse",)),
    "weights of strings": (
        changed(
            affine_model(),
            lambda m: m.graph.initializer[0].CopyFrom(helper.make_tensor("c2", TensorProto.STRING, [1], [b"a"])),
        ),
        ("STRING",),
    ),
    "variance below zero": (
        one_node("BatchNormalization", shape=(1, 1), constants=([1.0], [0.0], [0.0], [-1.0])),
        ("variance",),
    ),
}


def _sparse_file(path: Path, size: int) -> None:
    with open(path, "wb") as stream:
        stream.truncate(size)


def _with_data(path: Path, model: ModelProto) -> None:
    (path.parent / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    path.write_bytes(model.SerializeToString())


def _linked(path: Path) -> None:
    (path.parent / "w.bin").symlink_to("/etc/hostname")
    path.write_bytes(external("w.bin").SerializeToString())


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_file_place_and_reason(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    path = tmp_path / "given.onnx"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for word in words:
        assert word in message


@pytest.mark.parametrize("cut", range(1, len(WHOLE), 7))
def test_no_truncation_and_no_flipped_byte_gets_past_the_reader_as_a_crash(cut: int) -> None:
    flipped = WHOLE[:cut] + bytes([WHOLE[cut] ^ 0x55]) + WHOLE[cut + 1 :]
    for data in (WHOLE[:cut], flipped):
        try:
            network_from_bytes(data, path="cut.onnx")
        except InputError as error:
            assert str(error).startswith("cut.onnx")  # noqa: PT017


def test_archive_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktight.models.readers.file.MAX_BYTES", 10**6)
    path = tmp_path / "bomb.onnx.gz"
    path.write_bytes(gzip.compress(bytes(5 * 10**6)))
    with pytest.raises(InputError, match="more than 1000000 bytes"):
        read_onnx(path)


def test_archive_holds_the_same_network_and_is_known_by_its_own_digest(tmp_path: Path) -> None:
    plain, packed = tmp_path / "net.onnx", tmp_path / "net.onnx.gz"
    plain.write_bytes(WHOLE)
    packed.write_bytes(gzip.compress(WHOLE))
    assert read_onnx(plain).digest == read_onnx(packed).digest == load(packed).digest
    source = read_onnx(packed).source
    assert source is not None
    assert source.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert source.onnx == WHOLE
    assert source.path == str(packed)
    assert source.folder is None


def test_external_data_is_read_and_a_runtime_can_find_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    _with_data(path, external("w.bin"))
    network = read_onnx(path)
    assert network.source is not None
    assert network.source.folder == str(tmp_path)
    session = onnxruntime.InferenceSession(str(path))
    x = np.asarray([[2, 3]], np.float32)
    found = network(torch.from_numpy(x).double())
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), session.run(None, {"x1": x})[0])
    with pytest.raises(InputError, match="without a folder"):
        network_from_bytes(path.read_bytes(), path="net.onnx")


@pytest.mark.parametrize(
    ("shape", "seen", "batched"),
    [
        (("batch", 2), (1, 2), True),
        ((None, 2), (1, 2), True),
        ((1, 2), (1, 2), True),
        ((5, 2), (5, 2), False),
        ((-1, 2), (1, 2), True),
    ],
)
def test_batch_dimension_may_be_symbolic_absent_or_fixed(shape: Any, seen: tuple[int, ...], batched: bool) -> None:
    network = network_from_bytes(affine_model(shape=shape).SerializeToString(), path="net.onnx")
    assert [port.shape for port in (*network.inputs, *network.outputs)] == [seen, seen]
    assert network.batched is batched


def test_values_without_a_batch_axis_are_not_batched() -> None:
    m = Maker(0)
    network = network_from_bytes(m.build(m.node("Relu", m.input(4))).SerializeToString(), path="net.onnx")
    assert not network.batched
    assert network.outputs[0].shape == (4,)


def test_initializers_listed_as_inputs_are_constants() -> None:
    model = affine_model()
    model.graph.input.append(helper.make_tensor_value_info("c2", TensorProto.FLOAT, [2, 2]))
    assert [port.name for port in network_from_bytes(model.SerializeToString(), path="net.onnx").inputs] == ["x1"]


def test_nodes_may_come_in_any_order_and_unneeded_ones_disappear() -> None:
    m = Maker(0)
    x = m.input(1, 3)
    y = m.node("Abs", m.node("Relu", m.node("Neg", x)))
    m.node("Erf", x)
    m.nodes = m.nodes[::-1]
    network = network_from_bytes(m.build(y).SerializeToString(), path="net.onnx")
    assert [node.origin for node in network.nodes[1:]] == ["Neg3", "Relu5", "Abs7"]


def test_several_inputs_and_outputs_keep_their_order_names_and_types() -> None:
    m = Maker(0)
    a, b, unused = m.input(1, 2), m.input(1, 3), m.input(1, 4)
    both = m.node("Concat", a, b, axis=1)
    constant = m.node("Identity", m.numbers(1, 2))
    alias = m.node("Identity", a)
    network = network_from_bytes(m.build(both, alias, constant).SerializeToString(), path="net.onnx")
    assert [port.name for port in network.inputs] == [a, b, unused]
    assert [port.name for port in network.outputs] == [both, alias, constant]
    assert [port.shape for port in network.outputs] == [(1, 5), (1, 2), (1, 2)]
    first, second, third = network(torch.ones(4, 2), torch.zeros(4, 3), torch.zeros(4, 4))
    assert first.shape == (4, 5)
    assert torch.equal(second, torch.ones(4, 2))
    assert third.shape == (4, 2)


def test_functions_of_the_model_are_inlined() -> None:
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    function = helper.make_function("local", "NegatedRelu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("NegatedRelu", ["x"], ["y"], domain="local")], "g", [x], [y])
    model = helper.make_model(
        graph,
        functions=[function],
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )
    network = network_from_bytes(model.SerializeToString(), path="net.onnx")
    assert torch.equal(network(torch.tensor([[-1.0, 2.0]])), torch.tensor([[0.0, -2.0]]))


def test_double_precision_is_reported_for_inputs_and_outputs() -> None:
    model = with_input_type(TensorProto.DOUBLE)
    network = network_from_bytes(model.SerializeToString(), path="net.onnx")
    assert [port.dtype for port in (*network.inputs, *network.outputs)] == ["float64", "float64"]


def test_default_slope_is_the_float32_number() -> None:
    network = network_from_bytes(one_node("LeakyRelu").SerializeToString(), path="net.onnx")
    assert network(torch.tensor([[-1.0, 0, 0, 0]], dtype=torch.float64))[0, 0] == -float(np.float32(0.01))  # type: ignore[index]


def test_pieces_of_a_value_are_called_after_it_and_know_their_origin() -> None:
    network = network_from_bytes(zoo_model("max_pool", 0).SerializeToString(), path="net.onnx")
    output = network.outputs[0].name
    assert network.nodes[-1].name == output
    assert all(node.name.startswith(output + "/") for node in network.nodes[1:-1])
    assert {node.origin for node in network.nodes[1:]} == {"MaxPool3"}


def test_every_reader_is_listed_and_none_can_be_registered_twice() -> None:
    assert list(supported()) == sorted(set(supported()))
    assert {"Gemm", "Conv", "LeakyRelu", "PRelu", "BatchNormalization", "Resize"} <= set(supported())
    with pytest.raises(InternalError, match="two readers"):
        reads("Gemm")(lambda node: node.operand(0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("net.txt",), "no such file"),
        ((3,), "a path or an nn.Module"),
        ((torch.nn.ReLU(),), "example input"),
        (("net.pth",), "--architecture"),
    ],
)
def test_loading_something_else_is_refused_with_what_is_allowed(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(*arguments)


def test_an_architecture_beside_an_onnx_file_is_refused() -> None:
    with pytest.raises(UsageError, match="leave it out"):
        load("net.onnx", architecture="package:factory")


def test_a_file_of_another_type_is_refused_with_the_types_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"\.onnx\.gz"):
        load(path)
