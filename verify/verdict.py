"""Verdict: what comes out of a question about one property, and its JSON form (schema leaktight.verdict/1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import Any

import numpy as np


class Status(str, Enum):
    """The possible answers. The value is what the JSON says."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"

    @property
    def exit_code(self) -> int:
        """The command line's exit code for one answer."""
        return {"proved": 0, "refuted": 1, "unknown": 3, "timeout": 4}[self.value]

    @classmethod
    def worst(cls, answers: list[Status]) -> Status:
        """The answer for several together: refuted before timeout before unknown before proved."""
        order = (cls.REFUTED, cls.TIMEOUT, cls.UNKNOWN)
        return next((status for status in order if status in answers), cls.PROVED)


class Guarantee(str, Enum):
    """What a proof is about.

    `REAL`: the network in exact real arithmetic, with the weights that the file gives. `UNROUNDED`: the same, but the
    computation that shows it (auto_LiRPA's) does not account for its own rounding.
    """

    REAL = "real"
    UNROUNDED = "unrounded"


@dataclass(frozen=True)
class Margin:
    """The smallest margin over the region lies between `lower` (proven; None: nothing was) and `upper` (attained)."""

    lower: float | None = None
    upper: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {"lower": _number(self.lower), "upper": _number(self.upper)}


def _number(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


@dataclass(frozen=True)
class Counterexample:
    """A concrete input in the region whose output, computed by onnxruntime on the CPU, is unsafe.

    inputs and outputs: arrays by name, in the shapes and types of the network's file, ready to be run. `point`: the
    same input as float64 ``(n,)``, strictly inside the region; it differs from `inputs` only in coordinates whose range
    holds no number of the input's type (a constant like 0.1), where `inputs` has the nearest one.
    """

    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]
    point: np.ndarray[Any, Any]
    margin: float

    def to_json(self) -> dict[str, Any]:
        shaped, start = {}, 0
        for name, value in self.inputs.items():
            shaped[name] = self.point[start : start + value.size].reshape(value.shape).tolist()
            start += value.size
        return {"inputs": shaped, "outputs": {name: value.tolist() for name, value in self.outputs.items()}}


@dataclass(frozen=True)
class Verdict:
    """The answer to "does the property hold?".

    `reason` says in words what decided it, or why nothing did. `statistics` counts work (``domains`` among it).
    `interrupted`: Ctrl-C ended it before it was decided; the margin's bounds hold.
    """

    status: Status
    margin: Margin = Margin()
    counterexample: Counterexample | None = None
    engine: str = "auto"
    guarantee: Guarantee = Guarantee.REAL
    reason: str = ""
    seconds: float = 0.0
    statistics: Mapping[str, int | float] = field(default_factory=dict)
    network: Mapping[str, str | None] = field(default_factory=dict)
    property: Mapping[str, str | None] = field(default_factory=dict)
    cross_check: Mapping[str, Any] | None = None
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        document: dict[str, Any] = {
            "schema": "leaktight.verdict/1",
            "status": self.status.value,
            "margin": self.margin.to_json(),
            "counterexample": None if self.counterexample is None else self.counterexample.to_json(),
            "engine": self.engine,
            "guarantee": self.guarantee.value,
            "reason": self.reason,
            "seconds": round(self.seconds, 6),
            "statistics": {"domains": 1, **self.statistics},
            "network": dict(self.network),
            "property": dict(self.property),
            "version": __version__,
        }
        if self.interrupted:
            document["interrupted"] = True
        if self.cross_check is not None:
            document["cross_check"] = dict(self.cross_check)
        return document
