"""Documents in any format: the door to this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from leaktight.errors import UsageError
from leaktight.verify.report import json, schemas
from leaktight.verify.report.check import check
from leaktight.verify.report.compare import compare as changes
from leaktight.verify.report.read import read
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import counted
from leaktight.version import __version__

_HOMES = {
    "html": "html",
    "md": "markdown",
    "json": "json",
    "text": "text",
    "junit": "junit",
    "sarif": "sarif",
}
FORMATS = tuple(_HOMES)


class Result(Protocol):
    """What has a document: a Verdict, a Certification, bounds over a region's union, a leak curve."""

    def to_json(self) -> dict[str, Any]: ...


def render(document: Document, format: str, **settings: Any) -> str:
    """A checked document in one of `FORMATS`; `settings` go to that format.

    Raises UsageError: there is no such format.
    """
    if format not in _HOMES:
        raise UsageError(f"--format: {format!r} is not known; allowed: {', '.join(FORMATS)}")
    text: str = import_module(f"leaktight.verify.report.{_HOMES[format]}").render(document, **settings)
    return text


def bundle(documents: Sequence[Document]) -> Document:
    """One document that stands for all (schema leaktight.report/1); a single one stands for itself.

    Raises UsageError: there is none.
    """
    if not documents:
        raise UsageError("there is no result to report; give at least one")
    if len(documents) == 1:
        return documents[0]
    return {"schema": schemas.BUNDLE, "results": list(documents), "version": __version__}


def from_files(paths: Sequence[Path], *, compare: bool = False) -> tuple[Document, str]:
    """One document for the result files, or what changed from the first to the second of two; and a line about it.

    Raises UsageError: a file cannot be read as a result; or they are not two of the same kind, and `compare` is asked.
    """
    if compare and len(paths) != 2:
        raise UsageError(f"--compare: it takes exactly two results; got {len(paths)}")
    documents = [read(path) for path in paths]
    if not compare:
        return bundle(documents), f"report of {counted(len(documents), 'result')}"
    found = changes(documents[0], documents[1], (str(paths[0]), str(paths[1])))
    turned = sum(pair["count"] for pair in found["verdicts"] if pair["before"] != pair["after"])
    wrong = f"; {len(found['contradictions'])} CONTRADICTIONS" if found["contradictions"] else ""
    return found, f"verdicts that changed: {turned}; entries that changed: {len(found['entries'])}{wrong}"


def report(
    results: Document | Result | Sequence[Document | Result], format: str = "html", *, compared: bool = False
) -> str:
    """Results as a document for people: ``html`` (one self-contained page), ``md``, ``json`` or ``text``.

    results: what `prove`, `certify` and the like return, or their JSON documents; of several, one after the other, or
    with `compared`, of two of the same kind, what changed from the first to the second.

    Raises UsageError: no such format; a document whose schema is unknown, that lacks something, or contradicts itself.

    >>> import leaktight as lt
    >>> bounds = {"schema": "leaktight.bounds/1", "outputs": {"y": {"lower": [0.5], "upper": [1.5]}}, "engine": "crown",
    ...           "guarantee": "real", "network": {"path": "net.onnx"}, "version": "0.1"}
    >>> lt.report(bounds, "md").splitlines()[0]
    '# Bounds of 1 output'
    """
    given = results if isinstance(results, (list, tuple)) else [results]
    documents = [_document(result, f"result {place}") for place, result in enumerate(given, start=1)]
    if compared and len(documents) != 2:
        raise UsageError(f"a comparison needs exactly two results, and there are {len(documents)}")
    return render(changes(documents[0], documents[1]) if compared else bundle(documents), format)


def _document(result: Any, name: str) -> Document:
    found = result if isinstance(result, Mapping) else getattr(result, "to_json", dict)()
    strict = json.strict(found)
    check(strict, name)
    document: Document = strict
    return document
