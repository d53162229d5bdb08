"""What must be in the documents about several answers: runs, ledgers, comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from leaktight.verify.report.answer_shapes import SOURCE
from leaktight.verify.report.shape import (
    Check,
    list_of,
    mapping_of,
    maybe,
    number,
    one_of,
    record,
    text,
    truth,
    whole,
)

_MOVE: Mapping[str, Check] = {"name": text, "before": maybe(number), "after": maybe(number), "change": maybe(number)}
_FARTHEST = maybe(record({"entry": text, "change": number}))
_SIDE = record({"name": text, "network": SOURCE, "version": text}, {"command": list_of(text)})
COMPARISON_SHAPE = record(
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
_RULE = one_of("refuted", "unknown", "timeout", "error", "requirement", "regression")
_WORSE = record({"job": text, "entry": text, "number": text}, {"before": lambda _: None, "after": lambda _: None})
HISTORY_SHAPE = record(
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


def run_shape(result: Check) -> Check:
    """That of a run's document; `result`: that of each job's own document."""
    job = record(
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
            "result": maybe(result),
        },
        {"question": mapping_of(lambda _: None)},
    )
    return record(
        {
            "suite": SOURCE,
            "jobs": list_of(job),
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
