"""Refute: attack, then confirm what was found by replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leaktight.models.network import Network
from leaktight.specs.property import Case
from leaktight.verify.search.attack import attack
from leaktight.verify.search.membership import settle
from leaktight.verify.search.replay import Replay, confirm
from leaktight.verify.verdict import Counterexample


@dataclass(frozen=True, eq=False)
class Refutation:
    """For each region of a case a counterexample or None, and the lowest margin that a concrete input attains.

    `margins` ``(batch,)`` float64: an upper bound of the smallest margin over each region, computed in float64 at a
    point inside it, or by the replay where that is lower.
    """

    counterexamples: tuple[Counterexample | None, ...]
    margins: Tensor


def refute(
    network: Network,
    case: Case,
    *,
    seed: int = 0,
    deadline: float | None = None,
    replay: Replay | None = None,
    **effort: Any,
) -> tuple[Counterexample | None, Tensor]:
    """A counterexample to the case (in the first of its regions that has one), or None, and the margins attained.

    The margins ``(batch,)`` are those of `Refutation`. `effort` goes to `leaktight.verify.search.attack.attack`:
    restarts, steps, starts, keep, memory.

    Raises Contradiction: the file's runtime and leaktight compute different things for the same input.
    """
    found = refute_each(network, case, seed=seed, deadline=deadline, replay=replay, **effort)
    return next((example for example in found.counterexamples if example is not None), None), found.margins


def refute_each(
    network: Network,
    case: Case,
    *,
    seed: int = 0,
    deadline: float | None = None,
    replay: Replay | None = None,
    **effort: Any,
) -> Refutation:
    """Attacks all regions of the case at once and confirms the best candidates of each; arguments as for `refute`."""
    runner = Replay(network) if replay is None else replay
    found = attack(network, case, seed=seed, deadline=deadline, **effort)
    singles = [_single(case, i) for i in range(case.region.batch)]
    settled = torch.stack([settle(network, one.region, at) for one, at in zip(singles, found.points, strict=True)])
    margins = _margins(network, case, settled)
    examples = []
    for i, single in enumerate(singles):
        # what float32 roundings may have hidden is worth a replay; what is clearly safe is not
        near = found.margins[i] <= (1e-4 * found.margins[i].abs().amax()).clamp(min=1e-6)
        example = confirm(network, single, settled[i][near], runner) if bool(near.any()) else None
        examples.append(example)
        if example is not None:
            margins[i] = min(float(margins[i]), example.margin)
    return Refutation(tuple(examples), margins)


def _single(case: Case, i: int) -> Case:
    return case.select(slice(i, i + 1))


def _margins(network: Network, case: Case, points: Tensor) -> Tensor:
    """The lowest margin ``(batch,)`` of the float64 points ``(batch, k, n)``."""
    exact = network if network.dtype == torch.float64 else network.to(torch.float64)
    with torch.no_grad():
        best = [case.unsafe.margin(exact.flat(points[:, k])) for k in range(points.shape[1])]
    return torch.stack(best).nan_to_num(nan=torch.inf, posinf=torch.inf).amin(0)
