"""What must be in the documents of the commands that ask one question: verify, certify, bounds, leak, lipschitz."""

from __future__ import annotations

from collections.abc import Mapping

from leaktight.verify.report.schemas import Document
from leaktight.verify.report.shape import (
    Check,
    interval,
    list_of,
    mapping_of,
    maybe,
    nested,
    number,
    one_of,
    record,
    share,
    text,
    truth,
    whole,
)

_STATUS = one_of("proved", "refuted", "unknown", "timeout")
SOURCE = record({}, {"path": maybe(text), "sha256": maybe(text)})
_MARGIN = record({"lower": maybe(number), "upper": maybe(number)})
_COMMON: Mapping[str, Check] = {"engine": text, "guarantee": text, "network": SOURCE, "version": text}
_ORIGIN: Mapping[str, Check] = {
    "command": list_of(text),
    "versions": mapping_of(maybe(text)),
    "seconds": number,
    "statistics": mapping_of(number),
    "interrupted": truth,
    "data": SOURCE,
    "property": SOURCE,
}
_EXAMPLE: Mapping[str, Check] = {"inputs": mapping_of(nested), "outputs": mapping_of(nested)}

VERDICT_SHAPE = record(
    {
        **_COMMON,
        "status": _STATUS,
        "margin": _MARGIN,
        "counterexample": maybe(record(_EXAMPLE)),
        "reason": text,
        "seconds": number,
        "property": SOURCE,
    },
    {**_ORIGIN, "cross_check": record({"engine": text, "version": text, "method": text, "margin": _MARGIN})},
)

_LABELLED: Mapping[str, Check] = {"index": whole, "label": whole, "predicted": whole, "status": _STATUS}
_CERTIFIED = record({**_LABELLED, "margin": _MARGIN, "radius": maybe(number), "seconds": number})
CERTIFICATION_SHAPE = record(
    {
        **_COMMON,
        "inputs": list_of(_CERTIFIED),
        "accuracy": record({"clean": share, "certified": share, "attacked": share}),
        "epsilon": number,
        "norm": text,
    },
    _ORIGIN,
)

BOUNDS_SHAPE = record(
    {**_COMMON, "outputs": mapping_of(record({"lower": nested, "upper": nested}))},
    {**_ORIGIN, "regions": whole},
)

_ENDS = maybe(list_of(maybe(number), 2))
_SHIFT = record(
    {"change": maybe(interval)},
    {
        "closed_form": maybe(record({"rate": number})),
        "local": maybe(record({"rate": interval})),
        "parametric": maybe(list_of(record({"slopes": interval, "change": interval}))),
    },
)
_FOUND: Mapping[str, Check] = {
    "status": _STATUS,
    "curve": list_of(record({"slopes": interval, "lower": _ENDS, "upper": _ENDS})),
    "proved_up_to": maybe(number),
    "refuted_from": maybe(number),
    "open": list_of(interval),
    "shift": maybe(_SHIFT),
    "radius": maybe(list_of(record({"slopes": interval, "radius": maybe(number)}))),
}
_FACTORS: Mapping[str, Check] = {
    "expected_gradient": maybe(number),
    "gradient_variance": maybe(number),
    "squared_norm": maybe(number),
    "preserving_variance": maybe(number),
    "active": maybe(share),
    "inactive": maybe(share),
    "unstable": maybe(share),
}
_LAYER = record(
    {"node": text, "at": list_of(record({"slope": number}, _FACTORS))},
    {"entries": whole, "fan_in": maybe(whole), "weight_variance": maybe(number)},
)
_LEAK_COMMON: Mapping[str, Check] = {
    **_COMMON,
    "status": _STATUS,
    "slopes": interval,
    "leak": one_of("shared", "independent"),
    "nodes": list_of(text),
}
_CONSTANT = record(
    {"norm": text, "curve": list_of(record({"slopes": interval, "upper": maybe(number)}))}, {"seconds": number}
)
_LEAK_EXTRAS: Mapping[str, Check] = {
    **_ORIGIN,
    "own_slopes": maybe(interval),
    "tolerance": maybe(number),
    "signal": maybe(record({"layers": list_of(_LAYER)})),
    "lipschitz": maybe(_CONSTANT),
    "epsilon": number,
    "norm": text,
}
_LEAK_OF_PROPERTY = record(
    {**_LEAK_COMMON, **_FOUND},
    {**_LEAK_EXTRAS, "counterexample": maybe(record({"slope": number, **_EXAMPLE}))},
)
_LEAK_OF_DATA = record(
    {
        **_LEAK_COMMON,
        "inputs": list_of(record({**_LABELLED, **_FOUND})),
        "accuracy": list_of(record({"slopes": interval, "certified": share, "attacked": share})),
        "epsilon": number,
        "norm": text,
    },
    _LEAK_EXTRAS,
)


def leak_shape(value: Document) -> None:
    """A leak document: of a property or of data."""
    (_LEAK_OF_DATA if "inputs" in value else _LEAK_OF_PROPERTY)(value)


LIPSCHITZ_SHAPE = record(
    {
        **_COMMON,
        "norm": text,
        "upper": maybe(number),
        "lower": maybe(number),
        "method": text,
        "bounds": mapping_of(maybe(number)),
        "scope": one_of("global", "local"),
        "timed_out": truth,
        "seconds": number,
    },
    {
        **_ORIGIN,
        "gap": maybe(number),
        "pattern": maybe(number),
        "radius": number,
        "center": SOURCE,
        "curve": list_of(record({"slopes": interval, "upper": maybe(number)})),
    },
)
