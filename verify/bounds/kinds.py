"""The families of operators that passes tell apart."""

from __future__ import annotations

from functools import cache
from typing import TypeGuard

from leaktight.models.ops import Affine, Elementwise, Input, Maximum, Op


@cache
def kind_of(operator: type[Op]) -> type[Op]:
    """The family that decides how rows pass an operator; looked up, because an instance check of these costs more."""
    return next((family for family in (Affine, Elementwise, Maximum, Input) if issubclass(operator, family)), Op)


def is_affine(op: Op) -> TypeGuard[Affine]:
    return kind_of(type(op)) is Affine


def is_elementwise(op: Op) -> TypeGuard[Elementwise]:
    return kind_of(type(op)) is Elementwise
