"""The clock interrupts as Ctrl-C does: work that runs past its time limit is broken off at its next step.

Searches look at their deadlines between rounds, and a round over a large network takes longer than anybody wants to
wait. So whoever starts work with a time limit sets an alarm, and what takes long (a pass, node by node; what is
multiplied out, part by part) says `tick` as it goes. A little after the deadline the next `tick` raises `TimeUp`, once.
Whatever knows what to do when the user interrupts it does the same then: what is proven by that time stands.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf

GRACE = 0.2
"""Seconds past its deadline that work has to end by itself."""


class TimeUp(KeyboardInterrupt):
    """The time limit is over; raised by `tick` alone, in the middle of a computation whose result is lost."""


@dataclass(eq=False)
class Alarm:
    """Rings at most once, at the first `tick` after `at` (of time.monotonic())."""

    at: float
    rung: bool = False


_ALARM: ContextVar[Alarm | None] = ContextVar("the alarm of this work", default=None)


@contextmanager
def alarm(deadline: float | None, grace: float = GRACE) -> Iterator[Alarm]:
    """Within it, `tick` raises `TimeUp` once the deadline is over by more than `grace` seconds; None: never.

    Within another alarm it rings no later than that one.
    """
    outer = _ALARM.get()
    at = inf if deadline is None else deadline + grace
    mine = Alarm(at if outer is None or outer.rung else min(at, outer.at))
    token = _ALARM.set(mine)
    try:
        yield mine
    finally:
        _ALARM.reset(token)


def left() -> float:
    """Seconds until the alarm of this work: for steps that could not be broken off. Negative afterwards."""
    mine = _ALARM.get()
    return inf if mine is None or mine.at == inf else mine.at - time.monotonic()


def tick() -> None:
    """Raises TimeUp: the alarm of this work is due, and has not rung yet."""
    mine = _ALARM.get()
    if mine is not None and mine.at < inf and not mine.rung and time.monotonic() > mine.at:
        mine.rung = True
        raise TimeUp
