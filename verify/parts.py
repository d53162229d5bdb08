"""One property in parts: the open domains of its branch and bound, each to be settled by itself, anywhere.

A part says in plain data which inputs it is about: boxes, or sides of neurons by their names; and what is proven of
them. It rests on no number that another machine would have to compute in the same way: a decision about a neuron that
better bounds show to be none is dropped, which only widens the part. Every input of the property's region is proved by
`leaktight.verify.divide.divide`, or lies in a part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from leaktight.models.network import Network
from leaktight.specs.property import Case, Property
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.branching import AUTO, later_attacks, leaf_of
from leaktight.verify.budget import Budget
from leaktight.verify.digits import rounded_down
from leaktight.verify.prove import prove
from leaktight.verify.search.bisect import bisect
from leaktight.verify.search.box_bounds import Bounder
from leaktight.verify.search.boxes import Boxes
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.replay import Replay, confirming
from leaktight.verify.search.splits import Domains
from leaktight.verify.search.stages import PART, split
from leaktight.verify.verdict import Margin, Status, Verdict

Part = Mapping[str, Any]
"""``case``: which of the property's. ``attained``: the lowest margin known of an input. ``attacks``: whether the whole
region is attacked meanwhile, which one part is enough for. And one of ``boxes``: a list of
``{"owner", "lower", "upper"}``; ``domains``: a list of ``{"region", "disjunct", "sides": [[node, entry, 1 or -1]],
"bound"}``, with ``known``: proven bounds of nodes over the regions; neither: the whole case."""


def prove_part(
    network: Network,
    property: Property,
    part: Part,
    *,
    engine: str = AUTO,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Does the property hold on a part of its region?

    PROVED: the margin is above zero on every input that the part is about; `margin.lower` bounds it there. REFUTED: the
    counterexample lies in the property's region, not always in the part, and its replay is unsafe.
    Raises: as `prove`.
    """
    began = time.monotonic()
    case = property.about(network)[part["case"]]
    limits: dict[str, Any] = {"timeout": timeout, "dtype": dtype, "memory": memory, "seed": seed}
    budget = Budget.starting_now(timeout, dtype, memory, seed)
    if "boxes" in part:
        verdict = _on_boxes(network, case, part, budget)
    elif "domains" in part:
        with torch.no_grad():
            verdict = _on_domains(network, case, part, budget)
    else:
        verdict = prove(network, Property((case,)), engine=engine, **limits)
    return replace(
        verdict,
        engine=engine,
        seconds=time.monotonic() - began,
        network=network.file,
        property=property.file,
    )


def _on_boxes(network: Network, case: Case, part: Part, budget: Budget) -> Verdict:
    replay = Replay(network)
    memory = budget.memory or default_memory()
    known = _number(part["attained"])
    begin = _boxes(part, case, Bounder(network, case, memory).signs)
    found = bisect(
        network,
        case,
        confirming(network, case, replay),
        attained=known,
        deadline=budget.deadline,
        late=lambda: budget.spent,
        memory=memory,
        attack=later_attacks(network, case, budget, replay) if part["attacks"] else None,
        begin=begin,
    )
    return _settled(found, budget, "no box can be halved any more; the margin touches zero in one")


def _boxes(part: Part, case: Case, signs: int) -> Boxes:
    """The part's boxes, with nothing known of them."""
    pieces = part["boxes"]
    lower, upper = (torch.tensor([piece[end] for piece in pieces], dtype=torch.float64) for end in ("lower", "upper"))
    return Boxes(
        torch.tensor([piece["owner"] for piece in pieces]),
        lower,
        upper,
        torch.full((len(pieces), case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64),
        torch.full((len(pieces), case.unsafe.disjuncts), -torch.inf, dtype=torch.float64),
        torch.zeros(len(pieces), signs, dtype=torch.int8),
    )


def _on_domains(network: Network, case: Case, part: Part, budget: Budget) -> Verdict:
    replay = Replay(network)
    nothing = torch.full((case.region.batch, case.unsafe.weights.shape[1]), -torch.inf, dtype=torch.float64)
    found = split(
        network,
        case,
        nothing,
        replay,
        stages=PART,
        floor=_floor(network, part),
        memory=default_memory() if budget.memory is None else budget.memory,
        deadline=budget.deadline,
        late=lambda: budget.spent,
        leaf=leaf_of(network, case, budget, replay),
        begin=lambda bounding: domains_of(bounding, part["domains"]),
    )
    return _settled(found, budget, found.reason)


def domains_of(bounding: Bounding, pieces: list[Part]) -> Domains:
    """The domains that decide at least what the pieces are about: neurons that cannot be split here are left alone."""
    questions, place = bounding.questions, {column: i for i, column in enumerate(bounding.columns.tolist())}
    owners = {
        (int(region), int(disjunct)): owner
        for owner, (region, disjunct) in enumerate(zip(questions.region, questions.disjunct, strict=True))
    }
    decided = [
        [(place[at], side) for at, side in _columns(bounding, piece["sides"]) if at in place] for piece in pieces
    ]
    depth = max((len(some) for some in decided), default=0)
    neuron = torch.full((len(pieces), depth), -1, dtype=torch.int32)
    above = torch.zeros(len(pieces), depth, dtype=torch.bool)
    for i, some in enumerate(decided):
        for j, (at, side) in enumerate(some):
            neuron[i, j], above[i, j] = at, side > 0
    first = bounding.first().select(torch.tensor([owners[piece["region"], piece["disjunct"]] for piece in pieces]))
    bound = torch.tensor(
        [-torch.inf if piece["bound"] is None else piece["bound"] for piece in pieces], dtype=torch.float64
    )
    return replace(first, bound=bound, neuron=neuron, above=above, multiplier=torch.zeros(len(pieces), depth))


def _columns(bounding: Bounding, sides: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
    for name, entry, side in sides:
        yield bounding.activations.parts[name].start + entry, side


def _settled(found: Searched, budget: Budget, otherwise: str) -> Verdict:
    upper = found.attained if found.found is None else min(found.attained, found.found.margin)
    told = Verdict(Status.UNKNOWN, Margin(found.lower, upper), found.found, statistics={"domains": found.domains})
    if found.found is not None:
        return replace(told, status=Status.REFUTED, reason="an input in the region has an unsafe output")
    if found.proved:
        return replace(
            told, status=Status.PROVED, reason=f"the margin is at least {rounded_down(found.lower)} on this part"
        )
    if budget.spent:
        return replace(told, status=Status.TIMEOUT, reason="the time was up")
    return replace(told, reason=otherwise)


def _floor(network: Network, part: Part) -> dict[str, Interval]:
    """The same as intervals."""
    return {
        name: Interval(
            *(torch.tensor(end, dtype=torch.float64).reshape(-1, *network.by_name[name].shape) for end in ends)
        )
        for name, ends in part["known"].items()
    }


def _number(value: float | None) -> float:
    return torch.inf if value is None else value
