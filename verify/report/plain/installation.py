"""What an installation offers, whether it is sound, and what comes first: ops, doctor, init, demo."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leaktight.verify.report.columns import facts, status, table
from leaktight.verify.report.plain.answers import verdict
from leaktight.verify.report.schemas import Document


def operators(document: Document) -> RenderableType:
    """What is supported."""
    engines = document["engines"]
    rows = [(row["operator"], *(row["engines"].get(name, "-") for name in engines)) for row in document["rules"]]
    return Group(
        Text("ONNX operators that can be read", style="bold"),
        Text(", ".join(document["onnx"])),
        Text(),
        Text("What they become, and what each engine does with it", style="bold"),
        table("operator", *engines, rows=rows, left=1 + len(engines)),
        Text(),
        Text(f"{', '.join(document['searches'])}: begin with such bounds, and search where they decide nothing"),
    )


def init(document: Document) -> RenderableType:
    """The suite that was written."""
    return facts(
        [
            ("suite", document["suite"]),
            ("networks", document["networks"]),
            ("questions", document["tables"]),
            *(("inputs", path) for path in document["files"]),
            *(("left out", reason) for reason in document["left_out"]),
        ]
    )


def doctor(document: Document) -> RenderableType:
    """What was looked at, and whether it is sound."""
    rows = [(status("yes" if check["ok"] else "no"), check["name"], check["found"]) for check in document["checks"]]
    return table("sound", "what", "found", rows=rows, left=3)


def demo(document: Document) -> RenderableType:
    """The story, its two verdicts, and pictures of the refuted one."""
    parts: list[RenderableType] = [Text(document["story"])]
    for step in document["steps"]:
        parts += [Text(), Text(step["question"], style="bold"), verdict(step["verdict"])]
        if step["pictures"]:
            parts += [Text(), _pictures(step["pictures"])]
    return Group(*parts)


def _pictures(pictures: Iterable[Document]) -> Table:
    """Grey-level images with values in [0, 1], side by side."""
    shades = " .:-=+*#%@"
    drawn_table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 4, 0, 0))
    drawn = []
    for picture in pictures:
        drawn_table.add_column(picture["title"])
        lines = ["".join(2 * shades[min(9, int(10 * max(0.0, pixel)))] for pixel in row) for row in picture["pixels"]]
        drawn.append(Text("\n".join(lines)))
    drawn_table.add_row(*drawn)
    return drawn_table
