"""``python -m leaktight`` and the ``leaktight`` command."""

import os
import sys

from leaktight.cli import run
from leaktight.eager import eager_only


def main() -> None:
    """Runs the command line and exits with its code."""
    # Threads that wait by spinning slow a busy machine down many times over. To be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    eager_only()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
