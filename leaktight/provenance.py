"""How a result came about: what makes its document reproducible."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("the arguments of this run", default=())


def signed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with ``command``, the program and its `ARGUMENTS`, and ``versions`` of what computed it.

    A package that is not installed has the version null. Nothing is imported for its version.
    """
    return {**document, "command": ["leaktight", *ARGUMENTS.get()], "versions": _versions()}


def _versions() -> dict[str, str | None]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "numpy", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
