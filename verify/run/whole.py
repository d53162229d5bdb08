"""A job that is answered in parts: what is still to be asked, and when the answer is known."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from leaktight.verify.run.joined import joined

Task = Mapping[str, Any]
Reply = Mapping[str, Any]


class Token(NamedTuple):
    """Whose task a worker has: a job's, by its key; of one in parts, the part's number."""

    key: str
    part: int | None = None


@dataclass
class Whole:
    """The state of one such job.

    began: when work on it began, by time.monotonic(). answers: by part, so that one that is answered twice counts once.
    """

    key: str
    task: Task
    began: float
    divided: Reply = field(default_factory=dict)
    begun: Mapping[str, Any] = field(default_factory=dict)
    parts: list[Mapping[str, Any]] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    running: set[int] = field(default_factory=set)
    answers: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    reply: Reply | None = None

    @property
    def first(self) -> Task:
        """The task that divides it."""
        return {**self.task, "kind": "divide"}

    def next(self) -> tuple[Token, Task] | None:
        """A part to be asked, with what time is left; None: none waits, or the time is up."""
        left = self._left()
        if not self.waiting or left <= 0:
            return None
        part = self.waiting.popleft()
        self.running.add(part)
        question = {**self.task["question"], "timeout": left}
        return Token(self.key, part), {**self.task, "kind": "part", "question": question, "part": self.parts[part]}

    def take(self, part: int | None, reply: Reply) -> None:
        """What became of the division, or of a part; sets `reply` when that is the answer to the job."""
        if "error" in reply:
            self.reply = reply
        elif part is None:
            self.divided = reply
            self.begun, self.parts = reply["document"]["begun"], reply["document"]["parts"]
            self.waiting.extend(range(len(self.parts)))
            self._settle(reply, found=not self.parts)
        else:
            self.running.discard(part)
            self.answers[part] = reply["document"]
            self._settle(reply, found=reply["document"]["status"] == "refuted")

    def expire(self) -> None:
        """Sets `reply` where the time is up and nothing is asked any more."""
        if self.parts and self.waiting and not self.running:
            self._settle(self.divided, found=False)

    def _settle(self, reply: Reply, *, found: bool) -> None:
        """The answer is there with a counterexample, when nothing is left to ask, and when the time is up."""
        if not found and (self.running or (self.waiting and self._left() > 0)):
            return
        seconds = time.monotonic() - self.began
        answers = list(self.answers.values())
        whole = joined(self.begun, answers, len(self.parts), seconds) if self.parts else dict(self.begun)
        self.reply = {**reply, "document": whole}

    def _left(self) -> float:
        return float(self.task["question"]["timeout"]) - (time.monotonic() - self.began)

    @property
    def tokens(self) -> list[Token]:
        """What workers are still busy with."""
        return [Token(self.key, part) for part in self.running]
