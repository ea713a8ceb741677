"""Predictions of a latent ODE: draws from the posterior given some observations, and from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from neuralode.nn import LatentODE, Observations
from neuralode.training.modules.forecasting import Pair

BATCH_TRAJECTORIES = 8192  # that are solved at once


class Draws(NamedTuple):
    """Draws for one series, both arrays [samples, times, channels].

    Attributes
    ----------
    means : array
        Means of the observations along each trajectory.
    values : array
        Observations drawn around each trajectory.
    """

    means: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Query:
    """Observations of one series to read, and target times to predict from them.

    Attributes
    ----------
    series : int
        Index of the series.
    context : slice
        The observations to read.
    targets : array of int
        Indices of the targets among all targets of the series.
    """

    series: int
    context: slice
    targets: np.ndarray


@torch.no_grad()
def predict(
    model: LatentODE,
    series: Sequence[Pair],
    targets: Sequence[np.ndarray],
    *,
    context: int,
    samples: int,
    seed: int,
    growth: np.ndarray | float = 0.0,
) -> list[Draws]:
    """Draw predictions for each series at its target times, on the scales of the model.

    Parameters
    ----------
    model : LatentODE
        The trained network, in double precision.
    series : sequence of (times, values)
        The observations.
    targets : sequence of arrays
        Target times of each series.
    context : int
        Maximum number of observations that a prediction reads.
    samples : int
        Number of trajectories.
    seed : int
        Seed of the draws. All series use the same random numbers, so that the predictions for a series do not depend
        on the other series.
    growth : array [channels] or float, default=0.0
        Rate of channels that the model sees on a logarithmic scale: their values grow as exp(growth · x). Means are
        corrected for the convexity: the mean at m with standard deviation s is that at m + growth · s² / 2.

    Returns
    -------
    list of Draws
        The draws for each series.
    """
    shapes = [(samples, len(times), model.channels) for times in targets]
    draws = [Draws(np.zeros(shape), np.zeros(shape)) for shape in shapes]
    queries = sorted(plan_queries(series, targets, context), key=lambda query: len(query.targets))
    size = max(1, BATCH_TRAJECTORIES // samples)
    for batch in (queries[first : first + size] for first in range(0, len(queries), size)):
        contexts = [(series[q.series][0][q.context], series[q.series][1][q.context]) for q in batch]
        orders = [q.targets[np.argsort(targets[q.series][q.targets], kind="stable")] for q in batch]
        since_start = [
            targets[q.series][order] - times[0] for q, order, (times, _) in zip(batch, orders, contexts, strict=True)
        ]
        decoded = _decode(model, contexts, since_start, samples=samples, seed=seed)
        for row, (q, order) in enumerate(zip(batch, orders, strict=True)):
            outputs = decoded[:, row, : len(order)]
            deviation = model.likelihood.spread(outputs).numpy()
            means, values = draws[q.series]
            means[:, order] = model.likelihood.mean(outputs).numpy() + growth * deviation**2 / 2
            values[:, order] = model.likelihood.sample(outputs, _generator(seed + 1)).numpy()
    return draws


@torch.no_grad()
def sample_prior(model: LatentODE, count: int, times: np.ndarray, *, seed: int) -> np.ndarray:
    """Draw ``count`` new series with z0 from the prior at time 0, as an array [count, times, channels]."""
    generator = _generator(seed)
    z0 = torch.randn(1, count, model.latent, generator=generator, dtype=torch.float64)
    clock = torch.as_tensor(times, dtype=torch.float64).expand(count, -1)
    z = model.follow(z0, torch.zeros(count, dtype=torch.float64), clock).z
    return model.likelihood.sample(model.decode(z), generator)[0].numpy()


def plan_queries(series: Sequence[Pair], targets: Sequence[np.ndarray], context: int) -> list[Query]:
    """Choose the observations to read for each target, at most ``context`` of them.

    A target beyond the last observation is predicted from the last observations. A target within the series is
    predicted from observations on both sides of it, as far as the ends of the series allow.

    Examples
    --------
    >>> t = np.arange(10.0)
    >>> queries = plan_queries([(t, t[:, None])], [np.array([0.5, 9.5])], context=4)
    >>> [(query.context, query.targets.tolist()) for query in queries]
    [(slice(0, 4, None), [0]), (slice(6, 10, None), [1])]
    """
    queries = []
    for index, ((times, _), at) in enumerate(zip(series, targets, strict=True)):
        stride = max(1, context // 4)
        latest = max(0, len(times) - context)
        centred = np.searchsorted(times, at, side="right") - context // 2
        starts = np.clip(centred // stride * stride, 0, latest)
        starts = np.where(at > times[-1], latest, starts)
        queries += [
            Query(index, slice(int(start), int(start) + context), np.flatnonzero(starts == start))
            for start in np.unique(starts)
        ]
    return queries


def _decode(
    model: LatentODE, contexts: Sequence[Pair], targets: Sequence[np.ndarray], *, samples: int, seed: int
) -> torch.Tensor:
    """Return the decoder's outputs [samples, queries, targets, outputs]; shorter targets are padded with the last."""
    observed = Observations.gather([(t - t[0], x) for t, x in contexts], start=0.0, dtype=torch.float64)
    longest = max(map(len, targets))
    times = torch.stack([torch.tensor(np.pad(t, (0, longest - len(t)), mode="edge")) for t in targets])
    posterior = model.encode(observed)
    noise = torch.randn(samples, 1, model.latent, generator=_generator(seed), dtype=torch.float64)
    z0 = posterior.mean + posterior.stddev * noise
    return model.decode(model.follow(z0, observed.start, times).z)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
