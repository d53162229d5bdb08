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
    layers = document.get("signal", {}).get("layers", [])
    if layers:
        parts += [Text(), _signal(layers)]
    return Group(*parts)


def _signal(layers: Iterable[Document]) -> RenderableType:
    """What the leaks do to signals and to gradients; with a region, which neurons are proven stable there."""
    rows = [(layer["node"], layer["weight_variance"], layer["at"][0]) for layer in layers]
    factors = ("preserving_variance", "expected_gradient", "gradient_variance", "squared_norm")
    heads = ["leaky layer", "weight variance", "that preserves", "mean gradient", "its variance", "squared length x"]
    known = all(at["active"] is not None for _, _, at in rows)
    return table(
        *heads,
        *(["active", "inactive", "unstable"] if known else []),
        rows=[
            (
                node,
                _number(variance),
                *(_number(at[factor]) for factor in factors),
                *([f"{at[side]:.1%}" for side in ("active", "inactive", "unstable")] if known else []),
            )
            for node, variance, at in rows
        ],
    )


def _number(x: float | None) -> str | None:
    return None if x is None else f"{x:.4g}"


def _range(ends: list[float] | None) -> str | None:
    if ends is None:
        return None
    return f"{ends[0]:.6g}" if ends[0] == ends[1] else f"{ends[0]:.6g} .. {ends[1]:.6g}"
