"""What is known of a region when its curve has been traced, and what may help to trace it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leaktight.verify.leak.curve import Segment


@dataclass(frozen=True)
class Traced:
    """What is known of one region: the segments of its curve, and the best input found at each of their ends.

    attained: by slope the upper bound of the smallest margin there, and the input ``(n,)`` that attains it.
    """

    segments: list[Segment]
    attained: dict[float, tuple[float, Tensor]]
    domains: int
    interrupted: bool = False


class Closer(Protocol):
    """Searches that close the sign of curves where the first bounds leave it open."""

    def search(self, begun: list[Traced]) -> None:
        """Searches the open slopes of all regions. Raises KeyboardInterrupt; what was found by then is kept."""

    def closes(self, region: int, lo: float, hi: float) -> bool:
        """Whether the sign on a segment of a region is closed by what was found."""

    def told(self, traced: list[Traced]) -> list[Traced]:
        """The curves with what was found."""

    def raised(self, traced: list[Traced]) -> list[Traced]:
        """The curves after searches for a smaller gap, where there are any; interrupted ones are marked."""
