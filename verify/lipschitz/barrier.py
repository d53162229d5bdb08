"""The barrier of LipSDP, its gradient and its Hessian, stage by stage.

LipSDP with one multiplier for each neuron is: minimise ``rho`` subject to ``mu >= 0`` and

    rho |z|^2  +  sum_i mu_i (w_i^2 - u_i^2)  -  |y|^2  >=  0       for all z and w, where s_0 = root z,

``root root^T`` being the ellipsoid of ``first x``. Call the form's matrix ``M``; the barrier is
``-log det M - sum log mu + pull sum mu``; its last term keeps multipliers of neurons that reach nothing, or are reached
by nothing, from growing for ever. Eliminating ``w_K, ..., w_1`` (leaktight.verify.lipschitz.ellipsoid, backwards)
leaves pivots ``gap_k = mu_k - B_k^T P_k B_k`` and, for ``z``, ``rho - root^T P_0 root``; their determinants multiply to
that of ``M``.

A normal distribution with the covariance ``V = M^(-1)`` is a chain: ``z`` has the covariance ``(rho - root^T P_0
root)^(-1)``, and given ``s_(k-1)``

    w_k  =  gain_k s_(k-1) + noise of covariance gap_k^(-1),      gain_k = gap_k^(-1) B_k^T P_k A_k,

so that all covariances of the ``w`` and ``u`` are sums of positive terms, however deep the network is. With ``K_i =
e_i e_i^T - U_i^T U_i`` the derivative of ``M`` by ``mu_i``,

    gradient_i  =  cov(u_i, u_i) - cov(w_i, w_i) - 1 / mu_i + pull,
    Hessian_ij  =  <V K_i V, K_j>  =  cov(w_i, w_j)^2 + cov(u_i, u_j)^2 - cov(u_i, w_j)^2 - cov(w_i, u_j)^2,

plus ``1 / mu_i^2`` on its diagonal.

The matrices may be many at once, with a batch dimension in front, for which the same ``rho`` and ``mu`` have to do: the
frequencies of a chain of convolutions (leaktight.verify.lipschitz.jointly), each with its own ``z``. Then the barrier
is the sum of the ``-log det M`` of all of them, and so are its derivatives but for the terms of ``mu``. There they are
complex, transposes are conjugate, and squares those of absolute values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz import ellipsoid
from leaktight.verify.lipschitz.centred import Centred

PULL = 1e-3
Progress = Callable[[int, int], None]
"""Told how many steps of how many are done."""


@dataclass(frozen=True, eq=False)
class Problem:
    """The matrices in units that make given multipliers ones, and the square of a given bound one.

    `stages` hold weight, through and feed; `root` is None for the identity; units: the given multipliers, stage by
    stage, and `square` the square of the given bound.
    """

    root: Tensor
    stages: tuple[tuple[Tensor, Tensor, Tensor], ...]
    end: Tensor
    units: tuple[Array, ...]
    square: float

    @property
    def sizes(self) -> list[int]:
        return [weight.shape[-2] for weight, _, _ in self.stages]

    @property
    def inputs(self) -> int:
        """Entries of all ``z`` together."""
        return self.root[..., 0, :].numel()

    @property
    def parameter(self) -> int:
        """Of the barrier: on its path the bound's square is within ``parameter / t`` of the optimum."""
        many = self.root[..., 0, 0].numel()
        return self.inputs + (many + 1) * sum(self.sizes)

    def multipliers(self, mu: Tensor) -> list[Array]:
        """In the network's own units."""
        return [part.numpy() * unit for part, unit in zip(mu.split(self.sizes), self.units, strict=True)]


def problem(network: Centred, multipliers: Sequence[Array], square: float) -> Problem:
    """The problem in the units of a point with the bound ``square ** 0.5``.

    Directions of ``s_0`` that the first stage does not see are left out.
    """
    begun = ellipsoid.start(network)
    values, vectors = np.linalg.eigh(begun)
    root = vectors * np.sqrt(np.maximum(values, 1e-15 * values[-1]))
    seen = _seen(network)
    root = np.linalg.qr((seen.T @ root).T)[1].T
    stages = []
    for stage, lam in zip(network.stages, multipliers, strict=True):
        unit = np.sqrt(lam / square)
        stages.append((stage.weight.value * unit[:, None], stage.through.value, stage.feed.value / unit))
    if stages:
        stages[0] = stages[0][0] @ seen, stages[0][1] @ seen, stages[0][2]
    tensors = tuple(tuple(torch.from_numpy(np.ascontiguousarray(m)) for m in stage) for stage in stages)
    end = torch.from_numpy(ellipsoid.start(network.transposed) / square)
    return Problem(torch.from_numpy(root), tensors, end, tuple(multipliers), square)  # type: ignore[arg-type]


def _seen(network: Centred) -> Array:
    """An orthonormal basis ``(d, r)`` of the directions of ``s_0`` that matter to the first stage."""
    if not network.stages:
        return np.eye(network.size)
    first = network.stages[0]
    _, sizes, rows = np.linalg.svd(np.vstack([first.weight.value, first.through.value]), full_matrices=False)
    found: Array = rows[: max(1, int((sizes > 1e-13 * sizes[0]).sum()))].T
    return found


@dataclass(frozen=True, eq=False)
class Point:
    """A feasible point: its barrier, for each stage the factor of its gap and its gain, and the factor for ``z``."""

    rho: float
    mu: Tensor
    barrier: float
    factors: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]
    last: Tensor


def point(problem: Problem, rho: float, mu: Tensor) -> Point | None:
    """The point, by elimination from the last stage to the first; None: it is not feasible."""
    if not (rho > 0 and bool((mu > 0).all())):
        return None
    form, factors, gains = problem.end, [], []
    total = PULL * mu.sum() - mu.log().sum()
    for (weight, through, feed), part in zip(reversed(problem.stages), reversed(mu.split(problem.sizes)), strict=True):
        across = form @ feed
        lower, failed = torch.linalg.cholesky_ex(torch.diag(part) - feed.mH @ across)
        if bool(failed.any()):
            return None
        spill = torch.linalg.solve_triangular(lower, across.mH @ through, upper=False)
        gains.append(torch.linalg.solve_triangular(lower.mH, spill, upper=True))
        factors.append(lower)
        form = through.mH @ form @ through + spill.mH @ spill + weight.mH @ (part.unsqueeze(1) * weight)
        form = (form + form.mH) / 2
        total = total - 2 * _logarithms(lower)
    left = -(problem.root.mH @ form @ problem.root)
    left.diagonal(dim1=-2, dim2=-1).add_(rho)
    last, failed = torch.linalg.cholesky_ex(left)
    barrier = float(total - 2 * _logarithms(last))
    if bool(failed.any()) or not abs(barrier) < inf:
        return None
    return Point(rho, mu, barrier, tuple(reversed(factors)), tuple(reversed(gains)), last)


def derivatives(problem: Problem, here: Point, t: float) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of ``t rho + barrier`` in ``(rho, mu)``."""
    chain, count = _Chain(problem, here), len(here.mu)
    gradient, hessian = here.mu.new_empty(count + 1), here.mu.new_empty(count + 1, count + 1)
    spread = torch.cholesky_inverse(here.last)
    gradient[0], hessian[0, 0] = t - _diagonal(spread).sum(), _squares(spread).sum()
    state, at = problem.root @ spread, 1  # covariance of s_0 with z
    moving = problem.root @ spread @ problem.root.mH  # of s_(k-1) with itself
    with_u = with_w = moving[..., :0]  # of s_(k-1) with all u and w before
    for k, (weight, _, feed) in enumerate(problem.stages):
        ends, before = slice(at, at + weight.shape[-2]), slice(1, at)
        own, noise = here.gains[k], torch.cholesky_inverse(here.factors[k])
        hessian[0, ends] = _squares(own @ state).sum(1) - _squares(weight @ state).sum(1)
        own_u, own_w = moving @ weight.mH, moving @ own.mH
        among_w, among_u, mixed = own @ own_w + noise, weight @ own_u, _squares(weight @ own_w)
        gradient[ends] = _diagonal(among_u) - _diagonal(among_w) + PULL - 1 / here.mu[ends.start - 1 : ends.stop - 1]
        hessian[ends, ends] = _squares(among_w) + _squares(among_u) - mixed - mixed.mT
        block = _squares(weight @ with_u) - _squares(weight @ with_w)
        block += _squares(own @ with_w) - _squares(own @ with_u)
        hessian[ends, before], hessian[before, ends] = block, block.mT
        with_u = chain.step(k, torch.cat([with_u, own_u], -1))
        with_w = torch.cat([chain.step(k, with_w), chain.step(k, own_w) + feed @ noise], -1)
        state, moving = chain.step(k, state), chain.spread(k, moving, noise)
        at = ends.stop
    hessian[1:, 0] = hessian[0, 1:]
    hessian.diagonal()[1:] += here.mu**-2
    return gradient, hessian


def gradient(problem: Problem, here: Point) -> tuple[float, Tensor]:
    """The gradient of the barrier alone, by ``rho`` and by ``mu``: what `derivatives` knows without a Hessian."""
    chain, found = _Chain(problem, here), []
    spread = torch.cholesky_inverse(here.last)
    moving = problem.root @ spread @ problem.root.mH
    for k, (weight, _, _) in enumerate(problem.stages):
        noise, own = torch.cholesky_inverse(here.factors[k]), here.gains[k]
        found.append(_lengths(weight, moving) - _lengths(own, moving) - _diagonal(noise))
        moving = chain.spread(k, moving, noise)
    return -float(_diagonal(spread).sum()), torch.cat(found) + PULL - 1 / here.mu


class _Chain:
    """How differences of the state go on: ``s_k = (A_k + B_k gain_k) s_(k-1) + noise``."""

    def __init__(self, problem: Problem, here: Point) -> None:
        self.feeds = [feed for _, _, feed in problem.stages]
        self.moves = [
            through + feed @ gain for (_, through, feed), gain in zip(problem.stages, here.gains, strict=True)
        ]

    def step(self, k: int, columns: Tensor) -> Tensor:
        return self.moves[k] @ columns

    def spread(self, k: int, covariance: Tensor, noise: Tensor) -> Tensor:
        return self.moves[k] @ covariance @ self.moves[k].mH + self.feeds[k] @ noise @ self.feeds[k].mH


def _logarithms(factors: Tensor) -> Tensor:
    """Of the diagonals of all factors, summed up."""
    return factors.diagonal(dim1=-2, dim2=-1).real.log().sum()


def _diagonal(matrices: Tensor) -> Tensor:
    """The sum of the diagonals, which are real."""
    found = matrices.diagonal(dim1=-2, dim2=-1).real
    return found if found.dim() == 1 else found.sum(0)


def _squares(matrices: Tensor) -> Tensor:
    """The squares of all entries' absolute values, summed up over the batch."""
    found = matrices.real.square() + matrices.imag.square() if matrices.is_complex() else matrices.square()
    return found if found.dim() == 2 else found.sum(0)


def _lengths(rows: Tensor, covariance: Tensor) -> Tensor:
    """``r covariance r^H`` for every row ``r``, summed up over the batch."""
    found = ((rows @ covariance) * rows.conj()).sum(-1).real
    return found if found.dim() == 1 else found.sum(0)
