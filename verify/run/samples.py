"""Files of labelled inputs that `leaktight init` makes where there are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from torch import Tensor

from leaktight.errors import UsageError


def write_samples(path: Path, inputs: Tensor, labels: Tensor) -> None:
    """Writes the inputs as x and the labels as y of an npz file.

    Raises UsageError: the file system refuses.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, x=inputs.numpy(), y=labels.numpy())
    try:
        path.write_bytes(packed.getvalue())
    except OSError as error:
        raise UsageError(
            f"{path}: it cannot be written ({error.strerror}); make room, or name another folder"
        ) from None
