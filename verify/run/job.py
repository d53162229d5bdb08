"""Job: one question of a suite, in plain data that goes to a worker and into digests as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from leaktight.errors import UsageError
from leaktight.verify.run.requirement import Requirement


@dataclass(frozen=True)
class Place:
    """Where the user wrote something: a file, and a line of it, counted from one."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Job:
    """A question about one network.

    kind: ``verify``, ``certify``, ``leak`` or ``lipschitz``. network: ``path`` and how it is read (``mean``, ``std``,
    ``architecture``, ``trust``). question: what is asked, but for files. files: paths by role (``property``, ``data``,
    ``labels``). requires: what must hold of the answer. resources: what its worker needs on a cluster. place: the
    suite's line.
    """

    name: str
    kind: str
    network: Mapping[str, Any]
    question: Mapping[str, Any]
    files: Mapping[str, str]
    place: Place
    requires: tuple[Requirement, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    @cached_property
    def task(self) -> dict[str, Any]:
        """What a worker needs to answer it."""
        return {
            "kind": self.kind,
            "network": dict(self.network),
            "question": dict(self.question),
            "files": dict(self.files),
            "resources": dict(self.resources),
        }

    @property
    def parts(self) -> int:
        """How many workers can work on it at once."""
        return int(self.question.get("split", 1))

    def key(self, identity: str, digests: Mapping[str, str], version: str) -> str:
        """The digest under which its answer is kept: equal keys ask the same of networks with the same meaning.

        identity: that of the network (`leaktight.verify.run.answer.identity`). digests: of `files`, by role. What the
        answer does not depend on (names, tags, requirements, where files lie) is left out.
        """
        asked = {
            "network": identity,
            "kind": self.kind,
            "question": dict(self.question),
            "files": {role: digests[role] for role in self.files},
            "guarantee": "real",
            "version": version,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True, allow_nan=False).encode()).hexdigest()


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def chosen(jobs: Sequence[Job], tags: Sequence[str]) -> tuple[Job, ...]:
    """The jobs that have one of the tags; all, where no tag is asked for.

    Raises UsageError: none has.
    """
    found = tuple(job for job in jobs if not tags or set(tags) & set(job.tags))
    if not found:
        known = sorted({tag for job in jobs for tag in job.tags})
        raise UsageError(f"--tag: no job has the tag {' or '.join(tags)}; there are: {', '.join(known) or 'none'}")
    return found
