"""The error message of a failed solve."""

from __future__ import annotations

from torch import Tensor

from neuralode.core.clock import Number
from neuralode.core.problem import Problem
from neuralode.core.record import Record
from neuralode.core.solution import Solution
from neuralode.core.status import MAX_STEPS, SolveError, Status
from neuralode.engines.base import SolveConfig
from neuralode.solver.stiffness import IMPLICIT, MIN_ATTEMPTS_FAILED, looks_stiff

ADVICE = {
    Status.MAX_STEPS: "Raise max_steps, or loosen rtol and atol.",
    Status.STEP_UNDERFLOW: "f may be singular or discontinuous there, or the solution may blow up; or the "
    "tolerance is finer than the dtype of the state resolves (use float64).",
    Status.NONFINITE: "f or the state became infinite or NaN there: check f and y0, shorten the span, or take "
    "smaller steps (max_step, or step_size).",
}
STIFF = f"It looks stiff: y changes slowly while a mode that has long decayed limits the steps; {IMPLICIT}."
SHOWN = 8  # failed rows that the message names


def solve_error(solution: Solution, problem: Problem, record: Record, *, config: SolveConfig) -> SolveError:
    """Return the error of a solve with failed rows; the message says which rows failed, where, why, and what to try."""
    failed = (solution.status >= MAX_STEPS).nonzero()[:, 0].tolist()
    first = failed[0]
    status = Status(int(solution.status[first]))
    t, h = (_of_row(x, first) for x in (record.t, record.h))
    rows = ""
    if problem.layout.has_rows:
        more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        rows = f" rows {failed[:SHOWN]}{more} of {problem.layout.rows},"
        rows += "" if problem.per_sample else " which share their steps,"
    reason = {
        Status.MAX_STEPS: f"max_steps={config.max_steps} attempts were not enough",
        Status.STEP_UNDERFLOW: "the step size fell below what t resolves",
        Status.NONFINITE: "a state that is not finite",
    }[status]
    stiff = looks_stiff(problem, record, config, least=MIN_ATTEMPTS_FAILED)
    advice = f"{ADVICE[status]} {STIFF}" if stiff else ADVICE[status]
    return SolveError(
        f"solve failed with {status.name.lower()}:{rows} at t={t:.10g} of {_of_row(problem.end, first):.10g}, step "
        f"{h:.3g}: {reason}. {advice} The partial solution is in the .solution of this error; "
        "on_failure='return' returns it.",
        solution,
    )


def _of_row(value: Number, row: int) -> float:
    return float(value[row]) if isinstance(value, Tensor) and value.dim() else float(value)
