"""The door to Lipschitz constants: the question as users ask it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from leaktight.errors import InternalError, UnsupportedOperator, UsageError
from leaktight.models.network import Network
from leaktight.models.ops import Conv
from leaktight.models.slopes import Slopes, check_range
from leaktight.specs.region import Norm, Region, ball
from leaktight.verify.bounds.crown import intermediate_bounds
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.memory import default_memory
from leaktight.verify.clock import TimeUp, alarm
from leaktight.verify.kinds import check_kinds
from leaktight.verify.lipschitz.attained import attained
from leaktight.verify.lipschitz.barrier import Progress
from leaktight.verify.lipschitz.bound import LipschitzBound
from leaktight.verify.lipschitz.crude import crude
from leaktight.verify.lipschitz.curve import curve
from leaktight.verify.lipschitz.methods import METHODS, NORMS, SOLVERS, Question, names
from leaktight.verify.lipschitz.patterns import steepest_pattern

_ASCENDED = 1 << 18  # entries of all layers up to which patterns are looked for
PATIENCE = 60.0  # seconds that methods chosen by leaktight may take where no one named a time


def lipschitz(
    network: Network,
    *,
    norm: Norm | str | float = Norm.L2,
    method: str = "auto",
    solver: str | None = None,
    centre: Tensor | None = None,
    radius: float | None = None,
    slopes: tuple[float, float] | None = None,
    timeout: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LipschitzBound:
    """A proven bound of a network's Lipschitz constant, beside one that is attained.

    For all inputs x and y (all inputs and all outputs joined): ``|f(x) - f(y)| <= upper |x - y|`` in `norm` (2, inf or
    1), of the network over the real numbers with the weights that its file gives, all roundings included.

    Args: method: ``auto`` (all methods that know the norm, the smallest bound wins) or one of ``product``, ``liplt``
    (any norm), ``jacobian`` (norms inf and 1), ``fast``, ``fourier`` (for convolutions) and ``lipsdp`` (norm 2).
    solver: of ``lipsdp``: ``primal-dual`` or ``newton`` (interior point methods), ``sweeps`` (some layers at a time,
    for deep networks) or ``descent`` (L-BFGS, for thousands of neurons), of which size and depth choose, or cvxpy's
    ``clarabel`` or ``scs``; what they answer is repaired until it can be proven. centre, radius: only for x and y in
    the ball of `norm` around the one input ``(n,)``, where neurons that keep to one side have one slope. slopes: also a
    curve, for every slope of the network's
    Leaky ReLUs in ``(lo, hi)``. timeout: in seconds; after it the best that is proven. Without one, ``auto``
    stops after a minute.

    Raises UnsupportedOperator: an activation has no sector, or matrices would be too large; UsageError: an option is
    unknown, or does not go with another.
    Source: see leaktight.verify.lipschitz.ellipsoid and .barrier (LipSDP, Fazlyab et al. 2019, one multiplier for each
    neuron; its variant with full matrices proves less than it says and is not offered).
    """
    kind, began = Norm.named(norm), time.monotonic()
    check_kinds(network=network)
    chosen = _chosen(method, kind, solver, slopes, timeout)
    region = _region(network, kind, centre, radius)
    if region is not None and slopes is not None:
        raise UsageError("a curve over slopes is global; leave out either the slopes or the centre")
    patience = PATIENCE if timeout is None and method == "auto" else timeout
    deadline = None if patience is None else began + patience
    with alarm(deadline):
        question = Question(network, kind, _known(network, region, deadline), solver, deadline, progress)
    if method == "auto" and "fourier" in chosen:
        chosen = tuple(name for name in chosen if name != "fourier")  # it has nothing over the others without Conv
        if any(isinstance(node.op, Conv) for node in network):
            chosen = ("fourier", *chosen)  # which unroll: it is the quickest there
    with alarm(deadline):
        bounds, interrupted = _bounds(question, chosen)
        best = min(bounds, key=lambda name: bounds[name])
        lower = 0.0 if interrupted else attained(network, kind, region, seed=seed)
        pattern = None if interrupted else _pattern(question, seed)
    if lower > bounds[best]:
        raise InternalError(f"{best} says that the constant is at most {bounds[best]}, and inputs attain {lower}")
    return LipschitzBound(
        kind,
        bounds[best],
        lower,
        best,
        bounds,
        scope="global" if region is None else "local",
        timed_out=question.late or question.cut_short,
        interrupted=interrupted,
        curve=None if slopes is None or interrupted else tuple(curve(Slopes.of(network), *slopes, question)),
        network=network.file,
        asked={} if centre is None or radius is None else {"radius": radius, "center": {"sha256": _digest(centre)}},
        seconds=time.monotonic() - began,
        pattern=pattern,
    )


def _pattern(question: Question, seed: int) -> float | None:
    """The largest norm over patterns of slopes that an ascent finds, where that is cheap and there is time."""
    if question.late:
        return None
    try:
        stages = question.layers
    except UnsupportedOperator:  # of the size of a matrix
        return None
    entries = sum(a * b for a, b in pairwise(stages.sizes))
    if question.late or entries > _ASCENDED:
        return None
    try:
        return steepest_pattern(stages, question.norm, network=question.network, starts=4, seed=seed)
    except TimeUp:
        return None


def _bounds(question: Question, chosen: tuple[str, ...]) -> tuple[dict[str, float], bool]:
    """What each method proves, and whether Ctrl-C ended it; one that comes too late is left out.

    Where the only one is, the quickest bound of all stands in for it. Of several, those that do not know an operator
    are left out. Raises UnsupportedOperator: none is left. KeyboardInterrupt: nothing is proven yet.
    """
    found: dict[str, float] = {}
    refused: dict[str, UnsupportedOperator] = {}
    for name in chosen:
        if not (found and question.late):
            try:
                found[name] = METHODS[name](_half(question) if name == "fourier" and len(chosen) > 1 else question)
            except UnsupportedOperator as error:
                refused[name] = error
            except TimeUp:
                return found or {name: crude(question.network, question.norm, question.known)}, False
            except KeyboardInterrupt:
                if not found:
                    raise
                return found, True
    if not found:  # the cheapest method knows best what would work
        raise refused[min(refused, key=list(METHODS).index)]
    return found, False


def _half(question: Question) -> Question:
    """With half the time: for a search that would use up what the others need."""
    now = time.monotonic()
    return replace(question, deadline=None if question.deadline is None else now + (question.deadline - now) / 2)


def _chosen(
    method: str, norm: Norm, solver: str | None, slopes: tuple[float, float] | None, timeout: float | None
) -> tuple[str, ...]:
    """The methods to run. Raises UsageError: options are unknown, or do not go together."""
    if method != "auto" and method not in METHODS:
        raise UsageError(f"--method: {method!r} is not known; allowed: auto, {', '.join(METHODS)}")
    if method != "auto" and norm not in NORMS[method]:
        raise UsageError(
            f"--method {method} knows no bound in the norm {norm.value}; those that do: auto, {', '.join(names(norm))}"
        )
    if solver is not None and solver not in SOLVERS:
        raise UsageError(f"--solver: {solver!r} is not known; allowed: {', '.join(SOLVERS)}")
    if solver is not None and method != "lipsdp":
        raise UsageError(
            f"--solver {solver} is of --method lipsdp; --method is {method}: give that, or leave out --solver"
        )
    if slopes is not None:
        check_range(slopes)
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout: {timeout} is not a positive number of seconds")
    return names(norm) if method == "auto" else (method,)


def _region(network: Network, norm: Norm, centre: Tensor | None, radius: float | None) -> Region | None:
    if (centre is None) != (radius is None):
        raise UsageError("a centre and a radius belong together; one of them is missing")
    if centre is None or radius is None:
        return None
    if centre.numel() != network.input_size:
        raise UsageError(f"the centre has {centre.numel()} entries; the network has {network.input_size} inputs")
    return ball(centre.reshape(1, -1).double(), radius, norm)


def _digest(centre: Tensor) -> str:
    """That of the numbers as float64, in order; a zero has no sign."""
    return hashlib.sha256(
        (centre.detach().double().reshape(-1).cpu().numpy() + 0.0).astype("<f8").tobytes()
    ).hexdigest()


def _known(network: Network, region: Region | None, deadline: float | None) -> Mapping[str, Interval] | None:
    """Bounds of all values in the region, by CROWN; None where there is no region, or not even intervals in time."""
    if region is None:
        return None
    with torch.no_grad():
        try:
            return intermediate_bounds(network, region, default_memory(), deadline=deadline)
        except TimeUp:  # what holds everywhere holds in the region
            return None
