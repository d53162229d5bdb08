"""Branch and bound on neurons over a segment of slopes: domains are split at kinks, and proved for all slopes at once.

The kinks do not move with the slope, so a decision "the input of this neuron is above (below) its kink" cuts the
inputs at every slope of the segment. A search (`leaktight.verify.search.neurons`) chooses decisions, lines and
multipliers for the slope in the middle; whatever it chooses, a parametric pass over the segment
(`leaktight.verify.leak.pairs`) is what proves a domain. On one side of its kink an activation is ``a z``: what such a
pass loses there is quadratic in the segment's width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import Box
from leaktight.verify.bounds.interval import lower_of_outputs
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.bounds.rows import rows_on_outputs
from leaktight.verify.leak.attained import attained
from leaktight.verify.leak.closing import Limits
from leaktight.verify.leak.effort import Effort
from leaktight.verify.leak.lines import refined
from leaktight.verify.leak.parametric import Parametric
from leaktight.verify.leak.refuted import within_float32
from leaktight.verify.rounding import down
from leaktight.verify.search.leaf import decide
from leaktight.verify.search.multipliers import Bounding
from leaktight.verify.search.neurons import Leaf, Search, branch
from leaktight.verify.search.outcome import Searched
from leaktight.verify.search.questions import open_questions, whole_margin
from leaktight.verify.search.replay import Replay
from leaktight.verify.search.stages import split
from leaktight.verify.verdict import Counterexample


@dataclass(frozen=True)
class Split:
    """How far a search over one segment of slopes came.

    `lower`: the margin is proven to be at least that at every slope of the segment; `proved`: nothing is left open.
    found: a slope, at least the margin there of an input ``(n,)``, negative, and that input.
    """

    lower: float
    proved: bool
    found: tuple[float, float, Tensor] | None
    domains: int
    interrupted: bool = False


def split_neurons(
    slopes: Slopes, case: Case, lo: float, hi: float, limits: Limits, say: Callable[[str], None] = lambda _: None
) -> Split:
    """Proves the margin of a case with one region positive at every slope in ``[lo, hi]``, or finds where it is not.

    Ends when every domain is proved, an input is unsafe at the middle slope, or the limits are reached. At a single
    slope the search goes through all the stages that `leaktight.prove` has.
    Raises MissingRule: the network has activations that cannot be split.
    """
    memory = limits.memory or default_memory()
    ends = [case.region.lower.new_full((1,), a) for a in (lo, hi)]
    with torch.no_grad():
        effort = Effort(True, memory, limits.deadline)
        backward = refined(Parametric, slopes, case.region, ends[0], ends[1], effort, None)
        atoms = _atoms(backward, case)
        if bool(case.unsafe.proved(atoms).all()):
            return Split(float(case.unsafe.combine(atoms).amin()), True, None, 1)
        a, network = _middle(slopes, lo, hi)
        found = _searched(network, case, atoms, backward, memory, limits, say)
    return _concluded(slopes, case, atoms, a, found)


def _atoms(backward: Parametric, case: Case) -> Tensor:
    """Proven lower bounds of the atoms over the segment ``(1, atoms)``."""
    weights = case.unsafe.weights.double().expand(1, -1, -1)
    for node in backward.network:
        backward.prepare(node)
    by_passes = backward.lower(*rows_on_outputs(backward.network, weights))
    by_intervals = lower_of_outputs(backward.network, backward.known, weights)
    return down(torch.maximum(by_passes, by_intervals) - case.unsafe.bounds)


def _middle(slopes: Slopes, lo: float, hi: float) -> tuple[float, Network]:
    """A slope of the segment, one that the file holds exactly where there is one, and the network there."""
    ends = [torch.tensor([end], dtype=torch.float64) for end in (lo + (hi - lo) / 2, lo, hi)]
    near = float(within_float32(*ends))
    a = near if near == near else float(ends[0])
    return a, replace(slopes.at(a), source=None)  # its file has another slope


def _searched(
    network: Network,
    case: Case,
    atoms: Tensor,
    backward: Parametric,
    memory: int,
    limits: Limits,
    say: Callable[[str], None],
) -> Searched:
    replay = Replay(network)  # no file is read: what is found is judged by rigorous bounds of its margin
    if bool((backward.half == 0).all()):
        return split(
            network,
            case,
            atoms,
            replay,
            memory=memory,
            deadline=limits.deadline,
            late=lambda: limits.late,
            leaf=_leaf(network, replay, limits) if isinstance(case.region, Box) else None,
            say=say,
        )
    bounding = Bounding(network, case.region, backward.known, open_questions(case, atoms), backward)
    if not len(bounding.columns):  # nothing bends at the middle slope: only shorter segments will do
        return Searched(-torch.inf, False, None, torch.inf, 1)
    search = Search(bounding, lambda: limits.late, memory)
    return branch(search, case, replay, most=limits.domains, say=say)


def _leaf(network: Network, replay: Replay, limits: Limits) -> Leaf:
    """Decides domains in which every neuron has its side by linear programs."""

    def leaf(part: Case, sides: Mapping[str, Tensor]) -> tuple[float, Counterexample | None]:
        found = decide(network, part, sides, replay=replay, deadline=limits.deadline)
        return found.lower, found.found

    return leaf


def _concluded(slopes: Slopes, case: Case, atoms: Tensor, a: float, found: Searched) -> Split:
    lower = max(float(case.unsafe.combine(atoms).amin()), whole_margin(case, atoms, found.lower))
    unsafe = None
    if found.found is not None:
        point = torch.from_numpy(found.found.point).to(case.region.lower).reshape(1, -1)
        upper = float(attained(slopes, case, point, torch.tensor([a], dtype=torch.float64)))
        unsafe = (a, upper, point[0]) if upper < 0 else None
    return Split(lower, found.proved, unsafe, found.domains, found.interrupted)
