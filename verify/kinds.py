"""What public functions are given: a path where a network belongs is refused in words, before anything is computed."""

from __future__ import annotations

from typing import Any

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.property import Property
from leaktight.specs.region.region import Region

_KINDS: dict[str, tuple[type, str]] = {
    "network": (Network, "leaktight.load makes one"),
    "property": (Property, "leaktight.read_property and leaktight.robust make one"),
    "region": (Region, "a property's `region` is one"),
}


def check_kinds(**given: Any) -> None:
    """Raises UsageError: what is given by one of these names is of another kind."""
    for name, value in given.items():
        kind, made = _KINDS[name]
        if not isinstance(value, kind):
            raise UsageError(f"{name}: {type(value).__name__} was given; give a {kind.__name__}: {made}")
