"""Options of `neuralode train matching`."""

from __future__ import annotations

from dataclasses import dataclass

RUN_TASKS = ("matching",)  # entry "task" of the config.json of such runs


@dataclass(frozen=True)
class FlowMatchingConfig:
    """Options of a training by flow matching.

    Parameters
    ----------
    data : str, default="moons"
        "digits", or one of `neuralode.data.densities.DENSITIES`.
    path : {"linear", "variance-preserving", "cosine"}, default="linear"
        Path from noise to data.
    coupling : {"independent", "optimal-transport"}, default="independent"
        Pairing of noise and data within a batch.
    grid : str, default="uniform"
        As in `neuralode.nn.flows.sample`.
    steps : int, default=50
        As in `neuralode.nn.flows.sample`.
    method : str, default=None
        As in `neuralode.nn.flows.sample`.
    guidance : float, default=1.0
        Guidance weight of samples with a class; 1 is no guidance.
    dropped : float, default=0.1
        Fraction of the labels that are dropped in training, which guidance needs.
    seed : int, default=0
        Seed of the data, the initial weights and the batches.
    epochs : int, default=30
        Number of epochs.
    batches : int, default=100
        Batches per epoch.
    batch_size : int, default=256
        Examples per step.
    learning_rate : float, default=2e-3
        Initial learning rate.
    averaged : float, default=0.999
        Decay of the exponential moving average of the weights.
    width : int, default=128
        Width of the hidden layers.
    layers : int, default=3
        Number of residual layers.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    devices : str, default="1"
        As in `lightning.Trainer`.
    """

    data: str = "moons"
    path: str = "linear"
    coupling: str = "independent"
    grid: str = "uniform"
    steps: int = 50
    method: str | None = None
    guidance: float = 1.0
    dropped: float = 0.1
    seed: int = 0
    epochs: int = 30
    batches: int = 100
    batch_size: int = 256
    learning_rate: float = 2e-3
    averaged: float = 0.999
    width: int = 128
    layers: int = 3
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: str = "1"


# Defaults for points of the plane and for images.
POINTS = FlowMatchingConfig()
IMAGES = FlowMatchingConfig(data="digits", batch_size=128, width=256)
