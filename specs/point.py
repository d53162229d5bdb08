"""One input from a file: an .npy array, or numbers as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from leaktight.errors import DataError

LIMIT = 256 << 20


def read_point(option: str, place: Path, size: int) -> Tensor:
    """The `size` numbers of a file as a float64 tensor ``(size,)``: an .npy array of any shape, or text.

    In a text numbers stand between blanks, commas or ends of lines. Raises DataError: the file cannot be read, or holds
    something else; the message names `option` and the file.
    """
    try:
        array = _stored(place) if place.suffix == ".npy" else _written(option, place)
        if array.size != size:
            raise DataError(f"{option}: {place} holds {array.size} numbers; needed are {size}")
        found = np.array(array, np.float64).reshape(-1)
    except OSError as error:
        raise DataError(f"{option}: {place} cannot be read ({error.strerror}); give an .npy file or a text") from None
    except UnicodeDecodeError:
        raise DataError(f"{option}: {place} is neither an .npy file nor a text of numbers; give one of these") from None
    except (ValueError, EOFError, TypeError) as error:
        raise DataError(f"{option}: {place} cannot be read as numbers ({error}); give an .npy file or a text") from None
    if not np.isfinite(found).all():
        raise DataError(f"{option}: {place} holds numbers that are not finite; needed are {size} finite ones")
    return torch.from_numpy(found)


def _stored(place: Path) -> NDArray[Any]:
    """The array, of which nothing is read yet: its head may claim more than there is, or pickled objects."""
    found: NDArray[Any] = open_memmap(place, mode="r")
    if found.dtype.kind not in "fiub":
        raise ValueError(f"its entries are {found.dtype}")
    return found


def _written(option: str, place: Path) -> NDArray[Any]:
    if place.stat().st_size > LIMIT:
        raise DataError(f"{option}: {place} is larger than {LIMIT >> 20} MiB; give one input")
    words = re.split(r"[\s,]+", place.read_text().strip())
    return np.asarray([float(word) for word in words])
