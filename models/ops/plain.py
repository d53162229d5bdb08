"""Plain arithmetic: the settings under which a convolution is a sum of products in some order."""

from __future__ import annotations

import contextlib
import threading

import torch


class _PlainArithmetic(contextlib.ContextDecorator):
    """The settings are the process's: the first thread to enter makes them, the last to leave takes them back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._settings = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                mkldnn, nnpack, cudnn = torch.backends.mkldnn, torch.backends.nnpack, torch.backends.cudnn
                before = mkldnn.set_flags(False)[0]  # flags() would set more than this, and warn
                self._settings.callback(mkldnn.set_flags, before)
                self._settings.enter_context(nnpack.flags(enabled=False))
                self._settings.enter_context(cudnn.flags(enabled=False))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._settings.close()


_PLAIN_ARITHMETIC = _PlainArithmetic()


def plain_arithmetic() -> contextlib.AbstractContextManager[None]:
    """Convolutions as sums of products in some order: no Winograd, no FFT, no TF32. The error terms rely on it."""
    return _PLAIN_ARITHMETIC
