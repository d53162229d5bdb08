"""Bounds of sums of bends by parabolas, which see that many neurons cannot all be far from their kinks at once.

A neuron that bends the way a bound does not like is replaced by a line, the chord, in linear relaxations: as if every
neuron could be at its worst while the others are. Over a box of ``n`` inputs the sum of ``k`` neurons' squared inputs
``z = A y + m`` stays far below the sum of the largest squares, and parabolas see that. For any ``q_i >= 0`` and ``d_i``

    a_i phi_i(z) >= -q_i z^2 + d_i z + e_i     on [lower_i, upper_i],

with the largest such ``e_i``; chords and other lines are the case ``q_i = 0``. The sum is ``c + g . y - y' Q y`` with
``Q = sum q_i A_i A_i'``. Take any numbers ``D_0, D_1, ..., D_n`` for which the matrix

    N = [[D_0, g'/2], [g/2, diag(D) - Q]]

is nearly positive semidefinite, ``N = R R' + E``: with ``(1, y)`` on both sides, the sum is at least
``c - D_0 - sum max(D_k, 0) - (n + 1) |E|`` on the box. This is a dual of Shor's relaxation (for networks: Raghunathan,
Steinhardt and Liang 2018, arXiv:1811.01057), of the first layer alone, at the end of a linear backward pass. Whatever
``q``, ``d``, ``D`` and ``R`` were found: what is proven is computed from them anew, with all rounding, by products of
matrices. No factorisation is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.bounds.first_layer import FirstLayer, Sums
from leaktight.verify.rounding import down, gamma, trusted_lower, underflow, unit

_DTYPE = torch.float64
_LIFT = 1e-9  # what is added to the diagonal, beside what the least eigenvalue asks for, so that a factor is found


@dataclass(frozen=True, eq=False)
class Parabolas:
    """One for each row and neuron: quadratic ``q >= 0`` and linear ``d``, ``(rows, k)``."""

    quadratic: Tensor
    linear: Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """``D_0`` ``(rows,)`` and ``D`` ``(rows, n)``."""

    first: Tensor
    rest: Tensor


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
    quadratic = (slopes.mT * q.unsqueeze(1)) @ slopes
    # what each of these may be off by, on all of the box; the neurons' inputs are within `lost` of what they are here
    reach = layer.reach
    lost = (q * layer.lost) @ (2 * reach + layer.lost) + d.abs() @ layer.lost
    size = (e.abs() + level.abs()).sum(1) + q @ (reach * reach) + d.abs() @ reach
    size = size + sums.ends.abs() @ (layer.centre.abs() + layer.radius) + q @ (sizes * (sizes + 2 * reach))
    spare = gamma(count + inputs + 8, _DTYPE)
    lost = lost * (1 + spare) + 2 * spare * (size + sums.offset.abs())
    missing = _certified(gradient, quadratic, weights)
    found = constant - missing - lost - (count + inputs) ** 2 * 4 * underflow(_DTYPE)
    sizes = constant.abs() + missing.abs() + lost.abs()
    return trusted_lower(down(found - gamma(8, _DTYPE) * sizes))


def _certified(gradient: Tensor, quadratic: Tensor, weights: Weights) -> Tensor:
    """At most how far ``g . y - y' Q y`` falls below zero on [-1, 1]^n, ``(rows,)``, with symmetric `quadratic`."""
    rows, inputs = gradient.shape
    quadratic = torch.tril(quadratic) + torch.tril(quadratic, -1).mT
    own = quadratic.diagonal(dim1=1, dim2=2)
    matrix = gradient.new_zeros(rows, inputs + 1, inputs + 1)
    matrix[:, 1:, 1:] = -quadratic
    matrix[:, 0, 1:] = matrix[:, 1:, 0] = gradient / 2
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal[:, 0] = weights.first
    diagonal[:, 1:] += weights.rest
    size = torch.linalg.matrix_norm(matrix)
    lift = (-torch.linalg.eigvalsh(matrix)[:, 0]).clamp(min=0) + _LIFT * size + underflow(_DTYPE)
    diagonal += lift.unsqueeze(1)
    factor, _ = torch.linalg.cholesky_ex(matrix)
    factor = torch.tril(factor)
    product = factor @ factor.mT
    size = torch.linalg.matrix_norm(matrix) + torch.linalg.matrix_norm(factor) ** 2
    residual: Tensor = torch.linalg.matrix_norm(matrix - product) * (1 + gamma(inputs * inputs + 8, _DTYPE))
    residual = residual + 2 * gamma(inputs + 8, _DTYPE) * size + inputs**2 * 8 * underflow(_DTYPE)
    # the diagonal is what it is; what it stands for is D = diagonal + Q
    whole = (diagonal[:, 1:] + own).clamp(min=0).sum(1) + diagonal[:, 0].clamp(min=0)
    sizes = (diagonal.abs().sum(1) + own.abs().sum(1)) * gamma(inputs + 4, _DTYPE)
    most: Tensor = (whole + sizes + residual * (inputs + 1)) * (1 + 8 * unit(_DTYPE))
    return most
