"""Linear programs over a domain, and bounds of their minima that no solver is trusted for.

Let every ``v`` of the domain satisfy rows ``lower - slack <= G v <= upper + slack`` and lie in a box. For **any**
multipliers ``y``,

    c . v  =  (c - G^T y) . v  +  y . G v
           >=  min over the box of (c - G^T y) . v  +  sum_(y>0) y (lower - slack)  +  sum_(y<0) y (upper + slack),

which is computed here with all its roundings (Neumaier and Shcherbina 2004, Safe bounds in linear and mixed-integer
linear programming; Jansson 2004, Rigorous lower and upper bounds in linear programming). The solver only proposes
``y``: good multipliers leave a residual ``c - G^T y`` near zero and make the bound sharp, poor ones make it loose, none
makes it wrong. A ray that shows infeasibility is judged alike: with ``c = 0``, a bound above zero leaves no ``v``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from leaktight.errors import UsageError
from leaktight.models.network import Network
from leaktight.specs.region import Ball, Norm, Region
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.linear_rows import Floats, Indices, Places, Rows, activation_rows, affine_rows
from leaktight.verify.rounding import gamma, underflow

_F64, _TINY = torch.float64, underflow(torch.float64)


@dataclass(frozen=True)
class Program:
    """``min cost . v`` over `rows` and the box ``low <= v <= high``.

    `inputs`: which variables are the region's coordinates, in its order.
    """

    rows: Rows
    cost: Floats
    low: Floats
    high: Floats
    inputs: Indices

    def bound(self, multipliers: Floats, *, cost: Floats | None = None) -> float:
        """A proven lower bound of ``cost . v`` (by default the program's own) over every ``v`` of the domain."""
        aim = self.cost if cost is None else cost
        y = self._allowed(multipliers)
        with np.errstate(invalid="ignore", over="ignore"):
            product = self.rows.value * y[self.rows.row]
            residual = aim - np.bincount(self.rows.column, product, len(aim))
            size = np.abs(aim) + np.bincount(self.rows.column, np.abs(product), len(aim))
            off = gamma(self._longest + 1, _F64) * size + (self._longest + 1) * _TINY
            boxed = np.where(residual > 0, residual * self.low, residual * self.high)
            ends = np.where(y > 0, y * self.rows.lower, np.where(y < 0, y * self.rows.upper, 0.0))
            slack = float(np.abs(y) @ self.rows.slack + off @ np.maximum(np.abs(self.low), np.abs(self.high)))
            terms, mass = len(ends) + 2 * len(aim), float(np.abs(boxed).sum() + np.abs(ends).sum() + slack)
            found = float(boxed.sum() + ends.sum()) - (slack + gamma(terms, _F64) * mass + terms * _TINY)
            found -= 1e-15 * abs(found)
        return found if np.isfinite(found) else -np.inf

    def _allowed(self, multipliers: Floats) -> Floats:
        """The multipliers without those that ask for a side that a row does not have, or that are no numbers."""
        y = np.where(np.isfinite(multipliers), multipliers, 0.0)
        y = np.where((y > 0) & ~np.isfinite(self.rows.lower), 0.0, y)
        return np.where((y < 0) & ~np.isfinite(self.rows.upper), 0.0, y)

    @cached_property
    def _longest(self) -> int:
        return int(np.bincount(self.rows.column, minlength=1).max()) if len(self.rows.column) else 0


def check_polyhedron(region: Region) -> None:
    """Raises UsageError: the region is an L2 ball."""
    if isinstance(region, Ball) and region.norm is Norm.L2:
        raise UsageError("an L2 ball is no polyhedron, so linear programs do not decide it; use engine auto")


class Linearised:
    """A network over one region, ready for the programs of its domains: what they share is made once.

    Raises UsageError: the region is an L2 ball, which is no polyhedron.
    """

    def __init__(self, network: Network, region: Region, known: Mapping[str, Interval]) -> None:
        if region.batch != 1:
            raise ValueError(f"a linear program is about one region; got {region.batch}")
        check_polyhedron(region)
        self.network, self.region = network, region
        self.places = Places.of(network)
        self.affine = affine_rows(network, self.places, known)
        self.inputs = np.concatenate([self.places[p.name] + np.arange(p.size) for p in network.inputs])

    def least_margin(
        self, known: Mapping[str, Interval], splits: Mapping[str, Tensor], unsafe: Unsafe, disjunct: int
    ) -> Program:
        """The program whose minimum is (a lower bound of, while sides are undecided) ``min_x max_j c_j . y - d_j``
        over the atoms ``j`` of one disjunct. `unsafe` is about a single region.
        """
        low, high = self._box(known)
        rows = [self.affine, activation_rows(self.network, self.places, known, splits)]
        if isinstance(self.region, Ball):
            budget, most = self._budget(self.region)
            rows.append(budget)
            low, high = np.concatenate([low, np.zeros(len(most))]), np.concatenate([high, most])
        atoms = (unsafe.disjunct == disjunct).nonzero().flatten()
        rows.append(self._atoms(unsafe.weights[0, atoms].numpy(), unsafe.bounds[0, atoms].numpy(), len(low)))
        reach = self._reach(unsafe, atoms, low, high)
        low, high = np.append(low, -reach), np.append(high, reach)
        cost = np.zeros(len(low))
        cost[-1] = 1.0
        return Program(Rows.joined(rows), cost, low, high, self.inputs)

    def values(self, point: Floats) -> dict[str, Tensor]:
        """The part of a program's point that each node's value is, ``(size,)`` by name."""
        return {
            node.name: torch.from_numpy(point[self.places[node.name] : self.places[node.name] + node.size])
            for node in self.network
        }

    def influence(self, multipliers: Floats) -> dict[str, Tensor]:
        """How the multipliers say that the minimum moves with each node's value, as affine nodes hand it on."""
        y = multipliers[: len(self.affine)]
        moved = np.bincount(self.affine.column, self.affine.value * y[self.affine.row], self.places.count)
        return self.values(moved.astype(np.float64))

    def _box(self, known: Mapping[str, Interval]) -> tuple[Floats, Floats]:
        ends = [[known[n.name].lower.reshape(-1), known[n.name].upper.reshape(-1)] for n in self.network]
        low, high = (torch.cat(x).double().numpy() for x in zip(*ends, strict=True))
        return low, high

    def _budget(self, ball: Ball) -> tuple[Rows, Floats]:
        """``|x_i - centre_i| <= t_i`` and ``sum t_i <= radius``, with the bounds of ``t`` above."""
        n, own = ball.size, np.arange(ball.size)
        t, centre, none = self.places.count + own, ball.centre[0].double().numpy(), np.full(ball.size, np.inf)
        sides = [
            Rows(
                np.concatenate([own, own]),
                np.concatenate([self.inputs, t]),
                np.concatenate([np.ones(n), sign * np.ones(n)]),
                centre if sign > 0 else -none,
                none if sign > 0 else centre,
                np.zeros(n),
            )
            for sign in (1.0, -1.0)
        ]
        radius = float(ball.radius[0])
        whole = Rows(0 * own, t, np.ones(n), np.full(1, -np.inf), np.full(1, radius), np.zeros(1))
        return Rows.joined([*sides, whole]), np.full(n, radius)

    def _output_places(self) -> Indices:
        return np.concatenate([self.places[p.name] + np.arange(p.size) for p in self.network.outputs])

    def _atoms(self, weights: Floats, bounds: Floats, margin: int) -> Rows:
        """``c . y - margin <= d``."""
        at, entry = weights.nonzero()
        own = np.arange(len(bounds))
        return Rows(
            np.concatenate([at, own]),
            np.concatenate([self._output_places()[entry], np.full(len(bounds), margin)]),
            np.concatenate([weights[at, entry], -np.ones(len(bounds))]),
            np.full(len(bounds), -np.inf),
            bounds,
            np.zeros(len(bounds)),
        )

    def _reach(self, unsafe: Unsafe, atoms: Tensor, low: Floats, high: Floats) -> float:
        """No atom is larger in absolute value."""
        y = np.maximum(np.abs(low), np.abs(high))[self._output_places()]
        largest = np.abs(unsafe.weights[0, atoms].numpy()) @ y + np.abs(unsafe.bounds[0, atoms].numpy())
        return float(largest.max() * (1 + 1e-6) + 1e-300)
