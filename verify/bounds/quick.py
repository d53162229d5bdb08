"""Where nothing will be differentiated: torch keeps no record for gradients, which saves a part of every operation.

On the processor alone. Tensors that are made in torch's inference mode must never meet a gradient afterwards. So what
outlives a computation is made outside of that mode (`leaktight.verify.lasting`), and results are copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from weakref import WeakKeyDictionary

import torch

from leaktight.models.network import Network
from leaktight.verify.bounds.kinds import is_affine
from leaktight.verify.device import on_processor
from leaktight.verify.lasting import lasting

_READY: MutableMapping[Network, bool] = WeakKeyDictionary()


@contextlib.contextmanager
def quick(network: Network) -> Iterator[None]:
    """Within it no gradients exist. Tensors made in it may be read, but not changed or differentiated, afterwards."""
    if network not in _READY:
        _make_ready(network)
        _READY[network] = True
    # a GPU computes while the next operation is being asked for: there is no time to save there
    with torch.inference_mode() if on_processor() else torch.no_grad():
        yield


def _make_ready(network: Network) -> None:
    """Has the network and its operators make what they keep."""
    with lasting():
        for node in network:
            if is_affine(op := node.op):
                shapes = [network.by_name[name].shape for name in node.inputs]
                op.magnitude(*(torch.zeros(1, *shape, dtype=network.dtype) for shape in shapes))
                op.adjoint(torch.zeros(1, 1, *node.shape, dtype=network.dtype), shapes)
        _ = network.single
