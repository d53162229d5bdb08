"""Sectors of chords from one point: where only differences from a tested input matter, slopes lie in smaller ranges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from leaktight.models.network import Node
from leaktight.models.ops import TwoSlope
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.lipschitz.sectors import Sector, sector


def anchored(node: Node, at: Mapping[str, Interval], inside: Mapping[str, Interval]) -> Sector:
    """Between which slopes the chords lie from the activation's value at a point to its values around it.

    A neuron with the pre-activation ``c`` at the point and ``[l, u]`` around it has a slope between the chords from
    ``c``: for a kink ``k`` with ``l < k <= c`` and slopes ``left``, ``right`` these are ``right + (left - right) w``
    with ``0 <= w <= (k - l) / (c - l)``, because the share ``w`` of the chord from ``c`` to ``t < k`` that lies left of
    the kink is ``(k - t) / (c - t)``, which grows as ``t`` falls. Likewise on the other side.
    """
    here, around = at[node.inputs[0]], inside[node.inputs[0]]
    # the point lies in the region: its interval may be taken with the region's, and the region's includes it
    whole = Interval(torch.minimum(around.lower, here.lower), torch.maximum(around.upper, here.upper))
    found = sector(node, whole)
    if not isinstance(node.op, TwoSlope) or node.op.precision:
        return found
    left, right, kink = (
        p.double().expand(node.shape).reshape(-1).numpy() for p in (node.op.left, node.op.right, node.op.kink)
    )
    low, high, first, last = (z[0].reshape(-1).numpy() for z in (whole.lower, whole.upper, here.lower, here.upper))
    share = np.ones_like(low)  # how much of a chord may lie on the other side of the kink
    on_right, on_left = (first > kink) & (low < kink), (last < kink) & (high > kink)
    with np.errstate(all="ignore"):
        share = np.where(on_right, (kink - low) / (first - low), share)
        share = np.where(on_left, (high - kink) / (high - last), share)
    share = np.minimum(share * (1 + 2.0**-48), 1.0)
    own, other = np.where(on_right, right, left), np.where(on_right, left, right)
    end = own + (other - own) * share
    slack = 2.0**-50 * (np.abs(own) + np.abs(other)) + 1e-300
    inner = Sector(
        np.maximum(np.minimum(own, end - slack), found.low), np.minimum(np.maximum(own, end + slack), found.high)
    )
    moved = on_right | on_left
    return Sector(np.where(moved, inner.low, found.low), np.where(moved, inner.high, found.high))
