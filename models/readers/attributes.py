"""The attributes of one ONNX node, read by type; what nobody asked for is known, so that it can be refused."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto

from leaktight.errors import ModelError
from leaktight.models.readers.tensors import array_of


class Attributes:
    """`place` (file and node) begins every message. Numbers of type float are float32 in the format, exact here."""

    def __init__(self, protos: Iterable[AttributeProto], place: str, folder: str | None) -> None:
        self.place, self.folder = place, folder
        self.protos: dict[str, AttributeProto] = {}
        for proto in protos:
            if proto.name in self.protos:
                raise ModelError(f"{place}: attribute {proto.name!r} is given twice; once is allowed")
            if proto.ref_attr_name:
                raise ModelError(
                    f"{place}: attribute {proto.name!r} refers to a function's attribute "
                    f"{proto.ref_attr_name!r}, "
                    "which only a function body may do"
                )
            self.protos[proto.name] = proto
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.protos

    @property
    def unread(self) -> list[str]:
        return sorted(set(self.protos) - self.read)

    def _found(self, name: str, kind: int) -> AttributeProto | None:
        self.read.add(name)
        proto = self.protos.get(name)
        if proto is not None and proto.type != kind:
            came, wanted = AttributeProto.AttributeType.Name(proto.type), AttributeProto.AttributeType.Name(kind)
            raise ModelError(f"{self.place}: attribute {name!r} is of type {came}; it must be {wanted}")
        return proto

    def integer(self, name: str, default: int) -> int:
        proto = self._found(name, AttributeProto.INT)
        return default if proto is None else int(proto.i)

    def integers(self, name: str) -> list[int] | None:
        proto = self._found(name, AttributeProto.INTS)
        return None if proto is None else [int(i) for i in proto.ints]

    def number(self, name: str, default: float) -> float:
        """A finite float; the default is rounded to float32 like every attribute of this type."""
        proto = self._found(name, AttributeProto.FLOAT)
        found = float(np.float32(default)) if proto is None else float(proto.f)
        if not np.isfinite(found):
            raise ModelError(f"{self.place}: attribute {name!r} is {found}; finite numbers are allowed")
        return found

    def unchecked_number(self, name: str) -> float | None:
        """A float that may be infinite."""
        proto = self._found(name, AttributeProto.FLOAT)
        return None if proto is None else float(proto.f)

    def numbers(self, name: str) -> list[float] | None:
        proto = self._found(name, AttributeProto.FLOATS)
        return None if proto is None else [float(x) for x in proto.floats]

    def text(self, name: str, default: str) -> str:
        proto = self._found(name, AttributeProto.STRING)
        return default if proto is None else proto.s.decode("utf-8", "replace")

    def array(self, name: str) -> NDArray[np.generic] | None:
        proto = self._found(name, AttributeProto.TENSOR)
        return None if proto is None else array_of(proto.t, f"{self.place}: attribute {name!r}", self.folder)
