"""Torch in a process of ours that only computes: without the tables that its compiler and its exporter read.

Importing torch registers how each of some thousand operators acts on tensors without data. That is a quarter of the
time it takes, and a call of the command line is often over in twice that time. Nothing that is computed here reads
those tables, so they stay out until something needs them: torch.export, torch.onnx, code of the user's own. Only in
versions of torch with which all our tests passed so; others are imported whole.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

_TESTED = ("2.13",)
_TABLES = "torch._meta_registrations"


class _WithoutTables(MetaPathFinder, Loader):
    """Finds an empty module in place of the tables."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == _TABLES else None

    def exec_module(self, module: ModuleType) -> None:
        """What importing the tables does besides: random generators get the metaclass that they wait for.

        And some functions of torch look into the modules that are imported on the way.
        """
        torch = sys.modules["torch"]
        torch._C._set_generator_metaclass(importlib.import_module("torch._opaque_base").OpaqueBaseMeta)
        for name in ("_decomp", "_prims", "_refs"):
            setattr(torch, name, _Later(f"torch.{name}"))


class _Later(ModuleType):
    """A module that is imported, with the tables, when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        complete()
        return getattr(importlib.import_module(self.__name__), name)


_finder = _WithoutTables()


def eager_only() -> None:
    """From now on torch is imported without its tables; nothing changes where it is imported already."""
    if "torch" not in sys.modules and _finder not in sys.meta_path and _tested():
        sys.meta_path.insert(0, _finder)


def _tested() -> bool:
    try:
        return ".".join(version("torch").split(".")[:2]) in _TESTED
    except PackageNotFoundError:
        return False


def complete() -> None:
    """Imports the tables if they were left out."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    if (left_out := sys.modules.get(_TABLES)) is not None and left_out.__loader__ is _finder:
        del sys.modules[_TABLES]
        sys.modules["torch"]._meta_registrations = importlib.import_module(_TABLES)  # type: ignore[attr-defined]
