"""Latent ODEs: time series as decoded trajectories that start from a random state.

A recognition network reads the observations backwards in time and gives q(z0 | x); an ODE carries z0 to any time; a
decoder gives p(x | z). Trained as a variational autoencoder.

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
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from neuralode.core.registry import pick
from neuralode.nn.mlp import MLPField, mlp
from neuralode.nn.series.likelihood import SCALE_MIN, Likelihood
from neuralode.nn.series.observations import Observations
from neuralode.nn.series.poisson import PoissonProcess
from neuralode.nn.series.recurrent import ODERNN, RNN, Recurrent
from neuralode.solver.solve import solve

# In units of the prior: where `LatentODE.elbo` asks for consistency, states nearer than this are as good as the same.
SLACK = 0.1

RECOGNITION: dict[str, Callable[[int, int], Recurrent]] = {"rnn": RNN, "odernn": ODERNN}


class Elbo(NamedTuple):
    """The evidence lower bound of each series, in its parts.

    Attributes
    ----------
    loss : Tensor
        What to minimise: minus the mean over series of ``log_likelihood - kl_weight * kl``.
    log_likelihood, kl : Tensor[series]
        Log-probability of what was seen, averaged over samples of z0; divergence of q(z0 | x) from the prior.
    inconsistency : Tensor[series]
        How far trajectories pass from where later observations alone put them; 0 where it was not asked for.
    """

    loss: Tensor
    log_likelihood: Float[Tensor, " series"]
    kl: Float[Tensor, " series"]
    inconsistency: Float[Tensor, " series"]


class Trajectory(NamedTuple):
    """Latent states at some times of each series, and what the head counts."""

    z: Float[Tensor, "samples series steps latent"]
    expected: Float[Tensor, "samples series kinds"] | None  # events up to the last time


class LatentODE(nn.Module):
    """A generative model of irregular series with a neural ODE inside.

    Parameters
    ----------
    channels : int
        Of an observation.
    latent : int
        Numbers in z.
    hidden, width : int
        Of the recognition network's state; of the hidden layers of field and decoder.
    recognition : {"rnn", "odernn"} or Recurrent
        What reads the observations, backwards in time: the paper's recurrent network, or an ODE-RNN.
    field : Module or callable, optional
        ``f(t, z)``; an MLP of one hidden layer unless given.
    decoder : Module, optional
        From z to the numbers that the likelihood wants; an MLP of one hidden layer unless given.
    likelihood : Likelihood, optional
        What those numbers mean; Gaussian channels with a learned scale each unless given.
    static : int
        Covariates of a series, which the recognition network sees and z0 carries on from.
    events : PoissonProcess, optional
        Take the times of observations, too, as data: a head with one kind a channel.
    per_sample : bool
        Each series has its own clock, and is evaluated at its own times. Without, all share one that passes over the
        union of their times: less work where these are the same, or few.
    method, rtol, atol, gradient
        As in `neuralode.solve`.

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
            self.recognition = pick("recognition", recognition, RECOGNITION, Recurrent)(channels, hidden)
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
        """q(z0 | x): a diagonal Gaussian over [series, latent], z0 being the state at each series' ``start``."""
        self._check(observed)
        return self._first(observed, self.recognition(observed.reversed()))

    def encode_later(self, observed: Observations) -> Normal:
        """q(z(t) | x from t on) at each observation: [series, steps, latent]; of no use behind the end of a series.

        The recognition network reads backwards in time, and knows times by their differences: what it holds on its way
        is what it would have read of a series that begins there. So one pass encodes all of them.

        Examples
        --------
        >>> batch = Observations.gather([([0.0, 0.4, 1.0], [[0.0], [0.4], [0.8]]), ([0.0, 0.7], [[1.0], [0.6]])])
        >>> model = LatentODE(channels=1, latent=3)
        >>> torch.allclose(model.encode_later(batch).mean[:, 0], model.encode(batch).mean)
        True
        """
        self._check(observed)
        return self._later(observed, self._states(observed))

    def follow(
        self,
        z0: Float[Tensor, "samples series latent"],
        start: Float64[Tensor, " series"],
        times: Float64[Tensor, "series steps"],
    ) -> Trajectory:
        """Carry z0 from ``start`` to the times of each series, which must not lie before it, in one solve.

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
        if self.per_sample:
            clock = torch.cat((start[:, None], times), 1).repeat(samples, 1)
            place = torch.arange(1, clock.shape[1], device=clock.device).expand(samples * series, -1)
        else:
            clock, place = torch.unique(torch.cat((start[:, None], times), 1), return_inverse=True)
            if bool((start != clock[0]).any()):
                raise ValueError(
                    "the series start at different times, which one clock cannot serve; wanted per_sample=True."
                )
            place = place[:, 1:].repeat(samples, 1)
        solution = solve(
            field, state, clock, method=self.method, rtol=self.rtol, atol=self.atol, gradient=self.gradient,
            per_sample=self.per_sample,
        )  # fmt: skip
        z, expected = solution.ys if self.events is not None else (solution.ys, None)
        rows = torch.arange(samples * series, device=place.device)[:, None]
        shape = (samples, series, -1)
        if expected is not None:
            expected = expected[place[:, -1], rows[:, 0]].unflatten(0, (samples, series))
        return Trajectory(z[place, rows].view(*shape, self.latent), expected)

    def decode(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "... outputs"]:
        """The numbers that `likelihood` makes a distribution of."""
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
        """The evidence lower bound.

        Parameters
        ----------
        observed : Observations
            What the recognition network sees.
        targets : Observations, optional
            What is to be explained, ``observed`` itself unless given: further points in between (interpolation) or
            beyond (extrapolation). It reaches as far as ``observed``.
        samples : int
            Of z0 for each series.
        kl_weight : float
            Weight of the divergence in the loss: below 1 while it is annealed.
        consistency : float
            Weight of ``inconsistency`` in the loss. The prior says what a state looks like at the start of a series;
            where the flow takes it is learned as far as observations reach, and a forecast beyond leaves that region
            unless it comes back to it. With a weight, a state may look at any time as it may at the start: the
            trajectory is to pass through what `encode_later` makes of the observations from there on. For systems that
            do not depend on absolute time.
        within : BoolTensor[series, steps], optional
            At which of ``observed`` that is asked; at all unless given. Few remaining observations say little.
        """
        targets = observed if targets is None else targets
        self._check(observed)
        if targets.values.shape[::2] != observed.values.shape[::2]:
            raise ValueError(
                f"targets has {len(targets)} series of {targets.channels} channels, observed {len(observed)} of "
                f"{observed.channels}; wanted as many."
            )
        states = self._states(observed) if consistency else None
        posterior = self.encode(observed) if states is None else self._first(observed, states[:, 0])
        z0 = posterior.rsample(torch.Size((samples,)))
        apart = torch.zeros_like(posterior.mean[:, 0])
        if states is None:
            z, expected = self.follow(z0, observed.start, targets.times)
        else:
            both, order = torch.cat((targets.times, observed.times), 1).sort(stable=True, dim=1)
            z, expected = self.follow(z0, observed.start, both)
            z = z.gather(2, order.argsort(1)[None, :, :, None].expand_as(z))
            z, passed = z.split((targets.times.shape[1], observed.times.shape[1]), 2)
            apart = self._apart(passed, self._later(observed, states), observed.inside if within is None else within)
        log_likelihood = self.likelihood.log_prob(self.decode(z), targets.values, targets.seen).sum((-2, -1)).mean(0)
        if self.events is not None:
            assert expected is not None
            log_likelihood = log_likelihood + self.events.log_prob(z, targets.seen, expected).mean(0)
        prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
        kl = kl_divergence(posterior, prior).sum(-1)
        loss = (kl_weight * kl + consistency * apart - log_likelihood).mean()
        return Elbo(loss, log_likelihood, kl, apart)

    def _states(self, observed: Observations) -> Float[Tensor, "series steps hidden"]:
        """What the recognition network holds once it has read back to each observation."""
        states = self.recognition.states(observed.reversed())
        steps = torch.arange(states.shape[1], device=states.device)
        place = (observed.lengths[:, None] - 1 - steps).clamp(min=0)
        return states.gather(1, place[..., None].expand_as(states))

    def _first(self, observed: Observations, read: Float[Tensor, "series hidden"]) -> Normal:
        """q(z0 | x), from what was read back to the first observation."""
        first = observed.times[:, 0]
        read = self.recognition.between(read, first, observed.start)
        return self._posterior(observed, read, first - observed.start)

    def _later(self, observed: Observations, states: Float[Tensor, "series steps hidden"]) -> Normal:
        return self._posterior(observed, states, torch.zeros_like(observed.times))

    def _posterior(self, observed: Observations, read: Tensor, since: Tensor) -> Normal:
        parts = [read, since[..., None].to(read.dtype)]
        if self.static:
            assert observed.static is not None
            static = observed.static if read.dim() == 2 else observed.static[:, None]
            parts.append(static.expand(*read.shape[:-1], -1))
        mean, raw = self.posterior(torch.cat(parts, -1)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw) + SCALE_MIN)

    @staticmethod
    def _apart(z: Float[Tensor, "samples series steps latent"], later: Normal, within: Tensor) -> Tensor:
        # The width is a unit of measurement here and not to be learned: else it would grow, or all states shrink, to
        # please. It has a floor, or a posterior that becomes narrow early would rule the loss.
        width = (later.scale.detach() ** 2 + SLACK**2).sqrt()
        square = ((z - later.mean) / width).square().sum(-1).mean(0)
        return torch.where(within, square, 0).sum(1) / within.sum(1).clamp(min=1)

    def _check(self, observed: Observations) -> None:
        if observed.channels != self.channels:
            raise ValueError(f"observed has {observed.channels} channels, the model {self.channels}; wanted as many.")
        covariates = 0 if observed.static is None else observed.static.shape[1]
        if covariates != self.static:
            raise ValueError(
                f"observed has {covariates} static covariates, the model takes {self.static}; wanted as many."
            )
