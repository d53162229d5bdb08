"""How far one input may move and keep its label, without saying beforehand how far to look."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from leaktight.errors import PropertyError, UsageError
from leaktight.models.network import Network
from leaktight.specs.region import Norm
from leaktight.verify.branching import AUTO
from leaktight.verify.certify import certify

_FIRST, _FACTOR, _TIMES = 2.0**-8, 4.0, 20
_FINER, _AGAIN = 2.0**-8, 3


def certified_radius(
    network: Network,
    x: Tensor,
    label: int,
    *,
    norm: Norm | str | float = Norm.LINF,
    clip: tuple[float, float] | None = None,
    engine: str = AUTO,
    timeout: float | None = None,
    dtype: torch.dtype = torch.float64,
    memory: int | None = None,
    seed: int = 0,
) -> float:
    """A radius within which `label` is proven to score strictly highest; 0.0 where nothing is proven.

    The claim holds for every x' with ``|x' - x| < radius`` in `norm`, cut with ``clip[0] <= x' <= clip[1]``. `certify`
    is asked for a radius up to 2^-8, then up to four times as far as long as all of it is proven (a billion at most),
    or for a finer one where next to nothing is: the result is within a per cent of what the engine can prove.

    Args: x: one input, of the network's number of entries. timeout: seconds, for all of it together.
    Raises: PropertyError: x, the label or the clip range is not allowed. UsageError: an engine or limit is not allowed.
    """
    point = torch.as_tensor(x).double().reshape(1, -1)
    if point.shape[1] != network.input_size:
        raise PropertyError(
            f"x has {point.shape[1]} entries, and the network {network.input_size} inputs; give one input"
        )
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout must be a positive number of seconds; got {timeout}")
    deadline = None if timeout is None else time.monotonic() + timeout

    def reached(size: float) -> float:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return 0.0
        found = certify(
            network,
            point,
            torch.tensor([label]),
            size,
            norm=norm,
            clip=clip,
            engine=engine,
            radius=True,
            timeout=left,
            dtype=dtype,
            memory=memory,
            seed=seed,
        )
        return found.inputs[0].radius or 0.0

    size = _FIRST
    best = reached(size)
    for _ in range(_TIMES if best == size else 0):
        size *= _FACTOR
        further = reached(size)
        best = max(best, further)
        if further < size:
            return best
    for _ in range(_AGAIN):
        if best >= _FINER * size:
            break
        size = max(2 * best, _FINER * size)
        best = max(best, reached(size))
    return best
