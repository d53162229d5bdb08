"""LipSDP through cvxpy: general solvers as a cross-check. The only file that imports cvxpy here.

What a solver answers is a proposal: its status, its gap and its claim to be feasible are not relied on.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
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
_LARGEST = 1 << 24  # coefficients of the matrix inequality; of more, not even the question fits into memory
_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from leaktight.verify.lipschitz import convex; convex.answer()"


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

    timeout: in seconds, after which it is the given ones; the solver then runs in a process that is ended, as solvers
    look at the time between their steps alone, and one step may take for ever.
    Raises UsageError: cvxpy or the solver is not installed, the question is too large, or the solver finds nothing.
    """
    _cvxpy(solver)
    asked = problem(network, multipliers, square)
    rows, output = unrolled(asked)
    if rows.shape[1] ** 2 // 2 * (len(rows) + 1) > _LARGEST:
        raise UsageError(f"--solver {solver}: {len(rows)} neurons are too many for a general solver; {_INSTEAD}")
    if timeout is None:
        rho, mu = _solved(rows, output, solver, options)
    else:
        found = _in_time((rows, output, solver, options), timeout)
        if found is None:
            return square**0.5, list(multipliers)
        rho, mu = found
    parts = np.split(np.maximum(mu, 1e-12), np.cumsum(asked.sizes)[:-1])
    claimed = (max(rho, 0.0) * square) ** 0.5
    return claimed, [part * unit for part, unit in zip(parts, asked.units, strict=True)]


def _solved(rows: Array, output: Array, solver: str, options: dict[str, Any]) -> tuple[float, Array]:
    """``rho`` and ``mu``."""
    cvxpy = _cvxpy(solver)
    rho, mu = cvxpy.Variable(), cvxpy.Variable(len(rows), nonneg=True)
    size = rows.shape[1] - len(rows)
    matrix = cvxpy.diag(cvxpy.hstack([rho * np.ones(size), mu])) - rows.T @ cvxpy.diag(mu) @ rows - output.T @ output
    question = cvxpy.Problem(cvxpy.Minimize(rho), [matrix >> 0])
    try:
        question.solve(solver=solver.upper(), **options)
    except cvxpy.error.SolverError as error:
        raise UsageError(f"--solver {solver}: it failed ({error}); {_INSTEAD}") from None
    if mu.value is None:
        raise UsageError(f"--solver {solver}: it found nothing (it says {question.status}); {_INSTEAD}")
    return float(rho.value), np.asarray(mu.value, np.float64)


def _in_time(question: tuple[Array, Array, str, dict[str, Any]], timeout: float) -> tuple[float, Array] | None:
    """The same from a process of its own; None: it did not come in time."""
    command = [sys.executable, "-c", _CHILD, *sys.path]
    try:
        ran = subprocess.run(command, input=pickle.dumps(question), capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return None
    if ran.returncode != 0:
        raise UsageError(f"--solver {question[2]}: its process ended ({ran.returncode}); {_INSTEAD}")
    found = pickle.loads(ran.stdout)
    if isinstance(found, UsageError):
        raise found
    answer: tuple[float, Array] = found
    return answer


def answer() -> None:
    """Reads a question from the standard input and writes what was solved, or the error that says why not."""
    sent, sys.stdout = sys.stdout, sys.stderr  # solvers may print
    try:
        found: object = _solved(*pickle.load(sys.stdin.buffer))
    except UsageError as error:
        found = error
    pickle.dump(found, sent.buffer)


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
