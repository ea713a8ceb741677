"""The eager engine: one attempt after another, in plain PyTorch operations. The default."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, StepBatch
from neuralode.core.status import NONFINITE, RUNNING
from neuralode.engines.attempt import Attempt, attempt, fail_exhausted_rows
from neuralode.engines.base import SolveConfig, SolveContext, SolverState
from neuralode.engines.loop import solve_loop
from neuralode.engines.trajectory import RecordedTrajectory


class Eager:
    """Host loop: read one scalar per attempt, or the flags of running rows; fixed shared steps read once per batch."""

    name = "eager"

    def supports(self, problem: Problem, config: SolveConfig, plan: Plan) -> str | None:
        """Support every problem of step-wise methods."""
        if config.method.one_call:
            return f"method {config.method.name!r} crosses the whole span in one call; wanted another method."
        return None

    def integrate(self, problem: Problem, config: SolveConfig, plan: Plan) -> RecordedTrajectory:
        """Solve by the loop and keep a record."""
        record, outputs = solve_loop(self, problem, config, plan=plan)
        return RecordedTrajectory.of(record, outputs, config)

    def advance(self, context: SolveContext, state: SolverState, budget: int) -> tuple[SolverState, StepBatch]:
        """Make up to ``budget`` attempts, or fewer if every clock has reached its end or failed."""
        attempts: list[Attempt] = []
        for _ in range(budget):
            state = fail_exhausted_rows(context, state)
            running = state.status == RUNNING
            if isinstance(running, Tensor):
                count = int(running.sum())
                running = True if count == running.numel() else running
            else:
                count = int(running)
            if not count:
                break
            state, tried = attempt(context, state, running)
            attempts.append(tried)
        steps = [tried.step for tried in attempts if tried.step is not None]
        sizes = [tried.size for tried in attempts if tried.size is not None]
        if sizes:
            state, steps = undo_nonfinite(state, steps, sizes)
        occurrences = tuple(occurrence for tried in attempts for occurrence in tried.occurrences)
        return state, StepBatch(rows=context.rows, steps=steps, end=state.y, t=state.t, occurrences=occurrences)


def undo_nonfinite(
    state: SolverState, steps: list[AcceptedStep], sizes: list[Tensor]
) -> tuple[SolverState, list[AcceptedStep]]:
    """Undo the fixed steps of a shared clock from the first whose result is not finite.

    The state goes back only if the plan keeps states; the outputs of failed steps are NaN in any case.
    """
    finite = torch.stack(sizes).isfinite().tolist()
    if all(finite):
        return state, steps
    good = finite.index(False)
    undone, before = len(steps) - good, steps[good]
    state = state._replace(
        t=before.t,
        y=state.y if before.y is None else before.y,
        status=NONFINITE,
        accepted=state.accepted - undone,
    )
    return state, steps[:good]
