"""Answers in a few lines: verdicts, certifications, bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from leaktight.verify.digits import rounded_down, rounded_up
from leaktight.verify.report.columns import facts, status, table
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import GUARANTEES, flat, percent

_SHOWN = 16


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


def verdict(document: Document) -> RenderableType:
    """A verdict of `verify`."""
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


def certification(document: Document) -> RenderableType:
    """The inputs that `certify` was asked about, and the shares of them."""
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


def bounds(document: Document) -> RenderableType:
    """The bounds of all outputs."""
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
