"""Arrays from npz and idx files. Sizes are read from headers and checked before anything is allocated."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import numpy as np

from leaktight.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]

ENTRIES: Final = 1 << 28
"""The most numbers that are read from one array (2 GiB in float64)."""

_INPUTS: Final = ("x", "X", "inputs", "images", "data", "features")
_LABELS: Final = ("y", "Y", "labels", "label", "target", "targets")
_IDX: Final = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@contextmanager
def opened(place: Path) -> Iterator[BufferedReader]:
    """The file's bytes, unpacked where it is a gzip file.

    Raises DataError: it is missing, a folder, or cannot be read; also when reading inside the ``with`` block fails.
    """
    try:
        with place.open("rb") as raw:
            if raw.peek(2)[:2] != b"\x1f\x8b":
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield BufferedReader(cast(Any, unpacked))
    except FileNotFoundError:
        raise DataError(f"{place}: there is no such file; give an npz, csv or idx file") from None
    except IsADirectoryError:
        raise DataError(f"{place}: this is a folder; give an npz, csv or idx file (pack images into one)") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{place}: the gzip data is damaged ({error}); pack the file again") from None
    except OSError as error:
        raise DataError(f"{place}: the file cannot be read ({error}); give an npz, csv or idx file") from None


def is_npz(start: bytes) -> bool:
    """Whether a file that starts so is a zip archive."""
    return start.startswith(b"PK")


def is_idx(start: bytes) -> bool:
    """Whether a file that starts so is an idx file."""
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _IDX and start[3] > 0


def read_npz(place: Path, limit: int | None) -> tuple[Array, Array]:
    """The first `limit` inputs and labels of an npz file.

    Raises DataError: it is damaged, does not hold exactly one array of inputs and one of labels, or is too large.
    """
    try:
        with zipfile.ZipFile(place) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            inputs = _member(place, archive, _only(place, names, _INPUTS), limit)
            labels = _member(place, archive, _only(place, names, _LABELS), limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{place}: the npz file cannot be read ({error}); write it with numpy.savez") from None
    check_counts(place, inputs[1], labels[1])
    return inputs[0], labels[0]


def check_counts(place: Path, inputs: int, labels: int) -> None:
    """Raises DataError: there are not as many labels as inputs."""
    if inputs != labels:
        raise DataError(f"{place}: there are {inputs} inputs, but {labels} labels; give one label for each input")


def _only(place: Path, names: list[str], wanted: tuple[str, ...]) -> str:
    found = [name for name in wanted if name in names]
    if len(found) != 1:
        what = f"both {' and '.join(found)}" if found else "none of " + ", ".join(wanted)
        raise DataError(
            f"{place}: the file has {what} (it has {', '.join(names) or 'no arrays'}); it needs exactly "
            f"one array called {' or '.join(wanted)}"
        )
    return found[0]


def _member(place: Path, archive: zipfile.ZipFile, name: str, limit: int | None) -> tuple[Array, int]:
    with archive.open(name + ".npy") as file:
        try:
            shape, column_major, dtype = _npy_header(file)
        except ValueError as error:
            raise DataError(f"{place}: array {name!r} has a bad header ({error}); write it with numpy.savez") from None
        if dtype.hasobject or not shape:
            kind = "objects (pickled)" if dtype.hasobject else "one number"
            raise DataError(f"{place}: array {name!r} holds {kind}; expected an array of numbers")
        rows = shape[0] if limit is None or column_major else min(shape[0], limit)
        array = _taken(f"{place}: array {name!r}", file, dtype, (rows, *shape[1:]), column_major)
    return array[:limit], shape[0]


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _taken(
    what: str, file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], column_major: bool = False
) -> Array:
    """An array of that shape from the file's next bytes."""
    if prod(shape) > ENTRIES:
        raise DataError(
            f"{what} holds {prod(shape)} numbers (shape {list(shape)}); at most {ENTRIES} are read; set a "
            "limit or split the file"
        )
    size = prod(shape) * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise DataError(f"{what} is truncated: {size} bytes are announced and {len(content)} came; get the file again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if column_major else "C")


def read_idx(place: Path, limit: int | None) -> tuple[Array, int]:
    """The first `limit` items of an idx file, and how many it has.

    Raises DataError: it is missing, damaged, of another format, or too large.
    """
    with opened(place) as file:
        start = file.read(4)
        if not is_idx(start):
            raise DataError(
                f"{place}: this is not an idx file (it starts with {start.hex() or 'nothing'}); expected "
                "0000, a type and a number of axes"
            )
        sizes = file.read(4 * start[3])
        if len(sizes) != 4 * start[3]:
            raise DataError(f"{place}: the file is truncated in its header; get it again")
        shape = struct.unpack(f">{start[3]}I", sizes)
        rows = shape[0] if limit is None else min(shape[0], limit)
        return _taken(f"{place}: the file", file, np.dtype(_IDX[start[2]]), (rows, *shape[1:])), shape[0]


def labels_beside(place: Path) -> Path:
    """The labels file that belongs to an idx file of images, by its name.

    Raises DataError: there is none.
    """
    plain = place.name.removesuffix(".gz")
    name = plain.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    candidates = [place.with_name(name + suffix) for suffix in (".gz", "")]
    for candidate in candidates:
        if name != plain and candidate.is_file():
            return candidate
    raise DataError(
        f"{place}: no file of labels was found beside it (looked for "
        f"{' and '.join(c.name for c in candidates)}); name it (labels=...)"
    )
