"""Linear conditions on inputs and outputs in exact arithmetic, and their disjunctive normal form.

Numbers are exact rationals: `Decimal` as a file writes them, `Fraction` once something was computed. (Never compute
with `Decimal`: its arithmetic rounds. Comparing two of these, or one with a float, is exact.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm, prod
from typing import NamedTuple, TypeAlias

Number: TypeAlias = Decimal | Fraction

DISJUNCTS = 100_000
"""The most disjuncts that a property may have once it is in disjunctive normal form."""
ATOMS = 5_000_000
"""The most atoms, over all disjuncts."""


class FormulaError(ValueError):
    """A condition is outside what is supported. The reader that meets it adds the place."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """An input or output entry, counted in the flat space, and the name that the user knows it by."""

    output: bool
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum_i weights[i] * symbol_i + constant``, exactly; no weight is zero."""

    weights: dict[Symbol, Fraction]
    constant: Fraction


class Bound(NamedTuple):
    """An input atom: ``x_index <= value`` where `upper`, else ``x_index >= value``; without equality if `strict`."""

    symbol: Symbol
    upper: bool
    value: Number
    strict: bool


class Atom(NamedTuple):
    """An output atom: ``weights . y <= bound``, with weights that float64 holds exactly; ``<`` if `strict`."""

    weights: tuple[tuple[int, float], ...]
    bound: Number
    strict: bool


Conjunction: TypeAlias = list[Bound | Atom]
Condition: TypeAlias = list[Conjunction]
"""A condition in disjunctive normal form. Each is used once: `both` and `either` take over their arguments' lists."""


def linear(value: Linear | Symbol | Number) -> Linear:
    """`value` as a linear term."""
    if isinstance(value, Linear):
        return value
    if isinstance(value, Symbol):
        return Linear({value: Fraction(1)}, Fraction(0))
    return Linear({}, Fraction(value))


def added(terms: Sequence[Linear]) -> Linear:
    """The sum of `terms`."""
    weights: dict[Symbol, Fraction] = {}
    for term in terms:
        for symbol, weight in term.weights.items():
            weights[symbol] = weights.get(symbol, Fraction(0)) + weight
    return Linear({s: w for s, w in weights.items() if w}, sum((t.constant for t in terms), Fraction(0)))


def scaled(term: Linear, factor: Fraction) -> Linear:
    """``factor * term``."""
    return Linear({s: w * factor for s, w in term.weights.items() if factor}, term.constant * factor)


def subtracted(terms: Sequence[Linear]) -> Linear:
    """The first of `terms` less the others; a single one is negated."""
    if len(terms) == 1:
        return scaled(terms[0], Fraction(-1))
    return added([terms[0], *(scaled(term, Fraction(-1)) for term in terms[1:])])


def multiplied(terms: Sequence[Linear]) -> Linear:
    """The product of `terms`. Raises FormulaError: two of them have variables."""
    varying = [term for term in terms if term.weights]
    if len(varying) > 1:
        names = " and ".join(next(iter(term.weights)).name for term in varying[:2])
        raise FormulaError(f"a product of variables ({names}) is not linear; multiply variables by constants only")
    factor = prod((term.constant for term in terms if not term.weights), start=Fraction(1))
    return scaled(varying[0], factor) if varying else Linear({}, factor)


def divided(terms: Sequence[Linear]) -> Linear:
    """The first of `terms` over the others. Raises FormulaError: a divisor has variables or is zero."""
    for term in terms[1:]:
        if term.weights:
            raise FormulaError(f"a division by {next(iter(term.weights)).name} is not linear; divide by constants only")
        if not term.constant:
            raise FormulaError("a division by zero; divide by a constant other than zero")
    return scaled(terms[0], 1 / prod((term.constant for term in terms[1:]), start=Fraction(1)))


def at_most(left: Linear, right: Linear, *, strict: bool) -> Condition:
    """``left <= right``, or ``left < right`` if `strict`.

    Raises FormulaError: the atom is about several inputs, or about inputs and outputs together.
    """
    term = subtracted([left, right])
    if not term.weights:
        return [[]] if (term.constant < 0 or (term.constant == 0 and not strict)) else []
    symbols = list(term.weights)
    if all(symbol.output for symbol in symbols):
        return [[_atom(term, strict)]]
    if any(symbol.output for symbol in symbols):
        raise FormulaError(
            f"one condition on inputs and outputs together ({_names(symbols)}) is not supported; "
            "state conditions on inputs and on outputs apart"
        )
    if len(symbols) > 1:
        raise FormulaError(
            f"a condition on several inputs together ({_names(symbols)}) is not supported; "
            "bound each input by constants"
        )
    weight = term.weights[symbols[0]]
    return [[Bound(symbols[0], weight > 0, -term.constant / weight, strict)]]


def compared(operator: str, left: Linear, right: Linear) -> Condition:
    """``left operator right`` for ``<=``, ``<``, ``>=``, ``>``, ``=`` (``==``) and ``!=``.

    Raises FormulaError: see `at_most`.
    """
    if operator in ("<=", "<"):
        return at_most(left, right, strict=operator == "<")
    if operator in (">=", ">"):
        return at_most(right, left, strict=operator == ">")
    if operator == "!=":
        return either([at_most(left, right, strict=True), at_most(right, left, strict=True)])
    return both([at_most(left, right, strict=False), at_most(right, left, strict=False)])


def either(conditions: Iterable[Condition]) -> Condition:
    """The disjunction. Raises FormulaError: more than `DISJUNCTS` of them, or `ATOMS` atoms."""
    parts = list(conditions)
    whole: Condition = max(parts, key=len, default=[])  # the longest takes up the others: linear time however nested
    for part in parts:
        if part is not whole:
            whole.extend(part)
    _check_size(len(whole), 0)
    return whole


def both(conditions: Iterable[Condition]) -> Condition:
    """The conjunction. Raises FormulaError: it has more than `DISJUNCTS` disjuncts or `ATOMS` atoms."""
    parts = list(conditions)
    certain = [part[0] for part in parts if len(part) == 1]
    common: Conjunction = max(certain, key=len, default=[])
    for conjunction in certain:
        if conjunction is not common:
            common.extend(conjunction)
    whole: Condition = [common]
    for part in parts:
        if len(part) == 1:
            continue
        count = len(whole) * len(part)
        _check_size(count, len(part) * sum(map(len, whole)) + len(whole) * sum(map(len, part)))
        whole = [[*first, *second] for first in whole for second in part]
    return whole


def _check_size(disjuncts: int, atoms: int) -> None:
    if disjuncts > DISJUNCTS:
        raise FormulaError(
            f"the property has {disjuncts} disjuncts in disjunctive normal form; at most {DISJUNCTS} "
            "are allowed; split the property"
        )
    if atoms > ATOMS:
        raise FormulaError(
            f"the property has {atoms} atoms in disjunctive normal form; at most {ATOMS} are allowed; "
            "split the property"
        )


def _names(symbols: Sequence[Symbol]) -> str:
    return ", ".join(symbol.name for symbol in symbols[:3]) + (", ..." if len(symbols) > 3 else "")


def _atom(term: Linear, strict: bool) -> Atom:
    """``term <= 0`` as an atom.

    Weights that float64 does not hold (0.1, 1/3) are multiplied by their common denominator over a power of two, a
    factor in [1, 2): the atom means the same, and its part in the margin grows by that factor.
    """
    factor = Fraction(1)
    if not all(_representable(weight) for weight in term.weights.values()):
        whole = lcm(*(weight.denominator for weight in term.weights.values()))
        factor = Fraction(whole, 1 << (whole.bit_length() - 1))
    weights = {symbol: weight * factor for symbol, weight in term.weights.items()}
    for symbol, weight in weights.items():
        if not _representable(weight):
            raise FormulaError(
                f"the coefficient {term.weights[symbol]} of {symbol.name} has no exact float64 form; "
                "write it with fewer digits"
            )
    held = tuple((symbol.index, float(weight)) for symbol, weight in weights.items())
    return Atom(held, -term.constant * factor, strict)


def _representable(weight: Fraction) -> bool:
    try:
        return float(weight) == weight
    except OverflowError:
        return False
