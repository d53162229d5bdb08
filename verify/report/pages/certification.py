"""The page of a certification: which labelled inputs keep their label?"""

from __future__ import annotations

from leaktight.verify.digits import rounded_down
from leaktight.verify.report.figures import Histogram, Survival
from leaktight.verify.report.outline import Block, Page, Picture, Section, Share, Table, Tile, Tone, Verdict, down, up
from leaktight.verify.report.pages import parts
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted, norm, percent

_ORDER = ("proved", "refuted", "unknown", "timeout")


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.certification/1."""
    inputs, accuracy = document["inputs"], document["accuracy"]
    moves = f"an {norm(document['norm'])} distance of {rounded_down(document['epsilon'])}"
    proved = sum(found["status"] == "proved" for found in inputs)
    return Page(
        "Certification",
        f"{proved} of {len(inputs)} inputs are certified",
        Tone.NEUTRAL,
        f"A certified input provably keeps its label wherever it moves within {moves}.",
        [
            Tile("certified accuracy", Share(accuracy["certified"]), "proved"),
            Tile("attacked accuracy", Share(accuracy["attacked"]), "not refuted"),
            Tile("clean accuracy", Share(accuracy["clean"]), "as the inputs stand"),
            Tile("epsilon", document["epsilon"], f"in {norm(document['norm'])}"),
        ],
        [
            Section("Accuracy", [_statuses(document)]),
            *_margins(document),
            *_radii(document),
            Section("Inputs", [_inputs(document)]),
            parts.guarantee(document),
            parts.origin(document),
        ],
    )


def _statuses(document: Document) -> Table:
    total = max(1, len(document["inputs"]))
    found = [record["status"] for record in document["inputs"]]
    rows = [(Verdict(status), found.count(status), Share(found.count(status) / total)) for status in _ORDER]
    return Table("How many inputs have which status", ("status", "inputs", "share"), rows)


def _margins(document: Document) -> list[Section]:
    values = {
        status: [
            record["margin"]["lower"]
            for record in document["inputs"]
            if record["status"] == status and record["margin"]["lower"] is not None
        ]
        for status in _ORDER
    }
    known = {status: found for status, found in values.items() if found}
    if not known:
        return []
    count = sum(map(len, known.values()))
    says = f"{count} of {len(document['inputs'])} inputs have a proven margin; " + ", ".join(
        f"{status}: {len(found)}, from {rounded_down(min(found))} to {rounded_down(max(found))}"
        for status, found in known.items()
    )
    picture = Picture("Histogram of the proven margins", says, Histogram("proven margin", known))
    return [Section("Margins", [picture])]


def _radii(document: Document) -> list[Section]:
    found = [record["radius"] for record in document["inputs"] if record["radius"] is not None]
    if not found:
        return []
    at_least = [(part, sum(radius >= part for radius in found)) for part in _parts(document["epsilon"])]
    total = len(document["inputs"])
    blocks: list[Block] = [
        Picture(
            "Certified accuracy by radius",
            "The share of inputs whose label provably holds within a radius, for radii up to"
            f" {rounded_down(max(found))}.",
            Survival("radius", found, total),
        ),
        Table(
            "Inputs that are proven to keep their label within a radius",
            ("radius", "inputs", "share"),
            [(down(part), count, Share(count / total)) for part, count in at_least],
        ),
    ]
    return [Section("Radii", blocks)]


def _parts(epsilon: float) -> list[float]:
    return [epsilon * quarter / 4 for quarter in range(1, 5)]


def _inputs(document: Document) -> Table:
    radii = any(record["radius"] is not None for record in document["inputs"])
    rows = [
        (
            record["index"],
            record["label"],
            record["predicted"],
            Verdict(record["status"]),
            down(record["margin"]["lower"]),
            up(record["margin"]["upper"]),
            *([down(record["radius"])] if radii else []),
            record["seconds"],
        )
        for record in document["inputs"]
    ]
    columns = ["input", "label", "predicted", "status", "margin at least", "margin attained", "seconds"]
    if radii:
        columns.insert(-1, "radius at least")
    certified = percent(document["accuracy"]["certified"])
    return Table(f"{counted(len(rows), 'input')}, {certified} of them certified", columns, rows, searchable=True)
