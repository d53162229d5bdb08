"""What a run asks: every job has the key of its question, under which a ledger holds the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leaktight.verify.run.crew import Crew
from leaktight.verify.run.job import Job, digest_of
from leaktight.verify.run.ledger import Recorded
from leaktight.version import __version__


@dataclass(frozen=True)
class Asked:
    """identities: the digests of the networks that could be read, by name. unusable: by the names of jobs that cannot
    even be asked, why. keys: by the names of the others. tasks: by key the first job that asks it, what its worker is
    given, and the network's digest.
    """

    identities: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, Recorded] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, tuple[Job, dict[str, Any], str]] = field(default_factory=dict)

    def add(self, job: Job, errors: Mapping[str, Mapping[str, str]], digests: dict[str, str | OSError]) -> None:
        """Finds the key of a job.

        errors: of the networks that cannot be read. digests: of the files that were read before; more are added.
        """
        name = network_name(job)
        if name in errors:
            self.unusable[job.name] = Recorded("", None, errors[name], 0.0)
            return
        for path in job.files.values():
            if path not in digests:
                try:
                    digests[path] = digest_of(path)
                except OSError as error:
                    digests[path] = error
        found = {role: digests[path] for role, path in job.files.items()}
        for role, digest in found.items():
            if isinstance(digest, OSError):
                says = f"{job.files[role]}: it cannot be read ({digest.strerror})"
                self.unusable[job.name] = Recorded("", None, {"kind": "bad input", "message": says}, 0.0)
                return
        known = {role: str(digest) for role, digest in found.items()}
        key = job.key(self.identities[name], known, __version__)
        self.keys[job.name] = key
        self.tasks.setdefault(key, (job, {**job.task, "digests": known}, self.identities[name]))


def identified(jobs: Sequence[Job], crew: Crew) -> Asked:
    """What the jobs ask; the crew reads every network once."""
    found, every, errors = Asked(), networks(jobs), dict[str, Mapping[str, str]]()
    left = deque(every)
    while left or crew.busy:
        for worker in crew.idle:
            if left:
                name = left.popleft()
                crew.give(worker, name, {"kind": "identify", "network": every[name]})
        for name, reply in crew.wait(1.0):
            if "error" in reply:
                errors[name] = reply["error"]
            else:
                found.identities[name] = reply["identity"]
    digests: dict[str, str | OSError] = {}
    for job in jobs:
        found.add(job, errors, digests)
    return found


def networks(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """The networks of the jobs, by name."""
    return {network_name(job): dict(job.network) for job in jobs}


def network_name(job: Job) -> str:
    """The name of a job's network, and of how it is read."""
    return repr(sorted(job.network.items()))
