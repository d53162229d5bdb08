"""On which line of a TOML text each table and key stands: the parsers keep the values and forget the places."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

Path = tuple[str | int, ...]
_BARE = r"[A-Za-z0-9_-]+"
_KEY = re.compile(rf"\s*(?:({_BARE})|\"((?:[^\"\\]|\\.)*)\"|'([^']*)')\s*")
_TOKEN = re.compile(r"\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|#[^\n]*|[\[\]{}]")


def lines(text: str) -> dict[Path, int]:
    """Lines, counted from one, of a valid TOML text's tables and keys.

    ``("certify", 0, "epsilon")`` is the key ``epsilon`` of the first ``[[certify]]``. Keys of inline tables are not
    listed: their line is that of the key that holds them, or the nearest that `line_of` finds.
    """
    found: dict[Path, int] = {}
    arrays: Counter[Path] = Counter()
    here: Path = ()
    for number, line in _statements(text):
        stripped = line.strip()
        if stripped.startswith("["):
            double = stripped.startswith("[[")
            path = _resolved(_keys(stripped.lstrip("[")), arrays)
            if double:
                arrays[path] += 1
                path = (*path, arrays[path] - 1)
            here = path
            for end in range(1, len(here) + 1):
                found.setdefault(here[:end], number)
        elif stripped:
            path = (*here, *_keys(stripped))
            for end in range(len(here) + 1, len(path) + 1):
                found.setdefault(path[:end], number)
    return found


def line_of(known: dict[Path, int], path: Path) -> int:
    """The line of the innermost part of `path` that has one; 1 where none has."""
    for end in range(len(path), 0, -1):
        if path[:end] in known:
            return known[path[:end]]
    return 1


def _resolved(keys: Path, arrays: Counter[Path]) -> Path:
    """The path of a header: inside an array of tables, its last table is meant."""
    path: Path = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if arrays[path] and place < len(keys) - 1:
            path = (*path, arrays[path] - 1)
    return path


def _keys(text: str) -> Path:
    """The dotted key at the start of `text`."""
    keys: list[str] = []
    place = 0
    while (match := _KEY.match(text, place)) is not None:
        keys.append(next(part for part in match.groups() if part is not None))
        place = match.end()
        if text[place : place + 1] != ".":
            break
        place += 1
    return tuple(keys)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The lines at which something begins, without those that continue a string, an array or an inline table."""
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not depth and not quote and line.strip() and not line.lstrip().startswith("#"):
            yield number, line
        header = not depth and not quote and line.lstrip().startswith("[")
        place = 0
        while place < len(line):
            if quote:
                end = _closing(line, quote, place)
                quote, place = ("", end) if end >= 0 else (quote, len(line))
                continue
            match = _TOKEN.search(line, place)
            if match is None:
                break
            token, place = match.group(), match.end()
            if token in ('"""', "'''"):
                quote = token
            elif not header and token in "[{":
                depth += 1
            elif not header and token in "]}":
                depth -= 1


def _closing(line: str, quote: str, place: int) -> int:
    """Where the multi-line string ends that is open at `place`; -1 if not on this line."""
    while place <= len(line):
        if line.startswith(quote, place):
            end = place + 3
            while line[end : end + 1] == quote[0] and end < place + 5:
                end += 1
            return end
        place += 2 if line[place : place + 1] == "\\" and quote == '"""' else 1
    return -1
