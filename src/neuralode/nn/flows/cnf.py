r"""Continuous normalizing flows: densities that an ordinary differential equation carries from simple to complicated.

A sample z of a base distribution moves along dx/dt = f(t, x) and is a sample of the model where it arrives. Its
log-density changes by d log p / dt = −∇·f on the way, so that both come from one solve (Chen, Rubanova, Bettencourt &
Duvenaud, *Neural Ordinary Differential Equations*, 2018, section 4; Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud,
*FFJORD*, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.flows.base_distribution import Base, Moved, draw, find_base
from neuralode.nn.flows.distribution import FlowDistribution, FlowTransform
from neuralode.nn.flows.divergence import Divergence, find_divergence
from neuralode.solver.solve import solve

if TYPE_CHECKING:
    from neuralode.core.solution import Stats


class Costs(NamedTuple):
    """A log-density, and what its path costs.

    Attributes
    ----------
    log_prob : Tensor[*batch]
        Of the samples.
    kinetic : Tensor[*batch]
        ∫ |f|² dt along their paths.
    frobenius : Tensor[*batch]
        ∫ ‖∂f/∂x‖² dt along their paths (Frobenius norm).
    """

    log_prob: Tensor
    kinetic: Tensor
    frobenius: Tensor


class CNF(nn.Module):
    """A continuous normalizing flow: ``log_prob`` of what was seen, and ``sample`` of what might be.

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt``, for x of shape [batch, *event]; rows must not depend on each other. One that
        declares ``jvp`` (as those of `neuralode.nn.flows` do) is cheaper to take the divergence of.
    base : int, shape, or distribution
        Where samples start: a shape stands for the standard normal distribution. A distribution of torch has whole
        samples as its event, and no batch of its own; it stays where it is when the flow is moved or cast.
    t : tuple of float, default (0.0, 1.0)
        From the base to the data.
    divergence : {"exact", "hutchinson", "hutch++"} or Exact, Hutchinson, HutchPlusPlus
        How the divergence of the field is taken.
    args_dims : int, None or tuple of these, default 0
        Which of ``args`` have a row for each sample (0), and which are the same for all (None).
    jitter : float, default 0
        In training, t of the data is drawn from within so far of its own for each batch, which keeps paths simple
        (Ghosh et al., *STEER*, 2020).
    method, controller, rtol, atol, step_size, max_steps, per_sample, gradient, engine
        As in `neuralode.solve`. Plain attributes, which may be changed at any time.

    Attributes
    ----------
    stats : Stats or None
        What the last solve took.

    Examples
    --------
    >>> from neuralode.nn.flows import ConcatSquashField
    >>> flow = CNF(ConcatSquashField(2, width=16), base=2)
    >>> x = flow.sample(5)
    >>> x.shape, flow.log_prob(x).shape
    (torch.Size([5, 2]), torch.Size([5]))

    Train it by maximum likelihood, with paths kept straight and smooth as in Finlay et al., *How to train your neural
    ODE*, 2020:

    >>> costs = flow.costs(x)
    >>> loss = (-costs.log_prob + 0.01 * costs.kinetic + 0.01 * costs.frobenius).mean()
    >>> loss.backward()

    A field of (t, x, context) makes the density conditional: a context for each sample.

    >>> flow = CNF(ConcatSquashField(2, width=16, context=3), base=2, divergence="hutchinson", per_sample=True)
    >>> flow.log_prob(x, torch.zeros(5, 3)).shape, flow.sample(7, torch.zeros(5, 3)).shape
    (torch.Size([5]), torch.Size([7, 5, 2]))
    """

    def __init__(
        self,
        field: Callable[..., Tensor],
        base: Any,
        t: tuple[float, float] = (0.0, 1.0),
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
        """Of one sample."""
        return self.base.event_shape

    def forward(self, z: Float[Tensor, "*batch *event"], *args: Any) -> Float[Tensor, "*batch *event"]:
        """Carry samples of the base to the data."""
        return self._carry(z, args, self.t)

    def inverse(self, x: Float[Tensor, "*batch *event"], *args: Any) -> Float[Tensor, "*batch *event"]:
        """Carry data back to the base."""
        return self._carry(x, args, (self.t[1], self.t[0]))

    def forward_and_log_det(
        self, z: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Moved:
        """Carry samples of the base to the data, with log |det ∂x/∂z|.

        Parameters
        ----------
        z : Tensor[*batch, *event]
            Samples of the base.
        *args
            Of the field.
        generator : torch.Generator, optional
            Draws what an estimate of the divergence needs.
        """
        return Moved(*self._follow(z, args, self.t, generator)[:2])

    def inverse_and_log_det(
        self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Moved:
        """Carry data back to the base, with log |det ∂z/∂x|; parameters as in `forward_and_log_det`."""
        return Moved(*self._follow(x, args, (self.t[1], self.t[0]), generator)[:2])

    def log_prob(
        self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """The log-density of data, in nats a sample; parameters as in `forward_and_log_det`.

        An estimated divergence makes it an estimate, unbiased for the log-density.
        """
        z, log_det, _ = self._follow(x, args, self._back(generator), generator)
        return self.base.log_prob(z) + log_det

    def costs(self, x: Float[Tensor, "*batch *event"], *args: Any, generator: torch.Generator | None = None) -> Costs:
        """The log-density of data and what their paths cost, for training; parameters as in `forward_and_log_det`."""
        z, log_det, costs = self._follow(x, args, self._back(generator), generator, with_costs=True)
        kinetic, frobenius = costs.unbind(-1)
        return Costs(self.base.log_prob(z) + log_det, kinetic, frobenius)

    def sample(
        self, shape: int | Sequence[int] = (), *args: Any, generator: torch.Generator | None = None
    ) -> Float[Tensor, "*sample *batch *event"]:
        """Draw samples: so many, or of such a shape; for each row of ``args`` where there are any.

        Without their density they cost one evaluation of the field where a density needs its derivatives as well.
        """
        return self.forward(self._draw(shape, args, generator), *args)

    def sample_with_log_prob(
        self, shape: int | Sequence[int] = (), *args: Any, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples, with their log-density from the same solve; both are differentiable."""
        z = self._draw(shape, args, generator)
        x, log_det = self.forward_and_log_det(z, *args, generator=generator)
        return x, self.base.log_prob(z) - log_det

    def transform(self, *args: Any) -> FlowTransform:
        """The map from base to data for `torch.distributions.TransformedDistribution` and its like."""
        return FlowTransform(self, args)

    def distribution(self, *args: Any) -> FlowDistribution:
        """The model as a distribution of torch; args with rows make a batch of distributions."""
        return FlowDistribution(self, args)

    def extra_repr(self) -> str:
        """Say how it solves: printed among its parts."""
        steps = f"rtol={self.rtol}, atol={self.atol}" if self.step_size is None else f"step_size={self.step_size}"
        return f"t={self.t}, divergence={self.divergence}, method={self.method!r}, {steps}, gradient={self.gradient!r}"

    def __getstate__(self) -> dict[str, Any]:
        # The last solve belongs to this object, not to its copies.
        return {**self.__dict__, "stats": None}

    def rows_of(self, args: tuple) -> list[Tensor | None]:
        """Those of ``args`` that have a row for each sample; None in the place of the others."""
        dims = self._dims(args)
        for place, (arg, dim) in enumerate(zip(args, dims, strict=True)):
            if dim is not None and not (isinstance(arg, Tensor) and arg.dim()):
                raise ValueError(
                    f"args[{place}] is a {type(arg).__name__}; wanted a tensor with a row for each sample, or "
                    "args_dims=None for what all samples share."
                )
        return [arg if dim is not None else None for arg, dim in zip(args, dims, strict=True)]

    def _dims(self, args: tuple) -> tuple:
        asked = self.args_dims
        dims = (asked,) * len(args) if asked is None or isinstance(asked, int) else tuple(asked)
        if len(dims) != len(args) or any(dim not in (0, None) for dim in dims):
            raise ValueError(f"args_dims={self.args_dims!r} for {len(args)} args; wanted 0 or None for each.")
        return dims

    def _back(self, generator: torch.Generator | None) -> tuple[float, float]:
        """From the data to the base; from near the data where training has jitter."""
        start, end = self.t
        if self.jitter and self.training:
            device = torch.device("cpu") if generator is None else generator.device
            end += self.jitter * (2 * float(torch.rand((), generator=generator, device=device)) - 1)
        return end, start

    def _draw(self, shape: int | Sequence[int], args: tuple, generator: torch.Generator | None) -> Tensor:
        """Samples of the base, for every row of args."""
        rows = next((arg.shape[:1] for arg in self.rows_of(args) if arg is not None), ())
        return draw(self.base, (*((shape,) if isinstance(shape, int) else shape), *rows), generator)

    def _carry(self, x: Tensor, args: tuple, t: tuple[float, float]) -> Tensor:
        batch, rows, args = self._in_rows(x, args)
        solution = self._solve(self.field, rows, t, args, self._dims(args))
        return solution.y1.reshape(*batch, *self.event_shape)

    def _follow(
        self, x: Tensor, args: tuple, t: tuple[float, float], generator: Any, with_costs: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where x arrives, the logarithm of the determinant of that map, and the costs [*batch, 2]."""
        batch, rows, args = self._in_rows(x, args)
        start = torch.tensor(t[0], dtype=rows.dtype, device=rows.device)
        if self.per_sample:
            start = start.expand(len(rows))
        drawn = self.divergence.draw(self.field, start, rows, args, generator)
        wide = torch.promote_types(rows.dtype, torch.float32)  # integrals of many small numbers
        integrals = [rows.new_zeros(len(rows), count, dtype=wide) for count in ((1, 2) if with_costs else (1,))]
        state = (rows, *integrals)
        solution = self._solve(self._rates, state, t, (drawn, *args), (1, *self._dims(args)))
        end, log_det, *costs = solution.y1
        # costs are integrals over the way, whichever way it is gone
        cost = costs[0] * math.copysign(1.0, t[1] - t[0]) if costs else rows.new_zeros(len(rows), 2)
        return end.reshape(*batch, *self.event_shape), log_det.reshape(batch), cost.reshape(*batch, 2)

    def _rates(self, t: Tensor, state: tuple, drawn: tuple, *args: Any) -> tuple:
        """How a state (x, log det) changes, or (x, log det, costs)."""
        rates = self.divergence.rates(self.field, t, state[0], args, drawn)
        thinning = rates.divergence[:, None].to(state[1].dtype)
        if len(state) == 2:
            return rates.value, thinning
        kinetic = rates.value.square().flatten(1).sum(1)
        return rates.value, thinning, torch.stack((kinetic, rates.frobenius), 1).to(state[2].dtype)

    def _solve(self, f: Any, state: Any, t: tuple[float, float], args: tuple, dims: tuple) -> Any:
        try:
            solution = solve(
                f, state, t, args=args, args_dims=dims, method=self.method, controller=self.controller, rtol=self.rtol,
                atol=self.atol, step_size=self.step_size, max_steps=self.max_steps, per_sample=self.per_sample,
                gradient=self.gradient, engine=self.engine,
            )  # fmt: skip
        except RuntimeError as error:
            if "same dtype" not in str(error):
                raise
            raise TypeError(
                f"{error}: samples and field differ; wanted both alike, as flow.to(x.dtype) makes them."
            ) from error
        self.stats = solution.stats
        return solution

    def _in_rows(self, x: Tensor, args: tuple) -> tuple[torch.Size, Tensor, tuple]:
        """Samples as [rows, *event], with args alike; and the shape of the batch they came in."""
        event = self.event_shape
        if not isinstance(x, Tensor):
            raise TypeError(f"x is a {type(x).__name__}; wanted a tensor of samples [batch, {_listed(event)}].")
        if x.shape[x.dim() - len(event) :] != event or x.dim() < len(event):
            raise ValueError(f"x has shape {list(x.shape)}; wanted samples [{_listed(event)}] as its last axes.")
        if not x.is_floating_point():
            raise TypeError(f"x has dtype {x.dtype}; wanted floating samples, as x.float() gives.")
        batch = x.shape[: x.dim() - len(event)]
        own = self.rows_of(args)
        if not batch and (count := next((len(arg) for arg in own if arg is not None), None)) is not None:
            batch = torch.Size((count,))  # one sample, under each of the conditions
        rows, spread = x.expand(*batch, *event).reshape(batch.numel(), *event), []
        for place, (arg, row) in enumerate(zip(args, own, strict=True)):
            if row is not None and len(row) != batch[-1]:
                raise ValueError(
                    f"args[{place}] has {len(row)} rows for x of shape {list(x.shape)}; wanted a row for each of the "
                    f"{batch[-1]} samples along the last axis of their batch, or args_dims=None for what all share."
                )
            spread.append(
                arg if row is None else row.expand(*batch[:-1], *row.shape).reshape(batch.numel(), *row.shape[1:])
            )
        return batch, rows, tuple(spread)


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
