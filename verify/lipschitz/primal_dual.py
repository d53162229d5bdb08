"""LipSDP with one multiplier for each neuron, by a primal-dual interior point method: some fifteen steps.

The question, in the units of leaktight.verify.lipschitz.barrier, is to minimise ``rho + pull sum mu`` where

    S  =  rho E + sum_i mu_i (w_i w_i^T - u_i u_i^T) - C^T C  >=  0,      mu  >=  0

(rows ``w_i`` and ``u_i`` read a neuron's values off ``(z, w)``, ``E`` is the identity of ``z``). Its dual is to
maximise ``tr(C X C^T)`` over ``X >= 0`` with ``tr(E X) = 1`` and ``x_i = pull + u_i^T X u_i - w_i^T X w_i >= 0``. A
step solves ``X S = nu`` and ``x mu = nu``, linearised (Helmberg et al. 1996, Kojima et al. 1997, Monteiro 1997),
first for ``nu = 0`` to see how far that goes, then with the second-order term for the ``nu`` that this suggests
(Mehrotra 1992). It costs a few products of matrices of neurons by neurons. ``S`` stays positive, so every point is
feasible; that of ``X`` is approached. Nothing here is trusted: the multipliers go to
leaktight.verify.lipschitz.certificate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import Progress, problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.unrolled import Matrices, farthest

_PULL = 1e-9  # keeps multipliers of neurons that reach nothing from growing for ever
_GAP = 2e-6  # relatively, of the bound's square, at which the search ends: a millionth of the bound
_STEPS = 40
_SHORT = 1e-4  # a step after which nothing is expected any more
_BACK = 0.9  # of the way to the boundary, at least
_HALVINGS = 12
_SURELY = 1 - 1e-6  # of a square that is enough
_USUAL = 16  # steps


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
    enough: float = 0.0,
    gap: float = _GAP,
) -> list[Array]:
    """Multipliers whose bound is the least, from feasible ones with the bound ``square ** 0.5``.

    After `deadline` (of time.monotonic) the best that was found so far. enough: a square of a bound; once it is
    reached, or as far as duality says never will be, no better multipliers are looked for. gap: of the bound's square,
    relatively, at which the search ends.
    """
    asked = problem(network, multipliers, square)
    matrices, wanted = Matrices.of(asked), enough / square
    here = _start(matrices)
    if here is None:
        return list(multipliers)
    for step in range(_STEPS):
        if deadline is not None and time.monotonic() > deadline:
            break
        newton = _Newton(matrices, here)
        found = None if newton.least > wanted > 0 else newton.moved()
        if found is None:
            break
        here, length = found
        if progress is not None:
            progress(step + 1, max(_USUAL, step + 2))
        if here.gap < gap * here.rho or length < _SHORT or here.rho < wanted * _SURELY:
            break
    return asked.multipliers(here.mu if here.rho < 1 else torch.ones_like(here.mu))


@dataclass(frozen=True, eq=False)
class _Point:
    """A feasible ``rho, mu`` with ``S`` and its factor, and ``X`` with its factor and ``x``; `gap`: ``tr(X S) + x
    mu``."""

    rho: float
    mu: Tensor
    form: Tensor
    factor: Tensor
    dual: Tensor
    root: Tensor
    slack: Tensor

    @cached_property
    def gap(self) -> float:
        return float((self.dual * self.form).sum() + self.slack @ self.mu)


def _start(matrices: Matrices) -> _Point | None:
    """Multipliers of twice the given ones, with twice the bound, and ``X`` a multiple of ``S^(-1)``.

    None: in floating point they are not feasible.
    """
    mu = torch.full((matrices.neurons,), 2.0, dtype=torch.float64)
    form = matrices.form(torch.cat([mu.new_tensor([2.0]), mu])).sub_(matrices.output)
    factor, failed = torch.linalg.cholesky_ex(form)
    inverse = torch.cholesky_inverse(factor)
    scale = 1.0 / float(inverse.diagonal()[: matrices.inputs].sum())
    dual = scale * inverse
    root, also = torch.linalg.cholesky_ex(dual)
    return None if bool(failed) or bool(also) else _Point(2.0, mu, form, factor, dual, root, scale / mu)


@dataclass(frozen=True, eq=False)
class _Step:
    """Changes of ``(rho, mu)``, ``X`` and ``x``, and how far the two sides may go along them."""

    change: Tensor
    dual: Tensor
    slack: Tensor
    far: float
    far_dual: float


class _Newton:
    """The linearised equations at a point, factored once for both of their right-hand sides."""

    def __init__(self, matrices: Matrices, here: _Point) -> None:
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

    def moved(self) -> tuple[_Point, float] | None:
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


def _arrived(matrices: Matrices, here: _Point, step: _Step, back: float) -> tuple[_Point, float] | None:
    """The point at this share of the way to the boundary on both sides, or at less where that is outside."""
    length, length_dual = min(1.0, back * step.far), min(1.0, back * step.far_dual)
    for _ in range(_HALVINGS):
        at = torch.cat([here.mu.new_tensor([here.rho]), here.mu]) + length * step.change
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
    return _Point(rho, mu, form, factor, dual, root, slack), min(length, length_dual)


def _room(values: Tensor, change: Tensor) -> float:
    """How far positive numbers stay positive."""
    falling = change < 0
    return float((values[falling] / -change[falling]).min()) if bool(falling.any()) else inf
