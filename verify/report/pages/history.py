"""The page of a ledger's history: what was answered when."""

from __future__ import annotations

from datetime import datetime, timezone

from leaktight.verify.report.outline import Code, Down, Page, Section, Share, Table, Tile, Tone, Verdict
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted

_PROVEN = ("margin, proven", "smallest margin, proven")


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.history/1."""
    records = document["records"]
    rows = [
        (
            _when(one["at"]),
            one["run"],
            Code(one["name"]),
            Verdict(one["status"]),
            next((Down(one["numbers"][key]) for key in _PROVEN if one["numbers"].get(key) is not None), None),
            None if one["numbers"].get("certified accuracy") is None else Share(one["numbers"]["certified accuracy"]),
            Code(one["network"][:12]),
            one["version"],
            one["seconds"],
        )
        for one in records
    ]
    columns = ("when", "run", "job", "status", "margin", "certified", "network", "leaktight", "seconds")
    names = {one["name"] for one in records}
    return Page(
        "History",
        counted(len(records), "answer") if records else "The ledger holds no answer",
        Tone.NEUTRAL,
        f"From {document['ledger']}, the newest first.",
        [Tile("answers", len(records)), Tile("jobs", len(names)), Tile("runs", len({one["run"] for one in records}))],
        [Section("Answers", [Table(counted(len(rows), "answer"), columns, rows, searchable=True)])] if rows else [],
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
