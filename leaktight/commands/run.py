"""All jobs of a suite, with a gate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaktight import arguments, options, provenance
from leaktight.answer import Answer
from leaktight.arguments import ReportFormat
from leaktight.errors import UsageError
from leaktight.progress import bar
from leaktight.rendered import rendered
from leaktight.verify.report import file

FAIL_ON = ("refuted", "unknown", "timeout", "regression")


def run(
    suite: arguments.SuiteFile,
    jobs: arguments.Jobs = None,
    cluster: arguments.Cluster = None,
    resume: arguments.Resume = False,
    ledger: arguments.LedgerUrl = "sqlite:///.leaktight/ledger.sqlite",
    tag: arguments.Tags = None,
    memory: arguments.WorkerMemory = None,
    fail_on: arguments.FailOn = None,
    baseline: arguments.Baseline = None,
    tolerance: arguments.RegressionTolerance = None,
    report: arguments.Reports = None,
) -> Answer:
    """All jobs of a suite, with a gate.

    Every answer is recorded at once; --resume goes on where a run ended, and asks anew only what changed.
    """
    from leaktight.verify.run.pipeline import Wanted, pipeline

    wanted = Wanted(
        suite=suite,
        ledger=ledger,
        resume=resume,
        workers=jobs,
        cluster=cluster,
        memory=None if memory is None else options.byte_count("--memory", memory),
        tags=tuple(tag or ()),
        fail_on=None if fail_on is None else options.words("--fail-on", fail_on, FAIL_ON),
        baseline=baseline,
        tolerance=None if tolerance is None else options.at_least_zero("--tolerance", tolerance),
        reports=_reports(report or []),
    )
    with bar("running") as progress:
        document, line, code = pipeline(wanted, progress)
    document = provenance.signed(document)
    for style, path in wanted.reports:
        file.write_whole("--report", path, rendered(document, ReportFormat(style), to_terminal=False))
    return Answer(document, line, code, _told_to_github(document))


def _reports(given: list[str]) -> tuple[tuple[str, Path], ...]:
    """``html=page.html`` and so on; refused before any work where they could not be written."""
    found = []
    for text in given:
        style, equals, path = text.partition("=")
        options.choice("--report", style, tuple(style.value for style in ReportFormat))
        if not equals or not path:
            raise UsageError(f"--report: {text!r} names no file; write it like {style}=FILE")
        file.check_writable("--report", Path(path))
        found.append((style, Path(path)))
    return tuple(found)


def _told_to_github(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Annotations, where this runs in GitHub Actions; the step's summary is written."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return ()
    from leaktight.verify.report import github

    annotations = tuple(github.commands(document))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as page:
                page.write(github.summary(document))
        except OSError as error:
            return *annotations, f"leaktight: warning: the summary of this step cannot be written ({error.strerror})"
    return annotations
