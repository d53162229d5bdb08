"""VNN-LIB files become properties, and counterexamples become VNN-LIB text.

A file of version 1.0 speaks of inputs ``X_0, X_1, ...`` and outputs ``Y_0, Y_1, ...``; one of version 2.0 declares
tensors. Its assertions together describe what must not happen. Decimals are exact: the region and the unsafe set
enclose what the file says (see leaktight.specs.cases). Source: VNN-LIB 1.0 and 2.0 (vnnlib.org), and the files and the
counterexample format of the VNN-COMP.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from leaktight.errors import PropertyError
from leaktight.specs import vnnlib2
from leaktight.specs.property import Property
from leaktight.specs.vnnlib1 import Reader

FILE_SIZE: Final = 1 << 28
"""The largest file that is read, in bytes, before and after unpacking."""


def read_property(path: str | PathLike[str]) -> Property:
    """The property in a VNN-LIB file (1.0 or 2.0), plain or packed with gzip. `sha256` is that of the file's bytes.

    Raises PropertyError: the file is missing, unreadable, larger than `FILE_SIZE`, not UTF-8 text, or not a supported
    property; the message gives path, line and column.
    """
    place = str(path)
    raw = _bytes(Path(path), place)
    content = _unpacked(raw, place) if raw[:2] == b"\x1f\x8b" else raw
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PropertyError(
            f"{place}:{line}: byte {error.start} is {content[error.start]:#04x}, which is not UTF-8 "
            "text; give a VNN-LIB text file, plain or packed with gzip"
        ) from None
    return parse_property(text, path=place, sha256=hashlib.sha256(raw).hexdigest())


def parse_property(text: str, *, path: str | None = None, sha256: str | None = None) -> Property:
    """The property that a VNN-LIB text (1.0 or 2.0) states. `path` is for messages and goes into the property.

    Raises PropertyError: see `read_property`.
    """
    reader = Reader(text, path or "<text>")
    if reader.version >= (2, 0):
        return vnnlib2.parse_property(text, path=path, sha256=sha256)
    reader.read()
    return Property(reader.cases(), path, sha256)


def format_counterexample(inputs: ArrayLike, outputs: ArrayLike) -> str:
    """A counterexample as the VNN-COMP writes it: ``((X_0 0.5)``, ..., ``(Y_0 1.0))``, one variable a line.

    `inputs` and `outputs` are taken entry by entry in their flat order. Every number reads back as the same float.
    """
    lines = [
        f"({letter}_{i} {float(value)!r})"
        for letter, values in (("X", inputs), ("Y", outputs))
        for i, value in enumerate(np.asarray(values).reshape(-1).tolist())
    ]
    return f"({chr(10).join(lines)})\n"


def _bytes(path: Path, place: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_SIZE + 1)
    except FileNotFoundError:
        raise PropertyError(f"{place}: there is no such file; give a VNN-LIB file") from None
    except IsADirectoryError:
        raise PropertyError(f"{place}: this is a folder; give a VNN-LIB file") from None
    except OSError as error:
        raise PropertyError(f"{place}: the file cannot be read ({error.strerror}); give a VNN-LIB file") from None
    return _limited(raw, place)


def _unpacked(raw: bytes, place: str) -> bytes:
    try:
        return _limited(gzip.GzipFile(fileobj=io.BytesIO(raw)).read(FILE_SIZE + 1), place)
    except (OSError, EOFError, zlib.error) as error:
        raise PropertyError(f"{place}: the gzip data is damaged ({error}); pack the file again") from None


def _limited(raw: bytes, place: str) -> bytes:
    if len(raw) > FILE_SIZE:
        raise PropertyError(f"{place}: the file holds more than {FILE_SIZE} bytes, the limit; split the property")
    return raw
