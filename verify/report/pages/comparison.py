"""The page of a comparison: what changed from one result to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaktight.verify.report.outline import (
    Block,
    Cell,
    Code,
    Page,
    Prose,
    Section,
    Table,
    Tile,
    Tone,
    Verdict,
    shown,
    up,
)
from leaktight.verify.report.pages.parts import measured
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import command_line


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.comparison/1."""
    turned = [pair for pair in document["verdicts"] if pair["before"] != pair["after"]]
    count, entries = sum(pair["count"] for pair in turned), document["entries"]
    wrong = document["contradictions"]
    before, after = document["before"]["name"], document["after"]["name"]
    return Page(
        f"Comparison of two results ({document['kind']})",
        "The results contradict each other" if wrong else _headline(document, count),
        Tone.REFUTED if wrong else Tone.NEUTRAL,
        f"From {before} to {after}.",
        [
            Tile("verdicts that changed", count),
            Tile("entries that changed", len(entries), "in a verdict or a number"),
            Tile("contradictions", len(wrong), "proved by one, denied by the other"),
            Tile("only in one result", len(document["only_before"]) + len(document["only_after"])),
        ],
        [
            *_contradictions(document),
            *_settings(document),
            Section("Verdicts", [_verdicts(document)] if document["verdicts"] else [Prose("These have no verdicts.")]),
            Section("Numbers of the whole", [_quantities(document)]),
            *_moved_most(document),
            *_entries(document),
            *_lonely(document),
            _origin(document),
        ],
    )


def _headline(document: Document, count: int) -> str:
    """How many verdicts changed; of results without any, how the proven constant moved or how much else changed."""
    if document["verdicts"]:
        return f"{count} verdict{'s' if count != 1 else ''} changed" if count else "No verdict changed"
    for moved in document["quantities"]:
        if moved["name"] == "constant, upper":
            was, now = ("nothing" if end is None else shown(up(end)) for end in (moved["before"], moved["after"]))
            same = moved["before"] == moved["after"]
            return f"The proven constant is {now}{' in both' if same else f', and was {was}'}"
    count = len(document["entries"])
    return f"{count} entr{'ies' if count != 1 else 'y'} changed" if count else "No number changed"


def _contradictions(document: Document) -> list[Section]:
    if not document["contradictions"]:
        return []
    says = (
        "Both answer the same question, as far as the files say; then one of the two is wrong. Please report it, unless"
        " the commands below ask different things."
    )
    rows = [(text,) for text in document["contradictions"]]
    return [Section("Contradictions", [Prose(says), Table("Claims that exclude each other", ("claim",), rows)])]


def _settings(document: Document) -> list[Section]:
    if not document["settings"]:
        return [Section("Settings", [Prose("Both asked the same, in the same way, as far as the files say.")])]
    rows = [
        (item["name"], *(None if item[side] is None else Code(item[side]) for side in ("before", "after")))
        for item in document["settings"]
    ]
    return [Section("Settings", [Table("What differs in question and method", ("what", "before", "after"), rows)])]


def _verdicts(document: Document) -> Table:
    rows = [(Verdict(pair["before"]), Verdict(pair["after"]), pair["count"]) for pair in document["verdicts"]]
    return Table("How many went from which verdict to which", ("before", "after", "count"), rows)


def _quantities(document: Document) -> Table:
    rows = [
        (
            item["name"],
            *(None if item[side] is None else measured(item["name"], item[side]) for side in ("before", "after")),
            item["change"],
        )
        for item in document["quantities"]
    ]
    return Table("Numbers of the whole", ("number", "before", "after", "change"), rows)


def _moved_most(document: Document) -> list[Section]:
    rows: list[tuple[Cell, ...]] = []
    for item in document["moved_most"]:
        rows.append((item["name"], *_farthest(item["rise"]), *_farthest(item["fall"])))
    if not rows:
        return []
    columns = ("number", "rose most", "by", "fell most", "by")
    return [Section("What moved most", [Table("The largest change of each number", columns, rows)])]


def _farthest(found: Mapping[str, Any] | None) -> tuple[Cell, Cell]:
    return (None, None) if found is None else (Code(found["entry"]), found["change"])


def _entries(document: Document) -> list[Section]:
    entries = document["entries"]
    if not entries:
        return []
    names = list(dict.fromkeys(move["name"] for entry in entries for move in entry["moves"]))
    statuses = any(entry["status"] is not None for entry in entries)
    columns = ["entry", *(["before", "after"] if statuses else [])]
    columns += [part for name in names for part in (name, "change")]
    rows = []
    for entry in entries:
        moves = {move["name"]: move for move in entry["moves"]}
        row: list[Cell] = [entry["name"]]
        if statuses:
            row += map(Verdict, entry["status"]) if entry["status"] is not None else (None, None)
        for name in names:
            move = moves.get(name)
            row += (None, None) if move is None else (_value(name, move["after"]), move["change"])
        rows.append(row)
    blocks: list[Block] = [
        Prose("Each number is the one after, with its change beside it; a dash means that it did not change."),
        Table(f"{len(rows)} entries of which something changed", columns, rows, searchable=True),
    ]
    return [Section("Entries that changed", blocks)]


def _value(name: str, value: float | None) -> Cell:
    return "none" if value is None else measured(name, value)


def _lonely(document: Document) -> list[Section]:
    rows = [(name, "before") for name in document["only_before"]] + [(name, "after") for name in document["only_after"]]
    if not rows:
        return []
    return [Section("Entries of one result only", [Table("Entries without a partner", ("entry", "only"), rows)])]


def _origin(document: Document) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for side in ("before", "after"):
        found = document[side]
        command, digest = found.get("command"), found["network"].get("sha256")
        rows.append(
            (
                side,
                Code(found["name"]),
                None if digest is None else Code(digest),
                None if command is None else Code(command_line(command)),
                found["version"],
            )
        )
    return Section(
        "Where it comes from",
        [Table("The two results", ("result", "file", "network, SHA-256", "command", "leaktight"), rows)],
    )
