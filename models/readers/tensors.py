"""ONNX tensors as numpy arrays, after checking that the bytes that the tensor claims are there."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from leaktight.errors import ModelError

# element type -> (numpy type of the raw bytes, the field that holds typed entries)
_KINDS: dict[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("float32", "float_data"),
    TensorProto.DOUBLE: ("float64", "double_data"),
    TensorProto.FLOAT16: ("float16", "int32_data"),
    TensorProto.INT8: ("int8", "int32_data"),
    TensorProto.INT16: ("int16", "int32_data"),
    TensorProto.INT32: ("int32", "int32_data"),
    TensorProto.INT64: ("int64", "int64_data"),
    TensorProto.UINT8: ("uint8", "int32_data"),
    TensorProto.UINT16: ("uint16", "int32_data"),
    TensorProto.UINT32: ("uint32", "uint64_data"),
    TensorProto.UINT64: ("uint64", "uint64_data"),
    TensorProto.BOOL: ("bool", "int32_data"),
}


def element_type(kind: int, place: str) -> str:
    """The numpy name of an ONNX element type. Raises ModelError for types that have no place in a network here."""
    if kind not in _KINDS:
        named = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else f"number {kind}"
        raise ModelError(
            f"{place} has element type {named}; allowed: "
            f"{', '.join(name for name, _ in _KINDS.values())}; "
            "convert the model"
        )
    return _KINDS[kind][0]


def array_of(tensor: TensorProto, place: str, folder: str | None) -> NDArray[np.generic]:
    """The tensor's entries. `folder` is where external data may lie (None: nowhere).

    Raises: ModelError: the dimensions claim more entries than there are, or external data lies outside the folder.
    """
    kind = element_type(tensor.data_type, place)
    if any(n < 0 for n in tensor.dims):
        raise ModelError(f"{place} has the dimensions {list(tensor.dims)}; none may be negative")
    size = prod(tensor.dims) * np.dtype(kind).itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        data = _external(tensor, size, place, folder)
        return np.frombuffer(data, np.dtype(kind).newbyteorder("<")).astype(kind).reshape(tensor.dims)
    if tensor.HasField("raw_data"):
        present, unit, claimed = len(tensor.raw_data), "bytes", size
    else:
        present, unit, claimed = len(getattr(tensor, _KINDS[tensor.data_type][1])), "entries", prod(tensor.dims)
    if present != claimed:
        raise ModelError(
            f"{place} claims the dimensions {list(tensor.dims)}, which take {claimed} {unit}; the file "
            f"holds {present}; "
            "the file is truncated or forged, export it again"
        )
    return numpy_helper.to_array(tensor)


def _external(tensor: TensorProto, size: int, place: str, folder: str | None) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            f"{place} lies in the external file {location!r}, and the model was given without a folder; "
            "give the path of the .onnx file"
        )
    path = _inside(location, folder, place)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    except ValueError:
        raise ModelError(f"{place} has an external offset or length that is not a number") from None
    there = os.path.getsize(path)
    if length != size or offset < 0 or offset + length > there:
        raise ModelError(
            f"{place} claims {size} bytes and points at {length} from {offset} on in {location!r}, which "
            f"holds {there}; "
            "the file is truncated or forged, export it again"
        )
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _inside(location: str, folder: str, place: str) -> Path:
    """The external file, which must lie in the model's folder: a model may not read other files of this computer."""
    home = Path(folder).resolve()
    path = (home / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(home):
        raise ModelError(
            f"{place} lies in the external file {location!r}; allowed are files inside the model's "
            "folder; "
            "put the data beside the model"
        )
    if not path.is_file():
        raise ModelError(
            f"{place} lies in the external file {location!r}, which does not exist; put it beside the model"
        )
    return path
