"""How far a concave quadratic function falls over a cube, proven by weights.

For ``y`` in [-1, 1]^n and ``Q = sum q_j A_j A_j'`` with ``q_j >= 0``, how low is ``g . y - y' Q y``? It is least at a
corner, which nobody can find; any weights ``D_0`` and ``D_k >= 0`` give a bound.

By inputs. If ``N = [[D_0, g'/2], [g/2, diag(D) - Q]] = R R' + E``, then with ``(1, y)`` on both sides

    g . y - y' Q y  >=  -D_0 - sum D_k - (n + 1) |E|.

By neurons, of which fewer may have a ``q_j``: with ``c_k = -g_k / (2 D_k)``, ``B > 0``, ``S_j = sqrt(q_j) A_j`` and

    G = S diag(1/D) S' + (S c)(S c)' / B,      I - G = R R' + E,

completing squares, ``g . y + sum D_k y_k^2 = |u|^2 - sum g_k^2 / (4 D_k)`` for ``u_k = sqrt(D_k) (y_k - c_k)``, and
``y' Q y = |S y|^2 <= (1 + |E|) (|u|^2 + B)``. So

    g . y - y' Q y  >=  -B - sum g_k^2 / (4 D_k) - sum D_k - |E| (B + sum D_k (1 + |c_k|)^2).

Whatever weights and factors ``R`` come in, the right-hand sides are computed with all rounding, by products of
matrices. No factorisation is trusted. The spectral norm of a matrix of errors is at most its Frobenius norm, and that
of a sum of squares at most its trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leaktight.verify.rounding import gamma, underflow, unit

_DTYPE = torch.float64
_LIFT = 1e-9  # what is added to a diagonal, beside what an eigenvalue asks for, so that a factor is found
_CHUNK = 1 << 22  # numbers at once
_LEAST_SHARE = 1e-11  # of the weights, for each of them: what has to be above zero


@dataclass(frozen=True, eq=False)
class Weights:
    """``D_0`` ``(rows,)`` and ``D`` ``(rows, n)``."""

    first: Tensor
    rest: Tensor

    def select(self, index: slice) -> Weights:
        return Weights(self.first[index], self.rest[index])


def fall_over_cube(gradient: Tensor, q: Tensor, slopes: Tensor, weights: Weights) -> Tensor:
    """At most how far ``g . y - sum q_j (slopes_j . y)^2`` falls below zero on [-1, 1]^n, ``(rows,)``.

    gradient ``(rows, n)``, q ``(rows, k)``, slopes ``(k, n)``; what rounding adds when ``Q`` itself is computed, the
    caller charges for.
    """
    rows, inputs = gradient.shape
    count = int((q > 0).sum(1).amax()) if len(q) else 0
    if inputs <= 2 * count:
        return _by_inputs(gradient, (slopes.mT * q.unsqueeze(1)) @ slopes, weights)
    at = q.topk(max(count, 1), dim=1).indices
    size = max(1, _CHUNK // (2 * inputs * (count + 1)))
    parts = [slice(i, i + size) for i in range(0, rows, size)]
    falls = [_by_neurons(gradient[i], q[i].gather(1, at[i]), slopes[at[i]], weights.select(i)) for i in parts]
    return torch.cat(falls)


def _eigenvalues(matrix: Tensor) -> Tensor:
    """About the eigenvalues, in order; of what is not finite anything, and zeros where they are not found."""
    try:
        values: Tensor = torch.linalg.eigvalsh(matrix.nan_to_num(0.0, 0.0, 0.0))
    except RuntimeError:  # no convergence
        return matrix.new_zeros(matrix.shape[:2])
    return values


def _residual(matrix: Tensor) -> Tensor:
    """At least the spectral norm of what a factor leaves of symmetric matrices ``(rows, m, m)``."""
    size = matrix.shape[-1]
    factor = torch.tril(torch.linalg.cholesky_ex(matrix)[0])
    left = torch.linalg.matrix_norm(matrix - factor @ factor.mT) * (1 + gamma(size * size + 8, _DTYPE))
    sizes = torch.linalg.matrix_norm(matrix) + torch.linalg.matrix_norm(factor) ** 2
    found: Tensor = left + 2 * gamma(size + 8, _DTYPE) * sizes + size**2 * 8 * underflow(_DTYPE)
    return found


def _by_inputs(gradient: Tensor, quadratic: Tensor, weights: Weights) -> Tensor:
    """`fall_over_cube` by matrices of the inputs; `quadratic` ``(rows, n, n)`` is made symmetric."""
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
    lift = (-_eigenvalues(matrix)[:, 0]).clamp(min=0) + _LIFT * size + underflow(_DTYPE)
    diagonal += lift.unsqueeze(1)
    residual = _residual(matrix)
    # the diagonal is what it is; what it stands for is D = diagonal + Q
    whole = (diagonal[:, 1:] + own).clamp(min=0).sum(1) + diagonal[:, 0].clamp(min=0)
    sizes = (diagonal.abs().sum(1) + own.abs().sum(1)) * gamma(inputs + 4, _DTYPE)
    most: Tensor = (whole + sizes + residual * (inputs + 1)) * (1 + 8 * unit(_DTYPE))
    return most


def _by_neurons(gradient: Tensor, q: Tensor, slopes: Tensor, weights: Weights) -> Tensor:
    """`fall_over_cube` by matrices of the neurons; `slopes` ``(rows, k, n)`` are those of each row's own neurons."""
    _, count, inputs = slopes.shape
    rest = weights.rest.clamp(min=0)
    rest = rest + _LEAST_SHARE * rest.sum(1, keepdim=True) + underflow(_DTYPE) ** 0.5
    square = (gradient * gradient / rest).sum(1) / 4
    root = q.sqrt()
    centre = -gradient / (2 * rest)
    at = root * (slopes @ centre.unsqueeze(-1)).squeeze(-1)
    bend = torch.maximum(weights.first - square, (at * at).sum(1)) + underflow(_DTYPE) ** 0.5  # less is never enough
    across = (slopes * root.unsqueeze(-1)) / rest.sqrt().unsqueeze(1)
    gram, outer = across @ across.mT, at.unsqueeze(2) * at.unsqueeze(1)
    # with D and B larger by a factor, G is smaller by it, and by more
    factor = _eigenvalues(gram + outer / bend.reshape(-1, 1, 1))[:, -1].clamp(min=1) * (1 + _LIFT) + _LIFT
    bend, rest, centre = bend * factor, rest * factor.unsqueeze(1), centre / factor.unsqueeze(1)
    square, wide = square / factor, factor.reshape(-1, 1, 1)
    matrix = -(gram / wide + outer / (wide * wide * bend.reshape(-1, 1, 1)))
    matrix.diagonal(dim1=1, dim2=2).add_(1.0)
    matrix = torch.tril(matrix) + torch.tril(matrix, -1).mT
    # what the entries of G may be off by, of which the traces of these sums of squares are bounds
    reach = root * (slopes.abs() @ centre.abs().unsqueeze(-1)).squeeze(-1)
    trace = (across * across).sum((1, 2)) / factor + (reach * reach).sum(1) / bend
    residual = _residual(matrix) + 2 * gamma(inputs + 24, _DTYPE) * (trace + count)
    room = bend + (rest * (1 + centre.abs()) ** 2).sum(1)
    most: Tensor = (bend + square + rest.sum(1) + residual * room) * (1 + gamma(2 * inputs + 16, _DTYPE))
    return most
