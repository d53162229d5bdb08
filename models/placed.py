"""Values on a device: what holds tensors, moved as a whole; and where new tensors are made."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

Value = TypeVar("Value")
PROCESSOR = torch.device("cpu")


def working_on(where: torch.device) -> contextlib.AbstractContextManager[object]:
    """Tensors that are made in this context, in this thread, are made on a device; no cost where they are anyway."""
    return contextlib.nullcontext() if torch.get_default_device() == where else where


class Movable(ABC):
    """What knows best how to move to a device."""

    @abstractmethod
    def on(self, where: torch.device) -> Self:
        """The same on this device."""


def placed(value: Value, where: torch.device) -> Value:
    """The value with every tensor in it on a device; the value itself where all of them are there.

    Looks into dataclasses (the fields that they are made of), tuples, lists and mappings.
    """
    found: Any = _placed(value, where)
    return found  # type: ignore[no-any-return]


def _placed(value: Any, where: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(where)
    if isinstance(value, Movable):
        return value.on(where)
    if is_dataclass(value) and not isinstance(value, type):
        return _rebuilt(value, where)
    if isinstance(value, (tuple, list)):
        items = [_placed(item, where) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if isinstance(value, Mapping):
        pairs = {key: _placed(item, where) for key, item in value.items()}
        return value if all(pairs[key] is item for key, item in value.items()) else pairs
    return value


def _rebuilt(value: Any, where: torch.device) -> Any:
    parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    moved = {name: _placed(part, where) for name, part in parts.items()}
    changed = {name: part for name, part in moved.items() if part is not parts[name]}
    return replace(value, **changed) if changed else value
