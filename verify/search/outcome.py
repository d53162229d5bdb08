"""What a branch and bound found, whatever it branches on."""

from __future__ import annotations

from dataclasses import dataclass

from leaktight.verify.verdict import Counterexample


@dataclass(frozen=True)
class Searched:
    """How far a search came.

    lower: a proven bound of the margin over all that was asked. proved: nothing of it is left. attained: the lowest
    margin that is known of some input. domains: how many were bounded. reason: what ended a search that decided
    nothing, where it was not the time. interrupted: the user ended it.
    """

    lower: float
    proved: bool
    found: Counterexample | None
    attained: float
    domains: int
    reason: str = ""
    interrupted: bool = False

    def joined(self, other: Searched) -> Searched:
        """What is known of two questions that must both be answered."""
        return Searched(
            min(self.lower, other.lower),
            self.proved and other.proved,
            self.found or other.found,
            min(self.attained, other.attained),
            self.domains + other.domains,
            self.reason or other.reason,
            self.interrupted or other.interrupted,
        )
