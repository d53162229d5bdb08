"""What is known of a worker of a cluster, and of the task that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(eq=False)
class Slot:
    """A worker of the cluster: its actor, what it waits for, and the task that it has or is to have."""

    resources: Mapping[str, float]
    actor: Any = None
    call: Any = None  # None: nothing is waited for
    since: float = 0.0
    ready: bool = False
    token: Any = None
    task: Mapping[str, Any] = field(default_factory=dict)  # empty: there is none
    losses: int = 0
    shipped: bool = False

    @property
    def idle(self) -> bool:
        return self.ready and self.token is None


class Waiting(NamedTuple):
    """A task whose machine was lost."""

    token: Any
    task: Mapping[str, Any]
    losses: int
