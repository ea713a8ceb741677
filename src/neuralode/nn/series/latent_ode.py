"""Latent ODEs: series as decoded trajectories of a latent state with a random start.

A recognition network processes the observations backwards in time and gives q(z0 | x); an ODE moves z0 to any time; a
decoder gives p(x | z). The model is trained as a variational autoencoder.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 5.
.. [2] Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from neuralode.core.registry import pick
from neuralode.nn.mlp import MLPField, mlp
from neuralode.nn.series.elbo import Elbo, inconsistency
from neuralode.nn.series.likelihood import SCALE_MIN, Likelihood
from neuralode.nn.series.observations import Observations
from neuralode.nn.series.poisson_process import PoissonProcess
from neuralode.nn.series.recurrent import ODERNN, RNN, Recurrent
from neuralode.solver.solve import solve

RECOGNITION: dict[str, Callable[[int, int], Recurrent]] = {"rnn": RNN, "odernn": ODERNN}


class Trajectory(NamedTuple):
    """Latent states at some times of each series, and the expected number of events.

    Attributes
    ----------
    z : Tensor[samples, series, steps, latent]
        The states.
    expected : Tensor[samples, series, kinds] or None
        The expected number of events up to the last time; None without a process for events.
    """

    z: Float[Tensor, "samples series steps latent"]
    expected: Float[Tensor, "samples series kinds"] | None


class LatentODE(nn.Module):
    """A generative model of irregular series, with a neural ODE inside.

    Parameters
    ----------
    channels : int
        The number of channels of an observation.
    latent : int, default=6
        The size of z.
    hidden : int, default=32
        The size of the hidden state of the recognition network.
    width : int, default=32
        The size of the hidden layers of field, posterior and decoder.
    recognition : {"rnn", "odernn"} or Recurrent, default="rnn"
        The network that processes the observations backwards in time: the recurrent one of the paper, or an ODE-RNN.
    field : Module or callable, default=None
        ``f(t, z) -> dz/dt``; None is an MLP with one hidden layer.
    decoder : Module, default=None
        From z to the inputs of the likelihood; None is an MLP with one hidden layer.
    likelihood : Likelihood, default=None
        The distribution of an observation; None has Gaussian channels with one learned scale each.
    static : int, default=0
        The number of static covariates of a series, further inputs of the posterior.
    events : PoissonProcess, default=None
        Model the times of observations as well: a process with one kind of event for each channel.
    per_sample : bool, default=True
        Give each series its own clock, and evaluate it at its own times. False shares one clock over the union of their
        times: less work where these are few or the same.
    method : str, Tableau or method, default="tsit5"
        As in `neuralode.solve`, like the following.
    rtol : float, default=1e-3
        Relative tolerance.
    atol : float, default=1e-4
        Absolute tolerance.
    gradient : {"replay", "adjoint", "direct"} or gradient, default="replay"
        How derivatives are computed.

    Raises
    ------
    ValueError
        If sizes do not match.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> batch = Observations.gather([([0.0, 0.4, 1.0], [[0.0], [0.4], [0.8]]), ([0.0, 0.7], [[1.0], [0.6]])])
    >>> model = LatentODE(channels=1, latent=3)
    >>> model.elbo(batch, samples=2).loss.backward()
    >>> model.decode(model.follow(model.encode(batch).sample((5,)), batch.start, batch.times).z).shape
    torch.Size([5, 2, 3, 1])
    """

    def __init__(
        self,
        channels: int,
        latent: int = 6,
        *,
        hidden: int = 32,
        width: int = 32,
        recognition: str | Recurrent = "rnn",
        field: Callable[..., Tensor] | None = None,
        decoder: nn.Module | None = None,
        likelihood: Likelihood | None = None,
        static: int = 0,
        events: PoissonProcess | None = None,
        per_sample: bool = True,
        method: Any = "tsit5",
        rtol: float = 1e-3,
        atol: float = 1e-4,
        gradient: Any = "replay",
    ) -> None:
        super().__init__()
        if isinstance(recognition, Recurrent):
            self.recognition = recognition
        else:
            self.recognition = pick("recognition", recognition, RECOGNITION, kind=Recurrent)(channels, hidden)
        self.likelihood = likelihood or Likelihood(channels)
        if self.likelihood.channels != channels:
            raise ValueError(
                f"likelihood has {self.likelihood.channels} channels, observations {channels}; wanted as many."
            )
        if events is not None and events.kinds != channels:
            raise ValueError(f"events has {events.kinds} kinds, observations {channels} channels; wanted as many.")
        self.channels, self.latent, self.static = channels, latent, static
        self.posterior = mlp(self.recognition.hidden + 1 + static, width, 2 * latent)
        self.field = field or MLPField(latent, width)
        self.decoder = decoder or mlp(latent, width, self.likelihood.outputs)
        self.events = events
        self.per_sample = per_sample
        self.method, self.rtol, self.atol, self.gradient = method, rtol, atol, gradient

    def encode(self, observed: Observations) -> Normal:
        """Return q(z0 | x), a diagonal Gaussian over [series, latent]; z0 is the state at ``start`` of each series."""
        self._check(observed)
        return self._posterior_at_start(observed, self.recognition(observed.reversed()))

    def encode_later(self, observed: Observations) -> Normal:
        """Return q(z(t) | observations from t on) at each observation, over [series, steps, latent].

        The recognition network runs backwards in time and depends on differences of times only. Its state at an
        observation is therefore what it would compute for a series that begins there, so that one pass encodes all of
        them. Entries after the end of a series are meaningless.

        Examples
        --------
        >>> batch = Observations.gather([([0.0, 0.4, 1.0], [[0.0], [0.4], [0.8]]), ([0.0, 0.7], [[1.0], [0.6]])])
        >>> model = LatentODE(channels=1, latent=3)
        >>> torch.allclose(model.encode_later(batch).mean[:, 0], model.encode(batch).mean)
        True
        """
        self._check(observed)
        return self._posterior_at_observations(observed, self._recognition_states(observed))

    def follow(
        self,
        z0: Float[Tensor, "samples series latent"],
        start: Float64[Tensor, " series"],
        times: Float64[Tensor, "series steps"],
    ) -> Trajectory:
        """Move z0 from ``start`` to the times of each series in one solve.

        Parameters
        ----------
        z0 : Tensor[samples, series, latent]
            Initial states.
        start : Float64Tensor[series]
            The time of the initial states.
        times : Float64Tensor[series, steps]
            Output times, not before ``start``.

        Returns
        -------
        Trajectory
            The states at these times.

        Raises
        ------
        ValueError
            If series with a shared clock start at different times.

        Examples
        --------
        >>> model = LatentODE(channels=1, latent=3)
        >>> start, times = torch.zeros(2, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64).sort(1).values
        >>> model.follow(torch.zeros(7, 2, 3), start, times).z.shape
        torch.Size([7, 2, 5, 3])
        """
        samples, series = z0.shape[:2]
        field, state = self.field, z0.flatten(0, 1)
        if self.events is not None:
            field, state = self.events.along(field), self.events.begin(state)
        t, place = self._output_times(start, times, samples)
        solution = solve(
            field, state, t, method=self.method, rtol=self.rtol, atol=self.atol, gradient=self.gradient,
            per_sample=self.per_sample,
        )  # fmt: skip
        z, expected = solution.ys if self.events is not None else (solution.ys, None)
        rows = torch.arange(samples * series, device=place.device)[:, None]
        shape = (samples, series, -1, self.latent)
        if expected is not None:
            expected = expected[place[:, -1], rows[:, 0]].unflatten(0, (samples, series))
        return Trajectory(z[place, rows].view(shape), expected)

    def decode(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "... outputs"]:
        """Return the inputs of `likelihood`."""
        return self.decoder(z)

    def elbo(
        self,
        observed: Observations,
        targets: Observations | None = None,
        *,
        samples: int = 1,
        kl_weight: float = 1.0,
        consistency: float = 0.0,
        within: Bool[Tensor, "series steps"] | None = None,
    ) -> Elbo:
        """Return the evidence lower bound.

        Parameters
        ----------
        observed : Observations
            The input of the recognition network.
        targets : Observations, default=None
            The observations to explain; None is ``observed``. They may have further times in between (interpolation) or
            later ones (extrapolation).
        samples : int, default=1
            Samples of z0 for each series.
        kl_weight : float, default=1.0
            The weight of the divergence in the loss, below 1 while it is annealed.
        consistency : float, default=0.0
            The weight of ``inconsistency`` in the loss, a penalty for systems that do not depend on absolute time. The
            prior constrains the state at the start of a series; the flow is learned as far as observations reach; a
            forecast beyond them leaves the region that was learned. The penalty makes the trajectory pass through the
            states of `encode_later`, so that later states resemble initial ones.
        within : BoolTensor[series, steps], default=None
            The observations at which the penalty applies; None is all. The last ones of a series give poor encodings.

        Returns
        -------
        Elbo
            The loss and its parts.

        Raises
        ------
        ValueError
            If ``observed`` and ``targets`` differ in series or channels, or do not match the model.
        """
        targets = observed if targets is None else targets
        self._check(observed)
        if targets.values.shape[::2] != observed.values.shape[::2]:
            raise ValueError(
                f"targets has {len(targets)} series of {targets.channels} channels, observed {len(observed)} of "
                f"{observed.channels}; wanted as many."
            )
        states = self._recognition_states(observed) if consistency else None
        posterior = self.encode(observed) if states is None else self._posterior_at_start(observed, states[:, 0])
        z0 = posterior.rsample(torch.Size((samples,)))
        if states is None:
            z, expected = self.follow(z0, observed.start, targets.times)
            distance = torch.zeros_like(posterior.mean[:, 0])
        else:
            z, z_observed, expected = self._follow_both(z0, observed, targets)
            later = self._posterior_at_observations(observed, states)
            distance = inconsistency(z_observed, later, observed.inside if within is None else within)
        log_likelihood = self.likelihood.log_prob(self.decode(z), targets.values, targets.seen).sum((-2, -1)).mean(0)
        if self.events is not None:
            assert expected is not None
            log_likelihood = log_likelihood + self.events.log_prob(z, targets.seen, expected).mean(0)
        prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
        kl = kl_divergence(posterior, prior).sum(-1)
        loss = (kl_weight * kl + consistency * distance - log_likelihood).mean()
        return Elbo(loss, log_likelihood=log_likelihood, kl=kl, inconsistency=distance)

    def _output_times(self, start: Tensor, times: Tensor, samples: int) -> tuple[Tensor, Int64[Tensor, "rows steps"]]:
        """Return the output times of the solve, and which of them belong to each row (samples · series)."""
        clock = torch.cat((start[:, None], times), 1)
        if self.per_sample:
            clock = clock.repeat(samples, 1)
            place = torch.arange(1, clock.shape[1], device=clock.device)
            return clock, place.expand(len(clock), -1)
        union, place = torch.unique(clock, return_inverse=True)
        if bool((start != union[0]).any()):
            raise ValueError(
                "the series start at different times, which one clock cannot serve; wanted per_sample=True."
            )
        return union, place[:, 1:].repeat(samples, 1)

    def _follow_both(
        self, z0: Tensor, observed: Observations, targets: Observations
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return states at the targets, states at the observations, and expected events, from one solve."""
        times, order = torch.cat((targets.times, observed.times), 1).sort(stable=True, dim=1)
        z, expected = self.follow(z0, observed.start, times)
        z = z.gather(2, order.argsort(1)[None, :, :, None].expand_as(z))
        at_targets, at_observed = z.split((targets.times.shape[1], observed.times.shape[1]), 2)
        return at_targets, at_observed, expected

    def _recognition_states(self, observed: Observations) -> Float[Tensor, "series steps hidden"]:
        """Return the hidden state of the recognition network at each observation, in the order of the series."""
        states = self.recognition.states(observed.reversed())
        steps = torch.arange(states.shape[1], device=states.device)
        place = (observed.lengths[:, None] - 1 - steps).clamp(min=0)
        return states.gather(1, place[..., None].expand_as(states))

    def _posterior_at_start(self, observed: Observations, hidden: Float[Tensor, "series hidden"]) -> Normal:
        """Return q(z0 | x) from the hidden state at the first observation."""
        first = observed.times[:, 0]
        hidden = self.recognition.between(hidden, first, observed.start)
        return self._posterior(observed, hidden, first - observed.start)

    def _posterior_at_observations(self, observed: Observations, hidden: Tensor) -> Normal:
        """Return q(z(t) | observations from t on) from the hidden states at all observations."""
        return self._posterior(observed, hidden, torch.zeros_like(observed.times))

    def _posterior(self, observed: Observations, hidden: Tensor, since: Tensor) -> Normal:
        parts = [hidden, since[..., None].to(hidden.dtype)]
        if self.static:
            assert observed.static is not None
            static = observed.static if hidden.dim() == 2 else observed.static[:, None]
            parts.append(static.expand(*hidden.shape[:-1], -1))
        mean, raw = self.posterior(torch.cat(parts, -1)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw) + SCALE_MIN)

    def _check(self, observed: Observations) -> None:
        if observed.channels != self.channels:
            raise ValueError(f"observed has {observed.channels} channels, the model {self.channels}; wanted as many.")
        covariates = 0 if observed.static is None else observed.static.shape[1]
        if covariates != self.static:
            raise ValueError(
                f"observed has {covariates} static covariates, the model takes {self.static}; wanted as many."
            )
