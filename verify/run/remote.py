"""Workers on the machines of a Ray cluster, one call at a time; the one file that knows Ray.

Each is a `Station` in an actor, whose class travels by value, so that a machine without leaktight says so.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import leaktight
from leaktight.errors import UsageError
from leaktight.verify.run.address import HOW, LOCAL, check

try:
    import ray
    from ray import exceptions as faults
except ModuleNotFoundError:
    raise UsageError("--cluster: Ray is not installed; pip install 'leaktight[cluster]'") from None

LOST = (faults.RayActorError, faults.NodeDiedError, faults.WorkerCrashedError, faults.ObjectLostError)
"""A machine, or the cluster's process on it."""
AWAY = (ConnectionError, faults.RaySystemError)
"""The cluster as a whole."""
_PAUSE = 0.1
_TOKEN = "see that Ray's client server runs there; where it asks for a token, set RAY_AUTH_MODE=token"
_FORKING = "Starting Ray client server failed"  # the process of a client there dies now and then as it is started
_ATTEMPTS = 3
_STORE = 100 << 20  # bytes of shared memory of a cluster of this machine alone


def join(address: str, size: int) -> bool:
    """Connects to the cluster; False: this process is connected already. For `address` see `cluster.Cluster`.

    Raises UsageError: there is no cluster at the address.
    """
    if ray.is_initialized():
        return False
    _connect(address, size)
    return True


def _connect(address: str, size: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        ray.init(address=LOCAL, num_cpus=size, object_store_memory=_STORE, include_dashboard=False, **quiet)
        return
    check(address)
    for attempt in range(_ATTEMPTS):
        try:
            ray.init(address=address, **quiet)
            return
        except (ValueError, RuntimeError, *AWAY) as error:
            if attempt + 1 < _ATTEMPTS and _FORKING in str(error):
                ray.shutdown()
                continue
            hint = _TOKEN if address.startswith("ray://") else HOW
            raise UsageError(f"--cluster: {address}: {line(error)}; {hint}") from None


def leave() -> None:
    """Ends the connection that `join` made."""
    ray.shutdown()


def cores() -> int:
    """Of all the cluster's machines."""
    return int(ray.cluster_resources().get("CPU", 1))


class Workers:
    """Makes workers, each a handle with the methods of `_actor`'s class, whose calls are ended later."""

    def __init__(self) -> None:
        self.actor: Any = ray.remote(_actor())

    def start(self, resources: Mapping[str, float], memory: int | None, *, reserved: bool) -> Any:
        """A worker with such resources, ``cpu`` and ``gpu`` among them. reserved: the machine keeps `memory` for it."""
        wanted = {name: amount for name, amount in resources.items() if name != "memory"}
        asked: dict[str, Any] = {"num_cpus": wanted.pop("cpu", 1), "num_gpus": wanted.pop("gpu", 0)}
        if memory is not None and reserved:
            asked["memory"] = memory
        asked |= {"resources": wanted, "max_restarts": 0, "max_task_retries": 0}
        return self.actor.options(**asked).remote(_modules(), memory)


def end(workers: Iterable[Any], idle: Iterable[Any]) -> None:
    """Ends workers; those that are idle are let clean up before."""
    with suppress(*LOST, *AWAY, faults.GetTimeoutError):
        ray.get([worker.close.remote() for worker in idle], timeout=5)
    with suppress(*LOST, *AWAY):
        for worker in workers:
            ray.kill(worker)


def kill(worker: Any) -> None:
    """Ends a worker at once."""
    ray.kill(worker)


def stored(path: str) -> Any:
    """A file's content as the cluster holds it, to be given to calls. Raises OSError: it cannot be read."""
    return ray.put(Path(path).read_bytes())


def ended(calls: list[Any], seconds: float) -> list[Any]:
    """Those of the calls that are over, as soon as one is."""
    if not calls:
        time.sleep(min(seconds, _PAUSE))
        return []
    found, _ = ray.wait(calls, num_returns=1, timeout=seconds)
    if found:
        found, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
    return list(found)


def answer(call: Any) -> Any:
    """What a call comes to. Raises one of `LOST` or `AWAY`, and UsageError: the machine cannot be used."""
    try:
        return ray.get(call)
    except faults.RayTaskError as error:
        raise UsageError(f"--cluster: a machine of it cannot be used: {line(error.cause)}") from None


def line(error: object) -> str:
    """What an error says, in a line: the first, and where that only announces a traceback, the end of it too."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]


def _actor() -> type:
    """The actor's class. It is made in a function so that it is sent whole, and needs nothing where it is received."""

    class Worker:
        def __init__(self, modules: list[str], memory: int | None) -> None:
            import os
            import sys

            if any(os.path.isfile(os.path.join(place, "leaktight", "version.py")) for place in modules[:1]):
                sys.path[:] = modules  # the runner's own modules are at the same place here
            self.memory = memory
            self.station: Any = None

        def ready(self) -> Any:
            from leaktight.verify.run.station import Station

            self.station = self.station or Station(self.memory)
            return self.station.ready()

        def begin(self, task: Any, copies: Any) -> Any:
            import ray

            return self.station.begin(task, {path: ray.get(copy) for path, copy in copies.items()})

        def wait(self) -> Any:
            return self.station.wait()

        def close(self) -> None:
            self.station.close()

    return Worker


def _modules() -> list[str]:
    """Where modules are looked for, that of this leaktight first."""
    here = str(Path(leaktight.__file__).resolve().parents[1])
    return [here, *(place for place in sys.path if place and place != here)]
