"""The division of a property: its branch and bound, until so many domains are open that others can share them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from leaktight.models.network import Network
from leaktight.models.ops import TwoSlope
from leaktight.specs.property import Case, Property
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.branching import AUTO, leaf_of
from leaktight.verify.budget import Budget
from leaktight.verify.digits import rounded_down
from leaktight.verify.parts import Part
from leaktight.verify.prove import Opened, opened
from leaktight.verify.search.attack import EFFORT
from leaktight.verify.search.bisect import Bisection
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import branch
from leaktight.verify.search.questions import whole_margin
from leaktight.verify.search.replay import Replay, confirming
from leaktight.verify.search.splits import Domains
from leaktight.verify.search.stages import WARM_UP, staged
from leaktight.verify.verdict import Counterexample, Margin, Status, Verdict

_ROUNDS = 64
_SENT = 200_000  # numbers of bounds that go along with a part, at most


@dataclass(frozen=True)
class Divided:
    """What is known of the property, without the `parts`: `verdict.margin.lower` is proven of all else. No part is
    left where the verdict is PROVED or REFUTED."""

    verdict: Verdict
    parts: tuple[Part, ...]


def divide(
    network: Network,
    property: Property,
    parts: int,
    *,
    engine: str = AUTO,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
    effort: float = EFFORT,
) -> Divided:
    """Begins with a property as `prove` does, and stops as soon as about so many domains are open.

    Raises: as `prove`.
    """
    began = time.monotonic()
    budget = replace(Budget.starting_now(timeout, dtype, memory, seed), effort=effort)
    replay, found = Replay(network), list[_Begun]()
    cases = property.about(network)
    for place, case in enumerate(cases):
        found.append(_begun(network, place, case, max(1, parts // len(cases)), engine, budget, replay))
        if found[-1].example is not None:
            break
    return Divided(_told(network, property, found, engine, began), _grouped(found, parts))


@dataclass(frozen=True)
class _Begun:
    """One case: a proven bound of all but the open pieces, the lowest margin attained, and the pieces."""

    lower: float
    attained: float
    example: Counterexample | None
    domains: int
    pieces: tuple[Part, ...] = ()


def _begun(
    network: Network, place: int, case: Case, wanted: int, engine: str, budget: Budget, replay: Replay
) -> _Begun:
    known = opened(network, case, engine, budget, replay)
    if known.proved or known.found is not None:
        return _Begun(known.lower, known.attained, known.found, 1)
    if known.halving:
        return _halved(network, place, case, wanted, known, budget, replay)
    if known.splitting:
        with torch.no_grad():
            return _split(network, place, case, wanted, known, budget, replay)
    whole = {"case": place, "attained": _plain(known.attained)}
    return _Begun(torch.inf, known.attained, None, 1, (whole,))


def _halved(
    network: Network, place: int, case: Case, wanted: int, known: Opened, budget: Budget, replay: Replay
) -> _Begun:
    memory = budget.memory or default_memory()
    confirm = confirming(network, case, replay)
    search = Bisection(network, case, confirm, known.attained, lambda: budget.spent, memory)
    for _ in range(_ROUNDS):
        if search.found is not None or search.stuck or budget.spent or not 0 < search.waiting < wanted:
            break
        search.advance(budget.deadline)
    if search.found is not None:
        return _Begun(-torch.inf, min(search.attained, search.found.margin), search.found, search.boxes)
    attained = _plain(search.attained)
    pieces = [
        {"case": place, "attained": attained, "boxes": [{"owner": owner, "lower": lower, "upper": upper}]}
        for boxes in (*search.fresh, *search.queue)
        for owner, lower, upper in zip(boxes.owner.tolist(), boxes.lower.tolist(), boxes.upper.tolist(), strict=True)
    ]
    return _Begun(search.settled, search.attained, None, 1 + search.boxes, tuple(pieces))


def _split(
    network: Network, place: int, case: Case, wanted: int, known: Opened, budget: Budget, replay: Replay
) -> _Begun:
    memory = default_memory() if budget.memory is None else budget.memory

    def late() -> bool:
        return budget.spent

    leaf = leaf_of(network, case, budget, replay)
    limits: dict[str, Any] = {"memory": memory, "deadline": budget.deadline, "late": late, "leaf": leaf}
    deep = sum(isinstance(node.op, TwoSlope) for node in network) > 1
    first, search = staged(network, case, known.atoms, replay, stages=WARM_UP if deep else (), **limits)
    attained, example = min(known.attained, first.attained), first.found
    if first.interrupted:
        raise KeyboardInterrupt
    for _ in range(_ROUNDS):
        if example is not None or late() or search.full or not 0 < len(search.waiting) < wanted:
            break
        before = search.domains
        found = branch(search, case, replay, leaf=leaf, most=search.domains + 1)
        attained, example = min(attained, found.attained), found.found
        if found.interrupted:
            raise KeyboardInterrupt
        if example is not None or search.domains == before:
            break
    settled = whole_margin(case, known.atoms, search.settled)
    if example is not None:
        return _Begun(-torch.inf, min(attained, example.margin), example, search.domains)
    open_ = [waiting.read(torch.arange(len(waiting))) for waiting in (search.waiting, search.stuck)]
    known_here = _known(search.bounding)
    pieces = tuple(
        {"case": place, "attained": _plain(attained), "known": known_here, "domains": [domain]}
        for domains in open_
        for domain in _written(search.bounding, domains)
    )
    return _Begun(settled, attained, None, 1 + search.domains, pieces)


def _written(bounding: Bounding, domains: Domains) -> Iterator[Part]:
    """Domains as the sides of neurons, by the names of their nodes."""
    questions = bounding.questions
    for i in range(len(domains)):
        one = domains.select(slice(i, i + 1))
        owner = int(one.owner)
        sides = [
            [name, entry, int(side[entry])]
            for name, side in bounding.decisions(one).items()
            for entry in side.nonzero().flatten().tolist()
        ]
        where = {"region": int(questions.region[owner]), "disjunct": int(questions.disjunct[owner])}
        yield {**where, "sides": sides, "bound": _plain(float(one.bound))}


def _known(bounding: Bounding) -> dict[str, list[list[float]]]:
    """The bounds of all neurons' inputs over the regions, as plain numbers; nothing where they are too many."""
    names = [node.inputs[0] for node in bounding.activations.nodes]
    if sum(bounding.known[name].lower.numel() for name in names) > _SENT:
        return {}
    ends = {name: (bounding.known[name].lower, bounding.known[name].upper) for name in names}
    return {name: [end.flatten().tolist() for end in both] for name, both in ends.items()}


def _grouped(found: list[_Begun], parts: int) -> tuple[Part, ...]:
    """So many parts at most, of pieces of the same case and kind: the n-th piece goes to the n-th part, and round."""
    if any(one.example is not None for one in found):
        return ()
    each = max(1, parts // max(1, sum(bool(one.pieces) for one in found)))
    whole = list[Part]()
    for one in found:
        for start in range(min(each, len(one.pieces))):
            some = one.pieces[start::each]
            kind = next((kind for kind in ("boxes", "domains") if kind in some[0]), None)
            joined = {} if kind is None else {kind: [piece[kind][0] for piece in some]}
            whole.append({**some[0], **joined, "attacks": not start})
    return tuple(whole)


def _told(network: Network, property: Property, found: list[_Begun], engine: str, began: float) -> Verdict:
    lower, upper = min(one.lower for one in found), min(one.attained for one in found)
    example = next((one.example for one in found if one.example is not None), None)
    left = sum(len(one.pieces) for one in found)
    status, reason = Status.UNKNOWN, f"{left} domains are open"
    if example is not None:
        status, reason = Status.REFUTED, "an input in the region has an unsafe output, computed by onnxruntime"
        lower = -torch.inf
    elif not left:
        status, reason = Status.PROVED, f"the margin is at least {rounded_down(lower)} on the whole region"
    return Verdict(
        status,
        Margin(lower, upper),
        example,
        engine,
        reason=reason,
        seconds=time.monotonic() - began,
        statistics={"domains": sum(one.domains for one in found), "cases": len(property.cases)},
        network=network.file,
        property=property.file,
    )


def _plain(value: float) -> float | None:
    return value if abs(value) < torch.inf else None
