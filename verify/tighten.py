"""The least margin to a tolerance: proven from below and attained from above, by proofs of shifted properties.

"The margin is above ``t``" is a property too: its output conditions are those of the first, moved by ``t``. Proved, it
raises the proven bound to ``t``; refuted, its counterexample lowers the attained one. The first ``t`` is a tolerance
below what is attained, which ends the matter where the attack found the least margin; wherever it did not, ``t`` goes
half-way between the two, so that each answer halves what is left. The regions stay where they are: bounds of neurons
that one answer needed are there for the next.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.digits import rounded_down, rounded_up
from leaktight.verify.prove import prove
from leaktight.verify.rounding import down, up
from leaktight.verify.search.stages import Ground
from leaktight.verify.verdict import Counterexample, Margin, Status, Verdict

_MOST = 100  # questions asked in one go
_LIGHT = 1e7  # what attacks may cost that follow a thorough one


def least_margin(
    network: Network, property: Property, tolerance: float, *, timeout: float | None = None, **options: Any
) -> Verdict:
    """`leaktight.verify.prove.prove`, whose margin's bounds are brought within `tolerance` of each other.

    ``verdict.margin.lower`` is proven and ``verdict.margin.upper`` attained by some input, up to float64 rounding.
    Where the engine gives up or the time is over before they are that close, they hold, and `reason` says so.

    Args: tolerance: above zero. The others are those of `prove`.
    Raises: as `prove`; UsageError: the tolerance is not above zero.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"--margin must be a tolerance above zero; got {tolerance}")
    began = time.monotonic()
    cases = property.about(network)
    grounds = tuple(Ground() for _ in cases)
    verdict = prove(network, property, timeout=timeout, **options, grounds=grounds)
    search = _Tightening(network, cases, tolerance, None if timeout is None else began + timeout, verdict)
    if not verdict.reason.startswith("interrupted"):
        try:
            search.run({**options, "effort": _LIGHT, "grounds": grounds})
        except KeyboardInterrupt:  # what is proven stands
            search.ended = "interrupted"
    return replace(search.answer(), seconds=time.monotonic() - began)


class _Tightening:
    def __init__(
        self, network: Network, cases: tuple[Case, ...], tolerance: float, deadline: float | None, verdict: Verdict
    ) -> None:
        self.network, self.cases, self.tolerance, self.deadline, self.verdict = (
            network, cases, tolerance, deadline, verdict,
        )  # fmt: skip
        known = verdict.margin
        self.lower = -math.inf if known.lower is None else known.lower
        self.upper = math.inf if known.upper is None else known.upper
        self.found: Counterexample | None = verdict.counterexample
        self.domains = int(verdict.statistics.get("domains", 1))
        self.ended = ""

    @property
    def close(self) -> bool:
        return self.upper - self.lower <= self.tolerance

    def run(self, options: dict[str, Any]) -> None:
        near = True  # whether what is attained may well be the least margin
        for _ in range(_MOST):
            left = None if self.deadline is None else self.deadline - time.monotonic()
            if self.close or self.upper == math.inf:
                return
            if left is not None and left <= 0:
                self.ended = "the time was up"
                return
            target = self.upper - self.tolerance
            if not near and self.lower > -math.inf:
                target = min(target, self.lower / 2 + self.upper / 2)
            before = (self.lower, self.upper)
            answer = prove(self.network, moved(self.cases, target), timeout=left, **options)
            self._learn(answer, target)
            near = answer.status is Status.PROVED
            if answer.status in (Status.UNKNOWN, Status.TIMEOUT) or before == (self.lower, self.upper):
                self.ended = answer.reason
                return

    def _learn(self, answer: Verdict, target: float) -> None:
        self.domains += int(answer.statistics.get("domains", 1))
        if answer.margin.lower is not None and math.isfinite(answer.margin.lower):
            self.lower = max(self.lower, _below(answer.margin.lower + target))
        if answer.margin.upper is not None and math.isfinite(answer.margin.upper):
            if answer.counterexample is None:
                self.upper = min(self.upper, answer.margin.upper + target)
            else:
                self.upper = min(self.upper, self._at(answer.counterexample))
        if answer.counterexample is not None and target <= 0 and self.found is None:
            self.found = answer.counterexample  # what is unsafe by more than the property asks is unsafe

    def _at(self, example: Counterexample) -> float:
        """The margin of an example, computed in float64."""
        x = torch.from_numpy(example.point).unsqueeze(0)
        with torch.no_grad():
            y = self.network.to(torch.float64).flat(x)
        margins = [
            case.unsafe.margin(y.expand(case.region.batch, -1))[case.region.contains(x.expand(case.region.batch, -1))]
            for case in self.cases
        ]
        return min((float(found.min()) for found in margins if found.numel()), default=math.inf)

    def answer(self) -> Verdict:
        found, margin = self.verdict, Margin(self.lower, self.upper)
        statistics = {**found.statistics, "domains": self.domains}
        reason = f"the least margin is between {rounded_down(self.lower)} and {rounded_up(self.upper)}"
        if not self.close:
            why = self.ended or found.reason
            reason += f", further apart than {self.tolerance:.6g}: {why}"
        status = found.status
        if self.found is not None:
            status = Status.REFUTED
        elif self.lower > 0:
            status = Status.PROVED
        return replace(
            found, status=status, counterexample=self.found, margin=margin, statistics=statistics, reason=reason
        )


def _below(x: float) -> float:
    return math.nextafter(x, -math.inf)


def moved(cases: tuple[Case, ...], target: float) -> Property:
    """The property "the margin is above `target`" about the same regions.

    Every atom ``c . y <= d`` becomes ``c . y <= d + target``, rounded up; `inner_bounds` are rounded down. A proven
    bound of its margin, plus `target`, is one of the first margin.
    """
    return Property(tuple(Case(case.region, _moved(case.unsafe, target)) for case in cases))


def _moved(unsafe: Unsafe, target: float) -> Unsafe:
    inner = unsafe.bounds if unsafe.inner_bounds is None else unsafe.inner_bounds
    outer = unsafe.bounds + target
    return replace(unsafe, bounds=up(outer), inner_bounds=torch.minimum(down(inner + target), up(outer)))
