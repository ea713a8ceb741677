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
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from neuralode.nn.likelihood import SCALE_MIN, Likelihood
from neuralode.nn.mlp import MLPField, mlp
from neuralode.nn.observations import Observations
from neuralode.nn.poisson import PoissonProcess
from neuralode.nn.recurrent import ODERNN, RNN, Recurrent
from neuralode.registry import pick
from neuralode.solving import solve

RECOGNITION: dict[str, type[Recurrent]] = {"rnn": RNN, "odernn": ODERNN}


class Elbo(NamedTuple):
    """The evidence lower bound of each series, in its parts.

    Attributes
    ----------
    loss : Tensor
        What to minimise: minus the mean over series of ``log_likelihood - kl_weight * kl``.
    log_likelihood, kl : Tensor[series]
        Log-probability of what was seen, averaged over samples of z0; divergence of q(z0 | x) from the prior.
    """

    loss: Tensor
    log_likelihood: Float[Tensor, " series"]
    kl: Float[Tensor, " series"]


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
        read = self.recognition(observed.reversed())
        first = observed.times[:, 0]
        read = self.recognition.between(read, first, observed.start)
        parts = [read, (first - observed.start)[:, None].to(read.dtype)]
        if self.static:
            assert observed.static is not None
            parts.append(observed.static)
        mean, raw = self.posterior(torch.cat(parts, -1)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw) + SCALE_MIN)

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
    ) -> Elbo:
        """The evidence lower bound.

        Parameters
        ----------
        observed : Observations
            What the recognition network sees.
        targets : Observations, optional
            What is to be explained, ``observed`` itself unless given: further points in between (interpolation) or
            beyond (extrapolation).
        samples : int
            Of z0 for each series.
        kl_weight : float
            Weight of the divergence in the loss: below 1 while it is annealed.
        """
        targets = observed if targets is None else targets
        posterior = self.encode(observed)
        z0 = posterior.rsample(torch.Size((samples,)))
        z, expected = self.follow(z0, observed.start, targets.times)
        log_likelihood = self.likelihood.log_prob(self.decode(z), targets.values, targets.seen).sum((-2, -1)).mean(0)
        if self.events is not None:
            assert expected is not None
            log_likelihood = log_likelihood + self.events.log_prob(z, targets.seen, expected).mean(0)
        prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
        kl = kl_divergence(posterior, prior).sum(-1)
        return Elbo((kl_weight * kl - log_likelihood).mean(), log_likelihood, kl)

    def _check(self, observed: Observations) -> None:
        if observed.channels != self.channels:
            raise ValueError(f"observed has {observed.channels} channels, the model {self.channels}; wanted as many.")
        covariates = 0 if observed.static is None else observed.static.shape[1]
        if covariates != self.static:
            raise ValueError(
                f"observed has {covariates} static covariates, the model takes {self.static}; wanted as many."
            )
