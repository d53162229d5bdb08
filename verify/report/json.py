"""JSON: one document, whole and strict (RFC 8259 has no infinities and no NaN; they become null)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def render(document: Mapping[str, Any]) -> str:
    """The document as JSON text that ends with a newline."""
    return json.dumps(_strict(document), indent=None, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value
