"""Options of `neuralode train density`."""

from __future__ import annotations

from dataclasses import dataclass

RUN_TASKS = ("density",)  # entry "task" of the config.json of such runs


@dataclass(frozen=True)
class DensityConfig:
    """Options of a training on table rows.

    Parameters
    ----------
    data : str
        A .csv, .tsv or .parquet file; or one of `neuralode.data.densities.DENSITIES`, from which rows are drawn.
    columns : tuple of str, default=None
        Columns to model. None models all.
    rows : int, default=10_000
        Number of rows to draw, if ``data`` is the name of a density.
    width, layers, divergence, kinetic, frobenius, jitter, method, rtol, step_size, gradient, spread
        As in `neuralode.CNFDensity`.
    seed : int, default=0
        Seed of the rows that are drawn, the split, the initial weights and the batches.
    epochs : int, default=50
        Maximum number of epochs.
    batch_size : int, default=256
        Rows per step.
    learning_rate : float, default=1e-2
        Initial learning rate.
    weight_decay : float, default=1e-2
        As in `torch.optim.AdamW`.
    patience : int, default=20
        Stop after this many epochs without a lower validation loss.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    devices : str, default="1"
        As in `lightning.Trainer`.
    """

    data: str
    columns: tuple[str, ...] | None = None
    rows: int = 10_000
    width: int = 64
    layers: int = 2
    divergence: str | None = None
    kinetic: float | None = None
    frobenius: float | None = None
    jitter: float = 0.0
    method: str = "tsit5"
    rtol: float = 1e-3
    step_size: float | None = None
    gradient: str = "replay"
    spread: bool = True
    seed: int = 0
    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    patience: int = 20
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: str = "1"
