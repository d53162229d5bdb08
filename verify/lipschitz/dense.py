"""Chains of dense layers, whose bounds in L2 are proven as those of convolutions are: they have a single frequency."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from leaktight.models.enclosure import Enclosure, exactly
from leaktight.verify.lipschitz.centred import middle_and_half
from leaktight.verify.lipschitz.fast import FACTORS
from leaktight.verify.lipschitz.layers import Layers
from leaktight.verify.lipschitz.sectors import Sector
from leaktight.verify.lipschitz.spectra import Wave, closed_form, proven

_SMALL = 512  # outputs of which forms cost little
_WIDER = 4  # times as many outputs as inputs of a linear map, at which a form of the inputs is much smaller


def links(network: Layers) -> list[Wave] | None:
    """The linear maps one by one, each with the slopes behind it.

    None: a state is more than one layer's values, or there are so many outputs that a form of them is not affordable.
    """
    found, waiting = list[Wave](), network.first
    for stage in network.stages:
        if stage.keep is not None:
            return None
        if stage.weight is not None and waiting is not None:
            found.append(_wave(waiting))
            waiting = None
        found.append(_wave(stage.weight or waiting or exactly(np.eye(stage.sector.size)), stage.sector))
        waiting = stage.feed
    found += [_wave(linear) for linear in (waiting, network.last) if linear is not None]
    wide = (max(_SMALL, _WIDER * wave.symbol.shape[-1]) < wave.symbol.shape[-2] for wave in found if not wave.loose)
    return None if any(wide) else found


def _wave(linear: Enclosure, sector: Sector | None = None) -> Wave:
    symbol, error = (torch.from_numpy(np.ascontiguousarray(x)) for x in (linear.value, linear.error))
    one = np.ones(len(symbol))
    middle, half = (one, 0 * one) if sector is None else middle_and_half(sector)
    return Wave(symbol[None, None], error, torch.from_numpy(middle), torch.from_numpy(half))


def certified(chain: Sequence[Wave]) -> float:
    """A proven Lipschitz constant in L2, of the closed form's multipliers; infinite where nothing is proven."""
    rules = (partial(closed_form, factor=factor) for factor in _factors(chain))
    return min(proven(chain, rule, lambda _, form: form.unsqueeze(1)) for rule in rules)


def _factors(chain: Sequence[Wave]) -> tuple[float, ...]:
    """One where all neurons of a layer have a width, or none; the best of a few elsewhere."""
    return (1.0,) if all(wave.linear or bool((wave.half > 0).all()) for wave in chain) else FACTORS


def seconds(chain: Sequence[Wave], speed: float) -> float:
    """About what `certified` takes, with so many operations of matrix products in a second."""
    found = 0.0
    for k, wave in enumerate(chain):
        after, before = wave.symbol.shape[-2:]
        found += 2.0 * after * before * ((before if k else 0) + after) + 10.0 * after**3
    return len(_factors(chain)) * found / speed
