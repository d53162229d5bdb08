"""What a network is made of."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from leaktight.verify.report.columns import facts, table
from leaktight.verify.report.schemas import Document


def inspection(document: Document) -> RenderableType:
    """What a network is made of."""

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
