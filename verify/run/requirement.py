"""Requirements such as ``certified_accuracy >= 0.9``: what a suite wants of an answer, and whether it is so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import isfinite
from typing import Any

Document = Mapping[str, Any]
_FORM = re.compile(r"\s*([A-Za-z_]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
_AT_LEAST, _AT_MOST = (">=", ">"), ("<=", "<")


@dataclass(frozen=True)
class Quantity:
    """A number of an answer. `ways`: the comparisons that what is proven of it can decide."""

    read: Callable[[Document], float | None]
    kinds: tuple[str, ...]
    ways: tuple[str, ...] = _AT_LEAST


@dataclass(frozen=True)
class Requirement:
    """A comparison of one of `QUANTITIES` with a number; `text` is what the user wrote."""

    text: str
    quantity: str
    way: str
    bound: float

    def holds(self, value: float | None) -> bool:
        """Whether the value satisfies it; a number that nothing is proven of satisfies nothing."""
        if value is None:
            return False
        return {
            ">=": value >= self.bound,
            ">": value > self.bound,
            "<=": value <= self.bound,
            "<": value < self.bound,
        }[self.way]

    def judge(self, document: Document) -> dict[str, Any]:
        """The requirement with what the answer says of it: ``{"text", "value", "holds"}``."""
        value = QUANTITIES[self.quantity].read(document)
        return {"text": self.text, "value": value, "holds": self.holds(value)}


def _accuracy(name: str) -> Callable[[Document], float | None]:
    def read(document: Document) -> float | None:
        found = document.get("accuracy")
        if isinstance(found, Mapping):
            return None if found.get(name) is None else float(found[name])
        return min((float(part[name]) for part in found), default=None) if found else None

    return read


def _smallest(read: Callable[[Document], float | None]) -> Callable[[Document], float | None]:
    """The smallest over the inputs of an answer about data, and None where one of them has none."""

    def smallest(document: Document) -> float | None:
        values = [read(part) for part in document.get("inputs", [document])]
        known = [value for value in values if value is not None]
        return min(known) if known and len(known) == len(values) else None

    return smallest


def _margin(found: Document) -> float | None:
    if "curve" not in found:
        value = found["margin"]["lower"]
        return None if value is None else float(value)
    ends = [end for segment in found["curve"] for end in segment["lower"]]
    return None if None in ends else min(map(float, ends), default=None)


def _radius(found: Document) -> float | None:
    radius = found.get("radius")
    if isinstance(radius, list):
        parts = [part["radius"] for part in radius]
        return None if None in parts else min(map(float, parts), default=None)
    return None if radius is None else float(radius)


QUANTITIES: Mapping[str, Quantity] = {
    "certified_accuracy": Quantity(_accuracy("certified"), ("certify", "leak")),
    "clean_accuracy": Quantity(_accuracy("clean"), ("certify",)),
    "attacked_accuracy": Quantity(_accuracy("attacked"), ("certify", "leak")),
    "margin": Quantity(_smallest(_margin), ("verify", "certify", "leak")),
    "radius": Quantity(_smallest(_radius), ("certify", "leak")),
    "proved_up_to": Quantity(_smallest(lambda found: found["proved_up_to"]), ("leak",)),
    "lipschitz": Quantity(lambda document: document["upper"], ("lipschitz",), _AT_MOST),
}


def parse(text: str, kind: str) -> Requirement:
    """The requirement that `text` states of an answer of this kind.

    Raises ValueError: it has another form, names a quantity that such an answer does not have (the message names the
    nearest), or compares it the way that a proven bound cannot decide.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no requirement; write it like 'certified_accuracy >= 0.9'")
    name, way, number = match.groups()
    known = [quantity for quantity, found in QUANTITIES.items() if kind in found.kinds]
    if name not in known:
        near = get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name!r} is no quantity of {kind}; {meant}allowed: {', '.join(known)}")
    allowed = QUANTITIES[name].ways
    if way not in allowed:
        raise ValueError(f"{text!r}: what is proven of {name} decides {' and '.join(allowed)} only")
    return Requirement(text.strip(), name, way, _number(number, text))


def _number(number: str, text: str) -> float:
    try:
        value = float(Fraction(number))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = float("nan")
    if not isfinite(value):
        raise ValueError(f"{text!r}: {number!r} is not a finite number; write it like 0.9 or 8/255")
    return value
