"""Multipliers of LipSDP that have to do for several frequencies at once, by Newton's method along the central path.

Without strides and dense layers a chain of convolutions is, for every frequency ``w``, a chain of layers with the
matrices ``F_k(w)``, and the multipliers are the same for all: minimise ``rho`` such that ``M_w(rho, mu) >= 0`` for all
``w``. That is the problem of leaktight.verify.lipschitz.barrier with a batch of complex matrices; a frequency and its
opposite, whose matrices are conjugate, say the same. A step costs the sum over all frequencies of what a chain of dense
layers as narrow as the number of channels costs, and one factorisation for all of them. Nothing here is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from leaktight.verify.lipschitz import interior, sweeps
from leaktight.verify.lipschitz.barrier import Problem, Progress
from leaktight.verify.lipschitz.spectra import Wave

_TOGETHER = 128  # multipliers of a window, about
_GAPS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)  # of the bound's square, relatively, sweep by sweep


def improved(
    chain: Sequence[Wave],
    scales: Sequence[Tensor],
    square: float,
    *,
    gap: float,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The diagonals of ``T`` of all loose steps, joined, with about the least bound at the waves' frequencies.

    scales: such diagonals with the bound ``square ** 0.5`` at these frequencies. gap: relatively, of the square. After
    `deadline` (of time.monotonic) the best that was found so far.
    """
    asked = problem(chain, scales, square)
    solve, plan = partial(interior.least, scales=False), [(each, _TOGETHER) for each in _GAPS if each > gap]
    if sum(asked.sizes) < 2 * _TOGETHER:
        rho, mu = solve(asked, deadline, progress=progress, gap=gap)
    else:
        rho, mu = sweeps.least(asked, [*plan, (gap, _TOGETHER)], solve, deadline, progress)
    return rho * torch.cat(list(scales)) / mu


def problem(chain: Sequence[Wave], scales: Sequence[Tensor], square: float) -> Problem:
    """The barrier's problem, in units that make the given point ones: ``T`` stands for the multiplier ``square / T``.

    A chain's stage is ``u = F s``, ``s' = m u + r w``; steps whose slopes are fixed only multiply the next one's
    matrix.
    """
    given, stages = iter(scales), list[tuple[Tensor, Tensor, Tensor]]()
    root = pending = torch.eye(chain[0].symbol.shape[-1], dtype=torch.complex128)[None].expand(
        len(chain[0].symbol), -1, -1
    )
    for wave in chain:
        seen = wave.symbol[:, 0] @ pending
        if wave.loose:
            size = next(given).sqrt()
            if not stages:
                root, seen = pending, wave.symbol[:, 0]
            feed = torch.diag(wave.half * size).to(seen.dtype)
            stages.append((seen / size.unsqueeze(1), wave.middle.unsqueeze(1) * seen, feed))
            pending = torch.eye(len(size), dtype=seen.dtype)
        else:
            pending = wave.middle.unsqueeze(1) * seen
    units = tuple((square / scale).numpy() for scale in scales)
    return Problem(root, tuple(stages), pending.mH @ pending / square, units, square)
