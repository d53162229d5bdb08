"""Tensors that are kept with an operator or a network, whoever asks for them first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Within it tensors are ordinary ones without gradients, also in torch's inference mode (`bounds.quick`)."""
    with torch.inference_mode(False), torch.no_grad():
        yield
