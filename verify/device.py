"""Where the arithmetic runs: on the processor, or on a GPU that computes as the error terms assume."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch

from leaktight.errors import UsageError
from leaktight.models.placed import PROCESSOR, placed, working_on
from leaktight.verify.arithmetic import check_arithmetic, check_settings

Value = TypeVar("Value")
_NAME = re.compile(r"cuda(?::(\d{1,4}))?")


@dataclass(frozen=True)
class Device:
    """A place for numbers to be and to be computed with. What comes in is moved there, and what is found is moved back.

    Replays, linear programs, Lipschitz constants and the setting of slopes stay on the processor wherever the rest is.
    """

    where: torch.device

    @classmethod
    def named(cls, name: str | Device) -> Device:
        """The device called ``cpu``, ``cuda`` (torch's current GPU) or ``cuda:N``.

        Raises UsageError: there is no such device, or what it computes is not known to be within the error terms.
        """
        if isinstance(name, Device):
            return name
        if name == "cpu":
            return CPU
        found = _NAME.fullmatch(name)
        if found is None:
            raise UsageError(f"--device: {name!r} is not known; allowed: cpu, cuda, cuda:N")
        _check_there(name, None if found[1] is None else int(found[1]))
        where = torch.device("cuda", torch.cuda.current_device() if found[1] is None else int(found[1]))
        check_settings()
        _looked_at(where)
        return cls(where)

    def at_work(self) -> contextlib.AbstractContextManager[object]:
        """New tensors are made there, in this thread.

        Raises UsageError: a GPU's memory is not enough.
        """
        return working_on(self.where) if self.where == PROCESSOR else self._elsewhere()

    @contextlib.contextmanager
    def _elsewhere(self) -> Iterator[None]:
        try:
            with working_on(self.where):
                yield
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"--device {self.where}: its memory is not enough ({str(error).splitlines()[0]}); give less with"
                " --memory, or use --device cpu"
            ) from error

    def of(self, value: Value) -> Value:
        """The value with its tensors there (see `placed`); networks are moved once, and kept."""
        return placed(value, self.where)


CPU = Device(PROCESSOR)


def on_processor() -> bool:
    """Whether new tensors are made on the processor now."""
    return bool(torch.get_default_device() == PROCESSOR)


def _check_there(name: str, number: int | None) -> None:
    """Raises UsageError: torch cannot use this GPU, or the rounding of its maker's libraries is not known."""
    if torch.version.hip is not None:
        raise UsageError(f"--device {name}: this torch is for AMD's GPUs, whose libraries were not looked at; use cpu")
    if not torch.backends.cuda.is_built():
        raise UsageError(f"--device {name}: this torch ({torch.__version__}) was built without CUDA; use --device cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch finds no usable GPU; see nvidia-smi, or use --device cpu")
    count = torch.cuda.device_count()
    if number is not None and number >= count:
        last = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(f"--device {name}: there is no such GPU; torch finds {last}")


@cache
def _looked_at(where: torch.device) -> None:
    check_arithmetic(where)
