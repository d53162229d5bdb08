"""Bounds of sums of bends by parabolas, which see that many neurons cannot all be far from their kinks at once.

A neuron that bends the way a bound does not like is replaced by a line, the chord, in linear relaxations: as if every
neuron could be at its worst while the others are. Over a box of ``n`` inputs the sum of ``k`` neurons' squared inputs
``z = A y + m`` stays far below the sum of the largest squares, and parabolas see that. For any ``q_i >= 0`` and ``d_i``

    a_i phi_i(z) >= -q_i z^2 + d_i z + e_i     on [lower_i, upper_i],

with the largest such ``e_i``; chords and other lines are the case ``q_i = 0``. The sum is ``c + g . y - y' Q y`` with
``Q = sum q_i A_i A_i'``; how far that falls over the cube is for `leaktight.verify.bounds.concave` to bound. All of it
is a dual of Shor's relaxation (for networks: Raghunathan, Steinhardt and Liang 2018, arXiv:1811.01057), of the first
layer alone, at the end of a linear backward pass. Whatever parabolas were found: what is proven is computed from them
anew, with all rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.bounds.concave import Weights, fall_over_cube
from leaktight.verify.bounds.first_layer import FirstLayer, Sums
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow

_DTYPE = torch.float64


@dataclass(frozen=True, eq=False)
class Parabolas:
    """One for each row and neuron: quadratic ``q >= 0`` and linear ``d``, ``(rows, k)``."""

    quadratic: Tensor
    linear: Tensor


def levels(layer: FirstLayer, bends: Tensor, parabolas: Parabolas) -> Tensor:
    """``e`` ``(rows, k)`` with ``bends phi(z) >= -q z^2 + d z + e + bends value`` on the neurons' intervals."""
    q, d = parabolas.quadratic, parabolas.linear
    above = _least(q, d, bends * layer.right, bends.abs() * layer.right.abs(), layer.upper.clamp(min=0))
    below = _least(q, -d, -bends * layer.left, bends.abs() * layer.left.abs(), (-layer.lower).clamp(min=0))
    return torch.minimum(above, below)


def _least(q: Tensor, d: Tensor, slope: Tensor, size: Tensor, end: Tensor) -> Tensor:
    """At most ``min over 0 <= z <= end of q z^2 + (slope - d) z``.

    A convex function lies above its tangent: ``-q p^2 + (2 q p + slope - d) z``, wherever it touches.
    """
    fall = d - slope
    place = torch.where(q > 0, fall / (2 * q), torch.zeros_like(q)).nan_to_num(0.0).clamp(min=0)
    place = torch.minimum(place, end)
    least = -q * place * place + ((2 * q * place - fall) * end).clamp(max=0)
    sizes = q * place * place + (2 * q * place + d.abs() + size) * end
    return down(least - gamma(8, _DTYPE) * sizes - 8 * underflow(_DTYPE))


def proven(layer: FirstLayer, sums: Sums, parabolas: Parabolas, weights: Weights) -> Tensor:
    """Lower bounds ``(rows,)`` of the sums over the box, with all rounding; any arguments give true ones."""
    q, d, slopes = parabolas.quadratic.clamp(min=0), parabolas.linear, layer.slopes
    parabolas = Parabolas(q, d)
    count, inputs = slopes.shape
    sizes = slopes.abs().sum(1)
    e, level = levels(layer, sums.bends, parabolas), sums.bends * layer.value
    terms = e + level - q * layer.middle**2 + d * layer.middle
    constant = sums.offset + terms.sum(1) + sums.ends @ layer.centre
    tilt = d - 2 * q * layer.middle
    gradient = tilt @ slopes + sums.ends * layer.radius
    # what each of these may be off by, on all of the box; the neurons' inputs are within `lost` of what they are here
    reach = layer.reach
    lost = (q * layer.lost) @ (2 * reach + layer.lost) + d.abs() @ layer.lost
    size = (e.abs() + level.abs()).sum(1) + q @ (reach * reach) + d.abs() @ reach
    size = size + sums.ends.abs() @ (layer.centre.abs() + layer.radius) + q @ (sizes * (sizes + 2 * reach))
    spare = gamma(count + inputs + 8, _DTYPE)
    lost = lost * (1 + spare) + 2 * spare * (size + sums.offset.abs())
    missing = fall_over_cube(gradient, q, slopes, weights)
    found = constant - missing - lost - (count + inputs) ** 2 * 4 * underflow(_DTYPE)
    sizes = constant.abs() + missing.abs() + lost.abs()
    return trusted_lower(down(found - gamma(8, _DTYPE) * sizes))
