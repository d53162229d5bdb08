"""How fast property files are read: VNN-LIB 1.0 text of growing size, as properties of images have it.

    python -m benchmarks.reading [--inputs N...]

Prints a Markdown table of CPU seconds, the least of three readings.
"""

from __future__ import annotations

import argparse
import random
import time

from leaktight.specs.vnnlib import parse_property


def text_of(inputs: int) -> str:
    """A box around a random point, and one condition on the output."""
    rng = random.Random(0)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + ["(declare-const Y_0 Real)"]
    for i in range(inputs):
        low = rng.random()
        lines += [f"(assert (<= X_{i} {low + 0.1!r}))", f"(assert (>= X_{i} {low!r}))"]
    return "\n".join([*lines, "(assert (<= Y_0 0.5))"])


def seconds(text: str) -> float:
    began = time.process_time()
    parse_property(text)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, nargs="*", default=[270, 2_700, 27_000])
    print("| inputs | megabytes | CPU s |\n|---|---|---|")
    for inputs in parser.parse_args().inputs:
        text = text_of(inputs)
        print(f"| {inputs} | {len(text) / 1e6:.2f} | {min(seconds(text) for _ in range(3)):.3f} |")


if __name__ == "__main__":
    main()
