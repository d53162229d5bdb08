"""The door to all bounding engines: lower bounds of linear functions of the outputs, and boxes around the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.region import Region
from leaktight.verify.bounds import interval
from leaktight.verify.bounds.backward import Backward
from leaktight.verify.bounds.crown import refine_all
from leaktight.verify.bounds.interval import input_intervals
from leaktight.verify.bounds.memory import batch_chunks, default_memory, keep_freed_memory, passes
from leaktight.verify.bounds.optimise import SCHEDULES, default_tilts, turn_last, turned_bounds, turned_to
from leaktight.verify.bounds.parallel import each
from leaktight.verify.bounds.question import Question
from leaktight.verify.bounds.quick import quick
from leaktight.verify.bounds.references import centre
from leaktight.verify.bounds.single import Single
from leaktight.verify.device import CPU, Device
from leaktight.verify.kinds import check_kinds
from leaktight.verify.relax import has_tilt
from leaktight.verify.rounding import down, trusted_lower

Engine = Callable[[Question], Tensor]
_HOPE = 0.25


def _interval(question: Question) -> Tensor:
    known = interval.propagate(question.network, question.region)
    return interval.lower_of_outputs(question.network, known, question.objectives)


def _crown(question: Question) -> Tensor:
    with quick(question.network):
        found = _last_pass(question, *_refined(question))
    return found.clone()


def _refined(question: Question) -> tuple[Backward, Single | None]:
    """Passes that know bounds of every node, in the question's dtype and in float32."""
    backward = Backward(question.network, question.region, known := input_intervals(question.network, question.region))
    return backward, refine_all(backward, known, question.memory, deadline=question.deadline)


def _last_pass(question: Question, plain: Backward, single: Single | None) -> Tensor:
    """The better of intervals and of two passes: by default lines, and by lines turned to what the first one found."""
    # lines may be looser than intervals
    best = interval.lower_of_outputs(question.network, plain.known, question.objectives)
    (single or plain).prepare(question.network.nodes[-1])
    layers = sum(has_tilt(node.op) for node in question.network)  # each has lines for every row
    room = question.memory // (1 + layers) // torch.get_num_threads()
    parts = list(passes(question.network, [best.shape[1]] * len(best), room))
    for (regions, rows), found in zip(parts, each(partial(_twice, question, plain, single), parts), strict=True):
        best[regions, rows] = torch.maximum(best[regions, rows], found)
    return best


def _twice(question: Question, plain: Backward, single: Single | None, part: tuple[slice, slice]) -> Tensor:
    regions, rows = part
    asked, backward = question.select(regions).rows(rows), plain.select(regions)
    starts = asked.starts()
    best, slopes = backward.ended(*starts) if single is None else single.walk(regions, *starts)
    if not bool(asked.still_open(best).any()):
        return best
    tilts = turned_to(asked, backward.known, slopes)
    if single is not None and not tilts:  # the same pass, in float64
        return torch.maximum(best, backward.lower(*starts))
    return torch.maximum(best, backward.turned(tilts).lower(*starts)) if tilts else best


def hopeful(question: Question, bounds: Tensor) -> Tensor:
    """Which rows turning the lines behind neurons may bring above their targets.

    A row's true minimum lies between its bound and its value at the region's centre. Turning lines closes a tenth of
    that distance, seldom more (benchmarks/HISTORY.md), at several times the cost of all that was done before.
    """
    if question.target is None:
        return torch.ones_like(bounds, dtype=torch.bool)
    value = (question.objectives @ question.network.flat(centre(question.region)).unsqueeze(-1)).squeeze(-1)
    near = question.target - bounds <= _HOPE * (value - bounds)
    return (near | ~question.still_open(bounds)).all(1, keepdim=True) if question.every else near


def _alpha_crown(question: Question) -> Tensor:
    """Turns the lines of the last pass; then those behind every neuron; where that nearly did it, again and finely."""
    with quick(question.network):
        backward, single = _refined(question)
        found, known = _last_pass(question, backward, single), dict(backward.known)
    best = found.clone()  # `known` is copied where some regions are selected
    index, start = torch.arange(len(best)), best
    for stage, (behind, last) in enumerate(SCHEDULES):
        before, some = best[index], question.select(index)
        worth = some.still_open(before)
        if stage == 1:
            worth &= hopeful(some, before)
        if stage == 2:  # finer steps gain a part of what the coarse ones did
            worth &= ~some.still_open(before + (before - start) / 4).any(1, keepdim=True)
        kept = worth.any(1).nonzero().flatten()
        if not len(kept) or question.late:
            break
        index, start, some = index[kept], before[kept], some.select(kept)
        known = {name: z.select(kept) for name, z in known.items()}
        if behind:
            if len(default_tilts(question.network, known, 1)) < 2:
                break  # nothing lies behind another line
            known = turned_bounds(some, known, behind)
        best[index] = torch.maximum(start, turn_last(some, known, last, by_signs=stage < 2))
    return best


ENGINES: Mapping[str, Engine] = {"interval": _interval, "crown": _crown, "alpha-crown": _alpha_crown}


def engine_named(name: str) -> Engine:
    """The engine of this name.

    Raises UsageError: there is none.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known; allowed: {', '.join(ENGINES)}")
    return ENGINES[name]


def lower_bounds(
    network: Network,
    region: Region,
    objectives: Tensor,
    *,
    engine: str = "crown",
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    target: Tensor | None = None,
    every: bool = False,
    deadline: float | None = None,
) -> Tensor:
    """Proven lower bounds of linear functions of the outputs.

    For every region ``b`` of the batch, every row ``r`` and every ``x`` in the region, in real arithmetic:
    ``objectives[b, r] . f(x) >= result[b, r]``. Where nothing can be said the result is minus infinity.

    Args: objectives: ``(batch or 1, rows, output_size)`` over all outputs, flattened and joined. dtype: the arithmetic
    of the computation; the guarantee is the same in float32, the bounds are looser (in float64
    too, neurons in between are bounded in float32 where that costs little). memory: a cap in bytes, by default half of
    what is free. target ``(batch or 1, rows)`` and deadline let an engine that searches stop early;
    with `every` also where one row of a region seems out of reach.
    Returns: ``(batch, rows)``, float64.
    Raises: UsageError: no such engine. MissingRule: an operator has no rule. PropertyError: sizes do not fit.
    """
    run = engine_named(engine)
    keep_freed_memory()
    memory = default_memory() if memory is None else memory
    asked = objectives.expand(region.batch, -1, -1)
    exact = asked.to(dtype)
    cast, wanted = network.to(dtype), None if target is None else target.expand(asked.shape[:2]).to(dtype)
    found = []
    with torch.no_grad():
        for part in batch_chunks(network, region.batch, dtype, memory):
            inside = region.select(part).to(dtype)
            goal = None if wanted is None else wanted[part]
            found.append(run(Question(cast, inside, exact[part], memory, goal, deadline, every)).double())
        result = torch.cat(found)
        if dtype != torch.float64 and bool((exact.double() != asked).any()):
            result = trusted_lower(down(result - _rounded_objectives(network, region, asked - exact.double())))
    return result


def _rounded_objectives(network: Network, region: Region, rest: Tensor) -> Tensor:
    """What the part of the objectives that the engine's dtype cannot hold may add: ``|rest| . |y|``."""
    reach = interval.outputs(network, interval.propagate(network, region)).magnitude
    return (rest.abs() @ reach.unsqueeze(-1)).squeeze(-1) * (1 + 1e-9)


@dataclass(frozen=True)
class Bounds:
    """Proven boxes around all outputs, for every region of a batch.

    `outputs`: ``(lower, upper)`` by output name, each ``(batch, *output shape)`` in float64.
    """

    outputs: Mapping[str, tuple[Tensor, Tensor]]
    engine: str

    @property
    def lower(self) -> Tensor:
        """Lower bounds ``(batch, *output shape)``; of several, flattened and joined ``(batch, output_size)``."""
        return self._joined(0)

    @property
    def upper(self) -> Tensor:
        """Upper bounds, shaped like `lower`."""
        return self._joined(1)

    def _joined(self, end: int) -> Tensor:
        found = [pair[end] for pair in self.outputs.values()]
        return found[0] if len(found) == 1 else torch.cat([x.flatten(1) for x in found], 1)


def bound(
    network: Network,
    region: Region,
    *,
    engine: str = "crown",
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    deadline: float | None = None,
    device: str | Device = CPU,
) -> Bounds:
    """Proven lower and upper bounds of every output over every region of the batch, in real arithmetic.

    device: where they are computed, ``cpu``, ``cuda`` or ``cuda:N``; they come back to the processor.
    Raises: as `lower_bounds`; UsageError: no such device.
    """
    check_kinds(network=network, region=region)
    size, there = network.output_size, Device.named(device)
    with there.at_work():
        rows = torch.eye(size, dtype=torch.float64)
        found = lower_bounds(
            there.of(network),
            there.of(region),
            torch.cat([rows, -rows]).unsqueeze(0),
            engine=engine,
            dtype=dtype,
            memory=memory,
            deadline=deadline,
        ).cpu()
    outputs, start = {}, 0
    for port in network.outputs:
        shape = (region.batch, *network.visible(port.shape))
        ends = (found[:, start : start + port.size], -found[:, size + start : size + start + port.size])
        outputs[port.name] = (ends[0].reshape(shape), ends[1].reshape(shape))
        start += port.size
    return Bounds(outputs, engine)
