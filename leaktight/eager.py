"""Torch in a process of ours that only computes: without the tables that its compiler and its exporter read.

Importing torch registers how each of some thousand operators acts on tensors without data. That is a quarter of the
time it takes, and a call of the command line is often over in twice that time. Nothing that is computed here reads
those tables, so they stay out until something needs them: torch.export, torch.onnx, code of the user's own.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_TABLES = "torch._meta_registrations"
_STAND_IN = ModuleType(_TABLES)


def eager_only() -> None:
    """From now on torch is imported without its tables; no change where it is imported already."""
    if "torch" not in sys.modules:
        sys.modules.setdefault(_TABLES, _STAND_IN)


def complete() -> None:
    """Imports the tables if they were left out."""
    if sys.modules.get(_TABLES) is _STAND_IN:
        del sys.modules[_TABLES]
        tables = importlib.import_module(_TABLES)
        if (torch := sys.modules.get("torch")) is not None:
            torch._meta_registrations = tables  # type: ignore[attr-defined]
