"""What a ledger holds."""

from __future__ import annotations

from leaktight import arguments
from leaktight.answer import Answer


def history(
    ledger: arguments.LedgerUrl = "sqlite:///.leaktight/ledger.sqlite",
    job: arguments.HistoryJob = None,
    limit: arguments.HistoryLimit = 100,
) -> Answer:
    """What the ledger holds, the newest first."""
    from leaktight.verify.report.words import counted
    from leaktight.verify.run.pipeline import history as look

    found = look(ledger, job, limit)
    return Answer(found, f"{counted(len(found['records']), 'answer')} in {found['ledger']}")
