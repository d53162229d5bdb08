"""The page of a run: did its gate pass, and what became of each job?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from leaktight.verify.report.outline import (
    Block,
    Cell,
    Code,
    Down,
    Facts,
    Page,
    Prose,
    Section,
    Share,
    Table,
    Tile,
    Tone,
    Verdict,
    down,
    up,
)
from leaktight.verify.report.pages import bounds, certification, leak, lipschitz, verdict
from leaktight.verify.report.pages.parts import measured
from leaktight.verify.report.schemas import BOUNDS, CERTIFICATION, LEAK, LIPSCHITZ, VERDICT, Document
from leaktight.verify.report.words import command_line, counted, meaning

_DETAILED = 12
_APART = 40  # networks that have a part of the page of their own
_STATUSES = ("proved", "refuted", "unknown", "timeout", "done", "error")
_PAGES = {
    VERDICT: verdict.page,
    CERTIFICATION: certification.page,
    BOUNDS: bounds.page,
    LEAK: leak.page,
    LIPSCHITZ: lipschitz.page,
}
_HOW = (
    "A job that requires something passes if its requirements hold; any other if its status is none of those that fail"
    " the gate. A job with an error never passes: an error says nothing about a network."
)


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.run/1."""
    jobs, counts, gate = document["jobs"], document["counts"], document["gate"]
    failed = sum(not job["passes"] for job in jobs)
    says = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing was asked"
    headline = "The run was interrupted" if document["interrupted"] else "The gate passed"
    if gate["failures"]:
        headline = f"The gate failed: {failed} of {len(jobs)} jobs do not pass"
    cached = sum(job["cached"] for job in jobs)
    return Page(
        "Run of a suite",
        headline,
        Tone.PROVED if gate["passed"] else Tone.REFUTED if gate["failures"] else Tone.OPEN,
        f"{counted(len(jobs), 'job')}: {says}.",
        [
            Tile(
                "jobs that pass",
                Share((len(jobs) - failed) / max(1, len(jobs))),
                f"{len(jobs) - failed} of {len(jobs)}",
            ),
            Tile("proved", counts.get("proved", 0)),
            Tile("refuted", counts.get("refuted", 0)),
            *(Tile(word, counts[word]) for word in ("unknown", "timeout") if counts.get(word)),
            Tile("errors", counts.get("error", 0)),
            Tile("from the ledger", cached, "answered before"),
            Tile("seconds", document["seconds"]),
        ],
        [
            *_failures(document),
            *_baseline(document),
            Section("Jobs", [Prose(_HOW), _jobs(document)]),
            *_networks(document),
            *_details(document),
            *_claims(document),
            _origin(document),
        ],
    )


def _failures(document: Document) -> list[Section]:
    failures = document["gate"]["failures"]
    if not failures:
        return []
    rows = [(Code(one["job"]), one["rule"], one["message"]) for one in failures]
    table = Table(counted(len(rows), "failure"), ("job", "rule", "what"), rows, searchable=len(rows) > 12)
    return [Section("Why the gate failed", [table])]


def _baseline(document: Document) -> list[Section]:
    found = document["baseline"]
    if found is None:
        return []
    facts: list[tuple[str, Cell]] = [("baseline", Code(found["path"])), ("tolerance", found["tolerance"])]
    blocks: list[Block] = [Facts(facts), *_trend(found.get("counts"), document["counts"])]
    worse, better = _moves(found["regressions"], "worse"), _moves(found.get("improvements", []), "better")
    blocks += worse or [Prose("Nothing got worse by more than the tolerance.")]
    blocks += better
    for name, says in (("missing", "only in the baseline"), ("added", "not in the baseline")):
        if found[name]:
            table = Table(f"{len(found[name])} jobs that are {says}", ("job",), [(Code(job),) for job in found[name]])
            blocks.append(Table(table.caption, table.columns, table.rows, folded=True))
    return [Section("Trend against the baseline", blocks)]


def _trend(before: Mapping[str, int] | None, now: Mapping[str, int]) -> list[Block]:
    """How many jobs had each status, then and now."""
    if before is None:
        return []
    rows = [
        (Verdict(word), before.get(word, 0), now.get(word, 0), f"{now.get(word, 0) - before.get(word, 0):+d}")
        for word in now
        if before.get(word) or now.get(word)
    ]
    return [Table("Jobs by status", ("status", "baseline", "now", "change"), rows)]


def _moves(moves: Sequence[Document], way: str) -> list[Block]:
    """Numbers that moved by more than the tolerance."""
    rows = [
        (
            Code(one["job"]),
            one["entry"] or "the whole",
            one["number"],
            *(_value(one["number"], one[side]) for side in ("before", "after")),
        )
        for one in moves
    ]
    columns = ("job", "entry", "number", "before", "after")
    caption = f"{counted(len(rows), 'number')} that got {way}"
    return [Table(caption, columns, rows, folded=way == "better", searchable=len(rows) > 40)] if rows else []


def _value(name: str, value: object) -> Cell:
    if isinstance(value, str):
        return Verdict(value)
    return measured(name, value) if isinstance(value, (int, float)) else None


def _jobs(document: Document) -> Table:
    rows = [
        (
            Code(job["name"]),
            Verdict(job["status"]),
            "yes" if job["passes"] else "NO",
            _number(job),
            "; ".join(wanted["text"] for wanted in job["requires"]) or None,
            ", ".join(job["tags"]) or None,
            "ledger" if job["cached"] else None,
            job["seconds"],
        )
        for job in document["jobs"]
    ]
    columns = ("job", "status", "passes", "proven", "requires", "tags", "from", "seconds")
    return Table(counted(len(rows), "job"), columns, rows, searchable=True)


def _number(job: Document) -> Cell:
    """The one number of an answer that people look for."""
    found = job["result"]
    if found is None:
        return None
    if found["schema"] == VERDICT:
        return down(found["margin"]["lower"])
    if found["schema"] == CERTIFICATION:
        return Share(found["accuracy"]["certified"])
    if found["schema"] == LIPSCHITZ:
        return up(found["upper"])
    if found["schema"] == LEAK and "inputs" not in found and found["proved_up_to"] is not None:
        return Down(found["proved_up_to"])
    return None


def _networks(document: Document) -> list[Section]:
    """How the jobs of each network fare, where there are several; of a few networks also a part of the page each."""
    by_path: dict[str, list[Document]] = {}
    for job in document["jobs"]:
        by_path.setdefault(job["network"]["path"], []).append(job)
    if len(by_path) < 2:
        return []
    rows = [
        (Code(path), len(jobs), sum(job["passes"] for job in jobs), *(_count(jobs, status) for status in _STATUSES))
        for path, jobs in by_path.items()
    ]
    columns = ("network", "jobs", "pass", *_STATUSES)
    table = Table(counted(len(rows), "network"), columns, rows, searchable=len(rows) > 12)
    each = by_path.items() if len(by_path) <= _APART else ()
    return [Section("Networks", [table]), *(_network(path, jobs) for path, jobs in each)]


def _network(path: str, jobs: list[Document]) -> Section:
    """One network: what it is, and all its jobs."""
    digests = dict.fromkeys(job["network"].get("digest") for job in jobs)
    passed = sum(job["passes"] for job in jobs)
    facts: list[tuple[str, Cell]] = [
        ("jobs that pass", f"{passed} of {len(jobs)}"),
        *((status, count) for status in _STATUSES if (count := _count(jobs, status))),
        *(("digest", Code(digest)) for digest in digests if digest is not None),
        ("seconds", sum(job["seconds"] for job in jobs)),
    ]
    rows = [(Code(job["name"]), Verdict(job["status"]), "yes" if job["passes"] else "NO", _number(job)) for job in jobs]
    table = Table(
        f"{counted(len(rows), 'job')} of this network", ("job", "status", "passes", "proven"), rows, folded=True
    )
    return Section(f"Network: {path}", [Facts(facts), table])


def _count(jobs: list[Document], status: str) -> int:
    return sum(job["status"] == status for job in jobs)


def _details(document: Document) -> Iterator[Section]:
    """The first jobs that do not pass, with what their own pages say first."""
    for job in [job for job in document["jobs"] if not job["passes"]][:_DETAILED]:
        found = job["result"]
        inner = _PAGES[found["schema"]](found) if found is not None and found["schema"] in _PAGES else None
        facts: list[tuple[str, Cell]] = [
            ("status", Verdict(job["status"])),
            ("answer", None if inner is None else f"{inner.headline}. {inner.lead}"),
            ("because", None if found is None else found.get("reason")),
            ("error", None if job["error"] is None else f"{job['error']['kind']}: {job['error']['message']}"),
            *((wanted["text"], "holds" if wanted["holds"] else "does NOT hold") for wanted in job["requires"]),
            *((tile.label, tile.value) for tile in (inner.tiles if inner is not None else ())),
            ("network", Code(job["network"]["path"])),
            *((role, Code(path)) for role, path in job["files"].items()),
            ("asked at", Code(f"{job['place']['path']}:{job['place']['line']}")),
        ]
        yield Section(f"Job: {job['name']}", [Facts(facts)])


def _claims(document: Document) -> list[Section]:
    names = sorted(
        {job["result"]["guarantee"] for job in document["jobs"] if job["result"] and "guarantee" in job["result"]}
    )
    return [Section("What is guaranteed", [Prose(meaning(name)) for name in names])] if names else []


def _origin(document: Document) -> Section:
    versions = {"leaktight": document["version"], **document.get("versions", {})}
    command = document.get("command")
    suite, path = document["suite"], document["suite"].get("path")
    return Section(
        "Where it comes from",
        [
            Facts(
                [
                    ("suite", None if path is None else Code(path)),
                    ("digest", None if suite.get("sha256") is None else Code(suite["sha256"])),
                    ("command", None if command is None else Code(command_line(command))),
                    ("ledger", Code(document["ledger"]) if "ledger" in document else None),
                    ("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
                ]
            )
        ],
    )
