"""Documents as outlines: one file per kind of document."""

from __future__ import annotations

from collections.abc import Callable

from leaktight.verify.report import schemas
from leaktight.verify.report.outline import Page
from leaktight.verify.report.pages import bounds, certification, comparison, history, leak, lipschitz, run, verdict
from leaktight.verify.report.schemas import Document

PAGES: dict[str, Callable[[Document], Page]] = {
    schemas.VERDICT: verdict.page,
    schemas.CERTIFICATION: certification.page,
    schemas.BOUNDS: bounds.page,
    schemas.LEAK: leak.page,
    schemas.LIPSCHITZ: lipschitz.page,
    schemas.COMPARISON: comparison.page,
    schemas.RUN: run.page,
    schemas.HISTORY: history.page,
}


def pages(document: Document) -> list[Page]:
    """The outlines of a document: one, or one for each result of several."""
    if document["schema"] == schemas.BUNDLE:
        return [page for result in document["results"] for page in pages(result)]
    return [PAGES[document["schema"]](document)]
