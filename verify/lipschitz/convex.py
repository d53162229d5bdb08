"""LipSDP through cvxpy: general solvers as a cross-check. The only file that imports cvxpy here.

What a solver answers is a proposal: its status, its gap and its claim to be feasible are not relied on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaktight.errors import UsageError
from leaktight.models.enclosure import Array
from leaktight.verify.lipschitz.barrier import problem
from leaktight.verify.lipschitz.centred import Centred
from leaktight.verify.lipschitz.unrolled import unrolled

SOLVERS = ("clarabel", "scs")
_INSTEAD = "use the built-in one (leave --solver out), or --method fast, liplt or product"


def optimal(
    network: Centred,
    multipliers: Sequence[Array],
    square: float,
    *,
    solver: str,
    timeout: float | None = None,
    **options: Any,
) -> tuple[float, list[Array]]:
    """The bound that the solver claims, and its multipliers, in the units of feasible ones with a root of `square`.

    Raises UsageError: cvxpy or the solver is not installed, or the solver finds nothing.
    """
    cvxpy = _cvxpy(solver)
    asked = problem(network, multipliers, square)
    rows, output = unrolled(asked)
    rho, mu = cvxpy.Variable(), cvxpy.Variable(len(rows), nonneg=True)
    size = rows.shape[1] - len(rows)
    matrix = cvxpy.diag(cvxpy.hstack([rho * np.ones(size), mu])) - rows.T @ cvxpy.diag(mu) @ rows - output.T @ output
    question = cvxpy.Problem(cvxpy.Minimize(rho), [matrix >> 0])
    if timeout is not None:
        options.setdefault("time_limit" if solver == "clarabel" else "time_limit_secs", timeout)
    try:
        question.solve(solver=solver.upper(), **options)
    except cvxpy.error.SolverError as error:
        raise UsageError(f"--solver {solver}: it failed ({error}); {_INSTEAD}") from None
    if mu.value is None:
        raise UsageError(f"--solver {solver}: it found nothing (it says {question.status}); {_INSTEAD}")
    found = np.maximum(np.asarray(mu.value, np.float64), 1e-12)
    parts = np.split(found, np.cumsum(asked.sizes)[:-1])
    claimed = (max(float(rho.value), 0.0) * square) ** 0.5
    return claimed, [part * unit for part, unit in zip(parts, asked.units, strict=True)]


def _cvxpy(solver: str) -> Any:
    try:
        import cvxpy
    except ImportError:
        raise UsageError(
            f"--solver {solver} needs cvxpy, which is not installed (pip install cvxpy); {_INSTEAD}"
        ) from None
    if solver.upper() not in cvxpy.installed_solvers():
        raise UsageError(f"--solver {solver} is not among cvxpy's installed solvers; {_INSTEAD}")
    return cvxpy
