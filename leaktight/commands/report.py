"""Results as pages that people read."""

from __future__ import annotations

from leaktight import arguments
from leaktight.answer import Answer


def report(results: arguments.ResultFiles, compare: arguments.Compare = False) -> Answer:
    """Results as pages that people read.

    One page, with a section for each result; with --compare, what changed from the first to the second.
    """
    from leaktight.verify.report.render import from_files

    return Answer(*from_files(results, compare=compare))
