"""How much to compute at once: rows and regions are cut into parts that fit a memory cap, and the caches."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import torch

from leaktight.models.network import Network
from leaktight.verify.device import on_processor

# A pass keeps a few tensors of the widest node alive at once (coefficients, their absolute values, products).
_LIVE_TENSORS = 8
# Parts of about this size stay in the processor's caches between the elementwise steps of a pass.
_CACHE_BYTES = 2 << 20
# What is kept of each region for every entry of every node: interval ends, lines, vectors of error terms.
_VECTORS = 32
_FEW_VECTORS_BYTES = 64 << 20
# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = 128 << 20
# Fewer rows than this at once leave a matrix product's speed unused.
_FEWEST_ROWS = 32


@cache
def keep_freed_memory() -> None:
    """Lets the C library keep what is freed between passes, instead of handing it back page by page.

    A pass allocates and frees the same few megabytes over and over; fetching them anew from the system each time costs
    a third of its time. Known to glibc alone; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 16 << 20)):
        mallopt(parameter, value)


def default_memory() -> int:
    """Half of the memory that is free now (within a second) where new tensors are made, in bytes."""
    where = torch.get_default_device()
    if where.type == "cuda":
        kept = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)  # torch's, and free
        return int(torch.cuda.mem_get_info(where)[0] + kept) // 2
    return _available(int(time.monotonic())) // 2


@lru_cache(maxsize=1)
def _available(second: int) -> int:  # noqa: ARG001
    """The memory that this machine has free: asking takes as long as bounding a small network, so once a second."""
    import psutil

    return int(psutil.virtual_memory().available)


def widest(network: Network) -> int:
    """The largest number of entries of any node's value."""
    return max(node.size for node in network)


def row_bytes(network: Network, dtype: torch.dtype) -> int:
    """What one row of a backward pass needs, in bytes."""
    return _LIVE_TENSORS * widest(network) * (torch.finfo(dtype).bits // 8)


def passes(
    network: Network, rows: Sequence[int], memory: int, dtype: torch.dtype | None = None
) -> Iterator[tuple[slice, slice]]:
    """Which regions and which of their rows to bound together: small parts for the caches, not tiny ones.

    `rows`: how many each region wants, in falling order (those that want none are left out). A part holds consecutive
    regions, with all their rows or, where one region's rows fill it alone, with some. It needs about `memory` bytes.
    Parts are about as long as each other: no more of them are needed, and fewer rows if each part has as many rows for
    all its regions as for its first.
    A GPU has no such caches: there parts are as large as the memory.
    dtype: of the rows, by default the network's.
    """
    each = row_bytes(network, dtype or network.dtype)
    most = max(1, memory // each)
    if on_processor():
        most = min(most, max(_LIVE_TENSORS * _CACHE_BYTES // each, _FEWEST_ROWS))
    first = 0
    while first < len(rows) and rows[first]:
        last = first + _length(rows, first, most)
        regions, step = slice(first, min(last, len(rows))), min(most, rows[first])
        for start in range(0, rows[first], step):
            yield regions, slice(start, min(start + step, rows[first]))
        first = last


def _length(rows: Sequence[int], first: int, most: int) -> int:
    """How many regions from here on to put into one part, so that as many parts as are needed are about as long.

    As `rows` falls, no part could be shorter than the one that starts here: so shorter ones leave no part more.
    """
    parts, start = 0, first
    while start < len(rows) and rows[start]:
        start, parts = start + max(1, most // rows[start]), parts + 1
    end = next((i for i in range(min(start, len(rows)), first, -1) if rows[i - 1]), first)
    return min(max(1, most // rows[first]), -(-(end - first) // parts))


def batch_chunks(network: Network, batch: int, dtype: torch.dtype, memory: int) -> list[slice]:
    """Parts of a batch of regions whose boxes and lines around every node fit in `memory`, and the larger caches."""
    each = _VECTORS * sum(node.size for node in network) * (torch.finfo(dtype).bits // 8)
    most = max(1, min(_FEW_VECTORS_BYTES if on_processor() else memory // 4, memory) // each)
    return [slice(start, min(batch, start + most)) for start in range(0, batch, most)]


def threads() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
