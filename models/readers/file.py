"""From a path to the bytes of an ONNX model and its parsed form, whatever the file turns out to be."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from leaktight.errors import ModelError

MAX_BYTES = 2**31 - 1  # what a protobuf message may hold; larger networks keep their weights in external data
OLDEST_OPSET, NEWEST_OPSET = 7, 28  # the versions of the standard operators whose meaning is implemented
_CHUNK = 2**20


def read_bytes(path: str) -> tuple[bytes, str]:
    """The model's bytes (unpacked, if the file is gzip) and the SHA-256 of the file as it lies there.

    Raises: ModelError: there is no such file, or it is empty, truncated, or larger than `MAX_BYTES`.
    """
    try:
        if not os.path.exists(path):
            raise ModelError(f"{path}: there is no such file; give the path of an .onnx or .onnx.gz file")
        if not Path(path).is_file():
            raise ModelError(f"{path}: this is not a regular file; give the path of an .onnx or .onnx.gz file")
        size = os.path.getsize(path)
        if size == 0:
            raise ModelError(f"{path}: the file is empty; give an .onnx or .onnx.gz file")
        if size > MAX_BYTES:
            raise ModelError(
                f"{path}: the file has {size} bytes; at most {MAX_BYTES} are allowed; keep the weights in external data"
            )
        packed = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the file cannot be read ({error.strerror}); check its permissions") from error
    return (_unpacked(path) if packed[:2] == b"\x1f\x8b" else packed), hashlib.sha256(packed).hexdigest()


def _unpacked(path: str) -> bytes:
    parts, size = [], 0
    try:
        with gzip.open(path) as stream:
            while part := stream.read(_CHUNK):
                size += len(part)
                if size > MAX_BYTES:
                    raise ModelError(
                        f"{path}: the archive unpacks to more than {MAX_BYTES} bytes, which is the most "
                        "allowed; "
                        "keep the weights in external data"
                    )
                parts.append(part)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ModelError(f"{path}: the gzip archive is truncated or damaged ({error}); fetch it again") from error
    return b"".join(parts)


def parsed(data: bytes, path: str) -> ModelProto:
    """The model that `data` spells, with functions of its own inlined. Raises ModelError: it is not an ONNX model."""
    if len(data) > MAX_BYTES:
        raise ModelError(
            f"{path}: the model has {len(data)} bytes; at most {MAX_BYTES} are allowed; keep the weights "
            "in external data"
        )
    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{path}: this is not an ONNX model, or it is truncated ({error}); give a complete ONNX file"
        ) from error
    if not model.opset_import or not model.graph.output:
        raise ModelError(
            f"{path}: this is not an ONNX model, or it is truncated (it names no operator set or no "
            "output); "
            "give a complete ONNX file"
        )
    if model.functions:
        from onnx.inliner import inline_local_functions

        return inline_local_functions(model)
    return model


def opset(model: ModelProto, path: str) -> int:
    """The version of the standard operators that the model is written in."""
    versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if len(versions) != 1:
        came = "no version" if not versions else f"the versions {sorted(versions)}"
        raise ModelError(
            f"{path}: the model declares {came} of the standard operator set; exactly one is allowed; export it again"
        )
    version: int = versions.pop()
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ModelError(
            f"{path}: the model is written in operator set {version}; {OLDEST_OPSET} to {NEWEST_OPSET} "
            "are allowed; "
            "convert it with onnx.version_converter"
        )
    return version
