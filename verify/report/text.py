"""Plain text for people: one function per kind of document, tables drawn by rich."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from leaktight.verify.digits import rounded_down, rounded_up
from leaktight.verify.report import outline, schemas
from leaktight.verify.report.columns import Grid, facts, status, table
from leaktight.verify.report.outline import shown
from leaktight.verify.report.pages import pages
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import GUARANTEES, flat, percent

_SHOWN = 16
_FOLDED = 40  # rows of a table that other formats hide behind its caption
_DRAWINGS: dict[str, Callable[[Document], RenderableType]] = {}


def render(document: Document, *, width: int = 100, colour: bool = False) -> str:
    """The document as text of at most `width` columns, with terminal colours if asked for.

    Raises KeyError: no kind of document has its ``schema``.
    """
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    console.print(_DRAWINGS[document["schema"]](document), crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def draws(schema: str) -> Callable[[Callable[[Document], RenderableType]], Callable[[Document], RenderableType]]:
    """Registers the drawing of one kind of document; each has exactly one."""

    def register(drawing: Callable[[Document], RenderableType]) -> Callable[[Document], RenderableType]:
        if schema in _DRAWINGS:
            raise ValueError(f"{schema} has a drawing already")
        _DRAWINGS[schema] = drawing
        return drawing

    return register


def _guarantee(document: Document) -> str:
    name: str = document["guarantee"]
    return GUARANTEES.get(name, name)


def _margin(margin: Mapping[str, float | None]) -> str:
    lower, upper = margin["lower"], margin["upper"]
    proven = "no lower bound is proven" if lower is None else f"proven >= {rounded_down(lower)}"
    return proven if upper is None else f"{proven}; some input attains {rounded_up(upper)}"


def _numbers(value: Any) -> str:
    """All numbers of a nested list, or the first few of many."""
    found = list(flat(value))
    shown = " ".join("-" if x is None else f"{x:.6g}" for x in found[:_SHOWN])
    return shown if len(found) <= _SHOWN else f"{shown} ... ({len(found)} numbers; --format json shows all)"


def _down(value: float | None) -> str | None:
    return None if value is None else rounded_down(value)


def _up(value: float | None) -> str | None:
    return None if value is None else rounded_up(value)


@draws("leaktight.verdict/1")
def _verdict(document: Document) -> RenderableType:
    found = document["counterexample"] or {"inputs": {}, "outputs": {}}
    other = document.get("cross_check")
    return facts(
        [
            ("verdict", status(document["status"])),
            ("because", document["reason"]),
            ("margin", _margin(document["margin"])),
            *((f"input {name}", _numbers(value)) for name, value in found["inputs"].items()),
            *((f"output {name}", _numbers(value)) for name, value in found["outputs"].items()),
            ("network", document["network"].get("path")),
            ("property", document["property"].get("path")),
            ("engine", document["engine"]),
            ("guarantee", _guarantee(document)),
            ("cross-check", None if other is None else _cross_check(other)),
            ("seconds", f"{document['seconds']:.3f}"),
        ]
    )


def _cross_check(found: Document) -> str:
    lower = found["margin"]["lower"]
    bound = "finds no lower bound" if lower is None else f"says >= {rounded_down(lower)}"
    return f"{found['engine']} {found['version']} ({found['method']}) {bound}; no contradiction"


@draws("leaktight.certification/1")
def _certification(document: Document) -> RenderableType:
    radii = any(record["radius"] is not None for record in document["inputs"])
    rows = [
        [
            r["index"],
            r["label"],
            r["predicted"],
            status(r["status"]),
            _down(r["margin"]["lower"]),
            _up(r["margin"]["upper"]),
            *([_down(r["radius"])] if radii else []),
            f"{r['seconds']:.3f}",
        ]
        for r in document["inputs"]
    ]
    columns = ["input", "label", "predicted", "status", "margin >=", "attained", "seconds"]
    if radii:
        columns.insert(-1, "radius >=")
    accuracy = document["accuracy"]
    return Group(
        table(*columns, rows=rows, left=4),
        Text(),
        facts(
            [
                ("inputs", len(document["inputs"])),
                ("clean", f"{percent(accuracy['clean'])} are classified as labelled"),
                (
                    "certified",
                    f"{percent(accuracy['certified'])} provably keep their label within epsilon ="
                    f" {rounded_down(document['epsilon'])} (norm {document['norm']})",
                ),
                ("attacked", f"{percent(accuracy['attacked'])} were not refuted"),
                ("guarantee", _guarantee(document)),
            ]
        ),
    )


@draws("leaktight.bounds/1")
def _bounds(document: Document) -> RenderableType:
    rows = [
        (f"{name}[{place}]", _down(low), _up(high))
        for name, ends in document["outputs"].items()
        for place, (low, high) in enumerate(zip(flat(ends["lower"]), flat(ends["upper"]), strict=True))
    ]
    return Group(
        table("output", "lower", "upper", rows=rows),
        Text(),
        facts([("engine", document["engine"]), ("guarantee", _guarantee(document))]),
    )


@draws(schemas.LEAK)
@draws(schemas.LIPSCHITZ)
@draws(schemas.COMPARISON)
@draws(schemas.BUNDLE)
@draws(schemas.RUN)
@draws(schemas.HISTORY)
def _outlined(document: Document) -> RenderableType:
    """Kinds without a drawing of their own: the sections that every format has, without their pictures."""
    return Group(*(part for page in pages(document) for part in _page(page)))


def _page(page: outline.Page) -> Iterator[RenderableType]:
    yield Text(shown(page.headline), style="bold")
    yield Text(shown(page.lead))
    yield Text()
    yield facts([(tile.label, _said(tile)) for tile in page.tiles])
    for section in page.sections:
        parts = [part for block in section.blocks for part in _block(block)]
        yield from [Text(), Text(shown(section.title), style="bold"), *parts] if parts else []


def _block(block: outline.Block) -> Iterator[RenderableType]:
    match block:
        case outline.Prose(text) | outline.Picture(description=text):
            yield Text(shown(text))
        case outline.Facts():
            yield facts((name, _cell(value)) for name, value in block.known)
        case outline.Table(caption, columns, rows) if rows:
            yield Text(shown(caption) + ":")
            some = rows[:_FOLDED] if block.folded else rows
            yield Grid(columns, [[_cell(cell) for cell in row] for row in some], block.wordy)
            if more := len(rows) - len(some):
                yield Text(f"... and {more} more, which --format json has")


def _said(tile: outline.Tile) -> str | None:
    if tile.value is None:
        return None
    return shown(tile.value) + (f" ({tile.says})" if tile.says else "")


def _cell(cell: outline.Cell) -> Text:
    return status(cell.word) if isinstance(cell, outline.Verdict) else Text(shown(cell))


@draws("leaktight.inspection/1")
def _inspection(document: Document) -> RenderableType:
    def ports(found: Iterable[Document]) -> str:
        return ", ".join(f"{p['name']} {p['dtype']} {p['shape']}" for p in found)

    parts: list[RenderableType] = [
        facts(
            [
                ("network", document["network"].get("path")),
                ("inputs", ports(document["inputs"])),
                ("outputs", ports(document["outputs"])),
                ("batched", "yes" if document["batched"] else "no"),
                ("parameters", document["parameters"]),
                ("activations", document["neurons"]),
                ("digest", document["digest"]),
            ]
        ),
        Text(),
        table(
            "operator",
            "count",
            "entries",
            rows=[(o["operator"], o["count"], o["entries"]) for o in document["operators"]],
        ),
    ]
    if document["activations"]:
        rows = [(a["node"], a["operator"], a["entries"], a["left"], a["right"]) for a in document["activations"]]
        parts += [
            Text(),
            table(
                "activation",
                "operator",
                "entries",
                "slope below",
                "slope above",
                rows=[(n, o, e, _range(low), _range(high)) for n, o, e, low, high in rows],
                left=2,
            ),
        ]
    return Group(*parts)


def _range(ends: list[float] | None) -> str | None:
    if ends is None:
        return None
    return f"{ends[0]:.6g}" if ends[0] == ends[1] else f"{ends[0]:.6g} .. {ends[1]:.6g}"


@draws("leaktight.operators/1")
def _operators(document: Document) -> RenderableType:
    engines = document["engines"]
    rows = [(row["operator"], *(row["engines"].get(name, "-") for name in engines)) for row in document["rules"]]
    return Group(
        Text("ONNX operators that can be read", style="bold"),
        Text("  " + ", ".join(document["onnx"])),
        Text(),
        Text("What they become, and what each engine does with it", style="bold"),
        table("operator", *engines, rows=rows, left=1 + len(engines)),
    )


@draws("leaktight.init/1")
def _init(document: Document) -> RenderableType:
    return facts(
        [
            ("suite", document["suite"]),
            ("networks", document["networks"]),
            ("questions", document["tables"]),
            *(("inputs", path) for path in document["files"]),
            *(("left out", reason) for reason in document["left_out"]),
        ]
    )


@draws("leaktight.doctor/1")
def _doctor(document: Document) -> RenderableType:
    rows = [(status("yes" if check["ok"] else "no"), check["name"], check["found"]) for check in document["checks"]]
    return table("sound", "what", "found", rows=rows, left=3)


@draws("leaktight.demo/1")
def _demo(document: Document) -> RenderableType:
    parts: list[RenderableType] = [Text(document["story"])]
    for step in document["steps"]:
        parts += [Text(), Text(step["question"], style="bold"), _verdict(step["verdict"])]
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
