"""Labelled inputs in worker processes: groups of them side by side, with the same results whatever their number.

How inputs are grouped depends on how many there are and on nothing else, and a group's results on that group alone, in
a process with one thread. The question goes to the workers, and results come back, in files of a private folder.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from leaktight.errors import UsageError, WorkerFailed
from leaktight.verify.answered import answer_group, groups, unanswered
from leaktight.verify.certification import InputResult
from leaktight.verify.inputs import Question
from leaktight.verify.run.machine import memory_of_each
from leaktight.verify.run.pool import Pool, Reply
from leaktight.verify.search.replay import Replay

_TASKS, _LARGEST = 16, 64  # as many groups as this where there are enough inputs; how large they may be
_LOOK = 1.0  # seconds between looks at the workers
Certified = Callable[[int, int], None]


@dataclass(frozen=True)
class Inputs:
    """A question about labelled inputs ``(batch, n)``, as it goes to workers."""

    question: Question
    inputs: Tensor
    labels: Tensor
    epsilon: float
    radius: bool

    def group(self, part: slice) -> tuple[list[InputResult], bool]:
        """The results of some of them, and whether the user interrupted it."""
        some = (self.inputs[part], self.labels[part])
        return answer_group(self.question, *some, self.epsilon, part.start, radius=self.radius)

    def rest(self, missing: slice) -> list[InputResult]:
        """Results of inputs that nobody has worked on."""
        some = (self.inputs[missing], self.labels[missing])
        return unanswered(self.question, *some, self.epsilon, missing.start, radius=self.radius)


def in_workers(
    asked: Inputs, *, jobs: int, memory: int | None, progress: Certified | None = None
) -> tuple[list[InputResult], bool]:
    """The results of all inputs, in their order, from `jobs` processes; and whether the user interrupted it.

    memory: what all of them together may use, in bytes; by default most of what is free. Ctrl-C: the groups that are
    not done have results that say nothing. A worker's failure is an error, never a result.

    Raises UsageError: an argument or the memory is not enough. WorkerFailed: a worker crashed, hung or was killed.
    """
    size = min(_LARGEST, -(-len(asked.inputs) // _TASKS))
    parts = list(groups(len(asked.inputs), size))
    workers = max(1, min(jobs, len(parts)))
    each = memory_of_each(workers) if memory is None else memory // workers
    found, interrupted = dict[int, list[InputResult]](), False
    with tempfile.TemporaryDirectory(prefix="leaktight-") as folder:
        place = Path(folder, "asked")
        place.write_bytes(pickle.dumps(asked))
        task = {"kind": "inputs", "asked": str(place), "timeout": asked.question.timeout}
        try:
            with Pool(workers, each, advice="the other inputs were not answered either") as pool:
                _work(pool, task, parts, found, progress)
        except KeyboardInterrupt:  # what was answered stands
            interrupted = True
        results = [found[part.start] if part.start in found else asked.rest(part) for part in parts]
    return [one for some in results for one in some], interrupted


def _work(
    pool: Pool,
    task: Mapping[str, Any],
    parts: list[slice],
    found: dict[int, list[InputResult]],
    progress: Certified | None,
) -> None:
    """Fills `found`, by the first input of each part."""
    waiting, total = deque(parts), parts[-1].stop if parts else 0
    while len(found) < len(parts):
        for worker in pool.idle:
            if waiting:
                part = waiting.popleft()
                pool.give(worker, part, {**task, "start": part.start, "stop": part.stop})
        for part, reply in pool.wait(_LOOK):
            found[part.start] = _taken(part, reply)
            if progress:
                progress(sum(map(len, found.values())), total)


def _taken(part: slice, reply: Reply) -> list[InputResult]:
    """Raises UsageError, WorkerFailed."""
    if "error" in reply:
        kind, message = reply["error"]["kind"], reply["error"]["message"]
        where = f"inputs {part.start} to {part.stop - 1}: {message}"
        raise UsageError(where) if kind in ("bad input", "memory") else WorkerFailed(where)
    found: list[InputResult] = pickle.loads(Path(reply["document"]["results"]).read_bytes())
    return found


_kept: OrderedDict[str, Inputs] = OrderedDict()


def seconds(task: Mapping[str, Any]) -> float | None:
    """The longest that an answer may take by the question's own time limit; None: there is none."""
    return None if task["timeout"] is None else float(task["timeout"]) * (task["stop"] - task["start"])


def answer(task: Mapping[str, Any], memory: int | None) -> dict[str, str]:
    """What a worker does: answers a group, and says in which file its results are."""
    path = Path(task["asked"])
    if task["asked"] not in _kept:
        _kept.clear()
        found: Inputs = pickle.loads(path.read_bytes())
        budget = replace(found.question.budget, memory=memory)
        question = replace(found.question, budget=budget, replay=Replay(found.question.network))
        _kept[task["asked"]] = replace(found, question=question)
    results, _ = _kept[task["asked"]].group(slice(task["start"], task["stop"]))
    place = path.with_name(f"results-{task['start']}")
    place.write_bytes(pickle.dumps(results))
    return {"results": str(place)}
