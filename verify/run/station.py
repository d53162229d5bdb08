"""A place on a machine of a cluster: one worker process, and copies of files that are not there.

It runs in a process of the cluster and imports no engine; what is heavy or dangerous happens in its worker, which has
the same cap on memory and the same deadline as one beside the runner.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaktight.verify.run.job import digest_of
from leaktight.verify.run.machine import cores, memory_of_each
from leaktight.verify.run.pool import Pool
from leaktight.version import __version__

PATIENCE = 2.0
"""Seconds after which a station says that its worker is still busy: a sign of life."""


class Station:
    """Answers one task at a time. memory: what its worker may use; None: a core's share of what is free there."""

    def __init__(self, memory: int | None) -> None:
        self.pool = Pool(1, memory or memory_of_each(cores()))
        self.folder = Path(tempfile.mkdtemp(prefix="leaktight-"))
        self.names: dict[str, str] = {}  # of copies: the paths that the runner knows
        self.digests: dict[tuple[str, float, int], str] = {}

    def ready(self) -> dict[str, str]:
        """Waits until the worker is; the version that runs here, and the machine.

        Raises UsageError: workers end again and again before they are ready.
        """
        while not self.pool.idle:
            list(self.pool.wait(PATIENCE))
        return {"version": __version__, "machine": os.uname().nodename}

    def begin(self, task: Mapping[str, Any], copies: Mapping[str, bytes]) -> dict[str, Any]:
        """Takes a task, and waits for it as `wait`. ``{"missing": [path]}``: files that are to be sent along.

        task: also has ``shipped``, the SHA-256 of every file by its path. A file that lies at its path here is used
        there.
        """
        places = {path: self._place(path, digest, copies) for path, digest in task["shipped"].items()}
        missing = [path for path, place in places.items() if place is None]
        if missing:
            return {"missing": missing}
        here = {path: str(place) for path, place in places.items()}
        self.names = {place: path for path, place in here.items() if place != path}
        network = {**task["network"], "path": here[task["network"]["path"]]}
        files = {role: here[path] for role, path in task.get("files", {}).items()}
        self.ready()
        self.pool.give(self.pool.idle[0], None, {**task, "network": network, "files": files})
        return self.wait()

    def wait(self) -> dict[str, Any]:
        """``{"reply": ...}`` of the task, or nothing while the worker is busy."""
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            for _, reply in self.pool.wait(left):
                return {"reply": renamed(dict(reply), self.names)}
        return {}

    def _place(self, path: str, digest: str, copies: Mapping[str, bytes]) -> Path | None:
        """Where the file with this content lies: at its own path, or in the folder of copies."""
        if self._holds(Path(path), digest):
            return Path(path)
        copy = self.folder / digest / Path(path).name
        if path in copies:
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(copies[path])
        return copy if self._holds(copy, digest) else None

    def _holds(self, place: Path, digest: str) -> bool:
        try:
            found = place.stat()
            known = str(place), found.st_mtime, found.st_size
            if known not in self.digests:
                self.digests[known] = digest_of(place)
        except OSError:
            return False
        return self.digests[known] == digest

    def close(self) -> None:
        """Ends the worker and removes the copies."""
        import shutil

        self.pool.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The value with every path of a copy replaced by the path that it is a copy of, also within messages."""
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [renamed(item, names) for item in value]
    if isinstance(value, str):
        for copy, path in names.items():
            value = value.replace(copy, path)
    return value
