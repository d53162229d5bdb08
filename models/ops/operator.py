"""What every operator is: a pure function of its input values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Shape = tuple[int, ...]
SomeOp = TypeVar("SomeOp", bound="Op")


class Op(ABC):
    """An operator: a pure function of its input values. Subclasses are final."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The operator's value, in the dtype of its inputs."""

    def to(self: SomeOp, dtype: torch.dtype) -> SomeOp:
        """The operator with parameters in `dtype`. Affine operators account for what the conversion rounds away."""
        return self


@dataclass(frozen=True, eq=False)
class Input(Op):
    """A place where a value enters the network."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x
