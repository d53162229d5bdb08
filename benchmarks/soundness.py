"""Problems with a counterexample that was planted in training: a verifier that proves one of them is wrong.

    python -m benchmarks.soundness [--problems N] [--engines NAME...] [--timeout S] [--weak]

How they are made: tests/planted.py. Prints a Markdown table, one row for each engine: its verdicts. None may be proved;
the exit code is 1 if one is.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from leaktight.models.network import Network
from leaktight.specs.property import Property
from leaktight.verify import prove as proving
from leaktight.verify.prove import prove
from leaktight.verify.search.refute import refute

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from planted import plant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--engines", nargs="+", default=["alpha-crown", "auto", "branch", "milp"])
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds for a problem")
    parser.add_argument("--weak", action="store_true", help="hardly attack, so that the search has to find them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.weak:
        weak = {"restarts": 1, "steps": 1, "effort": 1.0}
        proving.refute = lambda *asked, **given: refute(*asked, **{**given, **weak})  # type: ignore[assignment]
    asked: list[tuple[Network, Property]] = []
    for seed in itertools.count():
        planted = plant(seed, slope=(0.0, 0.1, 0.5, -0.5)[seed % 4], size=(5, 10)[seed % 2])
        asked += [(planted.network, one) for one in planted.properties]
        if len(asked) >= arguments.problems:
            break
    asked = asked[: arguments.problems]
    print(f"{len(asked)} problems\n")
    print("| engine | refuted | unknown | timeout | proved | CPU s |\n|---|---|---|---|---|---|")
    wrong = 0
    for engine in arguments.engines:
        began, found = time.process_time(), Counter[str]()
        for network, one in asked:
            found[prove(network, one, engine=engine, timeout=arguments.timeout).status.value] += 1
        cells = [engine, *(found[name] for name in ("refuted", "unknown", "timeout", "proved"))]
        print("| " + " | ".join(map(str, cells)) + f" | {time.process_time() - began:.0f} |", flush=True)
        wrong += found["proved"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
