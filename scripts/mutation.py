"""Mutation: text of the source is replaced in a copy of the repository, and tests say whether they notice."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 900  # seconds for the tests of one mutant


@dataclass(frozen=True)
class Mutant:
    """What is broken, where, the text that stands there and what replaces it, and the tests that should notice."""

    rule: str
    file: str
    old: str
    new: str
    tests: str

    def applied(self, text: str) -> str:
        """Raises ValueError: the text to be replaced does not stand there exactly once."""
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file}: {self.old!r} stands there {text.count(self.old)} times; this mutant is out of date"
            )
        return text.replace(self.old, self.new)


def copied(folder: Path) -> None:
    """The files that git knows or would know, links as links."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def first_failure(mutant: Mutant, folder: Path) -> tuple[str | None, float]:
    """The first of its tests that fails with the mutant in place, None if none does; and the CPU seconds it took."""
    place = folder / mutant.file
    before = place.read_text()
    place.write_text(mutant.applied(before))
    started = os.times()
    try:
        return tested(mutant.tests, folder), spent(started)
    finally:
        place.write_text(before)


def spent(started: os.times_result) -> float:
    now = os.times()
    return now.children_user + now.children_system - started.children_user - started.children_system


def tested(tests: str, folder: Path) -> str | None:
    """Raises RuntimeError: the tests could not be run."""
    options = ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile", "unshrunk"]
    command = [sys.executable, "-m", "pytest", *options, *shlex.split(tests)]
    environment = {**os.environ, "CI": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1 and failed is None):
        raise RuntimeError(f"pytest {tests}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1].rpartition("/")[2] if failed else None


def table(rows: Iterable[tuple[Mutant, str | None, float]]) -> str:
    lines = ["| rule that was broken | file | first test that fails | CPU s |", "|---|---|---|---|"]
    for mutant, killer, seconds in rows:
        found = "**none: it survives**" if killer is None else f"`{killer}`"
        lines.append(f"| {mutant.rule} | {mutant.file} | {found} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main(mutants: Sequence[Mutant]) -> None:
    """Tries the mutants that the command line names; the exit status is 1 where one survives."""
    parser = argparse.ArgumentParser(description="Which test notices when a soundness rule is broken?")
    parser.add_argument("--only", default="", help="mutants whose rule or file contains this")
    parser.add_argument("--output", type=Path, help="a file to write the table to")
    arguments = parser.parse_args()
    chosen = [m for m in mutants if arguments.only in m.rule or arguments.only in m.file]
    found: list[tuple[Mutant, str | None, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        for mutant in chosen:
            started = time.strftime("%H:%M:%S")
            found.append((mutant, *first_failure(mutant, folder)))
            print(f"{started} {mutant.rule}: {found[-1][1] or 'SURVIVES'}", file=sys.stderr, flush=True)
            if arguments.output:
                arguments.output.write_text(table(found))
    print(table(found))
    sys.exit(any(killer is None for _, killer, _ in found))
