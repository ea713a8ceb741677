"""The eager engine: one attempt after another, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode.core.clock import some
from neuralode.core.record import AcceptedStep, StepBatch
from neuralode.core.status import Status
from neuralode.engines.attempt import Attempt, attempt
from neuralode.engines.base import SolveContext, SolverState, mark_finished


class Eager:
    """Steps on the host: of each attempt the ratio is read back; what else a shared clock needs is a float."""

    name = "eager"
    gradients = frozenset({"replay", "adjoint", "direct"})
    budget = 8

    def advance(self, context: SolveContext, state: SolverState, budget: int) -> tuple[SolverState, StepBatch]:
        """Make up to ``budget`` attempts, or fewer if every clock arrives or fails."""
        tries: list[Attempt] = []
        for _ in range(budget):
            state = mark_finished(context, state)
            if not some(state.status == Status.RUNNING):
                break
            state, tried = attempt(context, state)
            tries.append(tried)
        else:
            state = mark_finished(context, state)
        steps = [tried.step for tried in tries if tried.step is not None]
        sizes = [tried.size for tried in tries if tried.size is not None]
        if sizes:
            state, steps = stop_at_nonfinite(state, steps, sizes)
        met = tuple(occurrence for tried in tries for occurrence in tried.occurrences)
        return state, StepBatch(context.rows, steps, state.y, state.t, met)


def stop_at_nonfinite(
    state: SolverState, steps: list[AcceptedStep], sizes: list[Tensor]
) -> tuple[SolverState, list[AcceptedStep]]:
    """Undo the stated steps of a shared clock from the first whose result is not finite."""
    finite = torch.stack(sizes).isfinite().tolist()
    if all(finite):
        return state, steps
    good = finite.index(False)
    undone = len(steps) - good
    before = steps[good]
    state = state._replace(
        t=before.t,
        y=state.y if before.y is None else before.y,
        status=Status.NONFINITE,
        accepted=state.accepted - undone,
    )
    return state, steps[:good]
