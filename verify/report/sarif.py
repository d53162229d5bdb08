"""SARIF 2.1.0 (OASIS), as code scanning reads it: a result for each finding, at the line of the user's file.

Rule identifiers never change; a fingerprint is of rule and job, and stays when lines move or numbers change.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any
from urllib.parse import quote

from leaktight.verify.report import testcases
from leaktight.verify.report.json import strict
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import clean
from leaktight.version import __version__

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_PLACES = {identifier: place for place, (identifier, _) in enumerate(testcases.RULES.values())}


def render(document: Document) -> str:
    """The document as SARIF that ends with a newline."""
    results = [_result(case, finding) for case in testcases.cases(document) for finding in case.findings]
    driver = {"name": "leaktight", "version": __version__, "rules": [_rule(name) for name in testcases.RULES]}
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }
    return json.dumps(strict(log), indent=1, allow_nan=False) + "\n"


def _rule(name: str) -> dict[str, Any]:
    identifier, says = testcases.RULES[name]
    level = "note" if name in ("unknown", "timeout") else "error"
    return {
        "id": identifier,
        "name": name.capitalize(),
        "shortDescription": {"text": says},
        "defaultConfiguration": {"level": level},
    }


def _result(case: testcases.Case, finding: testcases.Finding) -> dict[str, Any]:
    identifier = testcases.RULES[finding.rule][0]
    found: dict[str, Any] = {
        "ruleId": identifier,
        "ruleIndex": _PLACES[identifier],
        "level": "error" if finding.fails else "note",
        "message": {"text": clean(f"{case.name}: {finding.message}")},
        "partialFingerprints": {"leaktight/v1": _fingerprint(identifier, case, finding)},
    }
    if case.path is not None:
        place: dict[str, Any] = {"artifactLocation": {"uri": uri(case.path)}}
        if case.line is not None:
            place["region"] = {"startLine": case.line}
        found["locations"] = [{"physicalLocation": place}]
    return found


def uri(path: str) -> str:
    """A path as a URI reference: relative ones stay relative."""
    try:
        escaped = quote(os.fsencode(path))
    except UnicodeEncodeError:  # no name of a file on this system
        escaped = quote(path.encode("utf-8", "surrogatepass"))
    if path.startswith("/"):
        return f"file://{escaped}"
    return f"./{escaped}" if ":" in path.partition("/")[0] else escaped


def _fingerprint(identifier: str, case: testcases.Case, finding: testcases.Finding) -> str:
    return hashlib.sha256(json.dumps([identifier, case.name, finding.about]).encode()).hexdigest()
