"""Filling in the series of PhysioNet: read half of the times, explain all of them.

As in the published comparison [1]_: values lie between 0 and 1, channel by channel over all patients; half of each
patient's times, drawn anew each time, go to the recognition network, and the latent ODE is held against all. Its
errors are averaged over each channel of a patient before they are averaged over channels and patients, so that what is
measured each hour does not outweigh what is measured once.

The published 2.118e-3 are of 41 channels, age, gender, height and unit among them, of which we have 37. Ours with
``epochs=30, patience=30, learning_rate=1e-2, weight_decay=0`` are 2.80e-3 (seed 0); guessing the mean of what was read
of a channel has 3.41e-3.

References
----------
.. [1] Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from neuralode.data.physionet import SKEWED, Patients
from neuralode.nn import LatentODE, Likelihood, Observations, Recurrent
from neuralode.training.module import TrainingModule
from neuralode.training.modules.series_classification import Batch

DEVIATION = 0.01  # of a value from the decoded one: the published setting
AT_ONCE = 256  # patients a batch where nothing is differentiated


class Interpolating(TrainingModule):
    """Train a latent ODE to explain all of a series from half of it; validated by the error of its mean.

    Parameters
    ----------
    model : LatentODE
        What is trained.
    learning_rate, weight_decay
        Of `TrainingModule`.
    """

    def __init__(self, model: LatentODE, *, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__(learning_rate, weight_decay)
        self.model = model

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, _ = batch
        # the divergence joins in slowly: from the start, it would have z0 forget what was read
        read = observed.keeping(half(observed))
        loss = -bound(self.model, read, observed, kl_weight=1 - 0.99**self.global_step).mean()
        self.log_mean("train_loss", loss, len(observed))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, _ = batch
        read = observed.keeping(half(observed, torch.Generator().manual_seed(index)))  # the same in every epoch
        self.log("val_loss", squared(self.model, read, observed).mean(), on_epoch=True, batch_size=len(observed))


def latent_ode(channels: int, latent: int, reader: Recurrent, width: int) -> LatentODE:
    """The model: trajectories are smooth, so that a loose tolerance costs no accuracy that could be seen.

    Examples
    --------
    >>> from neuralode.nn import ODERNN
    >>> batch = Observations.gather([([0.0, 0.5, 1.0], [[0.1], [0.2], [0.3]])])
    >>> squared(latent_ode(1, 4, ODERNN(1, 8), width=8), batch, batch).shape
    torch.Size([1, 1])
    """
    likelihood = Likelihood(channels, scale=DEVIATION)
    return LatentODE(channels, latent, width=width, recognition=reader, likelihood=likelihood, rtol=1e-2, atol=1e-3)


def on_unit_scale(patients: Patients) -> Observations:
    """Values as measured, between 0 and 1 in each channel over all patients; without covariates."""
    observed = patients.observed
    skewed = torch.tensor([name in SKEWED for name in patients.channels])
    values = torch.where(skewed, observed.values.expm1(), observed.values)
    low = values.masked_fill(~observed.seen, torch.inf).amin((0, 1))
    high = values.masked_fill(~observed.seen, -torch.inf).amax((0, 1))
    unit = (values - low) / torch.where(high > low, high - low, 1)
    return replace(observed, values=torch.where(observed.seen, unit, 0), static=None)


def half(observed: Observations, generator: torch.Generator | None = None) -> Bool[Tensor, "series steps"]:
    """Which times to read: half of each series', at random; at least one.

    Examples
    --------
    >>> batch = Observations.gather([(range(5), [[1.0]] * 5), ([0.0], [[1.0]])])
    >>> half(batch).sum(1).tolist()
    [2, 1]
    """
    inside = observed.inside
    chance = torch.rand(inside.shape, generator=generator).to(inside.device).masked_fill(~inside, 2)
    rank = chance.argsort(1).argsort(1)
    return inside & (rank < (observed.lengths // 2).clamp(min=1)[:, None])


def bound(
    model: LatentODE, read: Observations, targets: Observations, *, kl_weight: float = 1.0
) -> Float[Tensor, " series"]:
    """The evidence lower bound as the published comparison weighs it: means over points, channels and latent numbers.

    `LatentODE.elbo` has sums instead; these would let heart rates outweigh all that is measured once a day.
    """
    posterior = model.encode(read)
    z, _ = model.follow(posterior.rsample(torch.Size((1,))), read.start, targets.times)
    log_prob = model.likelihood.log_prob(model.decode(z[0]), targets.values, targets.seen)
    prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    return by_channel(log_prob, targets.seen).mean(-1) - kl_weight * kl_divergence(posterior, prior).mean(-1)


def squared(model: LatentODE, read: Observations, targets: Observations) -> Float[Tensor, "series channels"]:
    """The mean squared error of each channel, decoded from the mean of q(z0 | x); 0 where nothing was seen."""
    return by_channel((decoded(model, read, targets) - targets.values).square(), targets.seen)


def decoded(model: LatentODE, read: Observations, targets: Observations) -> Float[Tensor, "series steps channels"]:
    """What the model expects at the times of ``targets``, from the mean of q(z0 | x)."""
    z, _ = model.follow(model.encode(read).mean[None], read.start, targets.times)
    return model.likelihood.mean(model.decode(z[0]))


def by_channel(
    values: Float[Tensor, "series steps channels"], seen: Bool[Tensor, "series steps channels"]
) -> Float[Tensor, "series channels"]:
    """The mean over what was seen; 0 where nothing was."""
    return torch.where(seen, values, 0).sum(1) / seen.sum(1).clamp(min=1)


@torch.no_grad()
def errors(model: nn.Module, observed: Observations) -> dict[str, float]:
    """Mean squared errors when half of the times are read.

    ``test_error`` is the published figure: of each channel of a patient, 0 where it was never seen, and then over all.
    ``test_error_seen`` leaves those out. ``test_error_value`` is over single values, ``test_error_unread`` over those
    at times that were not read. ``test_error_of_means``, for comparison, is the published figure of a guess that knows
    no time: the mean of what was read of a channel, or where nothing was, that of all patients.
    """
    assert isinstance(model, LatentODE)
    draw = torch.Generator().manual_seed(0)
    everyone = by_channel(observed.values, observed.seen).sum(0) / observed.seen.any(1).sum(0).clamp(min=1)
    tables, theres, values, unread, guesses = [], [], [], [], []
    for rows in torch.arange(len(observed)).split(AT_ONCE):
        part = observed[rows]
        chosen = half(part, draw)
        read = part.keeping(chosen)
        square = (decoded(model, read, part) - part.values).square()
        guess = torch.where(read.seen.any(1), by_channel(read.values, read.seen), everyone)[:, None]
        tables.append(by_channel(square, part.seen))
        theres.append(part.seen.any(1))
        values.append(square[part.seen])
        unread.append(square[part.seen & ~chosen[..., None]])
        guesses.append(by_channel((guess - part.values).square(), part.seen))
    table, there, guessed = torch.cat(tables), torch.cat(theres), torch.cat(guesses)
    found = {"": table, "_seen": table[there], "_value": torch.cat(values), "_unread": torch.cat(unread)}
    found["_of_means"] = guessed
    return {f"test_error{name}": float(f"{float(some.mean()):.6g}") for name, some in found.items()}
