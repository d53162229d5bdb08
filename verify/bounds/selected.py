"""What is known of some regions of a batch, picked from what is known of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import Tensor

from leaktight.errors import InternalError

if TYPE_CHECKING:
    from typing_extensions import Self


class _Selectable(Protocol):
    def select(self, regions: Tensor | slice, /) -> Self: ...


Value = TypeVar("Value", bound=_Selectable)


class Selected(MutableMapping[str, Value]):
    """What is known of some regions of a batch by name: picked from the whole batch's when it is asked for."""

    def __init__(self, whole: Mapping[str, Value], regions: Tensor | slice) -> None:
        self.whole: Mapping[str, Value] = whole
        self.regions = regions
        self.picked: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self.picked:
            self.picked[name] = self.whole[name].select(self.regions)
        return self.picked[name]

    def __setitem__(self, name: str, value: Value) -> None:
        self.picked[name] = value

    def __delitem__(self, name: str) -> None:
        raise InternalError(f"what is known of {name!r} was to be forgotten")

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.whole, *self.picked]))

    def __len__(self) -> int:
        return len(set(self.whole) | set(self.picked))
