"""What a command answers, and with which exit codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BAD_INPUT, CRASHED, INTERRUPTED = 2, 70, 130


@dataclass(frozen=True)
class Answer:
    """What a command found: its document, one line about it, the exit code, and lines that are said before."""

    document: Mapping[str, Any]
    summary: str
    code: int = 0
    notes: tuple[str, ...] = ()
