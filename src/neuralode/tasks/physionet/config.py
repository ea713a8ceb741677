"""Options of `neuralode train physionet`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RUN_TASKS = ("physionet",)  # entry "task" of the config.json of such runs
SOLVER = ("method", "steps", "carry")  # options that only models with an ODE-RNN use


@dataclass(frozen=True)
class PhysioNetConfig:
    """Options of a training on PhysioNet 2012.

    Parameters
    ----------
    task : {"mortality", "interpolation"}, default="mortality"
        Predict in-hospital mortality, or reconstruct a series from half of its times.
    model : str, default="odernn"
        "odernn", "gru-decay" or "rnn" for mortality; "latent-ode" for interpolation.
    method : str, default="euler"
        Solver method of the ODE between observations.
    steps : int, default=1
        Steps between observations.
    carry : bool, default=True
        Where a channel is not observed, the ODE-RNN receives its last value; else 0.
    sets : str, default="ab"
        As in `neuralode.data.physionet.physionet`; the default is that of the published comparisons.
    every : int, default=6
        As in `neuralode.data.physionet.physionet`; the default is that of the published comparisons.
    seed : int, default=0
        Seed of the split, the initial weights and the batches.
    epochs : int, default=8
        Maximum number of epochs.
    batch_size : int, default=64
        Patients per step.
    learning_rate : float, default=3e-3
        Initial learning rate.
    weight_decay : float, default=1e-2
        As in `torch.optim.AdamW`.
    hidden : int, default=40
        Dimension of the hidden state of the recurrent network.
    width : int, default=50
        Width of the hidden layers of the fields.
    latent : int, default=20
        Dimension of the state of the latent ODE.
    dropout : float, default=0.3
        Dropout before and after the last hidden layer.
    patience : int, default=8
        Stop after this many epochs without a better validation score.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    devices : str, default="1"
        As in `lightning.Trainer`.
    batches : int, default=None
        Maximum number of batches per epoch, the same ones in each epoch, for quick trials.
    """

    task: str = "mortality"
    model: str = "odernn"
    method: str = "euler"
    steps: int = 1
    carry: bool = True
    sets: str = "ab"
    every: int = 6
    seed: int = 0
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    hidden: int = 40
    width: int = 50
    latent: int = 20
    dropout: float = 0.3
    patience: int = 8
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: str = "1"
    batches: int | None = None


# Defaults by task.
DEFAULTS: Mapping[str, PhysioNetConfig] = {
    "mortality": PhysioNetConfig(),
    "interpolation": PhysioNetConfig(
        task="interpolation", model="latent-ode", epochs=30, patience=30, learning_rate=1e-2, weight_decay=0.0
    ),
}
