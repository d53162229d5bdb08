"""Two results of the same kind, and what changed from the first to the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.digits import rounded_down, rounded_up, short
from leaktight.verify.report import curve, schemas
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import places
from leaktight.version import __version__

Numbers = Mapping[str, float | None]
_KINDS = {
    schemas.VERDICT: "verdict",
    schemas.CERTIFICATION: "certification",
    schemas.BOUNDS: "bounds",
    schemas.LEAK: "leak",
    schemas.LIPSCHITZ: "lipschitz",
}
# What is asked; results that differ in one of these answer different questions, so that they cannot contradict.
_QUESTION = ("network", "property", "data", "epsilon", "norm", "slopes", "leak", "nodes")
_BALL = ("scope", "center", "radius")  # in which a Lipschitz constant is asked for
_CIRCUMSTANCES = ("guarantee", "engine", "method", "tolerance", "version", "versions")
_OPPOSITE = ({"proved", "refuted"}, {"refuted", "proved"})


@dataclass(frozen=True)
class _Entry:
    """One thing of which a result has many: an input, or an output."""

    status: str | None
    numbers: Numbers


def compare(before: Document, after: Document, names: tuple[str, str] = ("before", "after")) -> dict[str, Any]:
    """What changed between two results (schema leaktight.comparison/1).

    ``settings`` lists what was asked, or how, and differs. ``quantities`` are the numbers of the whole, ``entries``
    those inputs (or outputs) of which something changed, ``moved_most`` the largest rise and fall of their numbers.
    ``verdicts`` counts each pair of statuses. ``contradictions`` says where one result proves what the other refutes,
    although both answer the same question: then one of them is wrong.

    Raises UsageError: they are of different kinds.
    """
    kinds = [_KINDS.get(document["schema"]) for document in (before, after)]
    if kinds[0] is None or kinds[0] != kinds[1]:
        which = (before["schema"], after["schema"])
        runs = "; 'leaktight run --baseline FILE' compares a run with an earlier one" if schemas.RUN in which else ""
        raise UsageError(
            f"--compare: {names[0]} is a {before['schema']} and {names[1]} a {after['schema']}; give two results of the"
            f" same kind, one of {', '.join(_KINDS)}{runs}"
        )
    kind = kinds[0]
    if kind == "leak" and ("inputs" in before) != ("inputs" in after):
        raise UsageError("--compare: one result is of a property and the other of data; give two of the same kind")
    old, new = _entries(before), _entries(after)
    both = [name for name in old if name in new]
    question = (*_QUESTION, *_BALL) if kind == "lipschitz" else _QUESTION
    settings = list(_settings(before, after, question))
    changed = [entry for name in both if (entry := _changed(name, old[name], new[name])) is not None]
    pairs = Counter((old[name].status, new[name].status) for name in both if old[name].status is not None)
    return {
        "schema": schemas.COMPARISON,
        "kind": kind,
        "before": _side(before, names[0]),
        "after": _side(after, names[1]),
        "settings": settings,
        "contradictions": []
        if any(setting["name"] in question for setting in settings) or not _said(before)
        else _contradictions((_whole(before), _whole(after)), old, new),
        "quantities": _moves(_whole(before), _whole(after)),
        "verdicts": [{"before": pair[0], "after": pair[1], "count": count} for pair, count in sorted(pairs.items())],
        "entries": changed,
        "moved_most": _moved_most(changed),
        "only_before": [name for name in old if name not in new],
        "only_after": [name for name in new if name not in old],
        "version": __version__,
    }


def numbers_of(document: Document) -> tuple[Numbers, dict[str, tuple[str | None, Numbers]]]:
    """The numbers of a result as a whole, and of each of its entries with its status, by the names of both."""
    if document["schema"] == schemas.LIPSCHITZ:
        return {"lipschitz": document["upper"]}, {}
    if document["schema"] not in _KINDS:
        return {}, {}
    return _whole(document), {name: (entry.status, entry.numbers) for name, entry in _entries(document).items()}


def _side(document: Document, name: str) -> dict[str, Any]:
    side = {"name": name, "network": dict(document["network"]), "version": document["version"]}
    return {**side, "command": document["command"]} if "command" in document else side


def _settings(before: Document, after: Document, question: Sequence[str]) -> Iterator[dict[str, str | None]]:
    for name in (*question, *_CIRCUMSTANCES):
        old, new = _setting(before, name), _setting(after, name)
        if old != new and not (name == "engine" and "method" in before):  # which is the method's other name
            yield {"name": name, "before": old, "after": new}


def _said(document: Document) -> bool:
    """Whether the file says which network it is about, and which ball."""
    in_a_ball = document.get("scope") == "local"
    return all(document.get(name, {}).get("sha256") for name in ("network", *(["center"] if in_a_ball else [])))


def _setting(document: Document, name: str) -> str | None:
    """A setting as text; a file is what its digest says, wherever it lies."""
    value = document.get(name)
    if name in ("network", "property", "data", "center") and value is not None:
        digest = value.get("sha256")
        return f"sha256 {digest}" if digest else None
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return None if value is None else str(value)


def _entries(document: Document) -> dict[str, _Entry]:
    """The entries by name; an input that is there twice is counted once, as its last."""
    if document["schema"] == schemas.BOUNDS:
        return dict(_outputs(document))
    if document["schema"] == schemas.LIPSCHITZ:
        return dict(_constants(document))
    if "inputs" not in document:
        numbers = {} if document["schema"] == schemas.VERDICT else _slope_numbers(document)
        return {
            "the property": _Entry(
                document["status"], {**numbers, **_margin_numbers(document), **_radius_numbers(document)}
            )
        }
    numbers_of = _slope_numbers if document["schema"] == schemas.LEAK else _margin_numbers
    return {
        f"input {found['index']}": _Entry(found["status"], {**numbers_of(found), **_radius_numbers(found)})
        for found in document["inputs"]
    }


def _outputs(document: Document) -> Iterator[tuple[str, _Entry]]:
    for name, ends in document["outputs"].items():
        for (place, low), (_, high) in zip(places(ends["lower"], name), places(ends["upper"], name), strict=True):
            yield place, _Entry(None, {"lower": low, "upper": high})


def _constants(document: Document) -> Iterator[tuple[str, _Entry]]:
    """What each method proved, and of a curve each segment."""
    for name, upper in document["bounds"].items():
        yield f"method {name}", _Entry(None, {"upper": upper})
    for part in document.get("curve", ()):
        yield "slopes {} to {}".format(*part["slopes"]), _Entry(None, {"upper": part["upper"]})


def _margin_numbers(found: Document) -> Numbers:
    margin = found.get("margin")
    return {} if margin is None else {"margin, proven": margin["lower"], "margin, attained": margin["upper"]}


def _slope_numbers(found: Document) -> Numbers:
    shift = (found["shift"] or {}).get("change") or (None, None)
    values = [value for _, value in curve.attained(found["curve"])]
    return {
        "smallest margin, proven": curve.lowest(found["curve"]),
        "smallest margin, attained": min(values, default=None),
        "proved up to": found["proved_up_to"],
        "refuted from": found["refuted_from"],
        "open slopes": curve.width([(start, end) for start, end in found["open"]]),
        "change at least": shift[0],
        "change at most": shift[1],
    }


def _radius_numbers(found: Document) -> Numbers:
    radius = found.get("radius")
    if not isinstance(radius, (list, tuple)):
        return {"radius, proven": radius}
    parts = [part["radius"] for part in radius]
    return {"radius, proven": None if None in parts else min(parts, default=None)}


def _whole(document: Document) -> Numbers:
    """The numbers of a result as a whole."""
    numbers: dict[str, float | None] = {}
    if document["schema"] == schemas.LIPSCHITZ:
        numbers = {f"constant, {end}": document[end] for end in ("upper", "lower")} | {"gap": document.get("gap")}
    accuracy = document.get("accuracy")
    if isinstance(accuracy, Mapping):
        numbers = {f"{name} accuracy": accuracy[name] for name in ("clean", "certified", "attacked")}
    elif accuracy:
        numbers = {
            f"{name} accuracy, worst slope": min(part[name] for part in accuracy) for name in ("certified", "attacked")
        }
    return {**numbers, "seconds": document.get("seconds")}


def _moves(before: Numbers, after: Numbers) -> list[dict[str, Any]]:
    """Every number that one of the two has."""
    names = dict.fromkeys((*before, *after))
    return [
        _move(name, before.get(name), after.get(name))
        for name in names
        if (before.get(name), after.get(name)) != (None, None)
    ]


def _move(name: str, before: float | None, after: float | None) -> dict[str, Any]:
    change = None if before is None or after is None else after - before
    return {"name": name, "before": before, "after": after, "change": change}


def _changed(name: str, before: _Entry, after: _Entry) -> dict[str, Any] | None:
    moves = [move for move in _moves(before.numbers, after.numbers) if move["before"] != move["after"]]
    if before.status == after.status and not moves:
        return None
    status = None if before.status is None else [before.status, after.status]
    return {"name": name, "status": status, "moves": moves}


def _moved_most(entries: Sequence[Document]) -> list[dict[str, Any]]:
    farthest: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for move in entry["moves"]:
            change = move["change"]
            if not change:
                continue
            found = farthest.setdefault(move["name"], {"name": move["name"], "rise": None, "fall": None})
            way = "rise" if change > 0 else "fall"
            if found[way] is None or abs(change) > abs(found[way]["change"]):
                found[way] = {"entry": entry["name"], "change": change}
    return list(farthest.values())


def _contradictions(whole: tuple[Numbers, Numbers], old: Mapping[str, _Entry], new: Mapping[str, _Entry]) -> list[str]:
    """Claims of the one that the other denies, where both answer the same question."""
    before, after = whole
    found = [*_denials("the whole", before, after, "before"), *_denials("the whole", after, before, "after")]
    found += [
        f"{name}: {old[name].status} before, and {new[name].status} after"
        for name in old
        if name in new and {old[name].status, new[name].status} in _OPPOSITE
    ]
    for name in old:
        if name in new:
            for one, other, which in ((old, new, "before"), (new, old, "after")):
                found += _denials(name, one[name].numbers, other[name].numbers, which)
    return found


# What is attained was computed by a float32 runtime, and may lie below a proven bound by that runtime's rounding.
_ROUNDING = 1e-5
# What is proven to be a lower bound, and what shows how high it can be at most.
_ORDERED = (
    ("margin, proven", "margin, attained"),
    ("smallest margin, proven", "smallest margin, attained"),
    ("proved up to", "refuted from"),
    ("lower", "upper"),
    ("constant, lower", "constant, upper"),
)


def _denials(name: str, proven: Numbers, shown: Numbers, which: str) -> Iterator[str]:
    for low, high in _ORDERED:
        lower, upper = proven.get(low), shown.get(high)
        if lower is not None and upper is not None and lower - upper > _ROUNDING * max(1.0, abs(upper)):
            yield (
                f"{name}: {low} is {rounded_up(lower)} {which}, and {high} is {rounded_down(upper)} in the other result"
                f" (by {short(lower - upper)})"
            )
