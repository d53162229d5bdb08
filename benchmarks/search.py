"""Runs single instances of acasxu_2023 as whole processes and prints their CPU seconds beside published ones.

    python benchmarks/search.py FOLDER [--timeout S] [--only TEXT]

FOLDER holds acasxu_2023's onnx/ and vnnlib/. CPU seconds count the whole process ``python -m leaktight verify``, from
the start of the interpreter to its end, user and system. The figures of alpha-beta-CROWN and nnenum are those of the
collection's own measurements on a busy machine with two cores; a dash where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instance:
    """A network and property, and the CPU seconds that others need for it."""

    network: str
    property: int
    crown: str = "-"  # alpha-beta-CROWN
    nnenum: str = "-"

    @property
    def name(self) -> str:
        return f"{self.network}/prop_{self.property}"


INSTANCES = (
    Instance("1_1", 1, "9.8", "2.2"),
    Instance("1_1", 3, "12.4", "3.0"),
    Instance("1_1", 4, "-", "1.7"),
    Instance("1_1", 5, "17.3", "6.4"),
    Instance("1_1", 6, "79"),
    Instance("4_5", 10, "17.5"),
    Instance("3_3", 9, "20.8"),
    Instance("3_3", 2, "> 75", "47"),
)


def measured(folder: Path, instance: Instance, timeout: float) -> tuple[str, int, float]:
    """The status, the number of boxes and the CPU seconds of one process."""
    before = _cpu_of_children()
    found = subprocess.run(
        [
            *(sys.executable, "-m", "leaktight", "verify", "--format", "json", "--timeout", str(timeout)),
            str(folder / "onnx" / f"ACASXU_run2a_{instance.network}_batch_2000.onnx"),
            str(folder / "vnnlib" / f"prop_{instance.property}.vnnlib"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = _cpu_of_children() - before
    if found.returncode not in (0, 1, 3, 4):
        return f"failed: {found.stderr.strip().splitlines()[-1:]}", 0, seconds
    document = json.loads(found.stdout)
    return document["status"], document["statistics"]["domains"], seconds


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for an instance (default 120)")
    parser.add_argument("--only", default="", help="only instances whose name holds this text")
    arguments = parser.parse_args()
    print("| instance | status | boxes | CPU s | alpha-beta-CROWN | nnenum |\n|---|---|---|---|---|---|", flush=True)
    for instance in INSTANCES:
        if arguments.only in instance.name:
            status, boxes, seconds = measured(arguments.folder, instance, arguments.timeout)
            cells = (instance.name, status, boxes, f"{seconds:.1f}", instance.crown, instance.nnenum)
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
