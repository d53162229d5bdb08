"""Workers: processes that are started once and given one task after another, each watched by the clock.

A worker that dies, hangs or is killed costs the task that it was given, which gets an error that says so, and is
replaced. Nothing that happens in a worker reaches this process but lines of JSON.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import leaktight
from leaktight.errors import UsageError

Reply = Mapping[str, Any]
START_LIMIT = 120.0
"""Seconds that a worker may take to start and, for each task, to read its files."""
GRACE = 5.0
"""Seconds beyond a task's own time limit, and half as much again, after which a worker counts as hung."""
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2].split({sep!r}); from leaktight.eager import eager_only; eager_only();"
    " from leaktight.verify.run.worker import main; main(int(sys.argv[1]) or None)"
)
_CHUNK = 1 << 16
_STILLBORN = 3


@dataclass
class Worker:
    """A process, what it is working on, and until when it may."""

    process: subprocess.Popen[bytes]
    token: Any = None
    deadline: float | None = None
    limit: float = 0.0
    ready: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    @property
    def idle(self) -> bool:
        return self.ready and self.token is None

    @property
    def tasks(self) -> IO[bytes]:
        """Where it reads tasks; like `replies`, a pipe."""
        return cast("IO[bytes]", self.process.stdin)

    @property
    def replies(self) -> IO[bytes]:
        return cast("IO[bytes]", self.process.stdout)


class Pool:
    """`size` workers. Tasks are handed to idle ones; `wait` yields what became of them. advice: where one was lost."""

    def __init__(self, size: int, memory: int | None, advice: str = "run again with --resume") -> None:
        self.memory, self.advice = memory, advice
        self._selector = selectors.DefaultSelector()
        self._stillborn = 0
        self.workers: list[Worker] = []
        self.grow(size)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            self._stop(worker)
        self._selector.close()

    def grow(self, size: int) -> None:
        """Starts workers until there are `size`."""
        while len(self.workers) < size:
            self.workers.append(self._start())

    @property
    def idle(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.idle]

    @property
    def busy(self) -> bool:
        return any(worker.token is not None for worker in self.workers)

    def give(self, worker: Worker, token: Any, task: Mapping[str, Any]) -> None:
        """Hands a task to an idle worker; `token` comes back with its reply."""
        worker.token, worker.limit = token, 0.0
        worker.deadline = time.monotonic() + START_LIMIT
        with suppress(OSError):  # it died while it was idle; `wait` sees that too
            worker.tasks.write(json.dumps(task).encode() + b"\n")
            worker.tasks.flush()

    def cancel(self, token: Any) -> None:
        """Ends the work on a task, with the worker that does it."""
        for worker in [worker for worker in self.workers if worker.token == token]:
            self._stop(worker)
            self.workers.remove(worker)
            self.workers.append(self._start())

    def wait(self, seconds: float) -> Iterator[tuple[Any, Reply]]:
        """Tokens and replies of the tasks that ended, within about `seconds`."""
        limits = [worker.deadline for worker in self.workers if worker.deadline is not None]
        left = min([seconds, *(limit - time.monotonic() for limit in limits)])
        for key, _ in self._selector.select(max(0.0, left)):
            yield from self._read(key.data)
        now = time.monotonic()
        for worker in list(self.workers):
            if worker.deadline is not None and now >= worker.deadline:
                yield from self._lost(worker, "deadline", self._late(worker))

    def _read(self, worker: Worker) -> Iterator[tuple[Any, Reply]]:
        part = os.read(worker.replies.fileno(), _CHUNK)
        if not part:
            yield from self._lost(worker, "crash", "")
            return
        worker.buffer += part
        if b"\n" not in part:
            return
        *lines, rest = bytes(worker.buffer).split(b"\n")
        worker.buffer = bytearray(rest)
        for line in lines:
            yield from self._heard(worker, json.loads(line))

    def _heard(self, worker: Worker, message: dict[str, Any]) -> Iterator[tuple[Any, Reply]]:
        if "ready" in message:
            worker.ready, worker.deadline, self._stillborn = True, None, 0
        elif "limit" in message:
            limit = message["limit"]
            worker.limit = 0.0 if limit is None else float(limit)
            worker.deadline = None if limit is None else time.monotonic() + 1.5 * worker.limit + GRACE
        else:
            token, worker.token, worker.deadline = worker.token, None, None
            yield token, message

    def _late(self, worker: Worker) -> str:
        if not worker.ready:
            return f"it was not ready within {START_LIMIT:g} s"
        if not worker.limit:
            return f"its files were not read within {START_LIMIT:g} s; the worker was killed"
        limit = 1.5 * worker.limit + GRACE
        return f"it did not keep to its time limit of {worker.limit:g} s; the worker was killed after {limit:g} s"

    def _lost(self, worker: Worker, kind: str, message: str) -> Iterator[tuple[Any, Reply]]:
        """Replaces a worker, and says what became of its task.

        Raises UsageError: workers end again and again before they are ready.
        """
        code = self._stop(worker, patience=0.0 if message else 0.5)
        self.workers.remove(worker)
        self._stillborn += not worker.ready
        if self._stillborn >= _STILLBORN:
            raise UsageError(
                f"workers end before they are ready (the last one {_ended(code)}); give them more --memory, or see"
                " what 'leaktight doctor' says"
            )
        self.workers.append(self._start())
        if worker.token is not None:
            why = message or f"the worker {_ended(code)} while it was working on it; {self.advice}"
            yield worker.token, {"error": {"kind": kind, "message": why}}

    def _start(self) -> Worker:
        here = str(Path(leaktight.__file__).resolve().parents[1])  # a worker has the same modules as its runner
        path = [place or here for place in sys.path]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(sep=os.pathsep), str(self.memory or 0), os.pathsep.join(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads},
        )
        worker = Worker(process, deadline=time.monotonic() + START_LIMIT)
        self._selector.register(worker.replies, selectors.EVENT_READ, worker)
        return worker

    def _stop(self, worker: Worker, patience: float = 0.0) -> int:
        """Ends a worker, after giving it time to end by itself; its exit code."""
        self._selector.unregister(worker.replies)
        try:
            worker.process.wait(patience)
        except subprocess.TimeoutExpired:
            worker.process.kill()
        code = worker.process.wait()
        for stream in (worker.tasks, worker.replies):
            with suppress(OSError):  # what was still to be written has nobody to read it
                stream.close()
        return code


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
