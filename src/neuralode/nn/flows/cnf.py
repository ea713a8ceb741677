r"""Continuous normalizing flows: an ordinary differential equation moves a simple density to a complex one.

A sample z of a base distribution moves along dx/dt = f(t, x) and becomes a sample of the model. Its log-density changes
by d log p / dt = −∇·f along the path, so that one solve gives both (Chen, Rubanova, Bettencourt & Duvenaud, *Neural
Ordinary Differential Equations*, 2018, section 4; Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, *FFJORD*, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.flows.base_distribution import Base, find_base, sample_base
from neuralode.nn.flows.conditions import args_with_rows, dims_of_args, flatten_batch
from neuralode.nn.flows.divergence import Divergence, find_divergence
from neuralode.nn.flows.flow import Moved
from neuralode.nn.flows.torch_distribution import FlowDistribution, FlowTransform
from neuralode.solver.solve import solve

if TYPE_CHECKING:
    from neuralode.core.solution import Solution, Stats

Span = tuple[float, float]


class Costs(NamedTuple):
    """A log-density, and integrals along the paths that gave it.

    Attributes
    ----------
    log_prob : Tensor[*batch]
        The log-density of the samples, in nats.
    kinetic : Tensor[*batch]
        ∫ |f|² dt along their paths.
    frobenius : Tensor[*batch]
        ∫ ‖∂f/∂x‖² dt along their paths (Frobenius norm).
    """

    log_prob: Tensor
    kinetic: Tensor
    frobenius: Tensor


class CNF(nn.Module):
    """A continuous normalizing flow, with a density (``log_prob``) and samples (``sample``).

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt`` for x of shape [batch, *event]; rows must be independent. Fields that declare
        ``jvp``, as those of `neuralode.nn.flows` do, have a cheaper divergence.
    base : int, shape, or distribution
        The base distribution; a shape stands for the standard normal one. A distribution of torch has whole samples as
        its event and no batch of its own; it is not moved or cast with the flow.
    t : tuple of float, default=(0.0, 1.0)
        The times of the base and of the data.
    divergence : {"exact", "hutchinson", "hutch++"} or Exact, Hutchinson, HutchPlusPlus, default="exact"
        How the divergence of the field is computed.
    args_dims : int, None or tuple of these, default=0
        Which of ``args`` have a row for each sample (0), and which are the same for all (None).
    jitter : float, default=0.0
        In training, the time of the data is drawn within this distance of its own for each batch, which keeps paths
        simple (Ghosh et al., *STEER*, 2020).
    method : str, Tableau or method, default="tsit5"
        As in `neuralode.solve`, like the following. All are plain attributes that may be changed at any time.
    controller : {"i", "pi", "pid"} or controller, default=None
        How steps are chosen.
    rtol : float, default=1e-5
        Relative tolerance.
    atol : float, default=1e-5
        Absolute tolerance.
    step_size : float, default=None
        The step size of a method with fixed steps.
    max_steps : int, default=100_000
        Attempts allowed to each row.
    per_sample : bool, default=False
        Give every sample its own step sizes.
    gradient : {"replay", "adjoint", "direct"} or gradient, default="replay"
        How derivatives are computed.
    engine : str or engine, default="eager"
        What repeats the step.

    Attributes
    ----------
    stats : Stats or None
        The counts of the last solve.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range; the message names it.

    Examples
    --------
    >>> from neuralode.nn.flows import ConcatSquashField
    >>> flow = CNF(ConcatSquashField(2, width=16), base=2)
    >>> x = flow.sample(5)
    >>> x.shape, flow.log_prob(x).shape
    (torch.Size([5, 2]), torch.Size([5]))

    Train it by maximum likelihood, with a penalty that keeps paths straight and smooth, as in Finlay et al., *How to
    train your neural ODE*, 2020:

    >>> costs = flow.costs(x)
    >>> loss = (-costs.log_prob + 0.01 * costs.kinetic + 0.01 * costs.frobenius).mean()
    >>> loss.backward()

    A field of (t, x, context) makes the density conditional, with one context for each sample:

    >>> flow = CNF(ConcatSquashField(2, width=16, context=3), base=2, divergence="hutchinson", per_sample=True)
    >>> flow.log_prob(x, torch.zeros(5, 3)).shape, flow.sample(7, torch.zeros(5, 3)).shape
    (torch.Size([5]), torch.Size([7, 5, 2]))
    """

    def __init__(
        self,
        field: Callable[..., Tensor],
        base: Any,
        t: Span = (0.0, 1.0),
        *,
        divergence: str | Divergence = "exact",
        args_dims: Any = 0,
        jitter: float = 0.0,
        method: Any = "tsit5",
        controller: Any = None,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        step_size: float | None = None,
        max_steps: int = 100_000,
        per_sample: bool = False,
        gradient: Any = "replay",
        engine: Any = "eager",
    ) -> None:
        super().__init__()
        if not callable(field):
            raise TypeError(f"field must be a Module or a function field(t, x, *args), not {type(field).__name__}.")
        if not isinstance(t, Sequence) or len(t) != 2:
            raise ValueError(f"t={t!r}; wanted two times, of the base and of the data.")
        start, end = map(float, t)
        if not (math.isfinite(start) and math.isfinite(end) and start != end):
            raise ValueError(f"t={t!r}; wanted two times that differ, of the base and of the data.")
        if not 0 <= jitter < abs(end - start):
            raise ValueError(f"jitter={jitter!r}; wanted at least 0 and less than the span of t, {abs(end - start):g}.")
        self.field, self.t = field, (start, end)
        self.base: Base = find_base(base)
        self.divergence = find_divergence(divergence)
        self.args_dims, self.jitter = args_dims, jitter
        self.method, self.controller, self.step_size = method, controller, step_size
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.per_sample, self.gradient, self.engine = per_sample, gradient, engine
        self.stats: Stats | None = None

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.base.event_shape

    def forward(self, z: Float[Tensor, "*batch *event"], *args: Any) -> Float[Tensor, "*batch *event"]:
        """Move samples of the base to the data; ``args`` are further arguments of the field."""
        return self._move(z, args, self.t)

    def inverse(self, x: Float[Tensor, "*batch *event"], *args: Any) -> Float[Tensor, "*batch *event"]:
        """Move data to the base; ``args`` are further arguments of the field."""
        return self._move(x, args, (self.t[1], self.t[0]))

    def forward_and_log_det(
        self, z: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Moved:
        """Move samples of the base to the data, with log |det ∂x/∂z|.

        Parameters
        ----------
        z : Tensor[*batch, *event]
            Samples of the base.
        *args
            Further arguments of the field.
        generator : torch.Generator, default=None
            The source of randomness of an estimated divergence.

        Returns
        -------
        Moved
            The moved samples and the log-determinant [*batch].
        """
        return Moved(*self._move_with_density(z, args, self.t, generator=generator)[:2])

    def inverse_and_log_det(
        self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Moved:
        """Move data to the base, with log |det ∂z/∂x|; parameters as in `forward_and_log_det`."""
        return Moved(*self._move_with_density(x, args, (self.t[1], self.t[0]), generator=generator)[:2])

    def log_prob(
        self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the log-density of data, in nats; parameters as in `forward_and_log_det`.

        With an estimated divergence it is an unbiased estimate of the log-density.
        """
        z, log_det, _ = self._move_with_density(x, args, self._span_to_base(generator), generator=generator)
        return self.base.log_prob(z) + log_det

    def costs(self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None) -> Costs:
        """Return the log-density of data and the costs of their paths; parameters as in `forward_and_log_det`."""
        span = self._span_to_base(generator)
        z, log_det, costs = self._move_with_density(x, args, span, generator=generator, with_costs=True)
        kinetic, frobenius = costs.unbind(-1)
        return Costs(self.base.log_prob(z) + log_det, kinetic, frobenius)

    def sample(
        self, shape: int | Sequence[int] = (), *args: Any, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*sample *batch *event"]:
        """Draw samples.

        Without their density they need one evaluation of the field where a density needs its derivatives as well.

        Parameters
        ----------
        shape : int or sequence of int, default=()
            How many samples, or the shape of the batch; for each row of ``args`` where there are any.
        *args
            Further arguments of the field.
        generator : torch.Generator, default=None
            The source of randomness.
        """
        return self.forward(self._sample_base(shape, args, generator), *args)

    def sample_with_log_prob(
        self, shape: int | Sequence[int] = (), *args: Any, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples and return their log-density from the same solve; both are differentiable."""
        z = self._sample_base(shape, args, generator)
        x, log_det = self.forward_and_log_det(z, *args, generator=generator)
        return x, self.base.log_prob(z) - log_det

    def transform(self, *args: Any) -> FlowTransform:
        """Return the map from base to data as a transform of `torch.distributions`."""
        return FlowTransform(self, args)

    def distribution(self, *args: Any) -> FlowDistribution:
        """Return the model as a distribution of torch; arguments with rows make a batch of distributions."""
        return FlowDistribution(self, args)

    def extra_repr(self) -> str:
        """Return the settings of the solver, for printing."""
        steps = f"rtol={self.rtol}, atol={self.atol}" if self.step_size is None else f"step_size={self.step_size}"
        return f"t={self.t}, divergence={self.divergence}, method={self.method!r}, {steps}, gradient={self.gradient!r}"

    def __getstate__(self) -> dict[str, Any]:
        # Counts belong to this object, not to its copies.
        return {**self.__dict__, "stats": None}

    def rows_of(self, args: tuple) -> list[Tensor | None]:
        """Return those of ``args`` that have one row for each sample, and None in place of the others."""
        return args_with_rows(args, self._dims(args))

    def _dims(self, args: tuple) -> tuple[int | None, ...]:
        return dims_of_args(self.args_dims, len(args))

    def _span_to_base(self, generator: torch.Generator | None) -> Span:
        """Return the times from the data to the base, with jitter in training."""
        start, end = self.t
        if self.jitter and self.training:
            device = torch.device("cpu") if generator is None else generator.device
            end += self.jitter * (2 * float(torch.rand((), generator=generator, device=device)) - 1)
        return end, start

    def _sample_base(self, shape: int | Sequence[int], args: tuple, generator: torch.Generator | None) -> Tensor:
        """Draw samples of the base for every row of args."""
        rows = next((arg.shape[:1] for arg in self.rows_of(args) if arg is not None), ())
        return sample_base(self.base, (*((shape,) if isinstance(shape, int) else shape), *rows), generator)

    def _move(self, x: Tensor, args: tuple, t: Span) -> Tensor:
        dims = self._dims(args)
        batch, rows, args = flatten_batch(x, self.event_shape, args=args, dims=dims)
        solution = self._solve(self.field, rows, t, args=args, args_dims=dims)
        return solution.y1.reshape(*batch, *self.event_shape)

    def _move_with_density(
        self, x: Tensor, args: tuple, t: Span, *, generator: torch.Generator | None, with_costs: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the moved samples, the log-determinant of the map [*batch], and the costs [*batch, 2]."""
        dims = self._dims(args)
        batch, rows, args = flatten_batch(x, self.event_shape, args=args, dims=dims)
        start = torch.tensor(t[0], dtype=rows.dtype, device=rows.device)
        if self.per_sample:
            start = start.expand(len(rows))
        inputs = (start, rows, args)
        drawn = self.divergence.draw(self.field, *inputs, generator)
        wide = torch.promote_types(rows.dtype, torch.float32)  # integrals add up many small numbers
        integrals = [rows.new_zeros(len(rows), count, dtype=wide) for count in ((1, 2) if with_costs else (1,))]
        solution = self._solve(self._rates, (rows, *integrals), t, args=(drawn, *args), args_dims=(1, *dims))
        end, log_det, *costs = solution.y1
        # costs are integrals along the path, whatever its direction in time
        cost = costs[0] * math.copysign(1.0, t[1] - t[0]) if costs else rows.new_zeros(len(rows), 2)
        return end.reshape(*batch, *self.event_shape), log_det.reshape(batch), cost.reshape(*batch, 2)

    def _rates(self, t: Tensor, state: tuple, drawn: tuple, *args: Any) -> tuple:
        """Return the slope of the state (x, log det) or (x, log det, costs)."""
        inputs = (t, state[0], args)
        rates = self.divergence.rates(self.field, *inputs, drawn)
        divergence = rates.divergence[:, None].to(state[1].dtype)
        if len(state) == 2:
            return rates.value, divergence
        kinetic = rates.value.square().flatten(1).sum(1)
        return rates.value, divergence, torch.stack((kinetic, rates.frobenius), 1).to(state[2].dtype)

    def _solve(self, f: Callable[..., Any], y0: Any, t: Span, *, args: tuple, args_dims: tuple) -> Solution:
        try:
            solution = solve(
                f, y0, t, args=args, args_dims=args_dims, method=self.method, controller=self.controller,
                rtol=self.rtol, atol=self.atol, step_size=self.step_size, max_steps=self.max_steps,
                per_sample=self.per_sample, gradient=self.gradient, engine=self.engine,
            )  # fmt: skip
        except RuntimeError as error:
            if "same dtype" not in str(error):
                raise
            raise TypeError(
                f"{error}: samples and field differ; wanted both alike, as flow.to(x.dtype) makes them."
            ) from error
        self.stats = solution.stats
        return solution
