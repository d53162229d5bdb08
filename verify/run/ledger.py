"""The ledger: every finished job, recorded at once; and who is working on which, so that no two runners do the same.

A claim is a row with a lease that its runner renews while it lives. Recording a result and giving up the claim are one
transaction, so that a job is either claimed or recorded; when its runner dies, the claim is taken over.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaktight.verify.run import tables
from leaktight.verify.run.tables import CLAIMS, RESULTS, RUNS, delete, func, insert, select, update
from leaktight.version import __version__

DEFAULT = "sqlite:///.leaktight/ledger.sqlite"
LEASE = 60.0
"""Seconds after which the claim of a runner that has not renewed it may be taken over."""
_PART = 500


@dataclass(frozen=True)
class Recorded:
    """An answer as the ledger has it: a document, or an error ``{"kind", "message"}``."""

    key: str
    document: Mapping[str, Any] | None
    error: Mapping[str, str] | None
    seconds: float

    @property
    def status(self) -> str:
        """The document's status, ``error``, or ``done`` for documents that have none."""
        if self.document is None:
            return "error"
        return status_of(self.document)


def status_of(document: Mapping[str, Any]) -> str:
    """The worst answer in a document."""
    if "status" in document:
        return str(document["status"])
    found = {record["status"] for record in document.get("inputs", [])}
    return next((word for word in ("refuted", "timeout", "unknown", "proved") if word in found), "done")


class Ledger:
    """A runner's view of one. Not for use by several threads."""

    def __init__(self, url: str = DEFAULT, *, reading: bool = False) -> None:
        """reading: for `results` and `history` alone. Raises UsageError: see `tables.Opened`."""
        self.database = tables.Opened(url, reading=reading)
        self.runner = f"{_machine()}/{os.getpid()}/{_born(os.getpid())}/{secrets.token_hex(4)}"
        self.run = 0
        self.floor = 0

    def begin(self, suite: str, *, resume: bool) -> None:
        """Notes that a run of `suite` begins. With `resume`, results of earlier runs count as answers."""
        with self.database.begin() as connection:
            last = connection.execute(select(func.max(RESULTS.c.id))).scalar() or 0
            values = {
                "suite": suite,
                "runner": self.runner,
                "version": __version__,
                "began": self.database.now(connection),
            }
            self.run = int(connection.execute(insert(RUNS).values(values).returning(RUNS.c.id)).scalar_one())
            self.floor = 0 if resume else int(last)

    def results(self, keys: Sequence[str]) -> dict[str, Recorded]:
        """The newest answer that counts for each key that has one; what ended in an error before is tried again."""
        with self.database.begin() as connection:
            return self._results(connection, keys)

    def _results(self, connection: tables.Connection, keys: Sequence[str]) -> dict[str, Recorded]:
        found: dict[str, Recorded] = {}
        for some in _parts(keys):
            rows = connection.execute(
                select(RESULTS.c.key, RESULTS.c.answer, RESULTS.c.seconds)
                .where(RESULTS.c.key.in_(some), RESULTS.c.id > self.floor)
                .where((RESULTS.c.status != "error") | (RESULTS.c.run == self.run))
                .order_by(RESULTS.c.id)
            )
            for key, answer, seconds in rows:
                value = json.loads(answer)
                found[key] = Recorded(key, value.get("document"), value.get("error"), seconds)
        return found

    def claim(self, keys: Sequence[str]) -> tuple[list[str], dict[str, Recorded]]:
        """Takes those of `keys` that are free. Returns what was claimed, and answers that were there already.

        The rest is claimed by runners that live. A claim comes first and the look at the results second: whoever holds
        it sees every result of those that held it before.
        """
        with self.database.begin() as connection:
            now = self.database.now(connection)
            rows = [{"key": key, "runner": self.runner, "expires": now + LEASE} for key in keys]
            connection.execute(self.database.insert_new(CLAIMS), rows)
            held = dict(connection.execute(select(CLAIMS.c.key, CLAIMS.c.runner).where(CLAIMS.c.key.in_(keys))).all())
            for key, runner in held.items():
                if runner != self.runner and self._takes_over(connection, key, runner, now):
                    held[key] = self.runner
            mine = [key for key in keys if held.get(key) == self.runner]
            known = self._results(connection, mine)
            self._release(connection, list(known))
        return [key for key in mine if key not in known], known

    def _takes_over(self, connection: tables.Connection, key: str, runner: str, now: float) -> bool:
        """Whether the claim was another's whose lease is over or who is dead, and is ours now."""
        stale = (CLAIMS.c.key == key) & (CLAIMS.c.runner == runner)
        if not _dead(runner):
            stale &= CLAIMS.c.expires < now
        taken = update(CLAIMS).where(stale).values(runner=self.runner, expires=now + LEASE)
        return connection.execute(taken).rowcount == 1

    def renew(self) -> None:
        """Keeps this runner's claims for another lease."""
        with self.database.begin() as connection:
            expires = self.database.now(connection) + LEASE
            connection.execute(update(CLAIMS).where(CLAIMS.c.runner == self.runner).values(expires=expires))

    def record(self, found: Recorded, *, name: str, network: str) -> bool:
        """Records an answer and gives up its claim, in one step.

        False: the claim had been taken over, because this runner did not renew it in time. Nothing is recorded then;
        the other runner does it.
        """
        with self.database.begin() as connection:
            mine = delete(CLAIMS).where(CLAIMS.c.key == found.key, CLAIMS.c.runner == self.runner)
            if connection.execute(mine).rowcount != 1:
                return False
            answer = {"document": found.document, "error": found.error}
            values = {
                "run": self.run,
                "key": found.key,
                "name": name,
                "network": network,
                "status": found.status,
                "seconds": found.seconds,
                "at": self.database.now(connection),
                "version": __version__,
                "answer": json.dumps(answer, allow_nan=False),
            }
            connection.execute(insert(RESULTS).values(values))
        return True

    def release(self) -> None:
        """Gives up every claim of this runner."""
        with self.database.begin() as connection:
            connection.execute(delete(CLAIMS).where(CLAIMS.c.runner == self.runner))

    def _release(self, connection: tables.Connection, keys: Iterable[str]) -> None:
        some = list(keys)
        if some:
            connection.execute(delete(CLAIMS).where(CLAIMS.c.key.in_(some), CLAIMS.c.runner == self.runner))

    def history(self, name: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """What was recorded, the newest first: of all jobs, or of the one called `name`."""
        columns = [RESULTS.c[key] for key in ("run", "name", "status", "seconds", "at", "version", "network", "answer")]
        asked = select(*columns).order_by(RESULTS.c.id.desc()).limit(limit)
        with self.database.begin() as connection:
            rows = connection.execute(asked if name is None else asked.where(RESULTS.c.name == name)).mappings().all()
        return [{**{key: row[key] for key in row if key != "answer"}, **json.loads(row["answer"])} for row in rows]

    def jobs(self) -> list[str]:
        """The names of all jobs of which an answer was recorded."""
        with self.database.begin() as connection:
            return sorted(connection.execute(select(RESULTS.c.name).distinct()).scalars())

    def close(self) -> None:
        """Gives up the claims and closes the database."""
        try:
            if self.run:
                self.release()
        finally:
            self.database.close()


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _PART):
        yield keys[start : start + _PART]


def _machine() -> str:
    """The host, and on Linux its boot and the name space of its process numbers: where a number means one process."""
    if sys.platform != "linux":
        return f"{platform.node()}:?"
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{platform.node()}:{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()}:?"


def _born(process: int) -> str:
    """When a process began, by the kernel's own count; empty where there is none, or it is over."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _dead(runner: str) -> bool:
    """Whether the runner is certainly over: it ran on this machine, and its process is not there any more."""
    try:
        machine, process, born, _ = runner.rsplit("/", 3)
        number = int(process)
    except ValueError:
        return False
    return machine == _machine() and not machine.endswith(":?") and bool(born) and _born(number) != born
