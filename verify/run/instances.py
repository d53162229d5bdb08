"""instances.csv as the VNN-COMP has it: ``onnx,vnnlib,timeout`` on each line, without a header."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from leaktight.errors import UsageError
from leaktight.verify.run.job import Job, Place
from leaktight.verify.run.suite import Suite, content, read_toml


def read_suite(path: Path) -> Suite:
    """The suite in a TOML file, or the instances in a CSV file.

    Raises UsageError: it cannot be read; the message names file and line of all that is wrong.
    """
    if path.suffix.lower() == ".csv":
        return read_instances(path)
    if path.suffix.lower() == ".toml" or not path.suffix:
        return read_toml(path)
    raise UsageError(f"{path}: suites are .toml or .csv files; give one of those")


def read_instances(path: Path) -> Suite:
    """One job of kind ``verify`` for each line; files lie where the CSV does.

    Raises UsageError: lines that are not ``onnx,vnnlib,timeout``, or files that are missing; all at once.
    """
    sha256, text = content(path)
    problems: list[str] = []
    try:
        rows = [(number, row) for number, row in _rows(text) if row]
    except csv.Error as error:
        raise UsageError(f"{path}: this is no CSV ({error}); each line is onnx,vnnlib,timeout") from None
    jobs = [job for number, row in rows if (job := _job(path, number, row, problems)) is not None]
    if problems:
        raise UsageError("\n".join(problems))
    if not jobs:
        raise UsageError(f"{path}: there is no instance in it; each line is onnx,vnnlib,timeout")
    return Suite(str(path), sha256, tuple(_told_apart(jobs)))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines(), strict=True)
    for row in reader:
        yield reader.line_num, [cell.strip() for cell in row]


def _job(path: Path, number: int, row: list[str], problems: list[str]) -> Job | None:
    if len(row) != 3:
        problems.append(f"{path}:{number}: there are {len(row)} columns; expected onnx,vnnlib,timeout")
        return None
    network, property, limit = row
    timeout = _positive(limit)
    if timeout is None:
        problems.append(f"{path}:{number}: timeout: {limit!r} is not a positive number of seconds")
    for role, name in (("onnx", network), ("vnnlib", property)):
        if not (path.parent / name).is_file():
            problems.append(f"{path}:{number}: {role}: there is no file {path.parent / name}")
    if timeout is None:
        return None
    return Job(
        name=f"{network} {property}",
        kind="verify",
        network={"path": str(path.parent / network)},
        question={"timeout": timeout, "engine": "auto", "seed": 0, "dtype": "float64"},
        files={"property": str(path.parent / property)},
        place=Place(str(path), number),
    )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None


def _told_apart(jobs: list[Job]) -> Iterator[Job]:
    """An instance that is there twice gets its count as part of its name."""
    from dataclasses import replace

    seen: Counter[str] = Counter()
    for job in jobs:
        seen[job.name] += 1
        count = seen[job.name]
        yield job if count == 1 else replace(job, name=f"{job.name} #{count}")
