"""Workers on the machines of a Ray cluster; the one file that knows Ray.

Each worker is a `Station` in an actor, with the resources that its task asks for. What a job does to its worker costs
that job; a machine that is lost costs nothing: its tasks are given to another one. The actor's class travels by value,
so that a machine without leaktight says so.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import leaktight
from leaktight.errors import UsageError
from leaktight.verify.run.address import HOW, LOCAL, check
from leaktight.verify.run.job import digest_of
from leaktight.version import __version__

try:
    import ray
    from ray import exceptions as faults
except ModuleNotFoundError:
    raise UsageError("--cluster: Ray is not installed; pip install 'leaktight[cluster]'") from None

Reply = Mapping[str, Any]
LOSSES = 3
"""How often a task is given to another machine when the one that had it is lost."""
ROOM = 120.0
"""Seconds within which the cluster must have room for a worker, and its machine must show a sign of life."""
_PAUSE = 0.1
_TOKEN = "see that Ray's client server runs there; where it asks for a token, set RAY_AUTH_MODE=token"
_FORKING = "Starting Ray client server failed"  # the process of a client there dies now and then as it is started
_ATTEMPTS = 3
_STORE = 100 << 20  # bytes of shared memory of a cluster of this machine alone
_LOST = (faults.RayActorError, faults.NodeDiedError, faults.WorkerCrashedError, faults.ObjectLostError)
_AWAY = (ConnectionError, faults.RaySystemError)


@dataclass(eq=False)
class Slot:
    """A worker of the cluster: its actor, what it waits for, and the task that it has or is to have."""

    resources: Mapping[str, float]
    actor: Any = None
    call: Any = None  # None: nothing is waited for
    since: float = 0.0
    ready: bool = False
    token: Any = None
    task: Mapping[str, Any] | None = None
    losses: int = 0
    shipped: bool = False

    @property
    def idle(self) -> bool:
        return self.ready and self.token is None


class _Waiting(NamedTuple):
    """A task whose machine was lost."""

    token: Any
    task: Mapping[str, Any]
    losses: int


class Cluster:
    """Up to `size` workers on a cluster. As `pool.Pool`, with the same replies.

    address: ``local`` for one of this machine alone, ``ray://host:port``, ``host:port`` or ``auto``. most: workers that
    there may be at all; None: one for each of the cluster's cores.
    """

    def __init__(self, address: str, most: int | None, size: int, memory: int | None) -> None:
        """Raises UsageError: the cluster cannot be reached."""
        self.memory, self.reserving = memory, memory is not None and address != LOCAL
        self.own = not ray.is_initialized()
        if self.own:
            _connect(address, most or size)
        self.most = most or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.actor: Any = ray.remote(_actor())
        self.workers: list[Slot] = []
        self.again: deque[_Waiting] = deque()
        self.digests: dict[str, str] = {}
        self.copies: dict[str, Any] = {}
        self.done: list[tuple[Any, Reply]] = []
        self.stillborn = 0
        self.grow(size)

    def __enter__(self) -> Cluster:
        self.aside = redirect_stdout(sys.stderr)  # where Ray's own messages about its machines go
        self.aside.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(*_LOST, *_AWAY, faults.GetTimeoutError):
            ray.get([slot.actor.close.remote() for slot in self.workers if slot.idle], timeout=5)
        with suppress(*_LOST, *_AWAY):
            for slot in self.workers:
                ray.kill(slot.actor)
        if self.own:
            ray.shutdown()
        self.aside.__exit__(None, None, None)

    def grow(self, size: int) -> None:
        """Asks for workers until there are `size`, or as many as there may be."""
        while len(self.workers) < min(size, self.most):
            slot = Slot({})
            self.workers.append(slot)
            self._open(slot)

    @property
    def idle(self) -> list[Slot]:
        return [] if self.again else [slot for slot in self.workers if slot.idle]

    @property
    def busy(self) -> bool:
        return bool(self.again or self.done) or any(slot.token is not None for slot in self.workers)

    def give(self, slot: Slot, token: Any, task: Mapping[str, Any], losses: int = 0) -> None:
        """Hands a task to an idle worker, which is replaced by one with the resources that the task asks for."""
        slot.token, slot.task, slot.losses, slot.shipped = token, task, losses, False
        wanted = task.get("resources") or {}
        if dict(slot.resources) == dict(wanted):
            self._send(slot)
        else:
            slot.resources = wanted
            self._open(slot)

    def _open(self, slot: Slot) -> None:
        """Asks for a new worker in the place of the slot's."""
        if slot.actor is not None:
            ray.kill(slot.actor)
        wanted = dict(slot.resources)
        memory = int(wanted.pop("memory", 0)) or self.memory
        asked: dict[str, Any] = {"num_cpus": wanted.pop("cpu", 1), "num_gpus": wanted.pop("gpu", 0)}
        if memory is not None and (self.reserving or "memory" in slot.resources):
            asked["memory"] = memory
        asked |= {"resources": wanted, "max_restarts": 0, "max_task_retries": 0}
        slot.actor = self.actor.options(**asked).remote(_modules(), memory)
        slot.ready = False
        self._call(slot, slot.actor.ready.remote())

    def _call(self, slot: Slot, call: Any) -> None:
        slot.call, slot.since = call, time.monotonic()

    def _send(self, slot: Slot, copies: Mapping[str, Any] | None = None) -> None:
        """Gives the slot's worker its task; files go along that are not on its machine."""
        assert slot.task is not None
        paths = [slot.task["network"]["path"], *slot.task.get("files", {}).values()]
        try:
            task = {**slot.task, "shipped": {path: self._digest(path) for path in paths}}
        except OSError as error:
            self._end(slot, _unreadable(error))
            return
        self._call(slot, slot.actor.begin.remote(task, dict(copies or {})))

    def _digest(self, path: str) -> str:
        if path not in self.digests:
            self.digests[path] = digest_of(path)
        return self.digests[path]

    def _ship(self, slot: Slot, paths: list[str]) -> None:
        """Sends the task once more, with copies of the files that its machine does not have."""
        if slot.shipped:
            says = f"{paths[0]}: it changed while the run was going on; run again"
            self._end(slot, {"error": {"kind": "bad input", "message": says}})
            return
        slot.shipped = True
        try:
            for path in paths:
                if path not in self.copies:
                    self.copies[path] = ray.put(Path(path).read_bytes())
        except OSError as error:
            self._end(slot, _unreadable(error))
            return
        self._send(slot, {path: self.copies[path] for path in paths})

    def _end(self, slot: Slot, reply: Reply) -> None:
        """The slot's task has ended."""
        self.done.append((slot.token, reply))
        slot.token = slot.task = slot.call = None

    def cancel(self, token: Any) -> None:
        """Ends the work on a task, with the worker that does it."""
        self.again = deque(one for one in self.again if one.token != token)
        for slot in self.workers:
            if slot.token == token:
                slot.token = slot.task = None
                self._open(slot)

    def wait(self, seconds: float) -> Iterator[tuple[Any, Reply]]:
        """Tokens and replies of the tasks that ended, within about `seconds`.

        Raises UsageError: the cluster is gone, has no room for any worker, or its machines have no leaktight that fits.
        """
        calls = {slot.call: slot for slot in self.workers if slot.call is not None}
        try:
            for call in _ended(list(calls), 0.0 if self.done else seconds):
                if calls[call].call == call:  # and not of a worker that was replaced meanwhile
                    self._hear(calls[call])
            self._look()
            for slot in [slot for slot in self.workers if slot.idle][: len(self.again)]:
                self.give(slot, *self.again.popleft())
        except _AWAY as error:
            raise UsageError(f"--cluster: it is gone ({_line(error)}); run again with --resume") from None
        done, self.done = self.done, []
        yield from done

    def _hear(self, slot: Slot) -> None:
        try:
            answer = ray.get(slot.call)
        except faults.RayTaskError as error:
            raise UsageError(f"--cluster: a machine of it cannot be used: {_line(error.cause)}") from None
        except _LOST as error:
            self._lose(slot, _line(error))
            return
        if not slot.ready:
            self._begin(slot, answer)
        elif "reply" in answer:
            self._end(slot, answer["reply"])
        elif "missing" in answer:
            self._ship(slot, answer["missing"])
        else:
            self._call(slot, slot.actor.wait.remote())

    def _begin(self, slot: Slot, answer: Mapping[str, str]) -> None:
        """Raises UsageError: another version of leaktight runs there."""
        if answer["version"] != __version__:
            raise UsageError(
                f"--cluster: {answer['machine']} has leaktight {answer['version']}, and this is {__version__}; install"
                " the same one on every machine"
            )
        slot.ready, slot.call, self.stillborn = True, None, 0
        if slot.task is not None:
            self._send(slot)

    def _lose(self, slot: Slot, why: str) -> None:
        """A machine, or the cluster's process on it, is lost: its task goes to another one.

        Raises UsageError: workers are lost again and again before they are ready.
        """
        self.stillborn += not slot.ready
        if self.stillborn > LOSSES * len(self.workers):
            raise UsageError(f"--cluster: its workers end before they are ready ({why}); see what 'ray status' says")
        token, task, losses = slot.token, slot.task, slot.losses + 1
        slot.token = slot.task = None
        self._open(slot)
        if task is None:
            return
        if losses <= LOSSES:
            self.again.append(_Waiting(token, task, losses))
        else:
            says = f"the machine that worked on it was lost {losses} times ({why}); run again with --resume"
            self.done.append((token, {"error": {"kind": "crash", "message": says}}))

    def _look(self) -> None:
        """Gives up machines that show no sign of life, and tasks for which there is no room.

        Raises UsageError: no worker could be started.
        """
        now = time.monotonic()
        for slot in self.workers:
            if slot.call is not None and slot.ready and now - slot.since > ROOM:
                self._lose(slot, f"no sign of life within {ROOM:g} s")
            elif not slot.ready and slot.task is not None and now - slot.since > ROOM:
                says = f"the cluster has no room for it within {ROOM:g} s: it asks for {_asked(slot.resources)}"
                self._end(slot, {"error": {"kind": "bad input", "message": says}})
                slot.resources = {}
                self._open(slot)
        if all(not slot.ready and slot.task is None and now - slot.since > ROOM for slot in self.workers):
            raise UsageError(f"--cluster: it has no room for a worker within {ROOM:g} s; see what 'ray status' says")


def _actor() -> type:
    """The actor's class. It is made in a function so that it is sent whole, and needs nothing where it is received."""

    class Worker:
        def __init__(self, modules: list[str], memory: int | None) -> None:
            import os
            import sys

            if any(os.path.isfile(os.path.join(place, "leaktight", "version.py")) for place in modules[:1]):
                sys.path[:] = modules  # the runner's own modules are at the same place here
            self.memory = memory
            self.station: Any = None

        def ready(self) -> Any:
            from leaktight.verify.run.station import Station

            self.station = self.station or Station(self.memory)
            return self.station.ready()

        def begin(self, task: Any, copies: Any) -> Any:
            import ray

            return self.station.begin(task, {path: ray.get(copy) for path, copy in copies.items()})

        def wait(self) -> Any:
            return self.station.wait()

        def close(self) -> None:
            self.station.close()

    return Worker


def _modules() -> list[str]:
    """Where modules are looked for, that of this leaktight first."""
    here = str(Path(leaktight.__file__).resolve().parents[1])
    return [here, *(place for place in sys.path if place and place != here)]


def _connect(address: str, size: int) -> None:
    """Raises UsageError: there is no cluster at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        ray.init(address=LOCAL, num_cpus=size, object_store_memory=_STORE, include_dashboard=False, **quiet)
        return
    check(address)
    for attempt in range(_ATTEMPTS):
        try:
            ray.init(address=address, **quiet)
            return
        except (ValueError, RuntimeError, *_AWAY) as error:
            if attempt + 1 < _ATTEMPTS and _FORKING in str(error):
                ray.shutdown()
                continue
            hint = _TOKEN if address.startswith("ray://") else HOW
            raise UsageError(f"--cluster: {address}: {_line(error)}; {hint}") from None


def _ended(calls: list[Any], seconds: float) -> list[Any]:
    """Those of the calls that are over, as soon as one is."""
    if not calls:
        time.sleep(min(seconds, _PAUSE))
        return []
    found, _ = ray.wait(calls, num_returns=1, timeout=seconds)
    if found:
        found, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
    return list(found)


def _unreadable(error: OSError) -> Reply:
    return {"error": {"kind": "bad input", "message": f"{error.filename}: it cannot be read ({error.strerror})"}}


def _asked(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {amount:g}" for name, amount in resources.items())


def _line(error: object) -> str:
    """What an error says, in a line: the first, and where that only announces a traceback, the end of it too."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
