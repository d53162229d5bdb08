"""HiGHS for linear programs: proposals of multipliers, rays and points, none of which is believed.

Solved through highspy, not through cvxpy: a search asks for thousands of small programs, and compiling one costs cvxpy
ten times what solving it takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import highspy
import numpy as np

from leaktight.verify.bounds.linear_program import Program
from leaktight.verify.bounds.linear_rows import Floats


@dataclass(frozen=True)
class Proposal:
    """What the solver says: a point and multipliers, or a ray of multipliers that shows that there is no point."""

    point: Floats | None = None
    multipliers: Floats | None = None
    ray: Floats | None = None


def propose(program: Program, seconds: float | None = None) -> Proposal:
    """Solves the program; empty-handed where the solver fails or `seconds` are over."""
    solver = _solver()
    if seconds is not None:
        solver.setOptionValue("time_limit", max(seconds, 1e-3))
    if solver.passModel(_model(program)) == highspy.HighsStatus.kError:
        return Proposal()
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        solution = solver.getSolution()
        return Proposal(np.array(solution.col_value), np.array(solution.row_dual))
    if status == highspy.HighsModelStatus.kInfeasible:
        _, there, ray = solver.getDualRay()  # type: ignore[attr-defined]
        return Proposal(ray=np.array(ray)) if there else Proposal()
    return Proposal()


def _model(program: Program) -> highspy.HighsLp:
    rows, order = program.rows, np.argsort(program.rows.row, kind="stable")
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), len(rows)
    model.col_cost_, model.col_lower_, model.col_upper_ = program.cost, program.low, program.high
    model.row_lower_, model.row_upper_ = rows.lower, rows.upper
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.num_col_, matrix.num_row_ = model.num_col_, model.num_row_
    counts = np.bincount(rows.row, minlength=len(rows))
    matrix.start_ = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    matrix.index_, matrix.value_ = rows.column[order].astype(np.int32), rows.value[order]
    return model


def _solver() -> highspy.Highs:
    silence()
    solver = highspy.Highs()
    for option, value in (("output_flag", False), ("presolve", "off"), ("threads", 1), ("random_seed", 0)):
        solver.setOptionValue(option, value)
    return solver


@lru_cache(maxsize=1)
def silence() -> None:
    """Lets HiGHS say its banner, which it prints when its first object is made in a process, to nobody."""
    with _stdout_to_nobody():
        highspy.Highs()


@contextlib.contextmanager
def _stdout_to_nobody() -> Iterator[None]:
    """The process's stdout closed for what C code prints; Python's own is flushed before."""
    sys.stdout.flush()
    try:
        flush, saved = ctypes.CDLL(None).fflush, os.dup(1)
    except (OSError, TypeError, AttributeError):  # no stdout, or no C library to ask: nothing to keep clean
        yield
        return
    nobody = os.open(os.devnull, os.O_WRONLY)
    try:
        flush(None)
        os.dup2(nobody, 1)
        yield
        flush(None)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nobody)
