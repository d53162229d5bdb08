"""What a Lipschitz question is answered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from leaktight.specs.region import Norm
from leaktight.verify.digits import rounded_down, rounded_up


@dataclass(frozen=True)
class Segment:
    """Slopes ``lo <= a <= hi`` of the Leaky ReLUs, and what the network's constant is at most for all of them."""

    lo: float
    hi: float
    upper: float


@dataclass(frozen=True)
class LipschitzBound:
    """The smallest ``L`` with ``|f(x) - f(y)| <= L |x - y|`` in `norm` lies between `lower` and `upper`.

    upper: proven, of the network over the real numbers, all roundings included; infinite where nothing was. lower:
    attained (the norm of a Jacobian, rounded down); None where no one looked. pattern: no bound that knows activations
    by their sectors alone can be below it (leaktight.verify.lipschitz.patterns), attained or not; None: unknown.
    method: of `upper`. bounds: what every method that was run proved. scope: ``global`` for all inputs, ``local`` for
    those in one ball. `timed_out`: a better method was cut short; `interrupted`: by the user. curve: the same for
    slopes in a range, in rising order, without gaps.
    """

    norm: Norm
    upper: float
    lower: float | None
    method: str
    bounds: Mapping[str, float] = field(default_factory=dict)
    scope: str = "global"
    seconds: float = 0.0
    timed_out: bool = False
    curve: tuple[Segment, ...] | None = None
    network: Mapping[str, str | None] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    pattern: float | None = None
    interrupted: bool = False

    @property
    def gap(self) -> float | None:
        """How much `upper` may exceed the true constant, relative to `lower`."""
        if self.lower is None or self.lower <= 0 or not isfinite(self.upper):
            return None
        return self.upper / self.lower - 1

    @property
    def summary(self) -> str:
        """One line about it."""
        attained = "" if self.lower is None else f", some inputs attain {rounded_down(self.lower)}"
        where = "everywhere" if self.scope == "global" else "in the ball"
        proven = f"at most {rounded_up(self.upper)} by {self.method}" if isfinite(self.upper) else "nothing was proven"
        return f"Lipschitz constant (norm {self.norm.value}) {where}: {proven}{attained} ({self.seconds:.2f} s)"

    def to_json(self) -> dict[str, Any]:
        """The document of schema leaktight.lipschitz/1; numbers that are not known are null."""
        from leaktight.version import __version__

        document = {
            "schema": "leaktight.lipschitz/1",
            "norm": self.norm.value,
            "upper": _finite(self.upper),
            "lower": self.lower,
            "gap": self.gap,
            "pattern": self.pattern,
            "method": self.method,
            "engine": self.method,
            "bounds": {name: _finite(upper) for name, upper in self.bounds.items()},
            "scope": self.scope,
            **self.asked,
            "timed_out": self.timed_out,
            "guarantee": "real",
            "seconds": round(self.seconds, 6),
            "network": dict(self.network),
            "version": __version__,
        }
        if self.interrupted:
            document["interrupted"] = True
        if self.curve is not None:
            parts = [{"slopes": [part.lo, part.hi], "upper": _finite(part.upper)} for part in self.curve]
            document["curve"] = parts
        return document


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
