"""Result files: JSON in, documents out, and everything else refused with its name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from leaktight.errors import UsageError
from leaktight.verify.report.check import check
from leaktight.verify.report.schemas import Document

# A result of 10,000 inputs with 64 segments each has about 100 MB; what is larger was not written by leaktight.
LIMIT = 256 << 20
# Results nest about ten levels deep, and their tensors as deep as their shapes are long. The parser of the standard
# library nests as deep as the interpreter's recursion limit, which other packages raise beyond what a stack holds.
DEPTH = 100
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read(path: str | Path) -> Document:
    """The document in a file that ``--format json -o`` wrote.

    Raises UsageError: the file is missing, unreadable, larger than `LIMIT`, no strict JSON (keys given twice, NaN and
    infinities are refused too), or no document that can be rendered.
    """
    document = _parsed(_content(Path(path)), str(path))
    check(document, str(path))
    found: Document = document
    return found


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: it cannot be read ({error.strerror}); give a file that a command wrote with --format json -o FILE"
        ) from None
    if len(content) > LIMIT:
        raise UsageError(f"{path}: it is larger than {LIMIT >> 20} MiB; give a result of fewer inputs")
    return content


def _nesting(content: bytes) -> int:
    """How many brackets are open at once, at most, outside of strings."""
    brackets = np.frombuffer(_STRING.sub(b"", content).translate(None, _NO_BRACKETS), dtype=np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.where(opening, 1, -1).cumsum().max(initial=0))


def _parsed(content: bytes, name: str) -> Any:
    try:
        if _nesting(content) > DEPTH:
            raise ValueError("nested too deeply")
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_refuse)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg}, line {error.lineno}"
    except ValueError as error:  # from the hooks, and numbers of thousands of digits
        reason = str(error).partition(";")[0]
    raise UsageError(f"{name}: this is no JSON document ({reason}); give a file written with --format json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError: a key is given twice, so that two readers could see two different verdicts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:40]!r} is given twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
