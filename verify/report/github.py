"""What GitHub Actions reads: workflow commands that become annotations, and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from leaktight.verify.report import markdown, testcases
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import clean

SUMMARY_SIZE = 1 << 20
"""What a step's summary may hold, in bytes."""
_SHOWN = 10  # annotations of one level that GitHub shows for a step


def commands(document: Document) -> Iterator[str]:
    """Workflow commands, one a line: errors for what fails the gate, and notices for what is open."""
    shown = {"error": 0, "notice": 0}
    for case in testcases.cases(document):
        for finding in case.findings:
            level = "error" if finding.fails else "notice"
            shown[level] += 1
            if shown[level] <= _SHOWN:
                yield _command(level, case, finding)


def _command(level: str, case: testcases.Case, finding: testcases.Finding) -> str:
    places = [] if case.path is None or case.path.startswith("/") else [f"file={_property(case.path)}"]
    places += [f"line={case.line}"] if places and case.line is not None else []
    title = f"title={_property(f'{testcases.RULES[finding.rule][0]} {case.name}')}"
    return f"::{level} {','.join([*places, title])}::{_data(finding.message)}"


def _data(text: str) -> str:
    return clean(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(document: Document) -> str:
    """The document in Markdown, cut at the end of a line where it is too long for GitHub."""
    text = markdown.render(document)
    if len(text.encode()) < SUMMARY_SIZE:
        return text
    kept = text.encode()[: SUMMARY_SIZE - 200].decode("utf-8", "ignore").rpartition("\n")[0]
    return f"{kept}\n\nThe rest is in the reports of the run.\n"
