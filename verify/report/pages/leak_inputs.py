"""Many inputs over slopes on a page: accuracy, some curves, and a table of all."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from leaktight.verify.report import curve as arithmetic
from leaktight.verify.report.figures import Steps
from leaktight.verify.report.outline import (
    Cell,
    Gallery,
    Picture,
    Section,
    Share,
    Table,
    Verdict,
    down,
    up,
)
from leaktight.verify.report.pages.leak_curve import CURVE, Found, picture, spans_of
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted, percent

_GALLERY = 24


def accuracy_of(found: Sequence[Found]) -> list[Section]:
    if not found:
        return []
    spans = [(part["slopes"][0], part["slopes"][1]) for part in found]
    lines = {name: list(zip(spans, (part[name] for part in found), strict=True)) for name in ("certified", "attacked")}
    least, most = (percent(end(part["certified"] for part in found)) for end in (min, max))
    between = least if least == most else f"between {least} and {most}"
    says = (
        f"Certified accuracy is {between} over the range; the accuracy under attack is not below it. On each segment"
        " the certified share holds at every slope."
    )
    rows = [(*part["slopes"], Share(part["certified"]), Share(part["attacked"])) for part in found]
    return [
        Section(
            "Accuracy over slopes",
            [
                Picture(
                    "Certified and attacked accuracy", says, Steps("slope of the leak", "share of inputs", lines, True)
                ),
                Table(
                    f"The accuracy in numbers ({counted(len(rows), 'segment')})",
                    ("from slope", "to slope", "certified", "attacked"),
                    rows,
                    folded=True,
                ),
            ],
        )
    ]


def gallery_of(document: Document) -> list[Section]:
    inputs = document["inputs"]
    chosen = sorted(inputs, key=_urgency)[:_GALLERY]
    if not chosen:
        return []
    pictures = [picture(document, found, f"input {found['index']}: {found['status']}") for found in chosen]
    which = "" if len(chosen) == len(inputs) else f" Of {len(inputs)} inputs, {len(chosen)} are drawn:"
    order = " those that are undecided, those that are refuted within the range, then the smallest proven margins."
    return [Section("Curves", [Gallery(pictures, CURVE + (which + order if which else ""))])]


def _urgency(found: Found) -> tuple[int, float, int]:
    lowest = arithmetic.lowest(found["curve"])
    rank = {"unknown": 0, "timeout": 0, "refuted": 1}.get(found["status"], 2)
    if rank == 1 and found["proved_up_to"] is None:  # refuted from the start of the range: nothing moves
        rank = 3
    return rank, -inf if lowest is None else lowest, found["index"]


def inputs_of(document: Document) -> Table:
    radii = any(found["radius"] for found in document["inputs"])
    columns = [
        "input",
        "label",
        "predicted",
        "status",
        "smallest margin",
        "proved up to",
        "refuted from",
        "open",
        "change at least",
        "change at most",
        *(["radius at least"] if radii else []),
    ]
    rows: list[tuple[Cell, ...]] = []
    for found in document["inputs"]:
        change = (found["shift"] or {}).get("change") or (None, None)
        parted = [part["radius"] for part in found["radius"] or ()]
        rows.append(
            (
                found["index"],
                found["label"],
                found["predicted"],
                Verdict(found["status"]),
                down(arithmetic.lowest(found["curve"])),
                down(found["proved_up_to"]),
                up(found["refuted_from"]),
                arithmetic.width(spans_of(found["open"])),
                down(change[0]),
                up(change[1]),
                *([down(min(parted)) if parted and None not in parted else None] if radii else []),
            )
        )
    return Table(counted(len(rows), "input"), columns, rows, searchable=True)
