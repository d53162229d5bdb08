"""How much to compute at once: rows and regions are cut into parts that fit a memory cap, and the caches."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from leaktight.models.network import Network

# A pass keeps a few tensors of the widest node alive at once (coefficients, their absolute values, products).
_LIVE_TENSORS = 8
# Parts of about this size stay in the processor's caches between the elementwise steps of a pass.
_CACHE_BYTES = 2 << 20
# Fewer rows than this at once leave a matrix product's speed unused.
_FEWEST_ROWS = 32


def default_memory() -> int:
    """Half of the memory that is free now, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available // 2)


def widest(network: Network) -> int:
    """The largest number of entries of any node's value."""
    return max(node.size for node in network)


def row_bytes(network: Network, dtype: torch.dtype) -> int:
    """What one row of a backward pass needs, in bytes."""
    return _LIVE_TENSORS * widest(network) * (torch.finfo(dtype).bits // 8)


def row_chunks(network: Network, index: Tensor, memory: int) -> list[Tensor]:
    """`index` ``(batch, k)`` cut along ``k``: small parts for the caches, not tiny ones, within `memory` bytes."""
    each = 2 * len(index) * row_bytes(network, network.dtype)
    comfortable = max(_LIVE_TENSORS * _CACHE_BYTES // each, _FEWEST_ROWS // len(index))
    return list(torch.split(index, max(1, min(comfortable, memory // each)), 1))


def batch_chunks(network: Network, batch: int, dtype: torch.dtype, memory: int) -> list[slice]:
    """Parts of a batch of regions, small enough that some hundred rows of each fit the caches and `memory`."""
    each = 256 * row_bytes(network, dtype) // _LIVE_TENSORS
    most = max(1, min(max(1, _CACHE_BYTES // each), memory // (each * _LIVE_TENSORS) or 1))
    return [slice(start, min(batch, start + most)) for start in range(0, batch, most)]


def threads() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
