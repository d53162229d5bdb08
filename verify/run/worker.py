"""The worker process: tasks come in as lines of JSON, one at a time, and an answer goes out for each.

Out goes first ``{"limit": seconds}`` (null: none), when the question has been read and work on it begins, and then
``{"document": ..., "identity": ...}`` or ``{"error": {"kind": ..., "message": ...}}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from typing import IO, Any

_DEATH_OF_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def main(memory: int | None) -> None:
    """Answers tasks from stdin until it ends, with at most `memory` bytes. What libraries print goes to stderr."""
    die_with_the_parent()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for ends in (signal.SIGINT, signal.SIGTERM):  # a group gets them whole, and they are the runner's to handle
        signal.signal(ends, signal.SIG_IGN)
    if memory is not None:
        limit_memory(memory)
    serve(_tasks(sys.stdin), replies, None if memory is None else memory // 2)


def die_with_the_parent() -> None:
    """A worker whose runner is killed does not go on proving for nobody; `_tasks` is the fallback."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_OF_PARENT, signal.SIGKILL)


def limit_memory(size: int) -> None:
    """Caps the memory that this process can write to; beyond it, allocations fail."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _tasks(stream: IO[str]) -> queue.Queue[str]:
    """The lines of stdin, read by a thread that ends the process when there is nobody to write any more."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    return lines


def serve(tasks: queue.Queue[str], replies: IO[str], memory: int | None) -> None:
    """Answers one task after the other; it does not return."""
    import torch

    from leaktight.verify.run import answer  # the start-up that a worker pays once

    torch.set_num_threads(1)
    _say(replies, {"ready": True})
    while True:
        _say(replies, _answered(json.loads(tasks.get()), answer, replies, memory))


def _answered(task: dict[str, Any], answer: Any, replies: IO[str], memory: int | None) -> dict[str, Any]:
    from leaktight.errors import InputError
    from leaktight.verify.report.json import strict

    try:
        if task["kind"] == "identify":
            return {"identity": answer.known(task["network"])[1]}
        if task["kind"] == "inputs":
            return _of_inputs(task, replies, memory)
        _say(replies, {"limit": answer.seconds(task)})
        document, identity = answer.answer(task, memory)
        return {"document": strict(document), "identity": identity}
    except InputError as error:
        return _error("bad input", str(error))
    except MemoryError:
        return _error("memory", "it needed more memory than a worker may use; raise --memory")
    except RuntimeError as error:
        if "allocate memory" in str(error):  # what torch says
            return _error("memory", "it needed more memory than a worker may use; raise --memory")
        return _error("internal", f"{type(error).__name__}: {error}")
    except Exception as error:
        return _error("internal", f"{type(error).__name__}: {error}")


def _of_inputs(task: dict[str, Any], replies: IO[str], memory: int | None) -> dict[str, Any]:
    from leaktight.verify.run import inputs

    _say(replies, {"limit": inputs.seconds(task)})
    return {"document": inputs.answer(task, memory)}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def _say(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message, allow_nan=False) + "\n")
    replies.flush()
