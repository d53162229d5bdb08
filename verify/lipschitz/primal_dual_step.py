"""One step of the primal-dual interior point method for LipSDP, and the points that it leads from and to.

The question, in the units of leaktight.verify.lipschitz.barrier, is to minimise ``rho + pull sum mu`` where

    S  =  rho E + sum_i mu_i (w_i w_i^T - u_i u_i^T) - C^T C  >=  0,      mu  >=  0

(rows ``w_i`` and ``u_i`` read a neuron's values off ``(z, w)``, ``E`` is the identity of ``z``). Its dual is to
maximise ``tr(C X C^T)`` over ``X >= 0`` with ``tr(E X) = 1`` and ``x_i = pull + u_i^T X u_i - w_i^T X w_i >= 0``. A
step solves ``X S = nu`` and ``x mu = nu``, linearised (Helmberg et al. 1996, Kojima et al. 1997, Monteiro 1997),
first for ``nu = 0`` to see how far that goes, then with the second-order term for the ``nu`` that this suggests
(Mehrotra 1992). It costs a few products of matrices of neurons by neurons. ``S`` stays positive, so every point is
feasible; that of ``X`` is approached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from leaktight.verify.lipschitz.unrolled import Matrices, farthest

_PULL = 1e-9  # keeps multipliers of neurons that reach nothing from growing for ever
_BACK = 0.9  # of the way to the boundary, at least
_HALVINGS = 12


@dataclass(frozen=True, eq=False)
class Point:
    """A feasible ``rho, mu`` with ``S`` and its factor, and ``X`` with its factor and ``x``; `gap`: ``tr(X S) + x
    mu``."""

    rho: float
    mu: Tensor
    form: Tensor
    factor: Tensor
    dual: Tensor
    root: Tensor
    slack: Tensor

    @property
    def whole(self) -> Tensor:
        """``(rho, mu)``."""
        return _whole(self.rho, self.mu)

    @cached_property
    def gap(self) -> float:
        return float((self.dual * self.form).sum() + self.slack @ self.mu)

    def to(self, dtype: torch.dtype) -> Point:
        """Its numbers rounded: near the boundary what it is no more."""
        parts = (self.mu, self.form, self.factor, self.dual, self.root, self.slack)
        return Point(self.rho, *(part.to(dtype) for part in parts))


def _whole(rho: float, mu: Tensor) -> Tensor:
    return torch.cat([mu.new_tensor([rho]), mu])


def sharpened(matrices: Matrices, rough: Point) -> Point | None:
    """The same point in full length; None: there it is outside."""
    point = rough.to(torch.float64)
    form = matrices.form(point.whole).sub_(matrices.output)
    factor, failed = torch.linalg.cholesky_ex(form)
    root, also = torch.linalg.cholesky_ex(point.dual)
    return None if bool(failed) or bool(also) else replace(point, form=form, factor=factor, root=root)


def begun(matrices: Matrices) -> Point | None:
    """Multipliers of twice the given ones, with twice the bound, and ``X`` a multiple of ``S^(-1)``.

    None: in floating point they are not feasible.
    """
    mu = torch.full((matrices.neurons,), 2.0, dtype=torch.float64)
    form = matrices.form(_whole(2.0, mu)).sub_(matrices.output)
    factor, failed = torch.linalg.cholesky_ex(form)
    inverse = torch.cholesky_inverse(factor)
    scale = 1.0 / float(inverse.diagonal()[: matrices.inputs].sum())
    dual = scale * inverse
    root, also = torch.linalg.cholesky_ex(dual)
    return None if bool(failed) or bool(also) else Point(2.0, mu, form, factor, dual, root, scale / mu)


@dataclass(frozen=True, eq=False)
class _Step:
    """Changes of ``(rho, mu)``, ``X`` and ``x``, and how far the two sides may go along them."""

    change: Tensor
    dual: Tensor
    slack: Tensor
    far: float
    far_dual: float


class Newton:
    """The linearised equations at a point, factored once for both of their right-hand sides."""

    def __init__(self, matrices: Matrices, here: Point) -> None:
        self.matrices, self.here = matrices, here
        self.inverse = torch.cholesky_inverse(here.factor)
        self.right, self.left = matrices.rows_times(self.inverse), matrices.rows_times(here.dual)
        self.seen = matrices.seen(here.dual, self.left)
        schur = matrices.schur(here.dual, self.left, self.inverse, self.right)
        schur.diagonal()[1:] += here.slack / here.mu
        self.unit = schur.diagonal().rsqrt()
        self.lower, failed = torch.linalg.cholesky_ex(schur * self.unit * self.unit.unsqueeze(1))
        self.solvable = not bool(failed)

    @property
    def least(self) -> float:
        """About what the dual point proves that no ``rho`` is below."""
        here, off = self.here, self.seen.clone()
        off[0] -= 1.0
        off[1:] += here.slack - _PULL
        return float((here.dual * self.matrices.output).sum() - off[0].abs() * here.rho - off[1:].abs() @ here.mu)

    def moved(self) -> tuple[Point, float] | None:
        """The point after one step and the step's length; None: there is no step."""
        if not self.solvable:
            return None
        here, ahead = self.here, self.step(0.0)
        its_rows = self.matrices.rows_times(ahead.dual)
        share = min(0.5, max(1e-6, (max(self._left(ahead, its_rows), 0.0) / here.gap) ** 2))
        bend = self.matrices.times_form(ahead.dual, its_rows, ahead.change)
        back = min(0.98, max(_BACK, 1 - 2 * (1 - min(1.0, ahead.far, ahead.far_dual))))
        then = self.step(share * here.gap / self.matrices.parameter, bend, ahead.slack * ahead.change[1:])
        return _arrived(self.matrices, here, then, back)

    def _left(self, ahead: _Step, its_rows: Tensor) -> float:
        """The gap that would be left at the end of a step."""
        here, first, second = self.here, min(1.0, ahead.far), min(1.0, ahead.far_dual)
        moved = self.seen + second * self.matrices.seen(ahead.dual, its_rows)
        there = ((here.dual + second * ahead.dual) * here.form).sum() + first * (moved @ ahead.change)
        return float(there + (here.slack + second * ahead.slack) @ (here.mu + first * ahead.change[1:]))

    def step(self, level: float, bend: Tensor | None = None, bend_slack: Tensor | None = None) -> _Step:
        """Towards ``X S = level``; with the second-order terms ``dX dS`` and ``dx dmu`` of the step before."""
        here, matrices = self.here, self.matrices
        aim = level * matrices.seen(self.inverse, self.right)
        slack = level / here.mu
        if bend is not None and bend_slack is not None:
            aim = aim - matrices.seen_of(bend, matrices.rows_times(bend), self.inverse, self.right)
            slack = slack - bend_slack / here.mu
        aim[0] -= 1.0
        aim[1:] += slack - _PULL
        change = self.unit * torch.cholesky_solve((self.unit * aim).unsqueeze(1), self.lower).squeeze(1)
        product = matrices.times_form(here.dual, self.left, change)
        found = (product if bend is None else product.add_(bend)) @ self.inverse
        dual = (found + found.mT).mul_(-0.5).sub_(here.dual).add_(self.inverse, alpha=level)
        slack = slack - here.slack - here.slack * change[1:] / here.mu
        far = min(farthest(here.factor, lambda v: matrices.form_times(change, v)), _room(here.mu, change[1:]))
        return _Step(change, dual, slack, far, min(farthest(here.root, lambda v: dual @ v), _room(here.slack, slack)))


def _arrived(matrices: Matrices, here: Point, step: _Step, back: float) -> tuple[Point, float] | None:
    """The point at this share of the way to the boundary on both sides, or at less where that is outside."""
    length, length_dual = min(1.0, back * step.far), min(1.0, back * step.far_dual)
    for _ in range(_HALVINGS):
        at = here.whole + length * step.change
        rho, mu = float(at[0]), at[1:]
        form = matrices.form(at).sub_(matrices.output)
        factor, failed = torch.linalg.cholesky_ex(form)
        if not bool(failed) and rho > 0 and bool((mu > 0).all()):
            break
        length *= 0.8
    else:
        return None
    for _ in range(_HALVINGS):
        dual, slack = here.dual + length_dual * step.dual, here.slack + length_dual * step.slack
        root, failed = torch.linalg.cholesky_ex(dual)
        if not bool(failed) and bool((slack > 0).all()):
            break
        length_dual *= 0.8
    else:
        return None
    return Point(rho, mu, form, factor, dual, root, slack), min(length, length_dual)


def _room(values: Tensor, change: Tensor) -> float:
    """How far positive numbers stay positive."""
    falling = change < 0
    return float((values[falling] / -change[falling]).min()) if bool(falling.any()) else inf
