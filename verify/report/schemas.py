"""The documents that can be rendered, by the names of their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
