"""Workers on the machines of a cluster: who has which task, and what becomes of those that are lost.

Each worker has the resources that its task asks for. What a job does to its worker costs that job; a machine that is
lost costs nothing: its tasks are given to another one.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.run import remote
from leaktight.verify.run.address import LOCAL
from leaktight.verify.run.job import digest_of
from leaktight.verify.run.slot import Slot, Waiting
from leaktight.version import __version__

Reply = Mapping[str, Any]
LOSSES = 3
"""How often a task is given to another machine when the one that had it is lost."""
ROOM = 120.0
"""Seconds within which the cluster must have room for a worker, and its machine must show a sign of life."""


class Cluster:
    """Up to `size` workers on a cluster. As `pool.Pool`, with the same replies.

    address: ``local`` for one of this machine alone, ``ray://host:port``, ``host:port`` or ``auto``. most: workers that
    there may be at all; None: one for each of the cluster's cores.
    """

    def __init__(self, address: str, most: int | None, size: int, memory: int | None) -> None:
        """Raises UsageError: the cluster cannot be reached."""
        self.memory, self.reserving = memory, memory is not None and address != LOCAL
        self.own = remote.join(address, most or size)
        self.most = most or max(1, remote.cores())
        self.actors = remote.Workers()
        self.workers: list[Slot] = []
        self.again: deque[Waiting] = deque()
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
        remote.end([slot.actor for slot in self.workers], [slot.actor for slot in self.workers if slot.idle])
        if self.own:
            remote.leave()
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
            remote.kill(slot.actor)
        memory = int(slot.resources.get("memory", 0)) or self.memory
        slot.actor = self.actors.start(slot.resources, memory, reserved=self.reserving or "memory" in slot.resources)
        slot.ready = False
        self._call(slot, slot.actor.ready.remote())

    def _call(self, slot: Slot, call: Any) -> None:
        slot.call, slot.since = call, time.monotonic()

    def _send(self, slot: Slot, copies: Mapping[str, Any] | None = None) -> None:
        """Gives the slot's worker its task; files go along that are not on its machine."""
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
                    self.copies[path] = remote.stored(path)
        except OSError as error:
            self._end(slot, _unreadable(error))
            return
        self._send(slot, {path: self.copies[path] for path in paths})

    def _end(self, slot: Slot, reply: Reply) -> None:
        """The slot's task has ended."""
        self.done.append((slot.token, reply))
        slot.token, slot.task, slot.call = None, {}, None

    def cancel(self, token: Any) -> None:
        """Ends the work on a task, with the worker that does it."""
        self.again = deque(one for one in self.again if one.token != token)
        for slot in self.workers:
            if slot.token == token:
                slot.token, slot.task = None, {}
                self._open(slot)

    def wait(self, seconds: float) -> Iterator[tuple[Any, Reply]]:
        """Tokens and replies of the tasks that ended, within about `seconds`.

        Raises UsageError: the cluster is gone, has no room for any worker, or its machines have no leaktight that fits.
        """
        calls = {slot.call: slot for slot in self.workers if slot.call is not None}
        try:
            for call in remote.ended(list(calls), 0.0 if self.done else seconds):
                if calls[call].call == call:  # and not of a worker that was replaced meanwhile
                    self._hear(calls[call])
            self._look()
            for slot in [slot for slot in self.workers if slot.idle][: len(self.again)]:
                self.give(slot, *self.again.popleft())
        except remote.AWAY as error:
            raise UsageError(f"--cluster: it is gone ({remote.line(error)}); run again with --resume") from None
        done, self.done = self.done, []
        yield from done

    def _hear(self, slot: Slot) -> None:
        try:
            answer = remote.answer(slot.call)
        except remote.LOST as error:
            self._lose(slot, remote.line(error))
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
        if slot.task:
            self._send(slot)

    def _lose(self, slot: Slot, why: str) -> None:
        """A machine, or the cluster's process on it, is lost: its task goes to another one.

        Raises UsageError: workers are lost again and again before they are ready.
        """
        self.stillborn += not slot.ready
        if self.stillborn > LOSSES * len(self.workers):
            raise UsageError(f"--cluster: its workers end before they are ready ({why}); see what 'ray status' says")
        token, task, losses = slot.token, slot.task, slot.losses + 1
        slot.token, slot.task = None, {}
        self._open(slot)
        if not task:
            return
        if losses <= LOSSES:
            self.again.append(Waiting(token, task, losses))
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
            elif not slot.ready and slot.task and now - slot.since > ROOM:
                says = f"the cluster has no room for it within {ROOM:g} s: it asks for {_asked(slot.resources)}"
                self._end(slot, {"error": {"kind": "bad input", "message": says}})
                slot.resources = {}
                self._open(slot)
        if all(not slot.ready and not slot.task and now - slot.since > ROOM for slot in self.workers):
            raise UsageError(f"--cluster: it has no room for a worker within {ROOM:g} s; see what 'ray status' says")


def _unreadable(error: OSError) -> Reply:
    return {"error": {"kind": "bad input", "message": f"{error.filename}: it cannot be read ({error.strerror})"}}


def _asked(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {amount:g}" for name, amount in resources.items())
