"""The method for convolutional networks: LipSDP with one multiplier for each channel, in the Fourier domain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import torch

from leaktight.models.network import Network
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.clock import TimeUp
from leaktight.verify.lipschitz.barrier import Progress
from leaktight.verify.lipschitz.spectra import certified, closed_form, product, waves
from leaktight.verify.lipschitz.torus import chain
from leaktight.verify.lipschitz.tuned import optimal


@dataclass(frozen=True)
class FourierBounds:
    """Proven constants in L2: the product of norms, the closed form, and with multipliers that were searched for."""

    product: float
    fast: float
    tuned: float

    @property
    def best(self) -> float:
        return min(self.product, self.fast, self.tuned)


def fourier(
    network: Network,
    known: Mapping[str, Interval] | None = None,
    *,
    search: bool = True,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> FourierBounds:
    """Proven Lipschitz constants in L2 of a chain of convolutions, residual blocks, activations and dense layers.

    No matrix is larger than channels by channels (or a dense layer), whatever the size of the image. Never smaller than
    what LipSDP with one multiplier for each neuron proves, and as small for large images and no padding.

    known: bounds of its values in a convex region; then for differences within it. search: whether to look for
    multipliers that are better than the closed form's, until there is just time for a proof before `deadline` (of
    time.monotonic). progress: told of the search's iterations.
    Raises UnsupportedOperator: the network is no such chain. TimeUp: the time was over before anything was proven.
    """
    steps = chain(network, known)
    with torch.no_grad():
        symbols, began = waves(steps), time.monotonic()
        fast = certified(steps, closed_form, symbols)
        proof = time.monotonic() - began
        try:
            tuned = inf
            if search:
                scales = optimal(steps, symbols, None if deadline is None else deadline - proof, progress)
                tuned = inf if scales is None else certified(steps, lambda k, *_: scales[k], symbols)
            return FourierBounds(product(steps, symbols), fast, tuned)
        except TimeUp:  # what is proven stands
            return FourierBounds(inf, fast, inf)
