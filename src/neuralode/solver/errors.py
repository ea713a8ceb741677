"""The sentence that says why a solve did not arrive, and what usually helps."""

from __future__ import annotations

from typing import Any

import torch

from neuralode.core.problem import Problem
from neuralode.core.record import Record
from neuralode.core.solution import Solution
from neuralode.core.status import SolveError, Status
from neuralode.solver.stiffness import IMPLICIT

ADVICE = {
    Status.MAX_STEPS: "Raise max_steps, or loosen rtol and atol.",
    Status.STEP_UNDERFLOW: "f may be singular or jump there, or its solution blow up; or the tolerance is finer than "
    "the dtype of the state resolves (use float64).",
    Status.NONFINITE: "f, or the state, became infinite or NaN there: check f and y0, shorten the span, or take "
    "smaller steps (max_step, or step_size).",
}
STIFF = f"It looks stiff: |y| moves slowly while a mode that has long decayed keeps the steps short; {IMPLICIT}."
SHOWN = 8  # rows named before the rest are counted


def complain(solution: Solution, problem: Problem, record: Record, max_steps: int, stiff: bool = False) -> SolveError:
    """What to raise for a solve that failed; ``stiff`` if it looks so."""
    failed = (solution.status >= Status.MAX_STEPS).nonzero()[:, 0].tolist()
    first = failed[0]
    status = Status(int(solution.status[first]))
    t, h = (_own(x, first) for x in (record.t, record.h))
    who = ""
    if problem.layout.has_rows:
        more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        who = f" rows {failed[:SHOWN]}{more} of {problem.layout.rows},"
        who += "" if problem.per_sample else " which share one step,"
    what = {
        Status.MAX_STEPS: f"max_steps={max_steps} attempts were not enough",
        Status.STEP_UNDERFLOW: "the step size fell below what t resolves",
        Status.NONFINITE: "a state that is not finite",
    }[status]
    advice = f"{ADVICE[status]} {STIFF}" if stiff else ADVICE[status]
    return SolveError(
        f"solve failed with {status.name.lower()}:{who} at t={t:.10g} of {_own(problem.end, first):.10g}, step "
        f"{h:.3g}: {what}. {advice} The part that was reached is in the .solution of this error; "
        "on_failure='return' returns it.",
        solution,
    )


def _own(value: Any, row: int) -> float:
    return float(value[row]) if isinstance(value, torch.Tensor) and value.dim() else float(value)
