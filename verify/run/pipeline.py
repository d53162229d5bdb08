"""A run from its suite to its document: the one function behind ``leaktight run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.report import schemas
from leaktight.verify.report.compare import numbers_of
from leaktight.verify.report.words import counted
from leaktight.verify.run import address, baseline, document, machine
from leaktight.verify.run.instances import read_suite
from leaktight.verify.run.job import chosen
from leaktight.verify.run.ledger import DEFAULT, Ledger
from leaktight.verify.run.runner import run
from leaktight.version import __version__

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """What a run is asked for. workers and memory (of each, in bytes): None for what the machine offers. cluster: the
    address of one, where the workers are not to be processes of this machine."""

    suite: Path
    ledger: str = DEFAULT
    resume: bool = False
    workers: int | None = None
    memory: int | None = None
    tags: tuple[str, ...] = ()
    fail_on: tuple[str, ...] | None = None
    baseline: Path | None = None
    tolerance: float | None = None
    cluster: str | None = None
    reports: tuple[tuple[str, Path], ...] = ()


def pipeline(wanted: Wanted, progress: Progress | None = None) -> tuple[dict[str, Any], str, int]:
    """The document of a run, a line about it, and the exit code.

    Raises UsageError: the suite, the baseline or the ledger cannot be used; all of them are looked at before any work.
    """
    suite = read_suite(wanted.suite)
    jobs = chosen(suite.jobs, wanted.tags)
    old = None if wanted.baseline is None else baseline.read_baseline(wanted.baseline)
    most = sum(job.parts for job in jobs)
    workers = min(wanted.workers or machine.cores(), most)
    memory: int | None = wanted.memory or machine.memory_of_each(workers)
    hire = None
    if wanted.cluster is not None:
        from leaktight.verify.run import cluster

        address.check(wanted.cluster)
        limit = wanted.workers
        if wanted.cluster == address.LOCAL:
            limit = workers
        else:
            workers, memory = limit or most, wanted.memory
        hire = partial(cluster.Cluster, wanted.cluster, limit)
    ledger = Ledger(wanted.ledger)
    try:
        ledger.begin(suite.path, resume=wanted.resume)
        found = run(jobs, ledger, workers=workers, memory=memory, progress=progress, hire=hire)
    finally:
        ledger.close()
    compared = None
    if old is not None and wanted.baseline is not None:
        tolerance = suite.tolerance if wanted.tolerance is None else wanted.tolerance
        compared = baseline.compare(old, wanted.baseline, found.finished, tolerance)
    whole = document.document(
        suite, found, fail_on=wanted.fail_on, compared=compared, command_ledger=ledger.database.shown
    )
    return whole, document.summary(whole), document.exit_code(whole)


def history(url: str, job: str | None, limit: int) -> dict[str, Any]:
    """What a ledger holds, the newest first (schema leaktight.history/1). Nothing is written.

    Raises UsageError: there is none, or it cannot be read; or it has answers, and none of the job.
    """
    ledger = Ledger(url, reading=True)
    try:
        records = ledger.history(job, limit)
        if job is not None and not records and (names := ledger.jobs()):
            near = get_close_matches(job, names, 1) or names[:1]
            raise UsageError(
                f"--job: the ledger has no answer of {job!r}; it has {counted(len(names), 'job')}, such as {near[0]!r}"
            )
    finally:
        ledger.close()
    return {
        "schema": schemas.HISTORY,
        "records": [_record(one) for one in records],
        "ledger": ledger.database.shown,
        "version": __version__,
    }


def _record(one: dict[str, Any]) -> dict[str, Any]:
    found = one.pop("document")
    return {**one, "numbers": {} if found is None else _numbers(found)}


def _numbers(found: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of an answer as a whole; of a single property, also the property's own."""
    whole, entries = numbers_of(found)
    own = entries.get("the property")
    return {**whole, **(own[1] if own is not None else {})}
