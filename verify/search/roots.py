"""Where a search over neurons begins: the questions that bounds left open, and the best bounds of all neurons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.ops import Affine, Input, TwoSlope
from leaktight.specs.property import Case
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.memory import keep_freed_memory
from leaktight.verify.bounds.optimise import turned_bounds
from leaktight.verify.bounds.question import Question
from leaktight.verify.search.multipliers import Bounding, Questions
from leaktight.verify.search.neurons import Search

_BEHIND = (0.5, 0.3, 0.2, 0.1)


def splittable(network: Network) -> bool:
    """Whether all that bends in the network are neurons that can be split."""
    return all(isinstance(node.op, (Affine, TwoSlope, Input)) for node in network) and any(
        isinstance(node.op, TwoSlope) for node in network
    )


def open_questions(case: Case, atoms: Tensor) -> Questions:
    """The disjuncts, region by region, that proven lower bounds ``(regions, atoms)`` do not rule out."""
    unsafe, regions = case.unsafe, len(atoms)
    ruled_out = _ruled_out(case, atoms)
    members = [(unsafe.disjunct == k).nonzero().flatten() for k in range(unsafe.disjuncts)]
    pairs = [(g, m) for g in range(regions) for m in members if not bool(ruled_out[g, m].any())]
    most = max((len(m) for _, m in pairs), default=1)
    weights = torch.zeros(len(pairs), most, unsafe.weights.shape[2], dtype=torch.float64)
    bounds, real = torch.zeros(len(pairs), most, dtype=torch.float64), torch.zeros(len(pairs), most, dtype=torch.bool)
    for i, (g, m) in enumerate(pairs):
        row = g if len(unsafe.weights) > 1 else 0
        weights[i, : len(m)], bounds[i, : len(m)] = unsafe.weights[row, m], unsafe.bounds[row, m]
        real[i, : len(m)] = True
    strict = torch.tensor([bool(unsafe.strict[m].all()) for _, m in pairs], dtype=torch.bool)
    return Questions(torch.tensor([g for g, _ in pairs], dtype=torch.long), weights, bounds, real, strict)


def _ruled_out(case: Case, atoms: Tensor) -> Tensor:
    return torch.where(case.unsafe.strict, atoms >= 0, atoms > 0)


def whole_margin(case: Case, atoms: Tensor, lower: float) -> float:
    """A proven lower bound of the margin, from bounds of all atoms and one of all `open_questions`' margins."""
    unsafe, ruled_out = case.unsafe, _ruled_out(case, atoms).to(atoms.dtype)
    worst = atoms.new_full((len(atoms), unsafe.disjuncts), -torch.inf)
    worst = worst.scatter_reduce(1, unsafe.disjunct.expand(atoms.shape), atoms, "amax")
    closed = torch.zeros_like(worst).scatter_reduce(1, unsafe.disjunct.expand(atoms.shape), ruled_out, "amax")
    return float(torch.where(closed > 0, worst, worst.clamp(min=lower)).amin())


def begin(
    network: Network, case: Case, atoms: Tensor, memory: int, deadline: float | None, late: Callable[[], bool]
) -> Search:
    """A search over the case's open questions, begun with the cheapest bounds of neurons that prove them, or the best."""
    keep_freed_memory()
    questions = open_questions(case, atoms)
    known = intermediate_bounds(network, case.region, memory, deadline=deadline)
    search = Search(Bounding(network, case.region, known, questions), late, memory)
    if not len(search.waiting) or late() or len(search.bounding.activations.nodes) < 2:
        return search
    unsafe = case.unsafe
    rows = unsafe.weights.expand(case.region.batch, -1, -1)
    asked = Question(network, case.region, rows, memory, unsafe.bounds.expand(rows.shape[:2]), deadline)
    tighter = turned_bounds(asked, known, _BEHIND)
    return search if late() else Search(Bounding(network, case.region, tighter, questions), late, memory)
