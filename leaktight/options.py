"""What users write for numbers on the command line: ``8/255``, ``4G``, ``0.485,0.456,0.406``."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

from leaktight.errors import UsageError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def number(option: str, text: str) -> float:
    """A finite number, also as a fraction of two: ``0.03``, ``1e-3``, ``8/255``.

    Raises UsageError: it is something else; the message names `option`.
    """
    try:
        over, _, under = text.partition("/")
        value = float(Fraction(over.strip()) / Fraction(under.strip())) if under else float(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        value = float("nan")
    if not isfinite(value):
        raise UsageError(f"{option}: {text!r} is not a finite number; write it like 0.03, 1e-3 or 8/255")
    return value


def at_least_zero(option: str, text: str) -> float:
    """A finite number that is not negative.

    Raises UsageError: it is something else.
    """
    value = number(option, text)
    if value < 0:
        raise UsageError(f"{option}: {text} is negative; allowed: a number >= 0, like 0.03 or 8/255")
    return value


def span(option: str, text: str) -> tuple[float, float]:
    """Two finite numbers, the lower one first: ``0:0.3``.

    Raises UsageError: it is something else.
    """
    low, colon, high = text.partition(":")
    if not colon:
        raise UsageError(f"{option}: {text!r} is not a range; write it like 0:0.3")
    found = number(option, low), number(option, high)
    if found[0] > found[1]:
        raise UsageError(f"{option}: {text} is reversed; give the lower number first, like {high}:{low}")
    return found


def numbers(option: str, text: str) -> list[float]:
    """One number, or several with commas between them.

    Raises UsageError: one of them is not a finite number.
    """
    return [number(option, part.strip()) for part in text.split(",")]


def byte_count(option: str, text: str) -> int:
    """A positive number of bytes, with K, M, G or T for powers of 1024: ``512M``, ``4G``, ``1.5GiB``.

    Raises UsageError: it is something else.
    """
    plain = text.strip().lower().removesuffix("b").removesuffix("i")
    digits, unit = (plain[:-1], plain[-1]) if plain[-1:] in _UNITS and plain[-1:] else (plain, "")
    try:
        count = int(float(digits) * _UNITS[unit])
    except (ValueError, OverflowError):
        count = 0
    if count <= 0:
        raise UsageError(f"{option}: {text!r} is not a positive amount of memory; write it like 512M or 4G")
    return count


def choice(option: str, text: str, allowed: tuple[str, ...]) -> str:
    """`text`, if it is one of the allowed words.

    Raises UsageError: it is not; the message lists them.
    """
    if text not in allowed:
        raise UsageError(f"{option}: {text!r} is not known; allowed: {', '.join(allowed)}")
    return text


def words(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the allowed words, with commas between them; or ``none``.

    Raises UsageError: one is not allowed; the message lists them.
    """
    if text.strip() == "none":
        return ()
    return tuple(choice(option, word.strip(), (*allowed, "none")) for word in text.split(","))
