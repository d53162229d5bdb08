"""The stages of a search over neurons: the questions that bounds left open, and ever better bounds of all neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import Case
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.curved import curvable, curved_bounds, curved_outputs
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import keep_freed_memory
from leaktight.verify.bounds.optimise import turned_bounds
from leaktight.verify.bounds.question import Question
from leaktight.verify.rounding import down
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import Leaf, Search, branch
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.questions import Questions, open_questions
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.splits import Domains
from leaktight.verify.search.tighten import Effort, tightened

Begin = Callable[[Bounding], "Domains | None"]
_BEHIND = (0.5, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Stage:
    """A search over so many domains at most; before it, so much effort on bounds of single neurons: parabolas
    (`CURVES`), or splits in front of them."""

    effort: Effort | str | None
    domains: float


CURVES = "curves"
_CURVED_MORE = 5  # domains that are proved by parabolas are worth more than better bounds for lines
STAGES = (
    Stage(None, 500),
    Stage(CURVES, 3000),
    Stage(Effort(3, 4), 3000),
    Stage(Effort(6, 8), 10000),
    Stage(Effort(10, 16), 40000),
    Stage(Effort(14, 24), torch.inf),
)


@dataclass
class Ground:
    """What searches over the same regions share, whatever they ask there: bounds of all nodes, once they are known.

    reached: the last stage whose effort they have; a search begins with it.
    """

    known: dict[str, Interval] | None = None
    reached: int = 0


WARM_UP = (
    Stage(None, 1000),
    Stage(CURVES, 1000),
    Stage(Effort(3, 4), 1000),
    Stage(Effort(6, 8), 10000),
    Stage(Effort(10, 16), 1000),
)
"""What comes before a search is divided among workers: bounds of single neurons are for all of its domains."""
PART = (Stage(None, 40000), Stage(Effort(14, 24), torch.inf))
"""What a worker does with its part: it looks for bounds of its own where the common ones do not reach.

Its domains are proved by lines alone: the common bounds of neurons have parabolas in them, and with those lines need
five times the domains that parabolas do, each of which costs an eighth.
"""


def split(network: Network, case: Case, atoms: Tensor, replay: Replay, **ways: Any) -> Searched:
    """Searches over neurons until the open questions of a case are settled, or the time is up.

    Args: as those of `staged`.
    """
    return staged(network, case, atoms, replay, **ways)[0]


def staged(
    network: Network,
    case: Case,
    atoms: Tensor,
    replay: Replay,
    *,
    memory: int,
    deadline: float | None,
    late: Callable[[], bool],
    leaf: Leaf | None = None,
    begin: Begin = lambda _: None,
    stages: Sequence[Stage] = STAGES,
    floor: Mapping[str, Interval] | None = None,
    ground: Ground | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Searched, Search]:
    """How far a search over neurons came, and the search itself, to be carried on.

    atoms ``(regions, atoms)``: proven lower bounds that were found before. leaf: see `neurons.branch`. begin: the
    domains to begin with, for a search over a part of the case. floor: proven bounds of nodes over the regions, of an
    earlier search. ground: what searches before this one left for it, and this one leaves for others.

    Deep networks are searched in stages, each of which begins with better bounds of single neurons.
    """
    ground = Ground() if ground is None else ground
    known, search = _first(network, case, atoms, memory, deadline, late, begin, floor, ground)
    began = Searched(-torch.inf, False, None, torch.inf, 0)
    deep, questions = _deep(network), search.bounding.questions
    floors: Tensor | None = None
    limits: dict[str, Any] = {"memory": memory, "deadline": deadline, "late": late, "say": say}
    if not deep and len(search.waiting):
        search.bounding.imply()
    planned = _planned(stages, curvable(network, case.region))
    for at, stage in enumerate(planned):
        if at < ground.reached:
            continue
        curving = any(done.effort == CURVES for done in planned[: at + 1])
        if at > ground.reached and stage.effort is not None:
            try:
                known, floors = _better(network, case, known, questions, stage.effort, floors, **limits)
            except KeyboardInterrupt:
                return replace(began, interrupted=True), search
            ground.known, ground.reached = known, at
            bounding = Bounding(network, case.region, known, questions, floors=floors)
            if curving:
                bounding.curve(memory)
            search = Search(bounding, late, memory, begin=begin(bounding))
        elif curving:
            search.bounding.curve(memory)
        most = stage.domains * (_CURVED_MORE if search.bounding.curved else 1) if deep else torch.inf
        began = _after(began, branch(search, case, replay, leaf=leaf, most=most, say=say))
        if began.proved or began.found or began.interrupted or not len(search.waiting) or late():
            break
    return began, search


def _planned(stages: Sequence[Stage], curving: bool) -> list[Stage]:
    """The stages; without parabolas the stage before those goes on with what they would have had."""
    planned: list[Stage] = []
    for stage in stages:
        if stage.effort != CURVES or curving:
            planned.append(stage)
        elif planned:
            planned[-1] = replace(planned[-1], domains=max(planned[-1].domains, stage.domains))
    return planned


def _better(
    network: Network,
    case: Case,
    known: Mapping[str, Interval],
    questions: Questions,
    effort: Effort | str,
    floors: Tensor | None,
    *,
    say: Callable[[str], None],
    **limits: Any,
) -> tuple[dict[str, Interval], Tensor | None]:
    """Better bounds of all nodes, and of the questions' margins where parabolas give some."""
    if isinstance(effort, Effort):
        return tightened(network, case.region, known, effort, say=say, **limits), floors
    say("bounding neurons by parabolas over the first layer")
    found = curved_bounds(network, case.region, known, **limits)
    rows, (owner, atom) = questions.weights[questions.real], questions.real.nonzero(as_tuple=True)
    low = curved_outputs(
        Question(network, case.region, rows.unsqueeze(0), limits["memory"], None, limits["deadline"]), found
    )
    low = down(low[0] - questions.bounds[owner, atom])
    return found, torch.full((len(questions.region),), -torch.inf, dtype=low.dtype).scatter_reduce(
        0, owner, low, "amax"
    )


def _first(
    network: Network,
    case: Case,
    atoms: Tensor,
    memory: int,
    deadline: float | None,
    late: Callable[[], bool],
    begin: Begin,
    floor: Mapping[str, Interval] | None,
    ground: Ground,
) -> tuple[dict[str, Interval], Search]:
    """Bounds of all nodes, and a search that has bounded what it begins with and nothing else."""
    keep_freed_memory()
    questions, known = open_questions(case, atoms), ground.known
    fresh = floor is None and known is None
    if known is None:
        known = intermediate_bounds(network, case.region, memory, floor=floor, deadline=deadline)
    bounding = Bounding(network, case.region, known, questions)
    search = Search(bounding, late, memory, begin=begin(bounding))
    if fresh and _deep(network) and len(search.waiting) and not late():
        known = _turned(network, case, known, memory, deadline)
        bounding = Bounding(network, case.region, known, questions)
        search = Search(bounding, late, memory, begin=begin(bounding))
        ground.known = known
    return known, search


def _deep(network: Network) -> bool:
    return sum(isinstance(node.op, TwoSlope) for node in network) > 1


def _after(first: Searched, then: Searched) -> Searched:
    """What two searches over the same questions found."""
    attained, domains = min(first.attained, then.attained), first.domains + then.domains
    return replace(then, lower=max(first.lower, then.lower), attained=attained, domains=domains)


def _turned(
    network: Network, case: Case, known: dict[str, Interval], memory: int, deadline: float | None
) -> dict[str, Interval]:
    """Bounds of the neurons, by turning the lines behind them."""
    rows = case.unsafe.weights.expand(case.region.batch, -1, -1)
    return turned_bounds(Question(network, case.region, rows, memory, None, deadline), known, _BEHIND)
