"""The pages of the leak: how a certificate moves as the slope moves, for one property and over data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import inf, nextafter
from typing import Any

from leaktight.verify.report import curve as arithmetic
from leaktight.verify.report.curve import gaps, union
from leaktight.verify.report.figures import Curve, Steps
from leaktight.verify.report.outline import (
    Block,
    Cell,
    Code,
    Facts,
    Gallery,
    Page,
    Picture,
    Prose,
    Section,
    Share,
    Span,
    Table,
    Tile,
    Tone,
    Verdict,
    down,
    tone,
    up,
)
from leaktight.verify.report.pages import parts
from leaktight.verify.report.pages.lipschitz import over_slopes
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import norm, rounded_down, rounded_up, short

Found = Mapping[str, Any]
_GALLERY = 24
_MEANING = {
    "shared": "All chosen activations have the same unknown slope (PReLU: their trained slopes, scaled together).",
    "independent": "Each neuron has a slope of its own, and they need not be equal.",
}
_SLOPES = "A proven number of a segment holds for every slope of it, and not only for those that were looked at."
_CURVE = (
    "The line is proven: at every slope, also between its corners, the smallest margin is not below it; where it is"
    " above 0, the property holds. A circle is a margin that some input attains at that very slope, found by attack:"
    " the smallest margin is not above it. Along the bottom, slopes are proved (full), refuted (crossed) or open."
)


def page(document: Document) -> Page:
    """The outline of a document of schema leaktight.leak/1."""
    return _of_data(document) if "inputs" in document else _of_property(document)


def _of_property(document: Document) -> Page:
    sections = [
        Section("The curve", [_picture(document, document), _segments(document["curve"])]),
        *_shift(document),
        *_radius(document["radius"]),
        *_constant(document),
        *_signal(document),
    ]
    found = document.get("counterexample")
    if found is not None:
        says = f"With the slope set to {short(found['slope'])}, this input of the region has unsafe outputs."
        sections.append(parts.counterexample(found, says))
    return Page(
        "Leak",
        _headline(document),
        tone(document["status"]),
        _lead(document),
        [
            Tile(
                "proved up to", down(document["proved_up_to"]) or "none", "for every slope from the start of the range"
            ),
            Tile("refuted from", up(document["refuted_from"]) or "none", "the least slope with a counterexample"),
            Tile("still open", arithmetic.width(_spans(document["open"])), "width of the slopes that are undecided"),
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
        f"Each of them provably keeps its label within an {norm(document['norm'])} distance of"
        f" {short(document['epsilon'])}, at every slope from {short(start)} to {short(end)}.",
        [
            Tile("certified, worst slope", _extreme(document, "certified"), "proved at every slope: at least this"),
            Tile("attacked, worst slope", _extreme(document, "attacked"), "not refuted"),
            Tile("proved throughout", proved, f"of {len(inputs)} inputs"),
            Tile("epsilon", document["epsilon"], f"in {norm(document['norm'])}"),
        ],
        [
            *_accuracy(document["accuracy"]),
            *_gallery(document),
            Section("Inputs", [_inputs(document)]),
            *_constant(document),
            *_signal(document),
            *_question(document),
        ],
    )


def _extreme(document: Document, key: str) -> Cell:
    values = [part[key] for part in document["accuracy"]]
    return Share(min(values)) if values else None


def _headline(found: Found) -> str:
    proved, refuted = found["proved_up_to"], found["refuted_from"]
    if found["status"] == "proved":
        start, end = found["slopes"]
        return f"Proved for every slope from {short(start)} to {short(end)}"
    if proved is not None:
        beyond = "undecided beyond" if refuted is None else f"refuted from {rounded_up(refuted)}"
        return f"Proved up to slope {rounded_down(proved)}, {beyond}"
    return "Undecided" if refuted is None else f"Refuted from slope {rounded_up(refuted)}"


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


def _spans(pairs: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(start, end) for start, end in pairs]


def _decided(document: Document, found: Found) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The slopes that the result says are proved, and those it says are refuted.

    Proved are those up to ``proved_up_to`` and those with a positive proven value. Refuted is what is neither proved
    nor open and lies beyond ``refuted_from``; everything else is drawn as open.
    """
    start, end = document["slopes"]
    known = arithmetic.positive(found["curve"])
    if found["proved_up_to"] is not None:
        known = union([*known, (start, found["proved_up_to"])])
    if found["refuted_from"] is None:
        return known, []
    return known, gaps(union([*known, *_spans(found["open"])]), max(start, found["refuted_from"]), end)


def _picture(document: Document, found: Found, title: str | None = None) -> Picture:
    chords = [
        ((part["slopes"][0], part["slopes"][1]), ends)
        for part in found["curve"]
        if (ends := arithmetic.chord(part)) is not None
    ]
    points = arithmetic.attained(found["curve"])
    proved, refuted = _decided(document, found)
    start, end = document["slopes"]
    own = document.get("own_slopes")
    inside = own is not None and start <= own[0] <= own[1] <= end
    figure = Curve(
        (start, end), chords, points, proved, refuted, (own[0], own[1]) if own and inside else None, title is not None
    )
    lowest = arithmetic.lowest(found["curve"])
    says = f"{_headline({**found, 'slopes': document['slopes']})}. " + (
        "The proven margin has gaps."
        if lowest is None
        else f"The proven margin is nowhere below {rounded_down(lowest)}."
    )
    return Picture(title or "Margin over the slope of the leak", says, figure, "" if title else _CURVE)


def _segments(curve: Sequence[Found]) -> Table:
    rows = []
    for part in curve:
        lower, upper = part["lower"] or (None, None), part["upper"] or (None, None)
        rows.append((*part["slopes"], *map(down, lower), *map(up, upper)))
    return Table(
        f"The curve in numbers ({len(rows)} segments)",
        ("from slope", "to slope", "proven at start", "proven at end", "attained at start", "attained at end"),
        rows,
        folded=True,
    )


def _shift(document: Document) -> list[Section]:
    shift = document["shift"]
    if shift is None:
        return []
    start, end = document["slopes"]
    span = Fraction(end) - Fraction(start)
    rows: list[tuple[Cell, ...]] = []
    formula, local, lines = (shift.get(key) for key in ("closed_form", "local", "parametric"))
    if formula is not None:
        rate = formula["rate"]
        rows.append(("closed formula", Span(-rate, rate, outward=True), _change((-rate, rate), span)))
    if local is not None:
        rows.append(("local derivative", _proven(local["rate"]), _change(local["rate"], span)))
    if lines:
        rows.append(("parametric lines", None, _proven(lines[-1]["change"])))
    together = shift["change"]
    rows.append(("all together", None, None if together is None else _proven(together)))
    blocks: list[Block] = [
        Prose(
            f"How far the smallest margin can be, at slope {short(end)}, from what it is at slope {short(start)}. Each"
            " bound is proven by itself; their intersection is the result."
        ),
        Table(
            "Bounds on the change of the smallest margin", ("bound", "per unit of slope", "change"), rows, summed=True
        ),
    ]
    if lines:
        blocks.append(
            Table(
                f"Parametric bounds of {len(lines)} segments",
                ("from slope", "to slope", "change at least", "change at most"),
                [(*part["slopes"], down(part["change"][0]), up(part["change"][1])) for part in lines],
                folded=True,
            )
        )
    return [Section("The shift", blocks)]


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _proven(ends: Sequence[float]) -> Span:
    return Span(ends[0], ends[1], outward=True)


def _change(rate: Sequence[float], width: Fraction) -> Span:
    """Rate times width, rounded outwards."""
    low, high = (Fraction(end) * width for end in rate)
    lower, upper = _nearest(low), _nearest(high)
    return _proven(
        (lower if lower <= low else nextafter(lower, -inf), upper if upper >= high else nextafter(upper, inf))
    )


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


def _signal(document: Document) -> list[Section]:
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


def _accuracy(found: Sequence[Found]) -> list[Section]:
    if not found:
        return []
    spans = [(part["slopes"][0], part["slopes"][1]) for part in found]
    lines = {name: list(zip(spans, (part[name] for part in found), strict=True)) for name in ("certified", "attacked")}
    least, most = (min(part["certified"] for part in found), max(part["certified"] for part in found))
    says = (
        f"Certified accuracy is between {least:.1%} and {most:.1%} over the range; the accuracy under attack is above"
        " it. On each segment the certified share holds at every slope."
    )
    rows = [(*part["slopes"], Share(part["certified"]), Share(part["attacked"])) for part in found]
    return [
        Section(
            "Accuracy over slopes",
            [
                Picture(
                    "Certified and attacked accuracy", says, Steps("slope of the leak", "share of inputs", lines, True)
                ),
                Table(
                    f"The accuracy in numbers ({len(rows)} segments)",
                    ("from slope", "to slope", "certified", "attacked"),
                    rows,
                    folded=True,
                ),
            ],
        )
    ]


def _gallery(document: Document) -> list[Section]:
    inputs = document["inputs"]
    chosen = sorted(inputs, key=_urgency)[:_GALLERY]
    if not chosen:
        return []
    pictures = [_picture(document, found, f"input {found['index']}: {found['status']}") for found in chosen]
    which = "" if len(chosen) == len(inputs) else f" Of {len(inputs)} inputs, {len(chosen)} are drawn:"
    order = " those that are undecided, those that are refuted within the range, then the smallest proven margins."
    return [Section("Curves", [Gallery(pictures, _CURVE + (which + order if which else ""))])]


def _urgency(found: Found) -> tuple[int, float, int]:
    lowest = arithmetic.lowest(found["curve"])
    rank = {"unknown": 0, "timeout": 0, "refuted": 1}.get(found["status"], 2)
    if rank == 1 and found["proved_up_to"] is None:  # refuted from the start of the range: nothing moves
        rank = 3
    return rank, -inf if lowest is None else lowest, found["index"]


def _inputs(document: Document) -> Table:
    radii = any(found["radius"] for found in document["inputs"])
    columns = [
        "input",
        "label",
        "predicted",
        "status",
        "smallest margin",
        "proved up to",
        "refuted from",
        "open",
        "change at least",
        "change at most",
        *(["radius at least"] if radii else []),
    ]
    rows: list[tuple[Cell, ...]] = []
    for found in document["inputs"]:
        change = (found["shift"] or {}).get("change") or (None, None)
        parted = [part["radius"] for part in found["radius"] or ()]
        rows.append(
            (
                found["index"],
                found["label"],
                found["predicted"],
                Verdict(found["status"]),
                down(arithmetic.lowest(found["curve"])),
                down(found["proved_up_to"]),
                up(found["refuted_from"]),
                arithmetic.width(_spans(found["open"])),
                down(change[0]),
                up(change[1]),
                *([down(min(parted)) if parted and None not in parted else None] if radii else []),
            )
        )
    return Table(f"{len(rows)} inputs", columns, rows, searchable=True)


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
