"""JSON: one document, whole and strict (RFC 8259 has no infinities and no NaN; they become null)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def render(document: Mapping[str, Any]) -> str:
    """The document as JSON text that ends with a newline."""
    return json.dumps(strict(document), indent=None, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """The value in JSON's own kinds: objects, lists, finite numbers, strings, true, false and null."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value
