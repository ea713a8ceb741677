"""Options of `neuralode train spirals`."""

from __future__ import annotations

from dataclasses import dataclass

RUN_TASKS = ("spirals",)  # entry "task" of the config.json of such runs
SOLVER = ("method", "rtol", "atol", "gradient")  # options of the solver, which a recurrent network does not use


@dataclass(frozen=True)
class SpiralsConfig:
    """Options of a training on the paper's spirals.

    Parameters
    ----------
    observed : int, default=100
        Points observed of the 100 in each window: 30, 50 or 100 in the paper.
    model : {"latent-ode", "rnn"}, default="latent-ode"
        A latent ODE, or a recurrent network that receives the time between points.
    method : str, default="tsit5"
        As in `neuralode.solve`.
    rtol : float, default=1e-3
        As in `neuralode.solve`.
    atol : float, default=1e-3
        As in `neuralode.solve`.
    gradient : str, default="replay"
        As in `neuralode.solve`.
    seed : int, default=0
        Seed of the series, the initial weights and the batches.
    series : int, default=1000
        Number of series for training and validation; a tenth of them validates.
    last : int, default=400
        Last point of a curve at which a training window starts. Windows cover the whole curve at 400. At 300, where the
        last test windows start, no training window covers the last fifth.
    epochs : int, default=45
        Number of epochs.
    batches : int, default=100
        Batches per epoch.
    batch_size : int, default=125
        Series per step.
    learning_rate : float, default=1e-2
        Maximum of the one-cycle schedule.
    latent : int, default=4
        Dimension of the latent state.
    hidden : int, default=40
        Dimension of the hidden state of the recurrent network.
    width : int, default=64
        Width of the hidden layers.
    consistency : float, default=1.0
        Weight of the consistency of latent states over time: see `neuralode.nn.LatentODE.elbo`.
    shorter : float, default=0.5
        Fraction of the batches in which only a part of each window is encoded, and what follows is explained.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    devices : str, default="1"
        As in `lightning.Trainer`.
    """

    observed: int = 100
    model: str = "latent-ode"
    method: str = "tsit5"
    rtol: float = 1e-3
    atol: float = 1e-3
    gradient: str = "replay"
    seed: int = 0
    series: int = 1000
    last: int = 400
    epochs: int = 45
    batches: int = 100
    batch_size: int = 125
    learning_rate: float = 1e-2
    latent: int = 4
    hidden: int = 40
    width: int = 64
    consistency: float = 1.0
    shorter: float = 0.5
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: str = "1"
