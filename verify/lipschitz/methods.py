"""The methods that bound Lipschitz constants: one function each, and the norms that it knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np

from leaktight.models.enclosure import Array
from leaktight.models.network import Network
from leaktight.specs.region import Norm
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import TimeUp
from leaktight.verify.lipschitz import convex, dense, descent, fast, interior, primal_dual, sweeps
from leaktight.verify.lipschitz.barrier import Progress
from leaktight.verify.lipschitz.centred import Centred, centred
from leaktight.verify.lipschitz.certificate import repaired
from leaktight.verify.lipschitz.fourier import fourier
from leaktight.verify.lipschitz.jacobian import jacobian_bound
from leaktight.verify.lipschitz.layers import Layers, layers, scalar
from leaktight.verify.lipschitz.liplt import OutOfTime, liplt
from leaktight.verify.lipschitz.product import product
from leaktight.verify.lipschitz.spectra import Wave

OWN = {
    "primal-dual": primal_dual.optimal,
    "sweeps": sweeps.optimal,
    "newton": interior.optimal,
    "descent": descent.optimal,
}
"""The built-in ways to find multipliers."""

SOLVERS = (*OWN, *convex.SOLVERS)
_DENSE = 2200  # neurons up to which matrices of that size are no burden
_SQUARE = 700  # neurons up to which several of them are none either, whatever the depth
_SPEED = 1e10  # operations of matrix products in a second, on one core
_AS_LONG = 1.5  # times as long as a proof took another may take
_ALIKE = 10.0  # neurons of a layer up to which proofs of a chain take about as long with all multipliers
_SHORT = 0.5  # seconds that a proof may take beyond a deadline
_VANISHING = 1e-60  # what a proof by squares tells from zero
_LEAST, _MOST = 1e-250, 1e250  # squares of bounds beyond these under- or overflow on the way
_DEEP = 8  # stages from which it pays to go through them one by one


@dataclass(frozen=True, eq=False)
class Question:
    """A network, a norm, and where its constant is asked for: `known` bounds its values there; None: everywhere.

    deadline: of time.monotonic; a method that is not done by then proves what it has.
    """

    network: Network
    norm: Norm
    known: Mapping[str, Interval] | None = None
    solver: str | None = None
    deadline: float | None = None
    progress: Progress | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @cached_property
    def layers(self) -> Layers:
        return layers(self.network, self.known)

    def of_margin(self, label: int, other: int) -> Question:
        """The same about the output `label` less the output `other`."""
        unit, found = np.eye(self.network.output_size), replace(self)
        found.__dict__["layers"] = scalar(self.layers, unit[label] - unit[other])
        return found

    @cached_property
    def centred(self) -> Centred:
        return centred(self.layers)

    @cached_property
    def closed_form(self) -> fast.Multipliers:
        return fast.closed_form(self.centred)

    @cached_property
    def links(self) -> list[Wave] | None:
        """The layers, where they are a chain."""
        return dense.links(self.layers)

    @property
    def fast(self) -> float:
        return self._fast[0]

    @cached_property
    def _fast(self) -> tuple[float, float]:
        """What the closed form proves, and the seconds that another proof is likely to take."""
        began = time.monotonic()
        found = inf if self.links is None else dense.certified(self.links)
        if found < inf:
            widest = max(stage.sector.size for stage in self.layers.stages) if self.layers.stages else 0
            return found, (time.monotonic() - began) * max(_AS_LONG, widest / _ALIKE)
        if not self.solvable:
            return inf, 0.0
        given, began = self.closed_form, time.monotonic()
        found = repaired(self.centred, given.each, given.each, given.square)
        return found, (time.monotonic() - began) * _AS_LONG

    @property
    def provable(self) -> bool:
        """Whether there is time left for the proof that belongs to multipliers, where it takes long."""
        return self._affordable(proof_seconds(self.centred))

    @property
    def fast_provable(self) -> bool:
        """The same of the closed form's multipliers."""
        return self.provable if self.links is None else self._affordable(dense.seconds(self.links, _SPEED))

    def _affordable(self, cost: float) -> bool:
        return self.deadline is None or cost < _SHORT or time.monotonic() + cost < self.deadline

    @property
    def solvable(self) -> bool:
        """Whether there is something to solve: a network that depends on its inputs, with numbers in range."""
        return _LEAST < self.closed_form.square < _MOST

    @cached_property
    def optimal(self) -> list[Array]:
        """Multipliers of LipSDP, from the solver that is asked for."""
        found = self.closed_form
        if not self.centred.neurons:
            return list(found.each)
        solver, until = self.solver or usual(self.centred), self._to_solve
        own = OWN.get(solver)
        if own is not None:
            best = own(self.centred, found.each, found.square, deadline=until, progress=self.progress)
        else:
            left = None if until is None else max(until - time.monotonic(), 1.0)
            best = convex.optimal(self.centred, found.each, found.square, solver=solver, timeout=left)[1]
        self.__dict__["cut_short"] = until is not None and time.monotonic() > until
        return best

    @cached_property
    def cut_short(self) -> bool:
        """Whether the search for multipliers ended because the time was over."""
        return False

    @property
    def _to_solve(self) -> float | None:
        """When the search has to end: the proof that follows takes about as long as the closed form's."""
        if self.deadline is None:
            return None
        return self.deadline - max(proof_seconds(self.centred), self._fast[1])


def proof_seconds(network: Centred) -> float:
    """About what one proof costs (`leaktight.verify.lipschitz.certificate`): products of enclosures, factorizations."""
    found, before = 0.0, network.size
    for stage in network.stages:
        state, side = len(stage.through.value), before + stage.neurons
        found += 12.0 * side * state * (side + state) + 2.0 * side**3
        before = state
    return found / _SPEED


def usual(network: Centred) -> str:
    """The built-in solver that is likely to be the quickest."""
    if network.neurons > _SQUARE and len(network.stages) >= _DEEP:
        return "sweeps"
    return "descent" if network.neurons > _DENSE else "primal-dual"


Method = Callable[[Question], float]
"""Proves a constant; infinity says that it proved nothing. Raises UnsupportedOperator: it cannot, whatever the time."""


def _product(question: Question) -> float:
    return product(question.layers, question.norm)


def _liplt(question: Question) -> float:
    try:
        return liplt(question.centred, question.norm, deadline=question.deadline)
    except OutOfTime:
        return _product(question)  # never smaller, and cheap


@np.errstate(all="ignore")  # what goes out of range proves nothing, and is answered with the product
def _fast(question: Question) -> float:
    if question.fast_provable and _VANISHING < question.fast < inf:
        return question.fast
    return _product(question)  # zero, where a layer is


@np.errstate(all="ignore")
def _lipsdp(question: Question) -> float:
    if not question.provable or not question.solvable:
        return _fast(question)
    found = question.closed_form
    if question.late or not question.provable:
        return _fast(question)
    safe = inf if question.deadline is None else question.fast  # what stands where another proof comes too late
    try:
        proven = min(safe, repaired(question.centred, question.optimal, found.each, found.square))
        return proven if proven < inf else _fast(question)
    except TimeUp:
        if safe == inf:
            raise
        return safe


def _jacobian(question: Question) -> float:
    return jacobian_bound(question.layers, question.norm, deadline=question.deadline)


def _fourier(question: Question) -> float:
    return fourier(question.network, question.known, deadline=question.deadline, progress=question.progress).best


METHODS: Mapping[str, Method] = {
    "product": _product,
    "liplt": _liplt,
    "jacobian": _jacobian,
    "fast": _fast,
    "fourier": _fourier,
    "lipsdp": _lipsdp,
}
"""In the order in which they are tried: from cheap to dear."""

NORMS: Mapping[str, tuple[Norm, ...]] = {
    "product": tuple(Norm),
    "liplt": tuple(Norm),
    "jacobian": (Norm.LINF, Norm.L1),
    "fast": (Norm.L2,),
    "fourier": (Norm.L2,),
    "lipsdp": (Norm.L2,),
}


def names(norm: Norm) -> tuple[str, ...]:
    """The methods that know the norm."""
    return tuple(name for name in METHODS if norm in NORMS[name])
