"""One input from a file: an .npy array, or numbers as text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import DataError


def read_point(option: str, place: Path, size: int) -> Tensor:
    """The `size` numbers of a file as a float64 tensor ``(size,)``: an .npy array of any shape, or text.

    In a text numbers stand between blanks, commas or ends of lines. Raises DataError: the file cannot be read, or holds
    something else; the message names `option` and the file.
    """
    try:
        array = np.load(place, allow_pickle=False) if place.suffix == ".npy" else _written(place.read_text())
        found = np.asarray(array, np.float64).reshape(-1)
    except OSError as error:
        raise DataError(f"{option}: {place} cannot be read ({error.strerror}); give an .npy file or a text") from None
    except UnicodeDecodeError:
        raise DataError(f"{option}: {place} is neither an .npy file nor a text; give one of these") from None
    except (ValueError, EOFError, TypeError) as error:
        raise DataError(f"{option}: {place} cannot be read as numbers ({error}); give an .npy file or a text") from None
    if len(found) != size or not np.isfinite(found).all():
        raise DataError(f"{option}: {place} holds {len(found)} numbers; needed are {size}, all of them finite")
    return torch.from_numpy(found.copy())


def _written(text: str) -> list[float]:
    return [float(word) for word in re.split(r"[\s,]+", text.strip())]
