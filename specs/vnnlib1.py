"""The VNN-LIB 1.0 language: SMT-LIB's ``declare-const``, ``assert``, ``and``, ``or``, comparisons, linear arithmetic.

A text is one list of tokens, read once from front to back with a stack of our own, so that nesting is limited by memory
only. What a ``)`` closes is evaluated at once. The few forms that large files are made of are one token each. Where
something is wrong, the text is read again with a token for each word, and the error is about one of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice, pairwise
from typing import Final, TypeAlias

from leaktight.errors import PropertyError
from leaktight.specs.cases import cases
from leaktight.specs.formula import (
    Atom,
    Bound,
    Condition,
    Conjunction,
    FormulaError,
    Linear,
    Symbol,
    added,
    both,
    compared,
    divided,
    either,
    linear,
    multiplied,
    subtracted,
)
from leaktight.specs.property import Case

_TOKEN: Final = re.compile(r""";[^\n]*|[()]|"[^"]*"|\|[^|]*\||[^\s();"|]+|["|]""")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_VARIABLE: Final = re.compile(r"[XY]_(?:0|[1-9][0-9]{0,8})")
_COMPARED: Final = rf"([<>]=?)\s+({_VARIABLE.pattern})\s+({_NUMBER.pattern}|{_VARIABLE.pattern})\s*\)"
_WORD: Final = re.compile(rf"()()()()()({_TOKEN.pattern})")
_WORD_OR_FORM: Final = re.compile(
    rf"\(\s*(?:(assert)\s*\(\s*)?{_COMPARED}(?(1)\s*\))|\(\s*declare-const\s+({_VARIABLE.pattern})\s+Real\s*\)"
    rf"|({_TOKEN.pattern})"
)
_VERSION: Final = re.compile(r"<([0-9]+)\.([0-9]+)>")
_ORDER: Final = {"<=": (True, False), "<": (True, True), ">=": (False, False), ">": (False, True)}
_IGNORED: Final = frozenset({"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"})
_ARITHMETIC: Final[Mapping[str, Callable[[Sequence[Linear]], Linear]]] = {
    "+": added,
    "-": subtracted,
    "*": multiplied,
    "/": divided,
}
_COMPARISONS: Final = frozenset({*_ORDER, "="})
_ZERO: Final = Decimal(0)

Item: TypeAlias = int | Linear | Condition | None
"""What stands inside parentheses: a token (its number), or what an inner pair of parentheses came to."""


class Reader:
    """One pass over a VNN-LIB 1.0 text; `place` (the file's path) starts every message."""

    def __init__(self, text: str, place: str) -> None:
        self.text, self.place = text, place
        self.tokens: list[str] = []
        self.symbols: dict[str, Symbol] = {}
        self.certain: Conjunction = []
        self.alternatives: list[Condition] = []
        self.version = self._version()

    def error(self, token: int, problem: str) -> PropertyError:
        """The error about the token of that number (or the end of the text) with its line and column."""
        found = next(islice(self._matches(), token, None), None)
        offset = len(self.text) if found is None else found.start()
        line = self.text.count("\n", 0, offset) + 1
        column = offset - self.text.rfind("\n", 0, offset)
        return PropertyError(f"{self.place}:{line}:{column}: {problem}")

    def _matches(self) -> Iterator[re.Match[str]]:
        return (match for match in _TOKEN.finditer(self.text) if match.group()[0] != ";")

    def _version(self) -> tuple[int, int]:
        start = [match.group() for match in islice(self._matches(), 4)]
        if not start:
            raise self.error(0, "the file holds no declarations; give a VNN-LIB file with declarations and assertions")
        if start[:2] != ["(", "vnnlib-version"]:
            return 1, 0
        match = _VERSION.fullmatch(start[2]) if start[3:] == [")"] else None
        if match is None or int(match[1]) not in (1, 2):
            raise self.error(2, f"the version {' '.join(start[2:3])} is not known; allowed: <1.0>, <2.0>")
        return int(match[1]), int(match[2])

    def read(self) -> None:
        """Evaluates every form.

        Raises PropertyError: where the text is not VNN-LIB 1.0, or outside what is supported.
        """
        try:
            self._evaluate(_WORD_OR_FORM)
        except PropertyError:  # about a place that only a token for each word tells
            self._evaluate(_WORD)

    def _evaluate(self, pattern: re.Pattern[str]) -> None:
        self.tokens, self.symbols, self.certain, self.alternatives = [], {}, [], []
        open_forms: list[tuple[int, list[Item]]] = []
        at = -1
        for match in pattern.finditer(self.text):
            asserted, comparison, left, right, declared, token = match.groups("")
            if token[:1] == ";":
                continue
            at += 1
            self.tokens.append(token)
            if comparison:
                condition = self._simple(comparison, left, right, at)
                if condition is None or bool(asserted) == bool(open_forms):
                    raise self.error(at, "a condition of another kind, or at another place")
                if asserted:
                    self.certain.extend(condition[0])
                else:
                    open_forms[-1][1].append(condition)
            elif declared:
                if open_forms:
                    raise self.error(at, "a declaration inside another form")
                self._declare(declared, at)
            elif token == "(":
                open_forms.append((at, []))
            elif not open_forms:
                raise self.error(at, f"found {token!r} where a form must start; expected '('")
            elif token == ")":
                start, items = open_forms.pop()
                value = self._closed(start, items, outermost=not open_forms)
                if open_forms:
                    open_forms[-1][1].append(value)
            else:
                open_forms[-1][1].append(at)
        if open_forms:
            line = self._line(open_forms[-1][0])
            raise self.error(at + 1, f"the text ends inside a form that starts at line {line}; expected ')'")

    def _line(self, token: int) -> str:
        return str(self.error(token, "")).removeprefix(f"{self.place}:").split(":")[0]

    def _simple(self, comparison: str, left: str, right: str, at: int) -> Condition | None:
        """The condition ``(<= X_3 0.25)`` or ``(<= Y_0 Y_1)``; None where it is of another kind. `at`: of the right."""
        order, symbol = _ORDER.get(comparison), self.symbols.get(left)
        if order is None or symbol is None:
            return None
        upper, strict = order
        other = self.symbols.get(right)
        if other is not None:
            if other is symbol or not (symbol.output and other.output):
                return None
            less, more = (symbol, other) if upper else (other, symbol)
            return [[Atom(((less.index, 1.0), (more.index, -1.0)), _ZERO, strict)]]
        if not _NUMBER.fullmatch(right):
            return None
        value = self._number(right, at)
        if not symbol.output:
            return [[Bound(symbol, upper, value, strict)]]
        return [[Atom(((symbol.index, 1.0 if upper else -1.0),), value if upper else value.copy_negate(), strict)]]

    def _number(self, token: str, at: int) -> Decimal:
        value = Decimal(token) if len(token) <= 2000 else None
        if value is None or (value and not -2000 < value.adjusted() <= 308):
            raise self.error(
                at,
                f"the number {token[:40]} is out of range; allowed: 0, and magnitudes from 1e-1999 to "
                "1.7e308 in at most 2000 characters",
            )
        return value

    def _closed(self, start: int, items: list[Item], *, outermost: bool) -> Item:
        """What the form that starts at token `start` comes to."""
        if not items:
            return None
        head = self.tokens[items[0]] if isinstance(items[0], int) else None
        if head is None:
            raise self.error(start + 1, "found a form where a word must stand; expected one such as assert, and, <=")
        if outermost:
            self._command(head, start, items[1:])
            return None
        try:
            return self._expression(head, start, items[1:])
        except FormulaError as error:
            raise self.error(start, str(error)) from None

    def _command(self, head: str, start: int, items: list[Item]) -> None:
        if head == "assert":
            if len(items) != 1:
                raise self.error(start, f"assert has {len(items)} arguments; expected one condition")
            condition = self._condition(items[0], start)
            if len(condition) == 1:
                self.certain.extend(condition[0])
            else:
                self.alternatives.append(condition)
        elif head in ("declare-const", "declare-fun"):
            self._declare(self._declared_name(head, start, items), start)
        elif head == "vnnlib-version":
            if start:
                raise self.error(start, "vnnlib-version must be the first form of the file")
        elif head not in _IGNORED:
            raise self.error(
                start + 1,
                f"the command {head!r} is not supported; supported: declare-const, "
                f"declare-fun, assert (and ignored: {', '.join(sorted(_IGNORED))})",
            )

    def _declared_name(self, head: str, start: int, items: list[Item]) -> str:
        words = [self.tokens[item] if isinstance(item, int) else "()" for item in items]
        if words[1:] != (["Real"] if head == "declare-const" else ["()", "Real"]):
            kind = "Real" if head == "declare-const" else "() Real"
            raise self.error(start, f"found ({head} {' '.join(words)}); expected ({head} NAME {kind})")
        if not _VARIABLE.fullmatch(words[0]):
            raise self.error(
                start + 2,
                f"the variable {words[0]!r} is neither an input X_0, X_1, ... nor an output Y_0, Y_1, ...; rename it",
            )
        return words[0]

    def _declare(self, name: str, start: int) -> None:
        if name in self.symbols:
            raise self.error(start + 2, f"{name} is declared twice; remove one declaration")
        self.symbols[name] = Symbol(name[0] == "Y", int(name[2:]), name)

    def _expression(self, head: str, start: int, items: list[Item]) -> Linear | Condition:
        if head in ("and", "or"):
            conditions = [self._condition(item, start) for item in items]
            if not conditions:
                raise self.error(start, f"{head} has no arguments; expected at least one condition")
            return both(conditions) if head == "and" else either(conditions)
        if head in _COMPARISONS:
            if len(items) == 2 and isinstance(left := items[0], int) and isinstance(right := items[1], int):
                condition = self._simple(head, self.tokens[left], self.tokens[right], right)
                if condition is not None:
                    return condition
            if len(items) < 2:
                raise self.error(start, f"{head} has {len(items)} arguments; expected at least two terms")
            terms = [self._term(item, start) for item in items]
            return both(compared(head, left, right) for left, right in pairwise(terms))
        if head in _ARITHMETIC:
            terms = [self._term(item, start) for item in items]
            if not terms or (head == "/" and len(terms) < 2):
                raise self.error(start, f"{head} has {len(terms)} arguments; expected at least {1 + (head == '/')}")
            return _ARITHMETIC[head](terms)
        raise self.error(
            start + 1, f"the operator {head!r} is not supported; supported: and, or, <=, <, >=, >, =, +, -, *, /"
        )

    def _condition(self, item: Item, start: int) -> Condition:
        if isinstance(item, int):
            if self.tokens[item] in ("true", "false"):
                return [[]] if self.tokens[item] == "true" else []
            raise self.error(item, f"found {self.tokens[item]!r}; expected a condition such as (<= X_0 1.0)")
        if not isinstance(item, list):
            raise self.error(start, "found a term or () as an argument; expected a condition such as (<= X_0 1.0)")
        return item

    def _term(self, item: Item, start: int) -> Linear:
        if isinstance(item, Linear):
            return item
        if not isinstance(item, int):
            raise self.error(start, "found a condition or () as an argument; expected a term such as (- Y_0 Y_1)")
        token = self.tokens[item]
        if token in self.symbols:
            return linear(self.symbols[token])
        if _NUMBER.fullmatch(token):
            return linear(self._number(token, item))
        known = "is not declared; declare it first" if _VARIABLE.fullmatch(token) else "is not a variable or a number"
        raise self.error(item, f"{token!r} {known} (expected a term such as X_0, Y_1, 0.5 or (- Y_0 Y_1))")

    def _declared(self, output: bool) -> list[str]:
        """The names of all inputs (or outputs), in order. Raises PropertyError: there is none, or a gap."""
        kind, letter = ("output", "Y") if output else ("input", "X")
        indices = {symbol.index for symbol in self.symbols.values() if symbol.output == output}
        missing = next(i for i in range(len(indices) + 1) if i not in indices)
        if missing < len(indices) or not indices:
            raise PropertyError(
                f"{self.place}: the {kind} {letter}_{missing} is not declared, of {len(indices)} "
                f"{kind}s; declare {letter}_0, {letter}_1, ... without gaps"
            )
        return [f"{letter}_{i}" for i in range(len(indices))]

    def cases(self) -> tuple[Case, ...]:
        """The cases that the forms state.

        Raises PropertyError: variables are missing, an input is unbounded, or the region is empty.
        """
        inputs, outputs = self._declared(output=False), self._declared(output=True)
        try:
            return cases([[self.certain], *self.alternatives], inputs, len(outputs))
        except (FormulaError, PropertyError) as error:
            raise PropertyError(f"{self.place}: {error}") from None
