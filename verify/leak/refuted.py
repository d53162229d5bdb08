"""Slopes at which a property does not hold: what was found there, replayed in the network's file with that slope."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.models.slopes import Slopes
from leaktight.specs.property import Case
from leaktight.specs.region import toward
from leaktight.verify.leak.attained import Lowest
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample

WORTH_REPLAYING = 1e-6  # a margin above it is positive whatever is rounded where it was found


def refuted(
    slopes: Slopes,
    case: Case,
    found: Lowest,
    lo: Tensor,
    hi: Tensor,
    *,
    replays: Callable[[Network], Replay] = Replay,
) -> list[tuple[float, Counterexample] | None]:
    """For each region a slope in ``[lo, hi]`` and a counterexample at that slope, replayed in the file; or None.

    The slope is rounded to a float32 inside the range, which the file holds exactly (where there is none, nothing is
    replayed), and set in the file; the input is moved inside the region and run by the file's own runtime, strict
    conditions taken strictly (`leaktight.verify.search.replay.confirm`). Candidates whose margin is clearly positive
    are not replayed.

    Raises UsageError: the network has no file to set the slope in. Contradiction: the runtime and leaktight compute
    different things.
    """
    nearest = within_float32(found.slopes, lo, hi)
    examples: list[tuple[float, Counterexample] | None] = []
    runners: dict[float, tuple[Network, Replay]] = {}
    for i, a in enumerate(nearest.tolist()):
        if isnan(a) or float(found.upper[i]) > WORTH_REPLAYING:
            examples.append(None)
            continue
        if a not in runners:
            network = slopes.file_at(a)
            runners[a] = network, replays(network)
        one = Case(case.region.select(slice(i, i + 1)), case.unsafe.select(slice(i, i + 1)))
        example = confirm(runners[a][0], one, found.points[i : i + 1], runners[a][1])
        examples.append(None if example is None else (a, example))
    return examples


def within_float32(a: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """The float32 number in ``[lo, hi]`` nearest to each slope, as float64; NaN where the range holds none."""
    low, high = toward(lo.double(), torch.float32, torch.inf), toward(hi.double(), torch.float32, -torch.inf)
    near = torch.minimum(torch.maximum(a.float(), low), high).double()
    return torch.where((low <= high) & (near >= lo) & (near <= hi), near, torch.nan)
