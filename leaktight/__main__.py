"""``python -m leaktight`` and the ``leaktight`` command."""

import atexit
import gc
import os
import signal
import sys
import threading

from leaktight.cli import run
from leaktight.eager import eager_only

_YOUNG = 10_000  # objects; Python's own 700 goes through all that is imported again and again


def main() -> None:
    """Runs the command line and exits with its code."""
    _open_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends it so gets what Ctrl-C gets: what is proven
    _wait_briefly()
    gc.set_threshold(_YOUNG)
    eager_only()
    _leave(run(sys.argv[1:]))


def _open_streams() -> None:
    """Streams that the caller has closed: stdout takes nothing, so a result that would go there is an error.

    Their numbers are taken, or a file that is opened later gets them, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _wait_briefly() -> None:
    """Threads that have nothing to do spin for about 50 microseconds, then sleep. To be said before torch is imported.

    Without spinning they are woken for every operation, which makes a search half as long again; spinning on, as is
    usual, slows a busy machine down many times over.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # where there is no such number
        os.environ["GOMP_SPINCOUNT"] = "5000"


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
