"""Solve step by step, for loops that use the state in between."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuralode.controllers import Controller
from neuralode.core.clock import some
from neuralode.core.record import Plan
from neuralode.core.registry import check_members
from neuralode.core.status import RUNNING, Status
from neuralode.core.times import Times
from neuralode.core.types import Axes, PyTree, Tolerance, UserFunction
from neuralode.engines.base import Engine, StepwiseEngine
from neuralode.engines.loop import start_loop
from neuralode.methods import Method, Tableau
from neuralode.solver.config import resolve
from neuralode.solver.probe import probe


class Stepper:
    """Solve dy/dt = f(t, y) step by step: each `step` takes one accepted step.

    The arguments are those of `solve` that determine the steps. The state has no gradients: to differentiate, solve
    again to the time at which you stopped.

    Parameters
    ----------
    f, y0, t
        As in `solve`; only the first and the last time matter.
    args, args_dims, method, rtol, atol, step_size, max_steps, per_sample, controller, engine
        As in `solve`.

    Raises
    ------
    TypeError, ValueError
        For invalid arguments, as in `solve`, and for engines that cannot be advanced step by step.

    Attributes
    ----------
    t : float or Tensor[rows]
        The current time.
    y : pytree
        The state there.
    h : float or Tensor[rows]
        The size of the next attempt.
    status : Status or Tensor[rows]
        ``RUNNING`` until the end is reached or the solve fails.
    done : bool
        Whether every row has reached its end or failed.

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
        f: UserFunction,
        y0: PyTree,
        t: Times,
        *,
        args: tuple = (),
        args_dims: Axes = None,
        method: str | Method | Tableau = "tsit5",
        rtol: Tolerance = 1e-4,
        atol: Tolerance = 1e-6,
        step_size: float | None = None,
        max_steps: int = 100_000,
        per_sample: bool = False,
        controller: str | Controller | None = None,
        engine: str | Engine = "eager",
    ) -> None:
        with torch.no_grad():
            problem, config = resolve(
                f, y0, t, args=args, args_dims=args_dims, method=method, rtol=rtol, atol=atol, step_size=step_size,
                max_steps=max_steps, per_sample=per_sample, controller=controller, engine=engine,
            )  # fmt: skip
            check_members("engine", config.engine, StepwiseEngine)
            problem, config, *_ = probe(problem, config)
            reason = config.engine.supports(problem, config, Plan())
            if reason is not None:
                raise ValueError(reason)
            context, state, _ = start_loop(problem, config, Plan())
        self._engine: StepwiseEngine = config.engine  # pyright: ignore[reportAttributeAccessIssue] (checked above)
        self._context, self._state = context, state
        self._layout = problem.layout

    @property
    def t(self) -> float | Tensor:
        """The current time: a float, or a tensor [rows]."""
        return self._state.t

    @property
    def y(self) -> PyTree:
        """The state at the current time."""
        return self._layout.unpack(self._state.y)

    @property
    def h(self) -> float | Tensor:
        """The size of the next attempt: a float, or a tensor [rows]."""
        return self._state.h

    @property
    def status(self) -> Status | Tensor:
        """A `Status`, or a tensor [rows]."""
        status = self._state.status
        return status if isinstance(status, Tensor) else Status(status)

    @property
    def done(self) -> bool:
        """Whether every row has reached its end or failed."""
        return not some(self._state.status == RUNNING)

    def step(self) -> Stepper:
        """Attempt steps until at least one row accepts one, or all have failed; return the stepper."""
        taken = False
        with torch.no_grad():
            while not (taken or self.done):
                self._state, step_batch = self._engine.advance(self._context, self._state, 1)
                taken = any(step.accept is None or bool(step.accept.any()) for step in step_batch.steps)
        return self

    def __iter__(self) -> Iterator[Stepper]:
        """Step until done."""
        while not self.done:
            yield self.step()
