"""What the leak does to signals, on a page."""

from __future__ import annotations

from leaktight.verify.report.outline import (
    Cell,
    Code,
    Prose,
    Section,
    Share,
    Table,
)
from leaktight.verify.report.schemas import Document


def signal_of(document: Document) -> list[Section]:
    signal = document.get("signal")
    if not signal or not signal["layers"]:
        return []
    rows: list[tuple[Cell, ...]] = []
    for layer in signal["layers"]:
        for place, point in enumerate(layer["at"]):
            shares = [point.get(name) for name in ("active", "inactive", "unstable")]
            rows.append(
                (
                    Code(layer["node"]) if place == 0 else "",
                    point["slope"],
                    point.get("expected_gradient"),
                    point.get("gradient_variance"),
                    point.get("squared_norm"),
                    point.get("preserving_variance"),
                    *(None if share is None else Share(share) for share in shares),
                )
            )
    layers = [
        (Code(layer["node"]), layer.get("entries"), layer.get("fan_in"), layer.get("weight_variance"))
        for layer in signal["layers"]
    ]
    return [
        Section(
            "Signals",
            [
                Prose(
                    "What the leak does for training, beside what it does to the certificate: for signals that are as"
                    " often positive as negative, the mean of the activation's gradient, its variance, the factor by"
                    " which it scales squared norms, and the weight variance that keeps signals as large as they are."
                    " The shares of neurons that are proven active, proven inactive (at slope 0: dead) and unstable are"
                    " over the region."
                ),
                Table(
                    "Signal factors",
                    (
                        "layer",
                        "slope",
                        "gradient, mean",
                        "variance",
                        "squared norm",
                        "preserving variance",
                        "active",
                        "inactive",
                        "unstable",
                    ),
                    rows,
                ),
                Table("Layers as they are", ("layer", "neurons", "fan-in", "weight variance"), layers),
            ],
        )
    ]
