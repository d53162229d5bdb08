"""Very many values of a network at once in extended precision, with a proven error, so that no tolerance is needed.

A comparison that the error leaves open is decided in rational arithmetic, so none is ever left to a tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from leaky import exact_at
from networks import _matrix
from torch import Tensor

from leaktight.models.network import Node
from leaktight.models.ops import Affine, TwoSlope
from leaktight.models.slopes import Slopes
from leaktight.specs.unsafe import Unsafe

Wide = np.longdouble
Array = Any  # of Wide
UNIT = float(np.finfo(Wide).eps)  # twice the unit roundoff
_MORE = 1 + 1e-6  # for what the errors themselves round


@dataclass(frozen=True)
class Values:
    """Values ``(samples, k)``, each within ``error`` ``(k,)`` of the true ones."""

    value: Array
    error: Array

    def rounded(self, terms: int, size: Array) -> Values:
        """After a computation whose roundings are at most `terms` units of `size`."""
        return Values(self.value, (self.error + terms * UNIT * size) * _MORE + 1e-300)


def wide(x: Tensor) -> Array:
    return x.detach().double().numpy().astype(Wide)


def outputs(slopes: Slopes, x: Tensor, a: Tensor | Mapping[str, Tensor]) -> Values:
    """``f(x; a)`` of an unsimplified network, at inputs ``(samples, n)``.

    a: a slope for each sample, or by node one for each sample and entry ``(samples, size)``; a PReLU scales it.
    """
    network, known = slopes.network, dict[str, Values]()
    first = 0
    for port in network.inputs:
        part = wide(x[:, first : first + port.size])
        known[port.name], first = Values(part, np.zeros(port.size, dtype=Wide)), first + port.size
    for node in network:
        if node.name in known:
            continue
        given = [known[name] for name in node.inputs]
        if isinstance(node.op, Affine):
            bias = torch.zeros(node.shape, dtype=torch.float64)
            bias = bias if node.op.bias_value is None else bias + node.op.bias_value.double()
            matrices = [np.array(_matrix(network, node, i), dtype=Wide) for i in range(len(given))]
            known[node.name] = affine(given, matrices, wide(bias.flatten()))
        else:
            assert isinstance(node.op, TwoSlope)
            known[node.name] = leaky(given[0], _slope(slopes, node, node.op, a))
    found = [known[port.name] for port in network.outputs]
    return Values(np.concatenate([v.value for v in found], 1), np.concatenate([v.error for v in found]))


def _slope(slopes: Slopes, node: Node, op: TwoSlope, a: Tensor | Mapping[str, Tensor]) -> Array:
    """The slope of every entry of a Leaky ReLU in every sample; at most three roundings."""
    assert not op.kink.any()
    assert not op.value.any()
    assert bool((op.right == 1).all())
    if node.name not in slopes.nodes:
        return wide(op.left.expand(node.shape).reshape(1, -1))
    assert op.leak is not None
    trained = wide(op.leak.slope.expand(node.shape).flatten())
    share = np.ones(node.size, dtype=Wide)
    if len(np.unique(trained)) > 1:
        share = trained / Wide(float(op.leak.slope.double().mean()))
    return (wide(a).reshape(-1, 1) if isinstance(a, Tensor) else wide(a[node.name])) * share


def affine(given: list[Values], matrices: list[Array], bias: Array) -> Values:
    value, error, size = bias, np.zeros_like(bias), np.abs(bias)
    for one, matrix in zip(given, matrices, strict=True):
        value = value + one.value @ matrix.T
        error = error + np.abs(matrix) @ one.error
        size = size + np.abs(matrix) @ np.abs(one.value).max(0)
    return Values(value, error).rounded(sum(matrix.shape[1] for matrix in matrices) + len(given) + 2, size)


def leaky(z: Values, slope: Array) -> Values:
    """A Leaky ReLU moves by no more than its steeper slope times its input; a slope is off by four roundings."""
    steep = np.maximum(1, np.abs(slope).max(0))
    found = Values(np.where(z.value >= 0, z.value, slope * z.value), steep * z.error)
    return found.rounded(8, steep * np.abs(z.value).max(0))


def margins(unsafe: Unsafe, y: Values) -> tuple[Array, float]:
    """The margins ``(samples,)`` of a case with one region, and their error."""
    atoms = affine([y], [wide(unsafe.weights[0])], -wide(unsafe.bounds[0]))
    each = [atoms.value[:, (unsafe.disjunct == i).numpy()].max(1) for i in range(unsafe.disjuncts)]
    return np.stack(each, 1).min(1), float(atoms.error.max()) * (1 + 1e-15)


def exact_margin(unsafe: Unsafe, y: list[Fraction]) -> Fraction:
    atoms = [
        sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0)) - Fraction(d)
        for row, d in zip(unsafe.weights[0].tolist(), unsafe.bounds[0].tolist(), strict=True)
    ]
    own = [[a for a, k in zip(atoms, unsafe.disjunct.tolist(), strict=True) if k == i] for i in range(unsafe.disjuncts)]
    return min(max(some) for some in own)


def exact_sample(slopes: Slopes, unsafe: Unsafe, x: Tensor, a: float | Mapping[str, list[float]]) -> Fraction:
    """The margin at one input ``(n,)`` in rational arithmetic."""
    given = {k: [Fraction(v) for v in own] for k, own in a.items()} if isinstance(a, Mapping) else Fraction(a)
    return exact_margin(unsafe, exact_at(slopes, [Fraction(v) for v in x.tolist()], given))


def open_ones(value: Array, error: Array | float, bound: Array, off: Array | float) -> list[int]:
    """Where ``value >= bound`` is not sure, given how far both may be off."""
    finite = np.isfinite(bound)
    return np.nonzero(finite & ~(value - error * _MORE > np.where(finite, bound, 0) + off * _MORE))[0].tolist()
