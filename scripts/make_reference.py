"""Writes the help of every command into docs/cli.md, between the texts that stand there already.

python scripts/make_reference.py    (a test compares the page with the help)
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

os.environ |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
BLOCK = re.compile(r"(^\$ leaktight ?([a-z]*) --help\n)(.*?)(?=^```)", re.DOTALL | re.MULTILINE)


def help_of(command: str) -> str:
    from leaktight import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.run([*filter(None, [command]), "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines()) + "\n"


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + help_of(found[2]), text))


if __name__ == "__main__":
    main()
