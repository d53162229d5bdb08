"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from leaktight.errors import UsageError


def check_writable(option: str, path: Path) -> None:
    """Refuses a path that could not be written, before any work is done for it.

    Raises UsageError: its folder does not exist, or it is a folder itself.
    """
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: the folder {path.parent} does not exist; create it, or give another path")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option}: the folder {path.parent} cannot be written to; give another path")


def write_whole(option: str, path: Path, content: str) -> None:
    """Writes `content` to `path` in one step: a reader sees the old file or the new one, never a part.

    Raises UsageError: the file system refuses; nothing is left behind.
    """
    check_writable(option, path)
    place = Path(os.path.realpath(path))
    temporary = None
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: there is nothing to replace
            path.write_text(content, encoding="utf-8")
            return
        prefix = f".{place.name}."
        with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=prefix, delete=False, encoding="utf-8") as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(place.stat().st_mode & 0o777 if place.exists() else 0o666 & ~_umask())
        temporary.replace(place)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UsageError(f"{option}: {path} cannot be written ({error.strerror}); give another path") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
