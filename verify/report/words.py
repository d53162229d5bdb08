"""What every format says in the same words: shares, statuses, guarantees; and text that comes from files."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

GUARANTEES = {
    "real": "real: the network in exact real arithmetic, with the weights that the file gives",
    "unrounded": "unrounded: the engine ignores its own floating-point errors; a second opinion, not a proof",
}
_MEANINGS = {
    "real": "Every proven number holds for every input of the region, and not only for inputs that were tried. It is"
    " about the network as a function over the real numbers, with the weights that the file gives; every rounding of"
    " the computation that proved it is accounted for. It says nothing about roundings of the runtime that executes the"
    " network, about other weights, or about inputs outside the region.",
    "float32": "Every proven number holds for every input of the region and for every execution of the network in IEEE"
    " float32, in any order of summation. It says nothing about other number formats, about other weights, or about"
    " inputs outside the region.",
    "unrounded": "The engine ignores its own floating-point errors. This is a second opinion and not a proof.",
}
STATUSES = {
    "proved": "Holds for every input of the region.",
    "refuted": "A concrete input of the region violates it.",
    "unknown": "Neither a proof nor a counterexample was found. Nothing is claimed.",
    "timeout": "The time ended before a proof or a counterexample was found. Nothing is claimed.",
}
NOTHING = "-"
# Characters that draw nothing of their own and can change what is drawn around them: controls (terminal escapes),
# formats (text running backwards), lone surrogates (no UTF-8 has them), private ones, separators of paragraphs.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def clean(text: str) -> str:
    """`text` on one line, with every character that could act instead of being seen replaced by U+FFFD."""
    return _SUSPECT.sub(_seen, text)


def _seen(match: re.Match[str]) -> str:
    character = match.group()
    if character in "\n\t":
        return " "
    return "\ufffd" if unicodedata.category(character) in _UNSEEN else character


def counted(number: int, thing: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def percent(value: float) -> str:
    """A share as a percentage; 100 % is said of nothing less than all, and 0 % of nothing more than none."""
    shown = f"{value:.1%}"
    if value < 1 and shown == "100.0%":
        return "<100%"
    return ">0%" if value > 0 and shown == "0.0%" else shown


def meaning(guarantee: str) -> str:
    """The guarantee in plain words."""
    return _MEANINGS.get(guarantee, f"The result names its guarantee {guarantee!r}, which this version does not know.")


def norm(name: str) -> str:
    """The norm as people write it."""
    return {"inf": "L∞", "2": "L2", "1": "L1"}.get(name, name)


def command_line(arguments: Sequence[str]) -> str:
    """Arguments as one line for a POSIX shell."""
    return shlex.join(arguments)


def flat(value: Any) -> Iterator[float | None]:
    """The numbers of a nested list, in order."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
    else:
        yield value


def places(value: Any, name: str) -> Iterator[tuple[str, float | None]]:
    """The numbers of a nested list with their places: ``("y[0, 2]", 1.5)``."""

    def walk(item: Any, path: tuple[int, ...]) -> Iterator[tuple[str, float | None]]:
        if isinstance(item, (list, tuple)):
            for place, part in enumerate(item):
                yield from walk(part, (*path, place))
        else:
            yield f"{name}[{', '.join(map(str, path))}]" if path else name, item

    return walk(value, ())
