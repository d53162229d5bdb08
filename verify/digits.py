"""Numbers as people read them: six digits, rounded to the side on which they claim less."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache


@lru_cache(maxsize=1 << 16)
def short(value: float) -> str:
    """Six significant digits, which is what people compare; the JSON has all of them."""
    return f"{value:.6g}"


def rounded_down(value: float) -> str:
    """Six significant digits that are not above the value: what is proven to be reached is not overstated."""
    return _directed(value, ROUND_FLOOR) if float(short(value)) > value else short(value)


def rounded_up(value: float) -> str:
    """Six significant digits that are not below the value."""
    return _directed(value, ROUND_CEILING) if float(short(value)) < value else short(value)


def rounded_inwards(lower: float, upper: float) -> str:
    """Six significant digits of either end of an interval inside of it, or all digits where so few cross."""
    low, high = rounded_up(lower), rounded_down(upper)
    return f"{low} to {high}" if float(low) <= float(high) else f"{lower!r} to {upper!r}"


def _directed(value: float, rounding: str) -> str:
    exact = Decimal(value)
    unit = Decimal((0, (1,), exact.adjusted() - 5))
    return f"{exact.quantize(unit, rounding=rounding).normalize():.6g}"
