"""Writing a counterexample to a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from leaktight.errors import UsageError
from leaktight.verify.search.replay import flatten
from leaktight.verify.verdict import Counterexample


def write_counterexample(path: str | os.PathLike[str], counterexample: Counterexample) -> None:
    """Writes inputs and outputs by name as ``.npz``, or as VNN-COMP text for any other suffix.

    In an ``.npz`` the arrays have the names, shapes and dtypes of the network's file; where an input and an output
    share a name, the output's gets the suffix ``_output``. The text holds the counterexample's `point`, which lies
    inside the region, and the replayed outputs. The file appears whole or not at all.

    Raises UsageError: the folder does not exist or cannot be written, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        what = "is a folder" if target.is_dir() else f"lies in a folder that does not exist ({target.parent})"
        raise UsageError(f"{target}: the counterexample's path {what}; give the path of a file in an existing folder")
    try:
        _replace(target, counterexample)
    except OSError as error:
        raise UsageError(
            f"{target}: the counterexample cannot be written ({error.strerror or error});"
            " give a path that can be written"
        ) from error


def _replace(target: Path, counterexample: Counterexample) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if target.suffix.lower() == ".npz":
                np.savez(file, **_arrays(counterexample))
            else:
                from leaktight.specs.vnnlib import format_counterexample

                file.write(format_counterexample(counterexample.point, flatten(counterexample.outputs)).encode())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _arrays(counterexample: Counterexample) -> dict[str, Any]:
    arrays = dict(counterexample.inputs)
    for name, value in counterexample.outputs.items():
        arrays[f"{name}_output" if name in arrays else name] = value
    return arrays
