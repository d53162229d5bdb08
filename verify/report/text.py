"""Plain text for people: one function per kind of document, tables drawn by rich."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]
_COLOURS = {"proved": "green", "refuted": "red", "unknown": "yellow", "timeout": "yellow", "yes": "green", "no": "red"}
_GUARANTEES = {
    "real": "real: the network in exact real arithmetic, with the weights that the file gives",
    "unrounded": "unrounded: the engine ignores its own floating-point errors; a second opinion, not a proof",
}
_SHOWN = 16
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
    console.print(_DRAWINGS[document["schema"]](document))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def draws(schema: str) -> Callable[[Callable[[Document], RenderableType]], Callable[[Document], RenderableType]]:
    """Registers the drawing of one kind of document; each has exactly one."""

    def register(drawing: Callable[[Document], RenderableType]) -> Callable[[Document], RenderableType]:
        if schema in _DRAWINGS:
            raise ValueError(f"{schema} has a drawing already")
        _DRAWINGS[schema] = drawing
        return drawing

    return register


def _facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values in two columns; values that are None are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            table.add_row(Text(name, style="bold"), value if isinstance(value, Text) else Text(str(value)))
    return table


def _table(*columns: str, rows: Iterable[Iterable[object]], left: int = 1) -> Table:
    """A table whose first `left` columns hold words and whose other columns hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_short(cell)) for cell in row))
    return table


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _guarantee(document: Document) -> str:
    name: str = document["guarantee"]
    return _GUARANTEES.get(name, name)


def _status(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, ""))


def _margin(margin: Mapping[str, float | None]) -> str:
    lower, upper = margin["lower"], margin["upper"]
    proven = "no lower bound is proven" if lower is None else f"proven >= {lower:.6g}"
    return proven if upper is None else f"{proven}; some input attains {upper:.6g}"


def _flat(value: Any) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _numbers(value: Any) -> str:
    """All numbers of a nested list, or the first few of many."""
    found = list(_flat(value))
    shown = " ".join("-" if x is None else f"{x:.6g}" for x in found[:_SHOWN])
    return shown if len(found) <= _SHOWN else f"{shown} ... ({len(found)} numbers; --format json shows all)"


@draws("leaktight.verdict/1")
def _verdict(document: Document) -> RenderableType:
    found = document["counterexample"] or {"inputs": {}, "outputs": {}}
    other = document.get("cross_check")
    return _facts(
        [
            ("verdict", _status(document["status"])),
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
    bound = "finds no lower bound" if lower is None else f"says >= {lower:.6g}"
    return f"{found['engine']} {found['version']} ({found['method']}) {bound}; no contradiction"


@draws("leaktight.certification/1")
def _certification(document: Document) -> RenderableType:
    radii = any(record["radius"] is not None for record in document["inputs"])
    rows = [
        [
            r["index"],
            r["label"],
            r["predicted"],
            _status(r["status"]),
            r["margin"]["lower"],
            r["margin"]["upper"],
            *([r["radius"]] if radii else []),
            f"{r['seconds']:.3f}",
        ]
        for r in document["inputs"]
    ]
    columns = ["input", "label", "predicted", "status", "margin >=", "attained", "seconds"]
    if radii:
        columns.insert(-1, "radius >=")
    accuracy = document["accuracy"]
    return Group(
        _table(*columns, rows=rows, left=4),
        Text(),
        _facts(
            [
                ("inputs", len(document["inputs"])),
                ("clean", f"{accuracy['clean']:.1%} are classified as labelled"),
                (
                    "certified",
                    f"{accuracy['certified']:.1%} provably keep their label within epsilon ="
                    f" {document['epsilon']:.6g} (norm {document['norm']})",
                ),
                ("attacked", f"{accuracy['attacked']:.1%} were not refuted"),
                ("guarantee", _guarantee(document)),
            ]
        ),
    )


@draws("leaktight.bounds/1")
def _bounds(document: Document) -> RenderableType:
    rows = [
        (f"{name}[{place}]", low, high)
        for name, ends in document["outputs"].items()
        for place, (low, high) in enumerate(zip(_flat(ends["lower"]), _flat(ends["upper"]), strict=True))
    ]
    return Group(
        _table("output", "lower", "upper", rows=rows),
        Text(),
        _facts([("engine", document["engine"]), ("guarantee", _guarantee(document))]),
    )


@draws("leaktight.inspection/1")
def _inspection(document: Document) -> RenderableType:
    def ports(found: Iterable[Document]) -> str:
        return ", ".join(f"{p['name']} {p['dtype']} {p['shape']}" for p in found)

    parts: list[RenderableType] = [
        _facts(
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
        _table(
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
            _table(
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
        _table("operator", *engines, rows=rows, left=1 + len(engines)),
    )


@draws("leaktight.doctor/1")
def _doctor(document: Document) -> RenderableType:
    rows = [(_status("yes" if check["ok"] else "no"), check["name"], check["found"]) for check in document["checks"]]
    return _table("sound", "what", "found", rows=rows, left=3)


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
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 4, 0, 0))
    drawn = []
    for picture in pictures:
        table.add_column(picture["title"])
        lines = ["".join(2 * shades[min(9, int(10 * max(0.0, pixel)))] for pixel in row) for row in picture["pixels"]]
        drawn.append(Text("\n".join(lines)))
    table.add_row(*drawn)
    return table
