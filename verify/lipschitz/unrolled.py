"""The matrix inequality of LipSDP in one piece, and what an interior point method asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import Problem

_DENSE = 150  # rows up to which all eigenvalues are no burden
_ROUNDS = 30  # of Lanczos' method
_CLOSE = 0.05  # of an eigenvalue, relatively
_TOGETHER = 96  # rows from which products are worth their calls


def unrolled(asked: Problem) -> tuple[Array, Array]:
    """``U`` and ``C``: every ``u_i`` and the output as functions of ``(z, w_1, ..., w_K)``."""
    size, neurons = len(asked.root), sum(asked.sizes)
    state, at = np.hstack([asked.root.numpy(), np.zeros((size, neurons))]), size
    rows = [np.zeros((0, size + neurons))]
    for weight, through, feed in asked.stages:
        rows.append(weight.numpy() @ state)
        state = through.numpy() @ state
        state[:, at : at + len(weight)] += feed.numpy()
        at += len(weight)
    values, vectors = np.linalg.eigh(asked.end.numpy())  # of C^T C
    root: Array = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    return np.vstack(rows), root @ state


@dataclass(frozen=True, eq=False)
class Matrices:
    """``u_i`` as rows over ``(z, w)`` and ``C^T C``; ``z`` has `inputs` entries, and `sizes` are the stages'."""

    rows: Tensor
    output: Tensor
    inputs: int
    sizes: Sequence[int]

    @staticmethod
    def of(asked: Problem) -> Matrices:
        rows, output = (torch.from_numpy(part) for part in unrolled(asked))
        return Matrices(rows, output.mT @ output, len(asked.root), asked.sizes)

    def to(self, dtype: torch.dtype) -> Matrices:
        return replace(self, rows=self.rows.to(dtype), output=self.output.to(dtype))

    @property
    def neurons(self) -> int:
        return len(self.rows)

    @property
    def parameter(self) -> int:
        """The rank of all that is to be positive."""
        return self.inputs + 2 * self.neurons

    @cached_property
    def _blocks(self) -> Sequence[tuple[slice, slice]]:
        """Of some stages at a time their rows, and the columns that they can reach: what comes before the last."""
        found, begin, at = [], 0, 0
        for size in self.sizes:
            at += size
            if at - begin >= _TOGETHER or at == self.neurons:
                found.append((slice(begin, at), slice(0, self.inputs + at - size)))
                begin = at
        return found

    def rows_times(self, matrix: Tensor) -> Tensor:
        found = matrix.new_empty(self.neurons, matrix.shape[1])
        for own, reach in self._blocks:
            torch.mm(self.rows[own, reach], matrix[reach], out=found[own])
        return found

    def times_rows(self, matrix: Tensor) -> Tensor:
        """``matrix rows^T``."""
        return torch.cat([matrix[:, reach] @ self.rows[own, reach].mT for own, reach in self._blocks], 1)

    def form(self, change: Tensor) -> Tensor:
        """``rho E + sum mu_i (w_i w_i^T - u_i u_i^T)`` for ``(rho, mu)``."""
        found, mu = torch.diag(self._ends(change)), change[1:]
        for own, reach in self._blocks:
            part = self.rows[own, reach]
            found[reach, reach].addmm_(part.mT, mu[own].unsqueeze(1) * part, alpha=-1)
        return found

    def times_form(self, matrix: Tensor, its_rows: Tensor, change: Tensor) -> Tensor:
        """A symmetric matrix times the `form` of ``(rho, mu)``; `its_rows`: the rows times the matrix."""
        found, mu = matrix * self._ends(change), change[1:]
        for own, reach in self._blocks:
            part = mu[own].unsqueeze(1) * self.rows[own, reach]
            found[:, reach].addmm_(its_rows[own].mT, part, alpha=-1)
        return found

    def form_times(self, change: Tensor, vector: Tensor) -> Tensor:
        """The `form` of ``(rho, mu)`` times a vector, or times each column of a matrix."""
        ends, mu = (x if vector.dim() == 1 else x.unsqueeze(1) for x in (self._ends(change), change[1:]))
        return ends * vector - self.rows.mT @ (mu * (self.rows @ vector))

    def _ends(self, change: Tensor) -> Tensor:
        """The diagonal of ``rho E + sum mu_i w_i w_i^T``."""
        return torch.cat([change[:1].expand(self.inputs), change[1:]])

    def seen(self, matrix: Tensor, its_rows: Tensor) -> Tensor:
        """Of a symmetric matrix its products with ``E`` and with every ``w_i w_i^T - u_i u_i^T``."""
        return self._joined(matrix.diagonal(), (its_rows * self.rows).sum(1))

    def seen_of(self, left: Tensor, its_rows: Tensor, right: Tensor, rows_of_right: Tensor) -> Tensor:
        """The same of ``left right`` (its symmetric part), with `right` symmetric, from the rows times each of both."""
        return self._joined((left * right).sum(1), (its_rows * rows_of_right).sum(1))

    def _joined(self, ends: Tensor, of_u: Tensor) -> Tensor:
        return torch.cat([ends[: self.inputs].sum().reshape(1), ends[self.inputs :] - of_u])

    def schur(self, dual: Tensor, left: Tensor, inverse: Tensor, right: Tensor) -> Tensor:
        """``tr(A_i X A_j S^(-1))`` for the matrices ``A`` of ``rho`` and of all ``mu``; `left` and `right` are
        the rows times ``X`` and times ``S^(-1)``."""
        size = self.inputs
        found = dual.new_empty(self.neurons + 1, self.neurons + 1)
        cross = left[:, size:] * right[:, size:]
        among = found[1:, 1:]
        torch.mul(dual[size:, size:], inverse[size:, size:], out=among)
        among += self.times_rows(left) * self.times_rows(right)
        among -= cross + cross.mT
        own = (dual[:size, size:] * inverse[:size, size:]).sum(0)
        found[0, 1:] = own - (left[:, :size] * right[:, :size]).sum(1)
        found[1:, 0] = found[0, 1:]
        found[0, 0] = (dual[:size, :size] * inverse[:size, :size]).sum()
        return found


def farthest(factor: Tensor, change: Callable[[Tensor], Tensor]) -> float:
    """About how far a positive matrix, of which this is the factor, stays positive along a symmetric change.

    That is ``-1 / least eigenvalue`` of ``factor^(-1) change factor^(-T)``. change: multiplies a vector, or each column
    of a matrix.
    """
    if len(factor) > _DENSE:
        least = _lanczos(factor, change)
    else:
        half = torch.linalg.solve_triangular(factor, change(torch.eye(len(factor), dtype=factor.dtype)), upper=False)
        least = float(torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, half.mT, upper=False))[0])
    return -1 / least if least < 0 else inf


def _lanczos(factor: Tensor, change: Callable[[Tensor], Tensor]) -> float:
    """The least eigenvalue of ``factor^(-1) change factor^(-T)``, or less, by Lanczos' method."""
    vector = torch.randn(len(factor), generator=torch.Generator().manual_seed(0), dtype=factor.dtype)
    basis = vector.new_empty(_ROUNDS + 1, len(factor))
    basis[0] = vector / vector.norm()
    reduced = np.zeros((_ROUNDS + 1, _ROUNDS + 1))
    least = 0.0
    for k in range(_ROUNDS):
        image = torch.linalg.solve_triangular(factor.mT, basis[k].unsqueeze(1), upper=True).squeeze(1)
        image = torch.linalg.solve_triangular(factor, change(image).unsqueeze(1), upper=False).squeeze(1)
        reduced[k, k] = float(image @ basis[k])
        for _ in range(2):
            image = image - basis[: k + 1].mT @ (basis[: k + 1] @ image)
        rest = float(image.norm())
        if not isfinite(rest + abs(reduced[k, k])):  # out of range, in float32
            return -inf
        values, vectors = np.linalg.eigh(reduced[: k + 1, : k + 1])
        off = rest * abs(float(vectors[-1, 0]))
        least = float(values[0]) - off
        if off < _CLOSE * abs(float(values[0])) or rest == 0 or k + 1 == _ROUNDS:
            break
        basis[k + 1] = image / rest
        reduced[k, k + 1] = reduced[k + 1, k] = rest
    return least
