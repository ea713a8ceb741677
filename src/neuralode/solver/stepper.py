"""A solve taken one step at a time, for loops that look at the state in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers import NOWHERE, find_controller
from neuralode.core.clock import some
from neuralode.core.norms import Norm, check_reduction, check_tolerances
from neuralode.core.problem import make_problem
from neuralode.core.record import Plan
from neuralode.core.status import Status
from neuralode.engines import find_engine
from neuralode.engines.loop import begin, with_stops
from neuralode.methods import Method, Tableau, find_method
from neuralode.solver.probe import add_breaks, first_evaluation
from neuralode.solver.row_independence import check_alone, check_rows, check_separable


class Stepper:
    """Solve dy/dt = f(t, y) by hand: each `step` takes one accepted step.

    Takes the arguments of `solve` that say how steps are made. No gradients are kept; to stop early at a condition and
    keep them, solve again to the time that was found.

    Parameters
    ----------
    f, y0, t
        As in `solve`; of ``t`` only the ends matter.
    args, args_dims, method, rtol, atol, step_size, max_steps, per_sample, controller, engine
        As in `solve`.

    Attributes
    ----------
    t : float or Tensor[rows]
        The time reached.
    y : pytree
        The state there.
    h : float or Tensor[rows]
        Size of the next attempt.
    status : Status or Tensor[rows]
        ``RUNNING`` until the end is reached or the solve fails.
    done : bool
        Whether nothing is left to do.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> stepper = node.Stepper(lambda t, y: -y, torch.ones(1), (0.0, 5.0))
    >>> while stepper.y.item() > 0.5:
    ...     stepper = stepper.step()
    >>> 0.6 < stepper.t < 2.0
    True
    """

    def __init__(
        self,
        f: Callable[..., Any],
        y0: Any,
        t: Any,
        *,
        args: tuple = (),
        args_dims: Any = None,
        method: str | Method | Tableau = "tsit5",
        rtol: Any = 1e-4,
        atol: Any = 1e-6,
        step_size: float | None = None,
        max_steps: int = 100_000,
        per_sample: bool = False,
        controller: Any = None,
        engine: Any = "eager",
    ) -> None:
        method = find_method(method)
        self._engine = find_engine(engine, method)
        controller = find_controller(controller, method, step_size)
        with torch.no_grad():
            problem = make_problem(f, y0, t, args, args_dims, per_sample)
            tolerances = check_tolerances(rtol, atol, problem.layout)
            norm = Norm(problem.layout, *tolerances, per_sample, check_reduction(controller.norm))
            f0, breaks = first_evaluation(problem)
            if per_sample:
                check_rows(problem)
            if method.partitioned:
                check_separable(problem, method)
            if method.implicit:
                problem, _ = check_alone(problem)
            context, state, _ = begin(problem, f0, Plan(), method, controller, norm, max_steps)
            self._course, self._state = with_stops(context, state, add_breaks(NOWHERE, breaks, problem, method))
        self._layout = problem.layout

    @property
    def t(self) -> float | Tensor:
        """The time reached: a float, or one a row."""
        return self._state.t

    @property
    def y(self) -> Any:
        """The state there."""
        return self._layout.unpack(self._state.y)

    @property
    def h(self) -> float | Tensor:
        """Size of the next attempt: a float, or one a row."""
        return self._state.h

    @property
    def status(self) -> Any:
        """How it stands: a `Status`, or one a row."""
        status = self._state.status
        return status if isinstance(status, Tensor) else Status(status)

    @property
    def done(self) -> bool:
        """Whether every row has arrived or failed."""
        return not some(self._state.status == Status.RUNNING)

    def step(self) -> Stepper:
        """Attempt until at least one row accepts a step, or all that run have failed; returns the stepper itself."""
        taken = False
        with torch.no_grad():
            while not (taken or self.done):
                self._state, step_batch = self._engine.advance(self._course, self._state, 1)
                taken = any(step.accept is None or bool(step.accept.any()) for step in step_batch.steps)
        return self

    def __iter__(self) -> Iterator[Stepper]:
        """Step until done."""
        while not self.done:
            yield self.step()
