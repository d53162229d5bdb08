"""Small networks as mixed-integer programs, through cvxpy with HiGHS: a guide to where the margin is least.

Each undecided neuron has a binary ``b``: 1 to the right of its kink ``k``. With ``d = right - left``, its argument in
``[l, u]``, and ``>=`` instead of ``<=`` where ``d < 0``,

    a - right side(z)  <=  d (k - l) (1 - b),          a - left side(z)  <=  d (u - k) b,

beside the rows of the relaxation, which bound ``a`` from the other side. The guide is not believed: HiGHS works with
tolerances, and the tree behind its answer is not available. Its point is replayed, and nothing is proved by its value.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np
import scipy.sparse
from torch import Tensor

from leaktight.errors import InternalError
from leaktight.models.ops import TwoSlope
from leaktight.specs.unsafe import Unsafe
from leaktight.verify.bounds.interval import Interval
from leaktight.verify.bounds.linear_program import Linearised, Program
from leaktight.verify.bounds.linear_rows import Floats, Rows
from leaktight.verify.bounds.linear_solver import silence
from leaktight.verify.bounds.splits import undecided_entries


@dataclass(frozen=True)
class Guide:
    """What the solver says: where the margin is least (``(n,)``, the region's coordinates), and what it would be."""

    point: Floats | None = None
    claimed: float | None = None


def guide(
    linear: Linearised,
    known: Mapping[str, Interval],
    unsafe: Unsafe,
    disjunct: int,
    *,
    seconds: float,
    seed: int = 0,
) -> Guide:
    """Asks for an input with the least margin of one disjunct; empty-handed where none is found within `seconds`.

    `known`: bounds over the region of a network whose activations all have two slopes.
    """
    program = linear.least_margin(known, {}, unsafe, disjunct)
    sides, count = _side_rows(linear, known, len(program.cost))
    found = _solved(program, sides, count, seconds, seed)
    if found is None:
        return Guide()
    return Guide(found[program.inputs], float(program.cost @ found))


def _side_rows(linear: Linearised, known: Mapping[str, Interval], first: int) -> tuple[Rows, int]:
    """The two rows of every undecided neuron; its binary is a variable behind the `first` ones."""
    made, count = [], 0
    for name, open_ in undecided_entries(linear.network, known, {}).items():
        node = linear.network.by_name[name]
        at = open_[0].numpy().nonzero()[0]
        op, z = node.op, known[node.inputs[0]]
        if not isinstance(op, TwoSlope):
            raise InternalError(f"node {name!r} is split and has no two slopes")
        left, right, kink, value = (_entries(p, node.shape)[at] for p in (op.left, op.right, op.kink, op.value))
        low, high = (end[0].reshape(-1).numpy()[at] for end in (z.lower, z.upper))
        bend, own, none = right - left, np.arange(len(at)), np.full(len(at), np.inf)
        columns = [linear.places[name] + at, linear.places[node.inputs[0]] + at, first + count + own]
        for slope, step, shift in (
            (right, bend * (kink - low), bend * (kink - low)),
            (left, -bend * (high - kink), np.zeros(len(at))),
        ):
            end = value - slope * kink + shift
            made.append(
                Rows(
                    np.tile(own, 3),
                    np.concatenate(columns),
                    np.concatenate([np.ones(len(at)), -slope, step]),
                    np.where(bend > 0, -none, end),
                    np.where(bend > 0, end, none),
                    np.zeros(len(at)),
                )
            )
        count += len(at)
    return Rows.joined(made) if made else linear.affine, count


def _entries(value: Tensor, shape: tuple[int, ...]) -> Floats:
    found: Floats = value.double().expand(shape).reshape(-1).numpy()
    return found


def _solved(program: Program, sides: Rows, count: int, seconds: float, seed: int) -> Floats | None:
    """What HiGHS gives the program's variables, where it gives anything."""
    values = cvxpy.Variable(len(program.cost), bounds=[program.low, program.high])
    binaries = cvxpy.Variable(count, boolean=True) if count else None
    whole: Any = values if binaries is None else cvxpy.hstack([values, binaries])  # type: ignore[attr-defined]
    width = len(program.cost) + count
    constraints = [_constraint(rows, whole, width, side) for rows in (program.rows, sides) for side in _SIDES]
    problem = cvxpy.Problem(cvxpy.Minimize(program.cost @ values), [c for c in constraints if c is not None])
    silence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inaccurate solutions: nothing is made of their accuracy
            problem.solve(solver=cvxpy.HIGHS, time_limit=seconds, threads=1, random_seed=seed)
    except (cvxpy.error.SolverError, ValueError):  # a guide that is lost is not missed
        return None
    found = None if values.value is None else np.asarray(values.value, dtype=np.float64)
    return found if found is not None and bool(np.isfinite(found).all()) else None


_SIDES = ("equal", "lower", "upper")


def _constraint(rows: Rows, whole: Any, width: int, side: str) -> Any:
    equal = rows.lower == rows.upper
    kept = {
        "equal": equal,
        "lower": ~equal & np.isfinite(rows.lower),
        "upper": ~equal & np.isfinite(rows.upper),
    }[side]
    if not kept.any():
        return None
    matrix = scipy.sparse.csr_array((rows.value, (rows.row, rows.column)), shape=(len(rows), width))[kept]
    if side == "upper":
        return matrix @ whole <= rows.upper[kept]
    return matrix @ whole == rows.lower[kept] if side == "equal" else matrix @ whole >= rows.lower[kept]
