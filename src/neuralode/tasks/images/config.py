"""Options of `neuralode train digits`, `mnist` and `fashion-mnist`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

# Options of the solver, which a model without an ODE does not use.
SOLVER = ("gradient", "method", "rtol", "atol", "step_size", "engine")


@dataclass(frozen=True)
class ImagesConfig:
    """Options of a training on images.

    Parameters
    ----------
    data : str, default="digits"
        Name of the data set: a key of `neuralode.tasks.images.data.IMAGE_SETS`.
    model : str, default="odenet"
        One of `neuralode.nn.MODELS`.
    gradient : str, default=None
        As in `neuralode.solve`. None uses the default of the model.
    method : str, default="tsit5"
        As in `neuralode.solve`.
    rtol : float, default=1e-3
        As in `neuralode.solve`.
    atol : float, default=None
        As in `neuralode.solve`. None uses ``rtol``.
    step_size : float, default=None
        As in `neuralode.solve`.
    engine : str, default="eager"
        As in `neuralode.solve`.
    seed : int, default=0
        Seed of the split, the initial weights and the batches.
    epochs : int, default=20
        Maximum number of epochs.
    batch_size : int, default=64
        Images per step.
    learning_rate : float, default=5e-3
        Maximum of the one-cycle schedule.
    patience : int, default=10
        Stop after this many epochs without a lower validation loss.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    accelerator : str, default="auto"
        As in `lightning.Trainer`.
    devices : str, default="auto"
        As in `lightning.Trainer`.
    channels_last : bool, default=False
        Use the channels-last memory format.
    batches : int, default=None
        Maximum number of batches per epoch, for quick trials.
    checkpoint_every : int, default=None
        Steps between checkpoints. None writes one about every ten seconds.
    """

    data: str = "digits"
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
    channels_last: bool = False
    batches: int | None = None
    checkpoint_every: int | None = None


# At the paper's tolerance, bosh3 needs the fewest evaluations on feature maps for the same error.
_MNIST = ImagesConfig(data="mnist", method="bosh3", epochs=10, batch_size=128)

# Defaults by data set. Each is a command: a new data set needs an entry here and one in data.py.
DEFAULTS: Mapping[str, ImagesConfig] = {
    "digits": ImagesConfig(),
    "mnist": _MNIST,
    "fashion-mnist": replace(_MNIST, data="fashion-mnist"),
}
RUN_TASKS = tuple(DEFAULTS)  # entry "task" of the config.json of such runs
SUMMARIES: Mapping[str, str] = {
    "digits": "scikit-learn's 1,797 handwritten digits",
    "mnist": "MNIST's 70,000 handwritten digits",
    "fashion-mnist": "Fashion-MNIST's 70,000 images of clothes",
}
