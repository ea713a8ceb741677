"""What a run is asked to do, and the defaults: kept apart so that ``--help`` need not load Lightning."""

from __future__ import annotations

from dataclasses import dataclass

# Fields of Digits that say how an ODE is solved; the model and the seed aside, the others say how it is trained.
SOLVER = ("gradient", "method", "rtol", "atol", "step_size", "engine")


@dataclass(frozen=True)
class Digits:
    """What a run on digits is asked to do; every field is an option of the command.

    Parameters
    ----------
    model : str
        One of `neuralode.nn.MODELS`.
    gradient, method, rtol, atol, step_size, engine
        As in `neuralode.solve`. ``gradient`` left out is the model's own; ``atol`` left out is ``rtol``. A model
        without an ODE has no use for them.
    seed : int
        Of the split, the first weights and the order of the batches.
    epochs, batch_size, learning_rate
        Of the training.
    patience : int
        Epochs without a lower validation loss after which it stops.
    precision, accelerator, devices
        Lightning's flags.
    batches : int, optional
        At most so many batches an epoch: for trying things out.
    """

    model: str = "odenet"
    gradient: str | None = None
    method: str = "tsit5"
    rtol: float = 1e-3
    atol: float | None = None
    step_size: float | None = None
    engine: str = "eager"
    seed: int = 0
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 5e-3
    patience: int = 10
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: str = "auto"
    batches: int | None = None
