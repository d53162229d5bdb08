"""What depends on no input: sources of constants, shapes, and arithmetic on constants, as a runtime would compute it.

Floating-point results are rounded to the file's element type, as a runtime rounds them, and carry a bound on their
distance to the real-arithmetic result, so that whoever uses them encloses both.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaktight.errors import InternalError
from leaktight.models.enclosure import Enclosure
from leaktight.models.readers.lowering import joint_shape
from leaktight.models.readers.node import Known, Operand, Reading, Value, reads
from leaktight.models.readers.tensors import element_type

Folder = Callable[[Reading], Known]
FOLDS: dict[str, Folder] = {}


def folds(*names: str) -> Callable[[Folder], Folder]:
    """Registers what a node with constant operands only amounts to, where the operator's reader does not say."""

    def register(folder: Folder) -> Folder:
        for name in names:
            if name in FOLDS:
                raise InternalError(f"operator {name} is folded twice: by {FOLDS[name].__name__} and {folder.__name__}")
            FOLDS[name] = folder
        return folder

    return register


@reads("Constant")
def constant(node: Reading) -> Operand:
    attributes = node.attributes
    found: Any = attributes.array("value")
    if found is None and "value_float" in attributes:
        found = np.float32(attributes.number("value_float", 0.0))
    if found is None and "value_int" in attributes:
        found = np.int64(attributes.integer("value_int", 0))
    if found is None and "value_floats" in attributes:
        found = np.asarray(attributes.numbers("value_floats"), np.float32)
    if found is None and "value_ints" in attributes:
        found = np.asarray(attributes.integers("value_ints"), np.int64)
    if found is None:
        raise node.refused("it holds no dense numbers; tensors, floats and integers are allowed")
    return Known(node.outputs[0], np.asarray(found))


@reads("ConstantOfShape")
def constant_of_shape(node: Reading) -> Operand:
    shape, value = node.whole(0), node.attributes.array("value")
    if any(n < 0 for n in shape):
        raise node.wrong(f"the shape {shape} has negative entries")
    node.affordable(prod(shape))
    filled = np.zeros(1, np.float32) if value is None else value
    return Known("", np.full(shape, filled.reshape(-1)[0], filled.dtype))


@reads("Shape")
def shape_of(node: Reading) -> Operand:
    shape = node.operand(0).shape
    start, end = node.attributes.integer("start", 0), node.attributes.integer("end", len(shape))
    return Known("", np.asarray(shape[start:end], np.int64))


@reads("Size")
def size_of(node: Reading) -> Operand:
    return Known("", np.asarray(prod(node.operand(0).shape), np.int64))


@reads("Range")
def arange(node: Reading) -> Operand:
    start, limit, delta = (node.known(i).array for i in range(3))
    if delta.item() == 0:
        raise node.wrong("the step is zero")
    node.affordable(int(abs((float(limit.item()) - float(start.item())) / float(delta.item()))))
    return Known("", np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype))


@reads("Cast")
def cast(node: Reading) -> Operand:
    x, kind = node.operand(0), element_type(node.attributes.integer("to", 0), node.place)
    node.attributes.integer("saturate", 1)
    node.attributes.text("round_mode", "up")
    if isinstance(x, Value):
        if kind not in ("float32", "float64"):
            raise node.refused(
                f"it turns the computed value {x.name!r} into {kind}; float32 and float64 are allowed, "
                "where it is the "
                "identity in real arithmetic"
            )
        return Value(x.name, x.shape, kind)
    if kind not in ("float16", "float32", "float64"):
        return Known("", x.array.astype(kind))
    return _rounded(x.enclosure, x.array.astype(kind))


def _rounded(truth: Enclosure, computed: NDArray[np.generic]) -> Known:
    """The result that a runtime computes, with its distance to the real one."""
    error = truth - Enclosure(np.asarray(computed, np.float64), np.zeros(computed.shape))
    off = np.abs(error.value) + error.error
    off = np.where(off > 0, np.nextafter(off, np.inf), off)
    return Known("", computed, off if off.any() else None)


def _arithmetic(node: Reading, compute: Callable[..., Any], enclose: Callable[..., Enclosure]) -> Known:
    """A floating-point operation on constants."""
    operands = [node.known(i) for i in range(node.count)]
    enclosures = [node.finite(x) for x in operands]
    with np.errstate(all="ignore"):
        computed = np.asarray(compute(*(x.array for x in operands)))
        if not np.isfinite(computed).all():
            raise node.wrong(
                "its operands are constants and its result is NaN or infinite; only finite numbers are allowed"
            )
        try:
            return _rounded(enclose(*enclosures), computed)
        except (ZeroDivisionError, ValueError) as error:
            raise node.wrong(f"its operands are constants, and {error}") from error


def _whole_quotient(a: Any, b: Any) -> Any:
    """Integer division that drops the fraction."""
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


_BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Enclosure]]] = {
    # operator: on floats, on integers, on enclosures
    "Add": (np.add, np.add, Enclosure.__add__),
    "Sub": (np.subtract, np.subtract, Enclosure.__sub__),
    "Mul": (np.multiply, np.multiply, Enclosure.__mul__),
    "Div": (np.divide, _whole_quotient, Enclosure.__truediv__),
}


def _check_joint_shape(node: Reading) -> None:
    """Raises ModelError: the operands do not fit together, or what they broadcast to is too large."""
    node.affordable(prod(joint_shape(node, *(node.known(i).shape for i in range(node.count)))))


@folds(*_BINARY)
def binary(node: Reading) -> Known:
    _check_joint_shape(node)
    a, b = node.known(0).array, node.known(1).array
    on_floats, on_integers, on_enclosures = _BINARY[node.kind]
    if a.dtype != b.dtype:
        raise node.wrong(f"operands have the element types {a.dtype} and {b.dtype}; one type is allowed")
    if a.dtype.kind == "f":
        return _arithmetic(node, on_floats, on_enclosures)
    if node.kind == "Div" and not b.all():
        raise node.wrong("it divides by zero")
    return Known("", np.asarray(on_integers(a, b)).astype(a.dtype))


@folds("Sqrt")
def sqrt(node: Reading) -> Known:
    return _arithmetic(node, np.sqrt, Enclosure.sqrt)


@folds("Reciprocal")
def reciprocal(node: Reading) -> Known:
    one = Enclosure(np.ones(()), np.zeros(()))
    return _arithmetic(node, lambda a: (1 / a).astype(a.dtype), lambda a: one / a)


@folds("Neg")
def negative(node: Reading) -> Known:
    x = node.known(0)
    return Known("", np.negative(x.array), x.error)


@folds("Floor", "Ceil", "Round")
def to_whole(node: Reading) -> Known:
    """Follows what a runtime computes: these occur where an exporter works out a size."""
    move = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint}[node.kind]
    return Known("", np.asarray(move(node.finite(node.known(0)).value)).astype(node.known(0).array.dtype))


_PLAIN: dict[str, Callable[..., Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
}


@folds(*_PLAIN)
def compared(node: Reading) -> Known:
    _check_joint_shape(node)
    return Known("", np.asarray(_PLAIN[node.kind](*(node.known(i).array for i in range(node.count)))))


@folds("Where")
def where(node: Reading) -> Known:
    _check_joint_shape(node)
    condition, a, b = (node.known(i) for i in range(3))
    error = np.where(condition.array, a.enclosure.error, b.enclosure.error) if a.floating else None
    return Known("", np.where(condition.array, a.array, b.array), error)


def folded_by_reference(node: Reading, operands: list[Known]) -> Known:
    """An operator on integer or boolean constants, as the ONNX reference implementation computes it."""
    depth = int(operands[1].array.max(initial=1)) if node.kind == "OneHot" and len(operands) > 1 else 1
    node.affordable(depth * prod(max(1, x.array.size) for x in operands))  # what they broadcast to, at most
    from onnx.helper import make_graph, make_model, make_node, make_opsetid
    from onnx.reference import ReferenceEvaluator

    names = [f"input{i}" for i in range(len(operands))]
    made = make_node(node.kind, names, ["output"])
    made.attribute.extend(node.attributes.protos.values())
    node.attributes.read.update(node.attributes.protos)
    node.asked.update(range(node.count))
    model = make_model(make_graph([made], "constant", [], []), opset_imports=[make_opsetid("", node.opset)])
    del model.graph.input[:]
    session = ReferenceEvaluator(made, opsets={"": node.opset})
    found = session.run(None, dict(zip(names, (x.array for x in operands), strict=True)))
    return Known("", np.asarray(found[0]))  # type: ignore[index]
