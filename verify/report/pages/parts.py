"""Sections that more than one kind of page has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaktight.verify.report.outline import Block, Cell, Code, Down, Facts, Prose, Section, Share, Span, Table, Up
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import GUARANTEES, command_line, meaning, places

_SHOWN = 64
_DIGITS = (
    "Proven numbers are shown with six digits, rounded to the side on which they claim less; the result has all digits."
)

# How the numbers that `compare` names are rounded: what is proven or attained, to the side on which it claims less.
_DOWNWARDS = ("proven", "proved up to", "change at least", "lower")
_UPWARDS = ("attained", "refuted from", "change at most", "upper", "open slopes", "lipschitz")


def measured(name: str, value: float) -> Cell:
    """A number of a result, by its name in a comparison."""
    if "accuracy" in name or name == "gap":
        return Share(value)
    if name.endswith(_DOWNWARDS):
        return Down(value)
    return Up(value) if name.endswith(_UPWARDS) else value


def guarantee(document: Document, *more: str) -> Section:
    """What the proven numbers of the document claim, in plain words."""
    name = document["guarantee"]
    blocks: list[Block] = [Facts([("guarantee", GUARANTEES.get(name, name))]), Prose(meaning(name)), Prose(_DIGITS)]
    if document.get("interrupted"):
        blocks.append(
            Prose("The run was interrupted. What was proven until then is shown, and holds; the rest is open.")
        )
    return Section("What is guaranteed", [*blocks, *map(Prose, more)])


def origin(document: Document) -> Section:
    """Where the result comes from, and how to get it again."""
    files = [
        (name, _known(document[name].get("path")), _known(document[name].get("sha256")))
        for name in ("network", "property", "data", "center")
        if any(document.get(name, {}).get(key) for key in ("path", "sha256"))
    ]
    versions = {"leaktight": document["version"], **document.get("versions", {})}
    command = document.get("command")
    blocks: list[Block] = [
        Table("Files and their SHA-256 digests", ("file", "path", "digest"), files),
        Facts(
            [
                ("command", None if command is None else Code(command_line(command))),
                ("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
                ("engine", document["engine"]),
                ("seconds", document.get("seconds")),
                *((name, value) for name, value in document.get("statistics", {}).items()),
            ]
        ),
    ]
    if command is None:
        blocks.append(Prose("The result does not say which command wrote it."))
    return Section("Where it comes from", blocks)


def _known(value: str | None) -> Code | None:
    return None if value is None else Code(value)


def counterexample(found: Mapping[str, Any], says: str) -> Section:
    """A concrete input with its outputs; of many numbers the first."""
    rows: list[tuple[Cell, Cell, Cell]] = []
    left_out = 0
    for kind in ("outputs", "inputs"):
        for name, value in found[kind].items():
            numbers = list(places(value, name))
            rows += [(kind.removesuffix("s"), Code(place), number) for place, number in numbers[:_SHOWN]]
            left_out += max(0, len(numbers) - _SHOWN)
    blocks: list[Block] = [Prose(says), Table("The counterexample", ("", "place", "value"), rows, folded=True)]
    if left_out:
        blocks.append(Prose(f"{left_out} more numbers are in the result file."))
    return Section("The counterexample", blocks)


def span(ends: object) -> Span | None:
    """A pair as a cell."""
    return Span(ends[0], ends[1]) if isinstance(ends, (list, tuple)) else None
