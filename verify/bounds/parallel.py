"""Independent parts of one computation, side by side on the threads that torch may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

import torch

from leaktight.verify.device import on_processor

Part = TypeVar("Part")
Result = TypeVar("Result")


def each(run: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """``run(part)`` for every part, in their order.

    With several parts, as many run at once as torch has threads (``torch.set_num_threads``), and each of them uses one:
    that pays where operations are long; short ones wait for each other (benchmarks/HISTORY.md). `run` must change
    nothing that another part reads. Gradients are off unless `run` switches them on; alarms ring in there as here.
    On a GPU, which is busy with one part, they come one after the other, in this thread.
    """
    threads = torch.get_num_threads()
    if threads < 2 or len(parts) < 2 or not on_processor():
        yield from map(run, parts)
        return
    mode = torch.is_inference_mode_enabled()
    futures = [_pool(threads).submit(copy_context().run, _without_gradients, mode, run, part) for part in parts]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def undivided() -> Iterator[None]:
    """Within it one thread does every operation: those of small networks take less time than handing out shares."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _without_gradients(inference: bool, run: Callable[[Part], Result], part: Part) -> Result:
    with torch.inference_mode() if inference else torch.no_grad():
        return run(part)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # the setting is each thread's own
    return ThreadPoolExecutor(threads, "leaktight", initializer=torch.set_num_threads, initargs=(1,))
