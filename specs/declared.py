"""Tensors as a property file declares them, and where their entries are in a network's flat space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from leaktight.errors import PropertyError


class Declared(Protocol):
    """What a network says about one of its inputs or outputs (leaktight.models.network.Port)."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Variable:
    """A tensor as a property file (VNN-LIB 2.0) declares it. `name` is the network's word for it where the file says it
    (`given`), else the file's own; `dtype` is the file's word for the element type, such as ``float32`` or ``real``."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "real"
    given: bool = False


def entry_places(variables: Sequence[Variable], ports: Sequence[Declared], place: str) -> Tensor | None:
    """Where each entry of the network's flat space lies in the property's; None: at the same place."""
    if not variables:
        return None
    names, wanted = [v.name for v in variables], [p.name for p in ports]
    if len(names) != len(wanted):
        raise PropertyError(
            f"{place}: the property declares {len(names)} ({', '.join(names)}), but the network has "
            f"{len(wanted)} ({', '.join(wanted)}); declare each of them"
        )
    absent = [v.name for v in variables if v.given and v.name not in wanted]
    if absent:
        raise PropertyError(f"{place}: the network has none called {absent[0]!r}; it has {', '.join(wanted)}")
    order = [names.index(name) for name in wanted] if set(names) == set(wanted) else list(range(len(names)))
    sizes = [prod(v.shape) for v in variables]
    for port, variable in zip(ports, (variables[i] for i in order), strict=True):
        if not _same_layout(variable.shape, port.shape):
            raise PropertyError(
                f"{place} {variable.name!r} has the shape {list(variable.shape)} in the property, but "
                f"{port.name!r} has {list(port.shape)} in the network; declare that shape"
            )
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    if order == sorted(order):
        return None
    return torch.cat([torch.arange(starts[i], starts[i] + sizes[i]) for i in order])


def _same_layout(declared: tuple[int, ...], actual: tuple[int, ...]) -> bool:
    """Whether entries correspond one to one in order: equal up to axes of length one, or declared flat."""
    core = [tuple(n for n in shape if n != 1) for shape in (declared, actual)]
    return core[0] == core[1] or (len(core[0]) == 1 and core[0][0] == prod(actual))
