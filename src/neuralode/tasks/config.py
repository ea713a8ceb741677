"""What a run is asked to do, and the defaults: kept apart so that ``--help`` need not load Lightning."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Fields of Images that say how an ODE is solved; data, model and seed aside, the others say how it is trained.
SOLVER = ("gradient", "method", "rtol", "atol", "step_size", "engine")


@dataclass(frozen=True)
class Images:
    """What a run on images is asked to do; every field is an option of the command.

    Parameters
    ----------
    data : {"digits", "mnist", "fashion-mnist"}
        The images.
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
    channels_last : bool
        Keep the channels of a pixel together in memory.
    batches : int, optional
        At most so many batches an epoch: for trying things out.
    checkpoint_every : int, optional
        Steps of the optimizer from one checkpoint to the next; as many as ten seconds have, unless given.
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


# What each set of images is trained with unless told otherwise. At the paper's tolerance bosh3 takes the fewest
# evaluations on feature maps, for the same error.
DIGITS = Images()
MNIST = Images(data="mnist", method="bosh3", epochs=10, batch_size=128)
FASHION_MNIST = replace(MNIST, data="fashion-mnist")


@dataclass(frozen=True)
class PhysioNet:
    """What a run on PhysioNet 2012 is asked to do.

    Parameters
    ----------
    task : {"mortality", "interpolation"}
        Say who dies in hospital, or fill in a series of which half the times were read.
    model : str
        "odernn", "gru-decay" or "rnn" for mortality; "latent-ode" for interpolation.
    method, steps
        Of the ODE between observations: how it is solved, in how many equal steps.
    carry : bool
        Show the ODE-RNN the last value seen of a channel where there is none now; else 0.
    sets, every
        As in `neuralode.data.physionet.physionet`; as they stand, those of the published comparisons.
    seed : int
        Of the split, the first weights and the order of the batches.
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    hidden, width, latent
        Numbers in the state of what reads; in the hidden layers of its fields; in the state of the latent ODE.
    dropout : float
        Before and behind the layer that names the outcome.
    patience : int
        Epochs without a better validation after which it stops.
    precision, accelerator, devices
        Lightning's flags.
    batches : int, optional
        At most so many batches an epoch, the same ones each time: for trying things out.
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


# What each task of PhysioNet's is asked to do unless told otherwise.
MORTALITY = PhysioNet()
INTERPOLATION = PhysioNet(
    task="interpolation", model="latent-ode", epochs=30, patience=30, learning_rate=1e-2, weight_decay=0.0
)


@dataclass(frozen=True)
class Spirals:
    """What a run on the paper's spirals is asked to do.

    Parameters
    ----------
    observed : int
        Points kept of the 100 of each window: 30, 50 or 100 in the paper.
    model : {"latent-ode", "rnn"}
        A latent ODE, or a recurrent network that is told how far each point is from the one before.
    method, rtol, atol, gradient
        As in `neuralode.solve`; a recurrent network has no use for them.
    seed : int
        Of the series, the first weights and the batches.
    series : int
        To learn from, a tenth of which validates.
    last : int
        The last point of a curve at which a window to learn from begins. At 400 windows cover the curves; at 300, where
        the windows end that are tested, no series shows the last fifth of a curve.
    epochs, batches, batch_size, learning_rate
        Of the training: each epoch has so many batches.
    latent, hidden, width : int
        Numbers in the state of the latent ODE; in that of what reads; in hidden layers.
    consistency : float
        Weight of the consistency of states in time: see `neuralode.nn.LatentODE.elbo`.
    shorter : float
        Share of the batches in which only a part of each window is read and what follows in it is to be explained.
    precision, accelerator, devices
        Lightning's flags.
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


@dataclass(frozen=True)
class Series:
    """What `neuralode fit` is asked to do.

    Parameters
    ----------
    data : str
        The table, a .csv, .tsv or .parquet file.
    series, time : str, optional
        Columns that tell series apart, and times.
    values : tuple of str, optional
        Columns of measurements; all others unless given.
    window, latent, recognition, learning_rate, batch_size, patience, holdout, refit
        As in `neuralode.LatentODEForecaster`.
    epochs : int
        At most, of the first stage.
    seed : int
        Of all that is random.
    accelerator : str
        Lightning's.
    """

    data: str
    series: str | None = None
    time: str | None = None
    values: tuple[str, ...] | None = None
    window: int | None = None
    latent: int | None = None
    recognition: str = "odernn"
    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-2
    patience: int = 25
    holdout: float = 0.2
    refit: bool = True
    seed: int = 0
    accelerator: str = "cpu"


@dataclass(frozen=True)
class Density:
    """What a run that fits a density to the rows of a table is asked to do.

    Parameters
    ----------
    data : str
        The table, a .csv, .tsv or .parquet file; or one of `neuralode.data.densities.DENSITIES`, to draw rows from.
    columns : tuple of str, optional
        Those to model; all unless given.
    rows : int
        How many to draw, where data are drawn.
    width, layers, divergence, kinetic, frobenius, jitter, method, rtol, step_size, gradient, spread
        As in `neuralode.CNFDensity`.
    seed : int
        Of the rows drawn, the split, the first weights and the batches.
    epochs, batch_size, learning_rate, weight_decay, patience
        Of the training: as in `neuralode.CNFDensity`, where ``epochs`` is ``max_epochs``.
    precision, accelerator, devices
        Lightning's flags.
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


@dataclass(frozen=True)
class Matching:
    """What a run of flow matching is asked to do.

    Parameters
    ----------
    data : str
        "digits", or one of `neuralode.data.densities.DENSITIES`.
    path : {"linear", "variance-preserving", "cosine"}
        From noise to data.
    coupling : {"independent", "optimal-transport"}
        How noise and data are paired, within each batch.
    grid, steps, method
        How samples are drawn, as in `neuralode.nn.flows.sample`.
    guidance : float
        How far past the class samples are led, where there are classes; 1 is as it was taught.
    dropped : float
        Share of the classes that are dropped in training, which guidance wants.
    seed : int
        Of the data, the first weights and the batches.
    epochs, batches, batch_size, learning_rate
        Of the training: each epoch has so many batches.
    averaged : float
        Share of the running mean of weights that a step leaves as it is.
    width, layers : int
        Numbers in a hidden layer, and how many residual layers.
    precision, accelerator, devices
        Lightning's flags.
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


# What each kind of data is asked for unless told otherwise.
MATCHING_POINTS = Matching()
MATCHING_IMAGES = Matching(data="digits", batch_size=128, width=256)
