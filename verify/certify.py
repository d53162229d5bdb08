"""Certification of labelled inputs: for each, does its label win on the whole ball around it, and how far out?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.labelled import labelled
from leaktight.specs.region import Norm, ball
from leaktight.specs.unsafe import misclassified
from leaktight.verify.answered import GROUP, answer_group, groups, unanswered
from leaktight.verify.branching import AUTO
from leaktight.verify.budget import Budget
from leaktight.verify.certification import Certification, InputResult
from leaktight.verify.device import CPU, Device
from leaktight.verify.inputs import Question
from leaktight.verify.kinds import check_kinds
from leaktight.verify.prove import SECOND_OPINION, engine_names
from leaktight.verify.search.replay import Replay

Certified = Callable[[int, int], None]


def certify(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
    engine: str = AUTO,
    radius: bool = False,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    device: str | Device = CPU,
    progress: Certified | None = None,
) -> Certification:
    """Proves or refutes, for every labelled input, that its label scores strictly highest within `epsilon` of it.

    inputs ``(batch, ...)`` in the data's units (see `leaktight.models.normalise`), labels ``(batch,)``. An input that
    is misclassified as it stands is refuted, with itself as the counterexample. With `radius`, a proven radius is found
    for each input by bisection, no larger than `epsilon`, and one that a counterexample refutes. With ``auto`` and the
    norm 2, Lipschitz constants of the margins prove radii too (leaktight.verify.lipschitz.anchored).

    What bounds leave open is decided by a complete search, one input at a time, where `engine` is "branch" or "milp",
    and for "auto" where a `timeout` limits it.

    Ctrl-C ends it with what is known by then: what was not answered is unknown, and the result says `interrupted`.

    Args: norm, clip: the ball is ``|x' - x| <= epsilon`` in `norm`, cut with ``clip[0] <= x' <= clip[1]``. timeout:
    seconds for each input, those of a group together, radii included. memory: in bytes, of all processes together.
    jobs: worker processes, any number of which give the same results; by default all is done in this one. device:
    where it is computed, ``cpu``, ``cuda`` or ``cuda:N``. progress: called with the numbers of inputs done and of all.
    Raises: DataError: inputs and labels do not fit each other or the network. PropertyError: a label, epsilon or input
    is not allowed. UsageError: an engine or limit is not allowed.
    WorkerFailed: a worker process crashed, hung or was killed.
    """
    began = time.monotonic()
    check_kinds(network=network)
    usable = [name for name in engine_names() if name != SECOND_OPINION]
    if engine not in usable:
        allowed = ", ".join(usable)
        raise UsageError(f"engine {engine!r} cannot certify data; allowed: {allowed}")
    chosen, budget = Norm.named(norm), Budget.starting_now(timeout, dtype, memory, seed, device)
    question = Question(network, chosen, clip, engine, budget, timeout, Replay(network))
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1; got {jobs}")
    if jobs is not None and budget.device != CPU:
        raise UsageError("--jobs: worker processes would share one GPU; leave out --jobs, or use --device cpu")
    flat, labels = CPU.of(labelled(inputs, labels, network.input_size))
    with CPU.at_work():  # refuse a bad epsilon, input or label before any work
        ball(flat, epsilon, chosen, clip)
        misclassified(labels, network.output_size)
    if jobs is not None:
        from leaktight.verify.run.inputs import Inputs, in_workers

        asked = Inputs(question, flat, labels, epsilon, radius)
        results, interrupted = in_workers(asked, jobs=jobs, memory=memory, progress=progress)
    else:
        there = budget.device
        with there.at_work():
            question = replace(question, network=there.of(network))
            results, interrupted = _here(question, there.of(flat), there.of(labels), epsilon, radius, progress)
    seconds = time.monotonic() - began
    return Certification(results, epsilon, chosen, engine, seconds, network.file, interrupted=interrupted)


def _here(
    question: Question, inputs: Tensor, labels: Tensor, epsilon: float, radius: bool, progress: Certified | None
) -> tuple[list[InputResult], bool]:
    """The results of all inputs, group by group, and whether the user interrupted it."""
    results = list[InputResult]()
    for part in groups(len(inputs), GROUP):
        found, interrupted = answer_group(question, inputs[part], labels[part], epsilon, part.start, radius=radius)
        results += found
        if interrupted:
            rest = slice(part.stop, len(inputs))
            return results + unanswered(question, inputs[rest], labels[rest], epsilon, part.stop, radius=radius), True
        if progress:
            progress(len(results), len(inputs))
    return results, False
