"""Labelled inputs from a table in text: one input a row, its label in one column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leaktight.errors import DataError
from leaktight.specs.arrays import ENTRIES, Array, opened

_LINE = 1 << 26  # bytes; a line of 2 million numbers fits


def read_table(place: Path, column: int, limit: int | None) -> tuple[Array, Array]:
    """The first `limit` inputs and labels of a text table (csv), plain or gzip, with the label in `column`.

    Numbers are separated by comma, semicolon, tab or blanks, whichever of these the first row has first. Empty lines
    and lines that start with ``#`` are skipped, and so is a first row whose label is not a number: it holds titles.

    Raises DataError: a cell is not a number, a row has another length than the first, there is no row, or no such
    column; the message says the line.
    """
    rows: list[Array] = []
    separator: str | None = None
    for number, line in _lines(place):
        if not rows and separator is None:
            separator = next((mark for mark in ",;\t" if mark in line), "")
            if _is_title(_cells(line, separator), column):
                continue
        row = _numbers(f"{place}:{number}", _cells(line, separator or ""), column)
        if rows and len(row) != len(rows[0]):
            raise DataError(
                f"{place}:{number}: this row has {len(row)} cells, the first one {len(rows[0])}; give "
                "rows of equal length"
            )
        rows.append(row)
        if len(rows) * len(row) > ENTRIES:
            raise DataError(f"{place}: the table holds more than {ENTRIES} numbers; set a limit or split the file")
        if len(rows) == limit:
            break
    if not rows:
        titles = "" if separator is None else " below its titles"
        raise DataError(
            f"{place}: the table has no rows{titles}; expected one input a row: its label, then its entries"
        )
    whole = np.stack(rows)
    return np.delete(whole, column, 1), whole[:, column]


def _lines(place: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines that hold something."""
    with opened(place) as file:
        number = 0
        while raw := file.readline(_LINE):
            number += 1
            if b"\0" in raw:
                raise DataError(f"{place}:{number}: the file is not text; give an npz, csv or idx file")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise DataError(f"{place}:{number}: the line is not UTF-8 text; give an npz, csv or idx file") from None
            if line and not line.startswith("#"):
                yield number, line


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in line.split(separator)] if separator else re.split(r"\s+", line)


def _is_title(cells: list[str], column: int) -> bool:
    return -len(cells) <= column < len(cells) and not _is_number(cells[column])


def _numbers(where: str, cells: list[str], column: int) -> Array:
    if len(cells) < 2 or not -len(cells) <= column < len(cells):
        raise DataError(
            f"{where}: the row has {len(cells)} cells; expected a label (column {column}) and one or more entries"
        )
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        at, cell = next((i, cell) for i, cell in enumerate(cells) if not _is_number(cell))
        raise DataError(f"{where}: cell {at + 1} is {cell[:40]!r}; expected a number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
