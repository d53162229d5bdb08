"""The page of one verdict: does the property hold?"""

from __future__ import annotations

from leaktight.verify.report.outline import Facts, Page, Prose, Section, Tile, Verdict, down, tone, up
from leaktight.verify.report.pages import parts
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import STATUSES

_HEADLINES = {
    "proved": "The property is proved",
    "refuted": "The property is refuted",
    "unknown": "The property is undecided",
    "timeout": "The property is undecided: the time ended",
}
_MARGIN = (
    "The margin is the property's signed slack: where it is positive, the property holds. The smallest margin over the"
    " region lies between what is proven and what some input attains."
)


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.verdict/1."""
    status, margin, found = document["status"], document["margin"], document["counterexample"]
    sections = [
        Section("The answer", [Facts([("status", Verdict(status)), ("because", document["reason"])]), Prose(_MARGIN)])
    ]
    if found is not None:
        sections.append(parts.counterexample(found, "This input lies in the region, and its outputs are unsafe."))
    other = document.get("cross_check")
    if other is not None:
        sections.append(
            Section(
                "Second opinion",
                [
                    Facts(
                        [
                            ("engine", f"{other['engine']} {other['version']} ({other['method']})"),
                            ("margin at least", down(other["margin"]["lower"])),
                        ]
                    )
                ],
            )
        )
    return Page(
        "Verdict",
        _HEADLINES[status],
        tone(status),
        STATUSES[status],
        [
            Tile(
                "margin, proven",
                down(margin["lower"]),
                "at least this, everywhere" if margin["lower"] is not None else "",
            ),
            Tile("margin, attained", up(margin["upper"]), "by some input" if margin["upper"] is not None else ""),
            Tile("seconds", document["seconds"]),
        ],
        [*sections, parts.guarantee(document), parts.origin(document)],
    )
