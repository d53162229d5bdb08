"""What is known of a case while it is worked on, and the verdict that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leaktight.specs.property import Case
from leaktight.verify.budget import Budget
from leaktight.verify.digits import rounded_down
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.stages import Ground
from leaktight.verify.verdict import Counterexample, Guarantee, Margin, Status, Verdict


@dataclass
class Standing:
    """What is known of one case so far: proven lower bounds of its atoms, and the margin attained by some input."""

    case: Case
    atoms: Tensor
    attained: float = torch.inf
    found: Counterexample | None = None
    searched: Searched | None = None
    ground: Ground = field(default_factory=Ground)

    @classmethod
    def of(cls, case: Case, ground: Ground | None = None) -> Standing:
        """Of a case of which nothing is known, but for what searches over its regions left."""
        nothing = torch.full((case.region.batch, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
        return cls(case, nothing, ground=Ground() if ground is None else ground)

    @property
    def lower(self) -> float:
        whole = float(self.case.unsafe.combine(self.atoms).amin())
        return whole if self.searched is None else max(whole, self.searched.lower)

    @property
    def proved(self) -> bool:
        """Every disjunct has an atom that no input satisfies, on the whole case or on each part of it."""
        by_search = self.searched is not None and self.searched.proved
        return by_search or bool(self.case.unsafe.proved(self.atoms).all())

    @property
    def domains(self) -> int:
        return 1 + (0 if self.searched is None else self.searched.domains)

    def learn(self, atoms: Tensor) -> None:
        self.atoms = torch.maximum(self.atoms, atoms)

    def conclude(self, searched: Searched) -> None:
        """Raises KeyboardInterrupt: the search was interrupted; what it found by then is kept."""
        self.searched, self.found = searched, searched.found
        self.attained = min(self.attained, searched.attained)
        if searched.interrupted:
            raise KeyboardInterrupt


def verdict(standings: list[Standing], cases: int, budget: Budget, *, engine: str, guarantee: Guarantee) -> Verdict:
    """The answer to a property of so many cases; `standings` are those that were looked at."""
    upper = min((s.attained for s in standings), default=torch.inf)
    everywhere = len(standings) == cases
    lower = min((s.lower for s in standings), default=torch.inf) if everywhere else -torch.inf
    base = Verdict(
        Status.UNKNOWN,
        Margin(lower, upper),
        engine=engine,
        guarantee=guarantee,
        statistics={"domains": sum(s.domains for s in standings), "cases": cases},
    )
    for standing in standings:
        if standing.found is not None:
            best = min(upper, standing.found.margin)
            return replace(
                base,
                status=Status.REFUTED,
                counterexample=standing.found,
                margin=Margin(lower, best),
                reason="an input in the region has an unsafe output, computed by onnxruntime",
            )
    if everywhere and all(s.proved for s in standings):
        return replace(
            base, status=Status.PROVED, reason=f"the margin is at least {rounded_down(lower)} on the whole region"
        )
    if budget.spent:
        return replace(
            base, status=Status.TIMEOUT, reason="the time was up before a proof or a counterexample was found"
        )
    ends = [s.searched for s in standings if s.searched is not None]
    if ended := next((end.reason for end in ends if end.reason), ""):
        return replace(base, reason=f"the margin's proven bound is {rounded_down(lower)}: {ended}")
    reason = f"the margin's proven bound is {rounded_down(lower)}, not above zero, and no counterexample was found"
    return replace(base, reason=reason)
