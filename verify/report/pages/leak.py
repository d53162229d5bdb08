"""The pages of the leak: how a certificate moves as the slope moves, for one property and over data."""

from __future__ import annotations

from collections.abc import Sequence

from leaktight.verify.digits import rounded_down, rounded_inwards, short
from leaktight.verify.report import curve as arithmetic
from leaktight.verify.report.figures import Steps
from leaktight.verify.report.outline import (
    Block,
    Cell,
    Code,
    Facts,
    Page,
    Picture,
    Prose,
    Section,
    Share,
    Table,
    Tile,
    Tone,
    down,
    tone,
    up,
)
from leaktight.verify.report.pages import parts
from leaktight.verify.report.pages.leak_curve import Found, headline, picture, segments, spans_of
from leaktight.verify.report.pages.leak_inputs import accuracy_of, gallery_of, inputs_of
from leaktight.verify.report.pages.leak_shift import shift_of
from leaktight.verify.report.pages.leak_signal import signal_of
from leaktight.verify.report.pages.lipschitz import over_slopes
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import norm

_MEANING = {
    "shared": "All chosen activations have the same unknown slope (PReLU: their trained slopes, scaled together).",
    "independent": "Each neuron has a slope of its own, and they need not be equal.",
}

_SLOPES = "A proven number of a segment holds for every slope of it, and not only for those that were looked at."


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.leak/1."""
    return _of_data(document) if "inputs" in document else _of_property(document)


def _of_property(document: Document) -> Page:
    sections = [
        Section("The curve", [picture(document, document), segments(document["curve"])]),
        *shift_of(document),
        *_radius(document["radius"]),
        *_constant(document),
        *signal_of(document),
    ]
    found = document.get("counterexample")
    if found is not None:
        says = f"With the slope set to {short(found['slope'])}, this input of the region has unsafe outputs."
        sections.append(parts.counterexample(found, says))
    return Page(
        "Leak",
        headline(document),
        tone(document["status"]),
        _lead(document),
        [
            Tile(
                "proved up to", down(document["proved_up_to"]) or "none", "for every slope from the start of the range"
            ),
            Tile("refuted from", up(document["refuted_from"]) or "none", "the least slope with a counterexample"),
            Tile("still open", arithmetic.width(spans_of(document["open"])), "width of the slopes that are undecided"),
            Tile("smallest margin", down(arithmetic.lowest(document["curve"])), "proven over the whole range"),
        ],
        [*sections, *_question(document)],
    )


def _of_data(document: Document) -> Page:
    inputs = document["inputs"]
    proved = sum(found["status"] == "proved" for found in inputs)
    start, end = document["slopes"]
    return Page(
        "Leak over data",
        f"{proved} of {len(inputs)} inputs are certified for every slope",
        Tone.NEUTRAL,
        f"A certified input provably keeps its label within an {norm(document['norm'])} distance of"
        f" {rounded_down(document['epsilon'])}, at every slope from {rounded_inwards(start, end)}.",
        [
            Tile("certified, worst slope", _extreme(document, "certified"), "proved at every slope: at least this"),
            Tile("attacked, worst slope", _extreme(document, "attacked"), "not refuted"),
            Tile("proved throughout", proved, f"of {len(inputs)} inputs"),
            Tile("epsilon", document["epsilon"], f"in {norm(document['norm'])}"),
        ],
        [
            *accuracy_of(document["accuracy"]),
            *gallery_of(document),
            Section("Inputs", [inputs_of(document)]),
            *_constant(document),
            *signal_of(document),
            *_question(document),
        ],
    )


def _extreme(document: Document, key: str) -> Cell:
    values = [part[key] for part in document["accuracy"]]
    return Share(min(values)) if values else None


def _lead(document: Document) -> str:
    start, end = document["slopes"]
    names = document["nodes"]
    which = f"{len(names)} activation{'s' if len(names) != 1 else ''}"
    says = f"The leak of {which} moves from {short(start)} to {short(end)}."
    own = document.get("own_slopes")
    if own is None:
        return says
    alone = own[0] == own[1]
    return f"{says} The network's own slope{' is' if alone else 's are'} {_words(own)}."


def _words(ends: Sequence[float]) -> str:
    return short(ends[0]) if ends[0] == ends[1] else f"{short(ends[0])} to {short(ends[1])}"


def _radius(found: Sequence[Found] | None) -> list[Section]:
    if not found:
        return []
    steps = [((part["slopes"][0], part["slopes"][1]), part["radius"]) for part in found if part["radius"] is not None]
    blocks: list[Block] = []
    if steps:
        says = "The proven radius on each segment of slopes; it holds on the whole segment."
        blocks.append(Picture("Proven radius over the slope", says, Steps("slope of the leak", "radius", {"r": steps})))
    rows = [(*part["slopes"], down(part["radius"])) for part in found]
    blocks.append(Table("Proven radii", ("from slope", "to slope", "radius at least"), rows, folded=len(rows) > 12))
    return [Section("Radius", blocks)]


def _constant(document: Document) -> list[Section]:
    found = document.get("lipschitz")
    if not found:
        return []
    says = (
        f"The network's Lipschitz constant in {norm(found['norm'])}, for all inputs: outputs differ by at most so many"
        " times the inputs' distance, at every slope of a segment."
    )
    return [Section("The Lipschitz constant", [Prose(says), *over_slopes(found["curve"])])]


def _question(document: Document) -> list[Section]:
    names = document["nodes"]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return [
        Section(
            "The question",
            [
                Facts(
                    [
                        ("slopes", parts.span(document["slopes"])),
                        ("the network's own", parts.span(document.get("own_slopes"))),
                        ("leak", document["leak"]),
                        ("activations", Code(shown)),
                        ("tolerance", document.get("tolerance")),
                    ]
                ),
                Prose(_MEANING[document["leak"]]),
            ],
        ),
        parts.guarantee(document, _SLOPES),
        parts.origin(document),
    ]
