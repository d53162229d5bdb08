"""What certification answers: a result for each labelled input, and the shares (schema leaktight.certification/1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leaktight.specs.region import Norm
from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status


@dataclass(frozen=True)
class InputResult:
    """What was found for one labelled input.

    `radius`: proven; `refuted_radius`: a counterexample lies within it; both None unless radii were asked for.
    """

    index: int
    label: int
    predicted: int
    status: Status
    margin: Margin
    seconds: float
    radius: float | None = None
    refuted_radius: float | None = None
    counterexample: Counterexample | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "status": self.status.value,
            "margin": self.margin.to_json(),
            "radius": self.radius,
            "refuted_radius": self.refuted_radius,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True)
class Certification:
    """The results of all inputs; JSON schema leaktight.certification/1. interrupted: the user ended it, and what was
    not answered by then is unknown."""

    inputs: Sequence[InputResult]
    epsilon: float
    norm: Norm
    engine: str
    seconds: float
    network: Mapping[str, str | None] = field(default_factory=dict)
    data: Mapping[str, str | None] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def accuracy(self) -> dict[str, float]:
        """Shares of all inputs: classified as labelled, proved on the whole ball, and not refuted by the attack."""
        total = max(1, len(self.inputs))
        return {
            "clean": sum(r.predicted == r.label for r in self.inputs) / total,
            "certified": sum(r.status is Status.PROVED for r in self.inputs) / total,
            "attacked": sum(r.status is not Status.REFUTED for r in self.inputs) / total,
        }

    @property
    def status(self) -> Status:
        """The worst answer among the inputs."""
        return Status.worst([r.status for r in self.inputs])

    def to_json(self) -> dict[str, Any]:
        from leaktight.version import __version__

        return {
            "schema": "leaktight.certification/1",
            "inputs": [r.to_json() for r in self.inputs],
            "accuracy": self.accuracy,
            "epsilon": self.epsilon,
            "norm": self.norm.value,
            "engine": self.engine,
            "guarantee": Guarantee.REAL.value,
            "seconds": round(self.seconds, 6),
            "network": dict(self.network),
            "data": dict(self.data),
            **({"interrupted": True} if self.interrupted else {}),
            "version": __version__,
        }
