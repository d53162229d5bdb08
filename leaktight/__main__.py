"""``python -m leaktight`` and the ``leaktight`` command."""

import atexit
import gc
import os
import sys
import threading

from leaktight.cli import run
from leaktight.eager import eager_only

_YOUNG = 10_000  # objects; Python's own 700 goes through all that is imported again and again


def main() -> None:
    """Runs the command line and exits with its code."""
    # Threads that wait by spinning slow a busy machine down many times over. To be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(_YOUNG)
    eager_only()
    _leave(run(sys.argv[1:]))


def _leave(code: int) -> None:
    """Ends the process as ``sys.exit`` does, but leaves its memory to the system: to free each object takes 0.2 s.

    Threads are waited for, what is registered for the exit runs, streams are flushed. Whoever watches the process from
    within, as a profiler does, and streams that cannot be flushed get the whole of ``sys.exit``.
    """
    if not _watched():
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(code)
        os._exit(code)
    sys.exit(code)


def _watched() -> bool:
    tools = getattr(sys, "monitoring", None)  # of Python 3.12, with room for six
    return (
        sys.getprofile() is not None
        or sys.gettrace() is not None
        or (tools is not None and any(tools.get_tool(number) for number in range(6)))
    )


if __name__ == "__main__":
    main()
