"""The task `neuralode train physionet`: patients of intensive care, seen irregularly.

Mortality is the comparison of Rubanova et al. [1]_: sets a and b, times rounded to 6 minutes, four fifths of the
patients to learn from and the area under the ROC curve on the others. Of the four fifths we set an eighth aside to
choose the epoch by, so that the test patients are looked at once. For the other task see
`neuralode.tasks.physionet.interpolation`.

References
----------
.. [1] Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.callbacks import Callback
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_average_precision

from neuralode.core.registry import pick
from neuralode.data.physionet import Patients, physionet
from neuralode.nn import ODERNN, RNN, GRUDecay, LatentODE, Observations, Recurrent, SeriesNet
from neuralode.tasks.config import PhysioNet
from neuralode.tasks.physionet.interpolation import Interpolating, errors, latent_ode, on_unit_scale
from neuralode.tasks.physionet.plots import INTERPOLATION, MORTALITY, plot_roc
from neuralode.training.config_io import is_done
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.fit import FitOptions, fit
from neuralode.training.module import TrainingModule
from neuralode.training.modules.series_classification import SeriesClassificationData, SeriesClassificationModule
from neuralode.training.plots import HistoryPlot, plot_history
from neuralode.training.record_run import check_rate, course, into
from neuralode.training.run import Run, versions

SOLVER = ("method", "steps", "carry")  # fields of PhysioNet that only models with an ODE-RNN use
TEST, VALIDATION = 1 / 5, 1 / 8  # of all patients; of those that are not for the test
AT_ONCE = 400  # patients a batch where nothing is differentiated


class Rows(NamedTuple):
    """Which patients are for what."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class Aim:
    """What one of the two tasks does in its own way.

    Parameters
    ----------
    models : mapping
        Names, and how each is made of what was wanted, the channels and the covariates of the patients.
    scaled : callable
        Patients as the model sees them, given which are for training.
    taught : callable
        Lightning's view of a model.
    measured : callable
        Figures of a trained model on test patients; it may add pictures to the run.
    pictures : sequence of HistoryPlot
        Of the figures of each epoch.
    """

    models: Mapping[str, Callable[[PhysioNet, int, int], nn.Module]]
    scaled: Callable[[Patients, Tensor], Patients]
    taught: Callable[[PhysioNet, nn.Module], TrainingModule]
    measured: Callable[[nn.Module, Patients, Run], dict[str, float]]
    pictures: Sequence[HistoryPlot]


class CarryingODERNN(ODERNN):
    """An ODE-RNN that is shown the last value seen of a channel where there is none now, and which are of now.

    The area under the curve on test patients is 0.855 with it and 0.845 without (``carry=False``), as the mean of
    seeds 0, 1 and 2 and the other defaults.
    """

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Values, carried on from the last observation, and which of them there are."""
        values, _ = observed.carried()
        return torch.cat((values, observed.seen.to(values.dtype)), -1)


def train(
    wanted: PhysioNet,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train, keep the weights of the epoch that validates best, and measure them on the test patients once.

    Parameters
    ----------
    wanted : PhysioNet
        What to do.
    folder : Path
        Where the run goes; it must not hold one already, unless ``resume``.
    resume : bool
        Go on from the last checkpoint in ``folder``, or begin where there is none; a run that is finished is returned
        as it is.
    callbacks : sequence of Callback
        Lightning's: a progress bar, for one.
    tell : callable, optional
        Called with the figures of each epoch.

    Returns
    -------
    Run
        Its ``summary.json`` holds ``test_auroc`` and ``test_average_precision``, or the two ``test_error`` of an
        interpolation, and what the training took. Ctrl-C ends the training, not this function: the summary then says
        ``"interrupted": true``.
    """
    run = Run(folder)
    if resume and is_done(run, wanted, asked):
        return run
    check_rate(wanted.learning_rate)
    aim = pick("task", wanted.task, AIMS, Aim)
    make = pick("model", wanted.model, aim.models, type)
    patients = physionet(wanted.sets, wanted.every)
    rows = split(patients.died, wanted.seed)
    if wanted.batches is not None:
        rows = rows._replace(train=rows.train[: wanted.batches * wanted.batch_size])
    patients = aim.scaled(patients, rows.train)

    L.seed_everything(wanted.seed, workers=True, verbose=False)
    model = make(wanted, *sizes(patients))
    if not resume:
        Run.create(folder, _config(wanted, model))
    parts = [(patients.observed[some], patients.died[some].long()) for some in rows]
    fitted = fit(
        aim.taught(wanted, model),
        SeriesClassificationData(parts[0], parts[1], wanted.batch_size),
        FitOptions(wanted.epochs, wanted.patience, wanted.accelerator, wanted.devices, wanted.precision),
        **into(run, resume, callbacks, tell),
    )

    run.write_weights(model)
    plot_history(run.metrics, run.plots, aim.pictures)
    run.write_summary(  # the last of all: a run that has it is finished
        {
            **aim.measured(model.cpu().eval(), patients[rows.test], run),
            "patients": {name: len(some) for name, some in rows._asdict().items()},
            "seconds_per_epoch": round(float(np.median([row["seconds"] for row in run.metrics] or [0.0])), 3),
            **course(run, model, fitted),
        }
    )
    return run


def load(run: Run) -> tuple[nn.Module, Patients]:
    """Return the trained model of ``run``, and the test patients as it wants them."""
    wanted = asked(run)
    aim, patients = AIMS[wanted.task], physionet(wanted.sets, wanted.every)
    rows = split(patients.died, wanted.seed)
    limit = None if wanted.batches is None else wanted.batches * wanted.batch_size
    patients = aim.scaled(patients, rows.train[:limit])
    model = aim.models[wanted.model](wanted, *sizes(patients))
    run.read_weights(model)
    return model.eval(), patients[rows.test]


def asked(run: Run) -> PhysioNet:
    """Return what ``run`` was asked to do; `ValueError` where its config was damaged."""
    names, sections = {"model": "model"}, ("solver", "training")
    return read_asked(
        run, PhysioNet, tasks=("physionet",), command="neuralode train physionet", names=names, sections=sections
    )


def split(died: Bool[Tensor, " patients"], seed: int) -> Rows:
    """Deal patients out, so that in each part the same share has died.

    Examples
    --------
    >>> rows = split(torch.arange(400) % 10 == 0, seed=0)
    >>> [len(some) for some in rows], sorted(torch.cat(rows).tolist()) == list(range(400))
    ([280, 40, 80], True)
    """
    everyone = np.arange(len(died))
    rest, test = train_test_split(everyone, test_size=TEST, stratify=died.numpy(), random_state=seed)
    part, validation = train_test_split(rest, test_size=VALIDATION, stratify=died[rest].numpy(), random_state=seed)
    return Rows(*(torch.as_tensor(some) for some in (part, validation, test)))


def sizes(patients: Patients) -> tuple[int, int]:
    """Channels and static covariates."""
    static = patients.observed.static
    return patients.observed.channels, 0 if static is None else static.shape[1]


@torch.no_grad()
def chances(model: nn.Module, observed: Observations) -> Float[Tensor, " patients"]:
    """How likely the model holds each to die."""
    rows = torch.arange(len(observed)).split(AT_ONCE)
    return torch.cat([model(observed[some]).softmax(-1)[:, 1] for some in rows])


def _standardised(patients: Patients, train: Tensor) -> Patients:
    return patients.standardized(patients[train])


def _labelling(wanted: PhysioNet, model: nn.Module) -> TrainingModule:
    return SeriesClassificationModule(
        model, classes=2, learning_rate=wanted.learning_rate, weight_decay=wanted.weight_decay, by="auroc"
    )


def _discrimination(model: nn.Module, patients: Patients, run: Run) -> dict[str, float]:
    chance, died = chances(model, patients.observed), patients.died.long()
    figures = {"auroc": binary_auroc, "average_precision": binary_average_precision, "accuracy": binary_accuracy}
    found = {f"test_{name}": round(float(figure(chance, died)), 6) for name, figure in figures.items()}
    plot_roc(chance, died, run.plots)
    return {**found, "test_loss": round(float(nn.functional.binary_cross_entropy(chance, died.float())), 6)}


def _network(reader: Callable[[PhysioNet, int], Recurrent]) -> Callable[[PhysioNet, int, int], nn.Module]:
    def make(wanted: PhysioNet, channels: int, static: int) -> nn.Module:
        return SeriesNet(reader(wanted, channels), outputs=2, static=static, dropout=wanted.dropout)

    return make


def _odernn(wanted: PhysioNet, channels: int) -> Recurrent:
    kind = CarryingODERNN if wanted.carry else ODERNN
    return kind(channels, wanted.hidden, width=wanted.width, method=wanted.method, steps=wanted.steps)


def _latent_ode(wanted: PhysioNet, channels: int, static: int) -> nn.Module:
    return latent_ode(channels, wanted.latent, _odernn(wanted, channels), wanted.width)


def _unit(patients: Patients, train: Tensor) -> Patients:
    return replace(patients, observed=on_unit_scale(patients))


def _interpolating(wanted: PhysioNet, model: nn.Module) -> TrainingModule:
    assert isinstance(model, LatentODE)
    return Interpolating(model, learning_rate=wanted.learning_rate, weight_decay=wanted.weight_decay)


def _reconstruction(model: nn.Module, patients: Patients, run: Run) -> dict[str, float]:
    return errors(model, patients.observed)


AIMS: Mapping[str, Aim] = {
    "mortality": Aim(
        {
            "odernn": _network(_odernn),
            "gru-decay": _network(lambda wanted, channels: GRUDecay(channels, wanted.hidden)),
            "rnn": _network(lambda wanted, channels: RNN(channels, wanted.hidden)),
        },
        _standardised,
        _labelling,
        _discrimination,
        MORTALITY,
    ),
    "interpolation": Aim({"latent-ode": _latent_ode}, _unit, _interpolating, _reconstruction, INTERPOLATION),
}


def _config(wanted: PhysioNet, model: nn.Module) -> dict[str, Any]:
    asked = asdict(wanted)
    has_ode = any(isinstance(part, ODERNN) for part in model.modules())
    return {
        "task": "physionet",
        "model": asked.pop("model"),
        "solver": {name: asked.pop(name) for name in SOLVER} if has_ode else None,
        "training": {name: value for name, value in asked.items() if name not in SOLVER},
        "versions": versions("neuralode", "torch", "lightning", "torchmetrics", "pandas"),
    }
