"""Bounds without gradients leave nothing behind that gradients cannot pass."""

from __future__ import annotations

import pytest
import torch
from networks import KINDS, build

from leaktight.models.network import Network
from leaktight.models.ops import Linear
from leaktight.specs.region import Box, ball
from leaktight.verify.bounds.engine import lower_bounds
from leaktight.verify.bounds.memory import passes
from leaktight.verify.bounds.parallel import undivided


def asked(kind: str) -> tuple[Network, Box, torch.Tensor]:
    network, generator = build(kind, 1), torch.Generator().manual_seed(1)
    region = ball(torch.randn(3, network.input_size, generator=generator).double(), 0.2)
    assert isinstance(region, Box)
    return network, region, torch.randn(3, 2, network.output_size, generator=generator).double()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_of_a_network_can_be_differentiated(kind: str) -> None:
    network, region, rows = asked(kind)
    plain = lower_bounds(network, region, rows)  # first, so that all that is kept is made here
    assert not plain.is_inference()
    assert bool((lower_bounds(network, region, rows, engine="alpha-crown") >= plain - 1e-9).all())
    for net in (network, network.single):
        x = region.lower.to(net.dtype).clone().requires_grad_(True)
        (slopes,) = torch.autograd.grad(net.flat(x).sum(), x)
        assert slopes.shape == x.shape
        for op in (node.op for node in net):
            if isinstance(op, Linear):
                y = torch.ones(1, 1, op.weight.shape[0], dtype=net.dtype, requires_grad=True)
                torch.autograd.grad(op.adjoint(y, [(op.weight.shape[1],)])[0].sum(), y)


def test_parts_side_by_side_give_the_same_bounds() -> None:
    network, region, rows = asked("fully_connected")
    alone, before = lower_bounds(network, region, rows, memory=1), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = lower_bounds(network, region, rows, memory=1)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)


def test_what_runs_on_one_thread_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with undivided():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyboardInterrupt), undivided():
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [[9] * 10, [9, 9, 7, 5, 5, 5, 2, 1, 1, 0], [40, 3, 3, 3, 0, 0], [0, 0]])
@pytest.mark.parametrize("most", [1, 4, 12, 100])
def test_parts_hold_every_row_once_and_no_more_than_fits(rows: list[int], most: int) -> None:
    network, _, _ = asked("fully_connected")
    each = max(node.size for node in network) * 8 * 8
    seen = set()
    for regions, some in passes(network, rows, most * each, torch.float64):
        here = [(b, r) for b in range(*regions.indices(len(rows))) for r in range(some.start, some.stop)]
        assert len(here) <= max(most, 1)
        assert not seen & set(here)
        seen |= set(here)
    assert seen >= {(b, r) for b, count in enumerate(rows) for r in range(count)}
