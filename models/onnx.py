"""ONNX -> Network, for the standard operators that `supported` lists, operator sets 7 to 28.

The network means the file's function in real arithmetic. Free batch dimensions become one; what depends on no input is
computed while reading; what no output needs is dropped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from leaktight.errors import ModelError, UnsupportedOperator
from leaktight.models.network import Network, Node, Port, Source
from leaktight.models.ops import Input, Reshape
from leaktight.models.readers import activation, affine, constants, convolution, pooling, structure
from leaktight.models.readers.attributes import Attributes
from leaktight.models.readers.constants import FOLDS, folded_by_reference
from leaktight.models.readers.file import opset, parsed, read_bytes
from leaktight.models.readers.node import MAX_ENTRIES, READERS, Graph, Known, Operand, Reading, Value
from leaktight.models.readers.tensors import array_of

_FAMILIES = (activation, affine, constants, convolution, pooling, structure)  # importing them fills READERS

_REFUSED = {
    "If": "control flow has no rule; export the model with the condition fixed",
    "Loop": "control flow has no rule; export the model with the loop unrolled",
    "Scan": "control flow has no rule; export the model with the loop unrolled",
    "Softmax": "it has no linear bounds here; remove it: the largest logit is the largest probability",
    "LogSoftmax": "it has no linear bounds here; remove it: the largest logit is the largest probability",
}


def supported() -> tuple[str, ...]:
    """The names of the ONNX operators that can be read, in alphabetical order."""
    return tuple(sorted(READERS))


def read_onnx(path: str | os.PathLike[str]) -> Network:
    """The network in an ``.onnx`` or ``.onnx.gz`` file.

    Raises: ModelError: the file is not a complete and consistent ONNX model. UnsupportedOperator: it is, and something
    in it has no rule here. Every message names the file and, where there is one, the node.
    """
    path = os.fspath(path)
    data, sha256 = read_bytes(path)
    return network_from_bytes(data, path=path, folder=os.path.dirname(os.path.abspath(path)), sha256=sha256)


def network_from_bytes(data: bytes, *, path: str, folder: str | None = None, sha256: str | None = None) -> Network:
    """The network that an ONNX model's bytes describe.

    Args: path: what messages call the model. folder: where external data lies; None: there is none. sha256: of the
    file that the bytes were read from; computed from the bytes where absent. Raises: as `read_onnx`.
    """
    model = parsed(data, path)
    reader = _FileReader(model.graph, opset(model, path), path, folder)
    source = Source(path, sha256 or hashlib.sha256(data).hexdigest(), data, folder if reader.external else None)
    return reader.network(source)


class _FileReader:
    """One graph on its way to a network; `known` holds every value read so far under the file's name for it."""

    def __init__(self, graph: GraphProto, version: int, path: str, folder: str | None) -> None:
        self.proto, self.version, self.path, self.folder = graph, version, path, folder
        if graph.sparse_initializer:
            raise ModelError(f"{path}: the model has sparse initializers; dense ones are allowed; convert the model")
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.entries = [entry for entry in graph.input if entry.name not in self.initializers]
        self.producers = _producers(graph, path, {entry.name for entry in self.entries} | set(self.initializers))
        taken = set(self.producers) | set(self.initializers) | {entry.name for entry in self.entries}
        self.graph = Graph(path, taken)
        self.known: dict[str, Operand] = {}

    @property
    def external(self) -> bool:
        return any(tensor.data_location == TensorProto.EXTERNAL for tensor in self.initializers.values())

    def network(self, source: Source) -> Network:
        if not self.entries:
            raise ModelError(f"{self.path}: the model has no input; at least one is needed; export it again")
        inputs = tuple(self._input(entry) for entry in self.entries)
        for index in self._order():
            self._read(self.proto.node[index])
        outputs = tuple(self._output(entry) for entry in self.proto.output)
        if len({port.name for port in outputs}) != len(outputs):
            raise ModelError(f"{self.path}: an output is declared twice; repair the file")
        batched = all(len(p.shape) > 1 and p.shape[0] == 1 for p in (*inputs, *outputs))
        return Network(_needed(self.graph.nodes, outputs), inputs, outputs, batched, source)

    def _input(self, entry: ValueInfoProto) -> Port:
        place = f"{self.path}: input {entry.name!r}"
        if entry.type.WhichOneof("value") != "tensor_type" or not entry.type.tensor_type.HasField("shape"):
            raise ModelError(f"{place} is not a tensor of known shape; fix its shape and export the model again")
        declared = entry.type.tensor_type
        dtype = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}.get(declared.elem_type)  # type: ignore[call-overload]
        if dtype is None:
            named = TensorProto.DataType.Name(declared.elem_type)
            raise ModelError(f"{place} has element type {named}; FLOAT and DOUBLE are allowed; convert the model")
        shape = []
        for axis, dim in enumerate(declared.shape.dim):
            free = dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0
            if (free and axis > 0) or (not free and dim.dim_value == 0):
                came = f"free ({dim.dim_param!r})" if free else "empty"
                raise ModelError(
                    f"{place}: axis {axis} is {came}; only the first axis, the batch, may be left free; "
                    "fix the shape and export the model again"
                )
            shape.append(1 if free else int(dim.dim_value))
        port = Port(entry.name, tuple(shape), dtype)
        if port.size > MAX_ENTRIES:
            raise ModelError(
                f"{place} has {port.size} entries; at most {MAX_ENTRIES} are allowed; use a smaller network"
            )
        self.graph.nodes.append(Node(port.name, Input(), (), port.shape, port.name))
        self.known[port.name] = Value(port.name, port.shape, dtype)
        return port

    def _order(self) -> Iterable[int]:
        """The places of the nodes that an output needs, each after those that it uses."""
        needed: dict[int, list[int]] = {}
        waiting = [self.producers[entry.name] for entry in self.proto.output if entry.name in self.producers]
        while waiting:
            index = waiting.pop()
            if index not in needed:
                used = self.proto.node[index].input
                needed[index] = [self.producers[name] for name in used if name in self.producers]
                waiting.extend(needed[index])
        if all(user < index for index, users in needed.items() for user in users):
            return sorted(needed)
        try:
            return list(TopologicalSorter(needed).static_order())
        except CycleError as error:
            names = ", ".join(repr(_origin(self.proto.node[i])) for i in error.args[1][:-1])
            raise ModelError(f"{self.path}: the nodes {names} use each other in a circle; repair the file") from None

    def _read(self, proto: NodeProto) -> None:
        place = f"{self.path}: node {_origin(proto)!r}"
        kind = proto.op_type
        if proto.domain not in ("", "ai.onnx"):
            raise UnsupportedOperator(
                f"{place}: operator {proto.domain}.{kind} is of a custom domain; operators of "
                "the standard domain "
                "are allowed (see leaktight ops)"
            )
        if kind in _REFUSED:
            raise UnsupportedOperator(f"{place}: operator {kind} is not supported: {_REFUSED[kind]}")
        attributes = Attributes(proto.attribute, place, self.folder)
        operands = [self._operand(name, place) if name else None for name in proto.input]
        node = Reading(self.graph, kind, _origin(proto), proto.output, operands, attributes, self.version)
        try:
            self.known.update(node.finish(_result(node)))
        except (ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
            raise ModelError(
                f"{place}: operator {kind}: its attributes and operands do not fit together ({error}); repair the file"
            ) from error

    def _operand(self, name: str, place: str) -> Operand:
        if name not in self.known and name in self.initializers:
            array = array_of(self.initializers[name], f"{self.path}: initializer {name!r}", self.folder)
            self.known[name] = Known(name, array)
        if name not in self.known:
            reason = (
                f"it is output {list(self.proto.node[self.producers[name]].output).index(name)} of node "
                f"{_origin(self.proto.node[self.producers[name]])!r}, which has no rule"
                if name in self.producers
                else "nothing in the file defines it"
            )
            raise ModelError(f"{place} uses {name!r}, and {reason}; repair the file")
        return self.known[name]

    def _output(self, entry: ValueInfoProto) -> Port:
        """The output's port; where its value carries another name, a node of the output's own name is added."""
        found = self._operand(entry.name, f"{self.path}: the list of outputs")
        if isinstance(found, Known) or found.name != entry.name:
            attributes = Attributes([], f"{self.path}: output {entry.name!r}", self.folder)
            node = Reading(self.graph, "Identity", entry.name, [entry.name], [found], attributes, self.version)
            value = node.value(0)
            if isinstance(found, Value):
                value = node.emit(Reshape(value.shape, value.shape), (value,), value.shape)
            self.known.update(node.finish(value))
            found = self.known[entry.name]
        value = found if isinstance(found, Value) else Value(entry.name, found.shape, found.dtype)
        return Port(entry.name, value.shape, value.dtype)


def _result(node: Reading) -> Operand | Iterable[Operand]:
    """What the node amounts to: a constant where all operands are, else operators."""
    constant = [x for x in node.operands if isinstance(x, Known)]
    if len(constant) == node.count:
        if node.kind in FOLDS:
            return FOLDS[node.kind](node)
        if node.kind not in READERS and constant and all(x.array.dtype.kind in "iub" for x in constant):
            return folded_by_reference(node, constant)
    if node.kind not in READERS:
        raise UnsupportedOperator(
            f"{node.place}: operator {node.kind} is not supported; supported: "
            f"{', '.join(supported())} "
            "(see leaktight ops)"
        )
    return READERS[node.kind](node)


def _origin(proto: NodeProto) -> str:
    return proto.name or next((name for name in proto.output if name), proto.op_type)


def _producers(graph: GraphProto, path: str, given: set[str]) -> Mapping[str, int]:
    """Which node produces each value. Raises ModelError: a value is defined twice."""
    found: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in found or name in given):
                raise ModelError(
                    f"{path}: node {_origin(node)!r} defines {name!r}, which is defined already; repair the file"
                )
            found[name] = index
    found.pop("", None)
    return found


def _needed(nodes: Iterable[Node], outputs: Iterable[Port]) -> tuple[Node, ...]:
    """The inputs, and the nodes that an output depends on, in the given order."""
    wanted = {port.name for port in outputs}
    kept = []
    for node in reversed(list(nodes)):
        if node.name in wanted or isinstance(node.op, Input):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
