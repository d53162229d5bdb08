"""What a JSON value must look like, said once and checked with the place at which it does not.

A check is a function that returns for what it allows and raises `Misshapen` for everything else. Records may have keys
beyond those that are named: documents gain keys from version to version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

Check = Callable[[Any], None]
_REPR = 60


class Misshapen(Exception):
    """A value is not what its place demands. `path`: the keys that lead to it, outermost first."""

    def __init__(self, wanted: str, value: Any) -> None:
        super().__init__(wanted)
        self.wanted, self.value, self.path = wanted, value, ""

    def inside(self, key: str) -> Misshapen:
        """The same, seen from the value that holds it under `key`."""
        self.path = key + self.path
        return self

    def __str__(self) -> str:
        came = repr(self.value)
        came = came if len(came) <= _REPR else came[:_REPR] + "..."
        return f"{self.path.lstrip('.') or 'the document'} must be {self.wanted}, and is {came}"


class Missing(Misshapen):
    """A record lacks a key."""

    def __str__(self) -> str:
        return f"{self.path.lstrip('.')} is missing"


def number(value: Any) -> None:
    """A finite number; true and false are none."""
    if type(value) is float and isfinite(value):
        return
    if type(value) is not int:
        raise Misshapen("a finite number", value)
    try:
        float(value)
    except OverflowError:
        raise Misshapen("a finite number", value) from None


def whole(value: Any) -> None:
    """An integer that fits in 64 bits."""
    if type(value) is not int or abs(value) >> 63:
        raise Misshapen("a whole number", value)


def share(value: Any) -> None:
    """A number in [0, 1]; a mean of such may miss it by a rounding."""
    number(value)
    if not -1e-9 <= value <= 1 + 1e-9:
        raise Misshapen("a number in [0, 1]", value)


def text(value: Any) -> None:
    """A string."""
    if type(value) is not str:
        raise Misshapen("a string", value)


def truth(value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise Misshapen("true or false", value)


def nested(value: Any) -> None:
    """A number or null, or lists of those, nested at will."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            try:
                nested(item)
            except Misshapen as error:
                raise error.inside(f"[{place}]") from None
    elif value is not None:
        number(value)


def one_of(*words: str) -> Check:
    """One of the given strings."""

    def check(value: Any) -> None:
        if value not in words or type(value) is not str:
            raise Misshapen(f"one of {', '.join(words)}", value)

    return check


def maybe(inner: Check) -> Check:
    """Null, or what `inner` allows."""

    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check


def list_of(inner: Check, length: int | None = None) -> Check:
    """A list of what `inner` allows, of the given length if there is one."""

    def check(value: Any) -> None:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise Misshapen("a list" if length is None else f"a list of {length}", value)
        for place, item in enumerate(value):
            try:
                inner(item)
            except Misshapen as error:
                raise error.inside(f"[{place}]") from None

    return check


def interval(value: Any) -> None:
    """Two numbers in ascending order."""
    _PAIR(value)
    if value[0] > value[1]:
        raise Misshapen("two numbers in ascending order", value)


_PAIR = list_of(number, 2)


def mapping_of(inner: Check) -> Check:
    """An object whose values `inner` allows."""

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise Misshapen("an object", value)
        for key, item in value.items():
            _checked(key, inner, item)

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with all the required keys; an optional key is checked where it is there."""
    chosen = optional or {}

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise Misshapen("an object", value)
        for key, inner in required.items():
            if key not in value:
                raise Missing("there", None).inside(f".{key}")
            _checked(key, inner, value[key])
        for key, inner in chosen.items():
            if key in value:
                _checked(key, inner, value[key])

    return check


def _checked(key: str, inner: Check, value: Any) -> None:
    try:
        inner(value)
    except Misshapen as error:
        raise error.inside(f".{key}") from None
