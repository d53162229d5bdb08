"""Operator norms of affine operators and activations, rounded upwards, for vectors measured in L-infinity, L2 and L1.

A norm of ``W`` from L-infinity to L-infinity is the largest row sum of ``|W|``, from L1 to L1 the largest column sum,
and the L2 norm is at most the root of their product. Sums of nonnegative numbers are computed to ``gamma``; here they
are `Affine.magnitude` and the adjoint of the absolute weights, applied to ones: whatever the operator is.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Linear, Shape
from leaktight.specs.region import Norm
from leaktight.verify.leak.jacobian import absolute
from leaktight.verify.rounding import gamma, quotient, underflow, up

DUAL = {Norm.LINF: Norm.L1, Norm.L2: Norm.L2, Norm.L1: Norm.LINF}
_SQUARINGS = 5  # the bound exceeds the largest singular value by at most the 64th root of the matrix's width
_LARGEST = 1024  # rows or columns (the fewer) of a matrix whose singular values are worth the products

# an operator's norms by the shapes of its value and its inputs, for as long as the operator lives
_KEPT: WeakKeyDictionary[Affine, dict[tuple[Shape, ...], list[dict[Norm, float]]]] = WeakKeyDictionary()


def length(x: Tensor, norm: Norm) -> Tensor:
    """At least the length of vectors along the last axis of a tensor, which may hold infinities."""
    size, slack = x.abs(), 1 + gamma(x.shape[-1], x.dtype)
    if norm is Norm.LINF:
        return size.amax(-1)
    if norm is Norm.L1:
        return up(size.sum(-1) * slack)
    largest = size.amax(-1, keepdim=True).clamp(min=underflow(x.dtype))
    scaled = torch.where(torch.isfinite(largest), size / largest, 1.0)
    return up(largest.squeeze(-1) * up(((scaled + underflow(x.dtype)) ** 2).sum(-1) * slack).sqrt() * slack)


def affine_norms(network: Network, node: Node, op: Affine) -> list[dict[Norm, float]]:
    """For every input of an affine node at least the norms of its weights, uncertain ones included."""
    kept, shapes = _KEPT.setdefault(op, {}), [network.by_name[name].shape for name in node.inputs]
    key = (node.shape, *shapes)
    if key not in kept:
        kept[key] = _affine_norms(node, op, shapes)
    return kept[key]


def _affine_norms(node: Node, op: Affine, shapes: Sequence[Shape]) -> list[dict[Norm, float]]:
    plain = absolute(op, node)
    columns = [float(x.amax()) for x in plain.adjoint(torch.ones(1, *node.shape, dtype=torch.float64), shapes)]
    rows = [float(_rows(plain, shapes, i).amax()) for i in range(len(shapes))]
    found = []
    for row, column in zip(rows, columns, strict=True):
        row, column = _above(row, op.forward_terms), _above(column, op.adjoint_terms)
        found.append({Norm.LINF: row, Norm.L1: column, Norm.L2: _above((row * column) ** 0.5, 0)})
    if isinstance(op, Linear) and min(op.weight.shape) <= _LARGEST:
        found[0][Norm.L2] = min(found[0][Norm.L2], spectral(op.weight, op.weight_error))
    return found


def _rows(plain: Affine, shapes: Sequence[Shape], at: int) -> Tensor:
    ones = [torch.full((1, *shape), float(i == at), dtype=torch.float64) for i, shape in enumerate(shapes)]
    return plain.linear(*ones)


def _above(value: float, terms: int) -> float:
    return value * (1 + gamma(terms, torch.float64)) * (1 + 2.0**-50)


def spectral(weight: Tensor, error: Tensor | None = None) -> float:
    """At least the largest singular value of a matrix known up to an entrywise error.

    ``|W|^2 = |W^T W|``, and for a symmetric matrix ``|G| = |G^2|^(1/2)``. Squaring a few times and then taking the
    largest row sum is a bound at every stage; what a product rounds away is bounded entry by entry, and the norm of a
    symmetric matrix is at most its largest row sum of absolute values.
    """
    scale = float(weight.abs().amax())
    if scale == 0 or not torch.isfinite(weight).all():
        matrix_norm = 0.0 if scale == 0 else torch.inf
    else:
        matrix = quotient(weight, scale)  # a relative rounding in every entry, charged below
        matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
        own = float(matrix.abs().sum(0).amax() * matrix.abs().sum(1).amax()) ** 0.5 * 2.0**-51 + matrix.numel() * 2e-308
        matrix_norm = (_root(_product(matrix.mT, matrix), _SQUARINGS) + own) * scale * (1 + 2.0**-49)
    if error is None or matrix_norm == torch.inf:
        return matrix_norm
    size = error.expand(weight.shape).abs()
    rest = (_above(float(size.sum(0).amax()), len(size)) * _above(float(size.sum(1).amax()), size.shape[1])) ** 0.5
    return _above(matrix_norm + _above(rest, 0), 0)


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """A product that is symmetric, made exactly so, and a bound on the norm of what that took away."""
    value, terms = a @ b, a.shape[1]
    even = value / 2 + value.mT / 2
    off = gamma(terms + 2, value.dtype) * (a.abs() @ b.abs()) + terms * underflow(value.dtype)
    return even, _above(float(off.sum(0).maximum(off.sum(1)).amax()), len(value))


def _root(square: tuple[Tensor, float], squarings: int) -> float:
    """At least the root of the norm of a symmetric matrix known up to the norm of an error."""
    matrix, error = square
    largest = _above(float(matrix.abs().sum(1).amax()), len(matrix))
    if squarings and largest > 0:
        scaled = quotient(matrix, largest)
        rounded = largest * (2.0**-52 + len(matrix) * 2e-308)  # of the division: a relative one in each row sum
        largest = min(largest, _above(_root(_product(scaled, scaled), squarings - 1) * largest + rounded, 0))
    return _above(_above(largest + error, 0) ** 0.5, 0)
