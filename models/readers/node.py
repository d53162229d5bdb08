"""Reading: one ONNX node while its reader turns it into operators, and the table of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from leaktight.errors import InternalError, ModelError, UnsupportedOperator
from leaktight.models.enclosure import Array, Enclosure
from leaktight.models.network import Node
from leaktight.models.ops import Constant, Op, Shape
from leaktight.models.ops.weighted import Weighted
from leaktight.models.readers.attributes import Attributes

MAX_ENTRIES = 2**28  # of one value: more than that is a mistake or an attack


@dataclass(frozen=True)
class Value:
    """Something computed from the inputs: the name of a node so far, the shape and the element type of its value."""

    name: str
    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Known:
    """Something that depends on no input, as a runtime would compute it, in the file's element type.

    `error`: how far it may be from the result in real arithmetic; None where it is exact.
    """

    name: str
    array: NDArray[np.generic]
    error: Array | None = None

    @property
    def shape(self) -> Shape:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return self.array.dtype.name

    @property
    def floating(self) -> bool:
        return self.array.dtype.kind == "f"

    @property
    def enclosure(self) -> Enclosure:
        value = np.asarray(self.array, dtype=np.float64)
        return Enclosure(value, np.zeros_like(value) if self.error is None else self.error)


Operand = Value | Known
Reader = Callable[["Reading"], "Operand | Iterable[Operand]"]
READERS: dict[str, Reader] = {}


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Registers a reader under the names of ONNX operators. Raises InternalError: a name is taken."""

    def register(reader: Reader) -> Reader:
        for name in names:
            if name in READERS:
                raise InternalError(f"operator {name} has two readers: {READERS[name].__name__} and {reader.__name__}")
            READERS[name] = reader
        return reader

    return register


class Graph:
    """The nodes made so far. `taken` holds the names of all values in the file, which made-up names avoid."""

    def __init__(self, path: str, taken: set[str]) -> None:
        self.path, self.taken = path, taken
        self.nodes: list[Node] = []

    def fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}{count}"
        self.taken.add(name)
        return name


class Reading:
    """One node of the file: its operands and attributes, and `emit` for the operators that it becomes.

    Everything that the reader does not ask for is refused afterwards (`finish`), so that no input or attribute that
    changes an operator's meaning is overlooked.
    """

    def __init__(
        self,
        graph: Graph,
        kind: str,
        origin: str,
        outputs: Sequence[str],
        operands: Sequence[Operand | None],
        attributes: Attributes,
        opset: int,
    ) -> None:
        self.graph, self.kind, self.origin, self.opset = graph, kind, origin, opset
        self.outputs, self.operands, self.attributes = outputs, operands, attributes
        self.place = attributes.place
        self.first = len(graph.nodes)
        self.asked: set[int] = set()
        self.types: set[str] = set()

    # -- what went wrong

    def wrong(self, message: str) -> ModelError:
        """The file contradicts the operator's definition."""
        return ModelError(f"{self.place}: operator {self.kind}: {message}; repair the file or export it again")

    def refused(self, message: str) -> UnsupportedOperator:
        """The file is fine, and this cannot be read here."""
        what = f"operator {self.kind}: {message}"
        return UnsupportedOperator(f"{self.place}: {what}; rewrite the model (see leaktight ops)")

    # -- operands

    @property
    def count(self) -> int:
        return len(self.operands)

    def has(self, index: int) -> bool:
        """Whether the input is given (asking counts as reading it)."""
        self.asked.add(index)
        return index < len(self.operands) and self.operands[index] is not None

    def operand(self, index: int) -> Operand:
        found = self.operands[index] if self.has(index) else None
        if found is None:
            raise self.wrong(f"input {index} is missing; operator {self.kind} needs it")
        return found

    def value(self, index: int) -> Value:
        """A computed floating-point value; a constant becomes a node of its own."""
        return self.lifted(self.operand(index))

    def known(self, index: int) -> Known:
        found = self.operand(index)
        if isinstance(found, Value):
            raise self.refused(
                f"input {index} ({found.name!r}) is computed from the network's input; a constant is allowed"
            )
        return found

    def weights(self, index: int) -> Enclosure:
        """A constant floating-point operand whose entries are all finite."""
        return self.finite(self.known(index))

    def finite(self, found: Known) -> Enclosure:
        if not found.floating:
            raise self.wrong(f"{found.name!r} has element type {found.dtype}; a floating-point type is needed")
        self.types.add(found.dtype)
        if not np.isfinite(found.array).all():
            raise self.wrong(f"constant {found.name!r} contains NaN or infinite numbers; only finite ones are allowed")
        return found.enclosure

    def whole(self, index: int) -> list[int]:
        """A constant operand of integers, flat."""
        found = self.known(index)
        if found.array.dtype.kind not in "iu":
            raise self.wrong(f"{found.name!r} has element type {found.dtype}; an integer type is needed")
        return [int(i) for i in found.array.reshape(-1)]

    def lifted(self, operand: Operand) -> Value:
        """A constant as a node; a value as it is."""
        if isinstance(operand, Value):
            return operand
        enclosure = self.finite(operand)
        op = Constant(enclosure.tensor, enclosure.error_tensor)
        return self.emit(op, (), operand.shape, part=f"constant {operand.name}", dtype=operand.dtype)

    # -- results

    def emit(self, op: Op, inputs: Sequence[Value], shape: Sequence[int], *, part: str = "", dtype: str = "") -> Value:
        """A new node. The one that the reader returns is renamed to the output's name when the reader is done."""
        shape = tuple(int(n) for n in shape)
        self.affordable(prod(shape))
        if isinstance(op, Weighted) and not op.finite:
            raise self.wrong("its constants are finite, but multiplied they are beyond float64; scale the network down")
        self.types.update(x.dtype for x in inputs)
        name = self.graph.fresh(f"{self.outputs[0]}/{part or type(op).__name__.lower()}")
        self.graph.nodes.append(Node(name, op, tuple(x.name for x in inputs), shape, self.origin))
        return Value(name, shape, dtype or inputs[0].dtype)

    def affordable(self, entries: int) -> None:
        if entries > MAX_ENTRIES:
            raise self.wrong(
                f"a value of {entries} entries is asked for; at most {MAX_ENTRIES} are allowed; use a smaller network"
            )

    def finish(self, result: Operand | Iterable[Operand]) -> Mapping[str, Operand]:
        """The results under the file's names.

        Raises: UnsupportedOperator: the reader has overlooked something. ModelError: element types are mixed.
        """
        if self.attributes.unread:
            raise self.refused(f"attribute {self.attributes.unread[0]!r} has no rule; remove it or rewrite the model")
        extra = [i for i, operand in enumerate(self.operands) if operand is not None and i not in self.asked]
        if extra:
            raise self.refused(f"input {extra[0]} has no rule; rewrite the model without it")
        if len(self.types) > 1:
            raise self.wrong(f"operands have the element types {', '.join(sorted(self.types))}; one type is allowed")
        results = [result] if isinstance(result, Value | Known) else list(result)
        return {name: self._named(name, found) for name, found in zip(self.outputs, results, strict=False) if name}

    def _named(self, name: str, found: Operand) -> Operand:
        if isinstance(found, Known):
            return replace(found, name=name)
        nodes = self.graph.nodes
        made = next((i for i in range(self.first, len(nodes)) if nodes[i].name == found.name), None)
        if made is None or found.name in self.outputs:  # an operand handed on, or an output that has its name already
            return found
        self.graph.taken.discard(found.name)
        nodes[made] = replace(nodes[made], name=name)
        for i in range(made + 1, len(nodes)):
            nodes[i] = replace(nodes[i], inputs=tuple(name if x == found.name else x for x in nodes[i].inputs))
        return replace(found, name=name)


def index_tensor(index: NDArray[np.int64]) -> torch.Tensor:
    """Places for `Select`."""
    return torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))
