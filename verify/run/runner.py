"""From jobs to answers: what the ledger knows is taken from it, everything else is worked on and recorded at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaktight.verify.run.asked import Asked, identified, network_name, networks
from leaktight.verify.run.crew import Crew, Hire
from leaktight.verify.run.job import Job
from leaktight.verify.run.ledger import LEASE, Ledger, Recorded
from leaktight.verify.run.pool import Pool, Reply
from leaktight.verify.run.whole import Token, Whole

Progress = Callable[[int, int], None]
_AT_ONCE = 4  # jobs of each worker that are claimed together
_ASIDE = 0.5  # seconds between looks at jobs that other runners have claimed


@dataclass(frozen=True)
class Finished:
    """A job with its answer. cached: it is from the ledger. identity: the digest of the network, where it was read."""

    job: Job
    answer: Recorded
    cached: bool
    identity: str | None


@dataclass(frozen=True)
class Run:
    """The answers of a run, in the order of its jobs. interrupted: some are missing."""

    finished: tuple[Finished, ...]
    interrupted: bool
    seconds: float


def run(
    jobs: Sequence[Job],
    ledger: Ledger,
    *,
    workers: int,
    memory: int | None,
    progress: Progress | None = None,
    hire: Hire | None = None,
) -> Run:
    """Answers every job, `workers` at a time; each worker may use `memory` bytes. hire: who they are, if not processes
    of this machine.

    A job whose network or files cannot be used, or whose worker crashes, hangs or is killed, has an error for an
    answer, and the others go on. Every answer is in the ledger before the next is waited for.

    Raises UsageError: the ledger fails; what it has is not lost.
    """
    began = time.monotonic()
    runner = _Runner(jobs, ledger, progress or (lambda _done, _all: None))
    interrupted = False
    try:
        with (hire or Pool)(max(1, min(workers, len(networks(jobs)))), memory) as pool:
            runner.asked = identified(jobs, pool)
            runner.recall()
            pool.grow(min(workers, sum(runner.asked.tasks[key][0].parts for key in runner.pending)))
            runner.work(pool)
    except KeyboardInterrupt:  # what is recorded stands
        interrupted = True
    return Run(tuple(runner.finished()), interrupted, time.monotonic() - began)


class _Runner:
    def __init__(self, jobs: Sequence[Job], ledger: Ledger, progress: Progress) -> None:
        self.jobs, self.ledger, self.progress = jobs, ledger, progress
        self.asked = Asked()
        self.answers: dict[str, Recorded] = {}
        self.own: set[str] = set()
        self.wholes: dict[str, Whole] = {}  # by key: jobs that are being answered in parts
        self.ready: deque[str] = deque()
        self.pending: deque[str] = deque()
        self.aside: list[str] = []
        self.look = 0.0
        self.begun: dict[str, float] = {}
        self.renewed = time.monotonic()

    def recall(self) -> None:
        """Takes what the ledger knows."""
        self.answers = self.ledger.results(list(self.asked.tasks))
        self.pending.extend(key for key in self.asked.tasks if key not in self.answers)
        self._told()

    def work(self, pool: Crew) -> None:
        """Answers what is pending."""
        while len(self.answers) < len(self.asked.tasks):
            self._claim(len(pool.workers))
            self._give(pool)
            replies = list(pool.wait(self._patience(pool)))
            self._give(pool)  # a worker has its next task before the last answer is written
            for token, reply in replies:
                self._hear(token, reply, pool)
            self._end(pool)
            self._renew()

    def _patience(self, pool: Crew) -> float:
        """How long to wait for workers: not at all where none of them has anything to do."""
        if self.aside:
            return _ASIDE
        return LEASE / 6 if self.ready or pool.busy else 0.0

    def _claim(self, workers: int) -> None:
        """Claims what to work on next, past all that others have answered or are working on."""
        if self.aside and time.monotonic() >= self.look:
            self.pending.extend(self.aside)
            self.aside = []
        while self.pending and len(self.ready) <= workers:
            some = [self.pending.popleft() for _ in range(min(_AT_ONCE * workers, len(self.pending)))]
            mine, known = self.ledger.claim(some)
            self.ready.extend(mine)
            others = [key for key in some if key not in known and key not in mine]
            if others:
                self.aside += others
                self.look = time.monotonic() + _ASIDE
            if known:  # somebody else is at it: what is answered need not be claimed to be seen
                known |= self.ledger.results(list(self.pending))
                self.pending = deque(key for key in self.pending if key not in known)
                self.answers |= known
                self._told()

    def _give(self, pool: Crew) -> None:
        for worker in pool.idle:
            asked = self._next()
            if asked is not None:
                pool.give(worker, *asked)

    def _next(self) -> tuple[Token, Mapping[str, Any]] | None:
        """What to work on next: a part of a job that has begun, before another job."""
        parts = (whole.next() for whole in self.wholes.values())
        found = next((part for part in parts if part is not None), None)
        if found is not None or not self.ready:
            return found
        key = self.ready.popleft()
        task, self.begun[key] = self.asked.tasks[key][1], time.monotonic()
        if "split" not in task["question"]:
            return Token(key), task
        self.wholes[key] = Whole(key, task, self.begun[key])
        return Token(key), self.wholes[key].first

    def _hear(self, token: Token, reply: Reply, pool: Crew) -> None:
        whole = self.wholes.get(token.key)
        if whole is None:
            if token.part is None:
                self._record(token.key, reply)
            return
        fault = _fault(reply, *self.asked.tasks[token.key][::2])
        whole.take(token.part, reply if fault is None else {"error": fault})
        self._end(pool)

    def _end(self, pool: Crew) -> None:
        """Records the jobs in parts whose answers are known; workers give up what else they do for them."""
        for whole in list(self.wholes.values()):
            whole.expire()
            if whole.reply is not None:
                del self.wholes[whole.key]
                for running in whole.tokens:
                    pool.cancel(running)
                self._record(whole.key, whole.reply)

    def _record(self, key: str, reply: Reply) -> None:
        job, _, identity = self.asked.tasks[key]
        found = Recorded(key, reply.get("document"), _fault(reply, job, identity), time.monotonic() - self.begun[key])
        if found.error is not None:
            found = Recorded(key, None, found.error, found.seconds)
        if self.ledger.record(found, name=job.name, network=identity):
            self.answers[key] = found
            self.own.add(key)
            self._told()
        else:
            self.pending.append(key)

    def _renew(self) -> None:
        if time.monotonic() - self.renewed > LEASE / 4:
            self.ledger.renew()
            self.renewed = time.monotonic()

    def _told(self) -> None:
        self.progress(len(self.answers), len(self.asked.tasks))

    def finished(self) -> Iterator[Finished]:
        """All jobs that have an answer."""
        for job in self.jobs:
            key = self.asked.keys.get(job.name, "")
            answer = self.asked.unusable.get(job.name) or self.answers.get(key)
            if answer is not None:
                cached = key not in self.own and job.name not in self.asked.unusable
                yield Finished(job, answer, cached, self.asked.identities.get(network_name(job)))


def _fault(reply: Reply, job: Job, identity: str) -> Mapping[str, str] | None:
    """What is wrong with a worker's reply."""
    if "error" in reply:
        error: Mapping[str, str] = reply["error"]
        return error
    if reply["identity"] != identity:
        return {
            "kind": "bad input",
            "message": f"{job.network['path']}: it changed while the run was going on; run again",
        }
    return None
