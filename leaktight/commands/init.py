"""A first suite for the networks in a folder."""

from __future__ import annotations

from pathlib import Path

from leaktight import arguments
from leaktight.answer import Answer
from leaktight.errors import UsageError
from leaktight.progress import stages
from leaktight.verify.report import file
from leaktight.version import __version__


def init(folder: arguments.Folder = Path("."), force: arguments.Force = False) -> Answer:
    """A first suite for the networks in a folder.

    Writes leaktight.toml, with comments, for the networks, properties and data that it finds there.
    """
    from leaktight.verify.report.words import counted
    from leaktight.verify.run.init import NAME, make
    from leaktight.verify.run.samples import write_samples

    if not folder.is_dir():
        raise UsageError(f"{folder}: {'this is no folder' if folder.exists() else 'there is no such folder'}")
    path = folder / NAME
    if path.exists() and not force:
        raise UsageError(f"{path}: there is a suite already; give --force to replace it")
    file.check_writable("FOLDER", path)
    with stages() as progress:
        if progress:
            progress("looking at the files")
        made = make(folder)
    for name, (inputs, labels) in made.samples.items():
        write_samples(folder / name, inputs, labels)
    file.write_whole("FOLDER", path, made.text)
    document = {
        "schema": "leaktight.init/1",
        "suite": str(path),
        "networks": made.networks,
        "tables": made.jobs,
        "files": [str(folder / name) for name in made.samples],
        "left_out": list(made.left_out),
        "version": __version__,
    }
    asks = f"asks {counted(made.jobs, 'question')} of {counted(made.networks, 'network')}"
    return Answer(
        document,
        f"{path} {asks}; next: leaktight run {path}",
        notes=tuple(f"leaktight: warning: left out: {why}" for why in made.left_out),
    )
