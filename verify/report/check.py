"""Refuses documents that cannot be rendered."""

from __future__ import annotations

from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.report import answer_shapes, run_shapes, schemas
from leaktight.verify.report.contradiction import contradiction
from leaktight.verify.report.shape import Check, Misshapen, list_of, one_of, record

_SHAPES: dict[str, Check] = {
    schemas.VERDICT: answer_shapes.VERDICT_SHAPE,
    schemas.CERTIFICATION: answer_shapes.CERTIFICATION_SHAPE,
    schemas.BOUNDS: answer_shapes.BOUNDS_SHAPE,
    schemas.LEAK: answer_shapes.leak_shape,
    schemas.LIPSCHITZ: answer_shapes.LIPSCHITZ_SHAPE,
    schemas.COMPARISON: run_shapes.COMPARISON_SHAPE,
    schemas.RUN: run_shapes.run_shape(lambda value: check_shape(value)),
    schemas.HISTORY: run_shapes.HISTORY_SHAPE,
}
_SHAPES[schemas.BUNDLE] = record({"results": list_of(lambda value: check_shape(value))})
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
    denied = contradiction(document)
    if denied is not None:
        raise UsageError(f"{name}: it contradicts itself: {denied}; {_HOW}")
