"""The documents that can be rendered: their schemas, and what must be in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.report.shape import (
    Check,
    Misshapen,
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
from leaktight.verify.report.words import places

Document = Mapping[str, Any]

VERDICT = "leaktight.verdict/1"
CERTIFICATION = "leaktight.certification/1"
BOUNDS = "leaktight.bounds/1"
LEAK = "leaktight.leak/1"
LIPSCHITZ = "leaktight.lipschitz/1"
COMPARISON = "leaktight.comparison/1"
RUN = "leaktight.run/1"
HISTORY = "leaktight.history/1"
BUNDLE = "leaktight.report/1"

_STATUS = one_of("proved", "refuted", "unknown", "timeout")
_SOURCE = record({}, {"path": maybe(text), "sha256": maybe(text)})
_MARGIN = record({"lower": maybe(number), "upper": maybe(number)})
_COMMON: Mapping[str, Check] = {"engine": text, "guarantee": text, "network": _SOURCE, "version": text}
_ORIGIN: Mapping[str, Check] = {
    "command": list_of(text),
    "versions": mapping_of(maybe(text)),
    "seconds": number,
    "statistics": mapping_of(number),
    "interrupted": truth,
    "data": _SOURCE,
    "property": _SOURCE,
}
_EXAMPLE: Mapping[str, Check] = {"inputs": mapping_of(nested), "outputs": mapping_of(nested)}

_VERDICT = record(
    {
        **_COMMON,
        "status": _STATUS,
        "margin": _MARGIN,
        "counterexample": maybe(record(_EXAMPLE)),
        "reason": text,
        "seconds": number,
        "property": _SOURCE,
    },
    {**_ORIGIN, "cross_check": record({"engine": text, "version": text, "method": text, "margin": _MARGIN})},
)

_LABELLED: Mapping[str, Check] = {"index": whole, "label": whole, "predicted": whole, "status": _STATUS}
_CERTIFIED = record({**_LABELLED, "margin": _MARGIN, "radius": maybe(number), "seconds": number})
_CERTIFICATION = record(
    {
        **_COMMON,
        "inputs": list_of(_CERTIFIED),
        "accuracy": record({"clean": share, "certified": share, "attacked": share}),
        "epsilon": number,
        "norm": text,
    },
    _ORIGIN,
)

_BOUNDS = record(
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


def _leak(value: Document) -> None:
    (_LEAK_OF_DATA if "inputs" in value else _LEAK_OF_PROPERTY)(value)


_LIPSCHITZ = record(
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
        "curve": list_of(record({"slopes": interval, "upper": maybe(number)})),
    },
)

_MOVE: Mapping[str, Check] = {"name": text, "before": maybe(number), "after": maybe(number), "change": maybe(number)}
_FARTHEST = maybe(record({"entry": text, "change": number}))
_SIDE = record({"name": text, "network": _SOURCE, "version": text}, {"command": list_of(text)})
_COMPARISON = record(
    {
        "kind": text,
        "before": _SIDE,
        "after": _SIDE,
        "settings": list_of(record({"name": text, "before": maybe(text), "after": maybe(text)})),
        "contradictions": list_of(text),
        "quantities": list_of(record(_MOVE)),
        "verdicts": list_of(record({"before": text, "after": text, "count": whole})),
        "entries": list_of(record({"name": text, "status": maybe(list_of(text, 2)), "moves": list_of(record(_MOVE))})),
        "moved_most": list_of(record({"name": text, "rise": _FARTHEST, "fall": _FARTHEST})),
        "only_before": list_of(text),
        "only_after": list_of(text),
        "version": text,
    }
)
_JOB_STATUS = one_of("proved", "refuted", "unknown", "timeout", "done", "error")
_PLACE = record({"path": text, "line": whole})
_FAULT = record({"kind": text, "message": text})
_JOB = record(
    {
        "name": text,
        "kind": text,
        "tags": list_of(text),
        "status": _JOB_STATUS,
        "passes": truth,
        "network": record({"path": text, "digest": maybe(text)}),
        "files": mapping_of(text),
        "place": _PLACE,
        "assertion": maybe(_PLACE),
        "requires": list_of(record({"text": text, "value": maybe(number), "holds": truth})),
        "error": maybe(_FAULT),
        "seconds": number,
        "cached": truth,
        "result": maybe(lambda value: check_shape(value)),
    },
    {"question": mapping_of(lambda _: None)},
)
_RULE = one_of("refuted", "unknown", "timeout", "error", "requirement", "regression")
_WORSE = record({"job": text, "entry": text, "number": text}, {"before": lambda _: None, "after": lambda _: None})
_RUN = record(
    {
        "suite": _SOURCE,
        "jobs": list_of(_JOB),
        "counts": mapping_of(whole),
        "gate": record(
            {
                "fail_on": list_of(text),
                "passed": truth,
                "failures": list_of(record({"job": text, "rule": _RULE, "message": text}, {"about": text})),
            }
        ),
        "baseline": maybe(
            record(
                {
                    "path": text,
                    "tolerance": number,
                    "regressions": list_of(_WORSE),
                    "missing": list_of(text),
                    "added": list_of(text),
                }
            )
        ),
        "seconds": number,
        "interrupted": truth,
        "version": text,
    },
    {"command": list_of(text), "versions": mapping_of(maybe(text)), "ledger": text},
)
_HISTORY = record(
    {
        "records": list_of(
            record(
                {
                    "run": whole,
                    "name": text,
                    "status": _JOB_STATUS,
                    "at": number,
                    "seconds": number,
                    "version": text,
                    "network": text,
                    "error": maybe(_FAULT),
                    "numbers": mapping_of(maybe(number)),
                }
            )
        ),
        "ledger": text,
        "version": text,
    },
    {"command": list_of(text), "versions": mapping_of(maybe(text))},
)
_SHAPES: dict[str, Check] = {
    VERDICT: _VERDICT,
    CERTIFICATION: _CERTIFICATION,
    BOUNDS: _BOUNDS,
    LEAK: _leak,
    LIPSCHITZ: _LIPSCHITZ,
    COMPARISON: _COMPARISON,
    RUN: _RUN,
    HISTORY: _HISTORY,
}
_SHAPES[BUNDLE] = record({"results": list_of(lambda value: check_shape(value))})
_HOW = "write it anew with 'leaktight verify, certify, bounds, leak or lipschitz --format json -o FILE'"


def check_shape(document: Any) -> None:
    """Raises Misshapen: it is no object, its schema is unknown, or something in it is missing or of the wrong kind."""
    record({"schema": one_of(*_SHAPES)})(document)
    _SHAPES[document["schema"]](document)


def check(document: Any, name: str) -> None:
    """Refuses what cannot be rendered; `name` says in the message where the document is from.

    Raises UsageError: see `check_shape`; or one of its claims denies another.
    """
    try:
        check_shape(document)
    except Misshapen as error:
        raise UsageError(f"{name}: {error}; {_HOW}") from None
    except RecursionError:
        raise UsageError(f"{name}: it is nested too deeply; {_HOW}") from None
    contradiction = _contradiction(document)
    if contradiction is not None:
        raise UsageError(f"{name}: it contradicts itself: {contradiction}; {_HOW}")


def _contradiction(document: Document) -> str | None:
    """Claims that cannot all hold; a page with them would show something as proved that its file denies."""
    if document["schema"] == BUNDLE:
        return next(filter(None, map(_contradiction, document["results"])), None)
    if document["schema"] == RUN:
        return next(filter(None, map(_denied, document["jobs"])), None)
    if document["schema"] == VERDICT and document["status"] == "proved" and document["counterexample"] is not None:
        return "its status is proved, and it has a counterexample"
    if document["schema"] == BOUNDS:
        return next((f"lower and upper of {name!r} differ in shape" for name in _lopsided(document)), None)
    if document["schema"] == LIPSCHITZ:
        upper, lower = document["upper"], document["lower"]
        crossed = upper is not None and lower is not None and lower > upper
        return f"lower is {lower}, above upper, {upper}" if crossed else None
    if document["schema"] != LEAK:
        return None
    start, end = document["slopes"]
    for found in document.get("inputs", [document]):
        for part in found["curve"]:
            if not start <= part["slopes"][0] <= part["slopes"][1] <= end:
                return f"a segment of its curve is {part['slopes']}, and its slopes are {document['slopes']}"
        proved, refuted = found["proved_up_to"], found["refuted_from"]
        if refuted is not None and proved is not None and refuted <= proved:
            return f"proved_up_to is {proved}, and refuted_from {refuted}"
        if found["status"] == "proved" and (refuted is not None or found["open"]):
            return "its status is proved, and some slopes are refuted or open"
    return None


def _denied(job: Document) -> str | None:
    """What a job of a run says that its result denies."""
    if job["result"] is None:
        return None if job["error"] is not None else f"job {job['name']!r} has neither a result nor an error"
    if job["error"] is not None or job["result"].get("status", job["status"]) != job["status"]:
        return f"job {job['name']!r} is {job['status']}, and its result is not"
    if job["status"] == "proved" and any(one["status"] != "proved" for one in job["result"].get("inputs", ())):
        return f"job {job['name']!r} is proved, and some of its inputs are not"
    return _contradiction(job["result"])


def _lopsided(document: Document) -> list[str]:
    """The outputs whose lower and upper bounds do not go together."""
    return [
        name
        for name, ends in document["outputs"].items()
        if [place for place, _ in places(ends["lower"], "")] != [place for place, _ in places(ends["upper"], "")]
    ]
