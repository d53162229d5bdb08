"""VNN-LIB 2.0 files become properties. The text is parsed and type-checked by the `vnnlib` package.

Inputs and outputs are flattened in the order of their declarations, each in row-major order, and carry their names and
shapes, so that `Property.arranged` can match them with a network's. Numbers are taken from the text, not from the
package's floats. Source: the VNN-LIB 2.0 standard, vnnlib.org.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from math import prod
from typing import Final

import vnnlib

from leaktight.errors import PropertyError
from leaktight.specs.cases import NUMBERS, cases
from leaktight.specs.declared import Variable
from leaktight.specs.formula import (
    Condition,
    FormulaError,
    Linear,
    Symbol,
    added,
    both,
    compared,
    either,
    linear,
    multiplied,
    subtracted,
)
from leaktight.specs.property import Property

DEPTH: Final = 200
"""The deepest nesting that is given to the package, whose parser is recursive."""

_POWER: Final = re.compile(r"(?<=[\s()])(-?[0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,3})(?=[\s()])")
_COMPARISONS: Final = {
    vnnlib.LessEqual: "<=",
    vnnlib.LessThan: "<",
    vnnlib.GreaterEqual: ">=",
    vnnlib.GreaterThan: ">",
    vnnlib.Equal: "==",
    vnnlib.NotEqual: "!=",
}
_TYPES: Final = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "Real": "real"}


def parse_property(text: str, *, path: str | None = None, sha256: str | None = None) -> Property:
    """The property that a VNN-LIB 2.0 text states. `path` is for messages and goes into the property.

    Numbers in scientific notation are written out before the package reads the text.

    Raises PropertyError: the text is not VNN-LIB 2.0; it has several networks or hidden nodes; an element type is not a
    floating-point one; a condition is not linear; or see leaktight.specs.vnnlib.
    """
    place = path or "<text>"
    network, asserted = _query(text, place)
    try:
        symbols = _Symbols.of(network)
        conditions = [symbols.condition(assertion.expr) for assertion in asserted]
        found = cases(conditions, symbols.inputs, len(symbols.outputs))
    except (FormulaError, PropertyError) as error:
        raise PropertyError(f"{place}: {error}") from None
    return Property(found, path, sha256, tuple(map(_variable, network.inputs)), tuple(map(_variable, network.outputs)))


def _query(text: str, place: str) -> tuple[vnnlib.Network, Sequence[vnnlib.Assertion]]:
    for reading in (text, re.sub(r";[^\n]*", "", text)):
        depth = deepest = 0
        for parenthesis in re.findall(r"[()]", reading):
            depth += 1 if parenthesis == "(" else -1
            deepest = max(deepest, depth)
        if deepest > DEPTH:
            raise PropertyError(
                f"{place}: parentheses are nested {deepest} deep; at most {DEPTH} are allowed; flatten the conditions"
            )
    try:
        query = vnnlib.parse_query_string(_POWER.sub(lambda match: format(Decimal(match[0]), "f"), text))
    except vnnlib.VNNLibException as error:
        raise PropertyError(f"{place}{_reason(str(error))}") from None
    if len(query.networks) != 1:
        raise PropertyError(
            f"{place}: the property is about {len(query.networks)} networks; only properties of one "
            "network are supported; split it"
        )
    network = query.networks[0]
    if network.hidden:
        raise PropertyError(
            f"{place}: the hidden node {network.hidden[0].name!r} is declared; conditions on hidden "
            "nodes are not supported; state conditions on inputs and outputs"
        )
    return network, query.assertions


def _reason(message: str) -> str:
    """The package's message as ``:line:column: what``."""
    syntax = re.search(r"at line (\d+), column (\d+): (.*)", message)
    if syntax:
        return f":{syntax[1]}:{syntax[2]}: syntax error at {syntax[3]}; expected VNN-LIB 2.0"
    try:
        first = json.loads(message)["errors"][0]
        return f":{first['line']}: {first['message']} ({first['offendingSymbol']}); {first['hint']}"
    except (ValueError, LookupError, TypeError):
        return f": {message.strip()}; expected VNN-LIB 2.0"


def _variable(definition: vnnlib.InputDefinition | vnnlib.OutputDefinition) -> Variable:
    kind = _TYPES.get(definition.dtype.name)
    if kind is None:
        raise PropertyError(
            f"{definition.name} has the element type {definition.dtype.name}; supported: real, "
            "float16, bfloat16, float32, float64"
        )
    given = definition.onnx_name
    return Variable((given or definition.name).strip('"'), tuple(definition.shape), kind, given is not None)


@dataclass(frozen=True)
class _Symbols:
    """The flat spaces: the names of their entries, and where each variable starts and how it is shaped."""

    inputs: list[str]
    outputs: list[str]
    places: dict[str, tuple[bool, int, tuple[int, ...]]]

    @classmethod
    def of(cls, network: vnnlib.Network) -> _Symbols:
        found = cls([], [], {})
        for output, definitions in ((False, network.inputs), (True, network.outputs)):
            names = found.outputs if output else found.inputs
            for definition in definitions:
                shape = _variable(definition).shape
                if len(names) + prod(shape) > NUMBERS:
                    raise FormulaError(
                        f"{definition.name} has the shape {list(shape)}: more than {NUMBERS} entries, "
                        "the limit; split the property"
                    )
                found.places[definition.name] = (output, len(names), shape)
                names.extend(f"{definition.name}[{','.join(map(str, at))}]" for at in product(*map(range, shape)))
        return found

    def condition(self, node: vnnlib.BoolExpr) -> Condition:
        """`node` in disjunctive normal form."""
        if isinstance(node, vnnlib.And):
            return both([self.condition(part) for part in node.args])
        if isinstance(node, vnnlib.Or):
            return either([self.condition(part) for part in node.args])
        if not isinstance(node, vnnlib.Comparison):
            raise FormulaError(f"the condition {node} is not supported; supported: and, or, <=, <, >=, >, ==, !=")
        return compared(_COMPARISONS[type(node)], self.term(node.lhs), self.term(node.rhs))

    def term(self, node: vnnlib.ArithExpr) -> Linear:
        """`node` as an exact linear term."""
        if isinstance(node, vnnlib.Var):
            return linear(self.symbol(node))
        if isinstance(node, vnnlib.Literal):
            return linear(Decimal(node.lexeme))
        if isinstance(node, vnnlib.Negate):
            return subtracted([self.term(node.expr)])
        if isinstance(node, vnnlib.Plus):
            return added([self.term(part) for part in node.args])
        if isinstance(node, vnnlib.Minus):
            return subtracted([self.term(part) for part in (node.head, *node.rest)])
        if isinstance(node, vnnlib.Multiply):
            return multiplied([self.term(part) for part in node.args])
        raise FormulaError(f"the term {node} is not supported; supported: variables, numbers, +, -, *")

    def symbol(self, node: vnnlib.Var) -> Symbol:
        """The entry that an indexed variable stands for."""
        output, start, shape = self.places[node.name]
        index = 0
        for at, extent in zip(node.indices, shape, strict=True):
            index = index * extent + at
        return Symbol(output, start + index, f"{node.name}[{','.join(map(str, node.indices))}]")
