"""The interface between a task and the runner, and a base class for tasks that train one Lightning module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from neuralode.training.config_io import is_done
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.history import History, OnEpoch
from neuralode.training.plots import HistoryPlot, plot_history
from neuralode.training.run import Run

# Lightning callbacks: the same for all stages of a training, or a function from the name of a stage to its callbacks.
Callbacks = Sequence[Callback] | Callable[[str], Sequence[Callback]]


@dataclass(frozen=True)
class FitSession:
    """How `Task.fit` runs.

    Parameters
    ----------
    resume : bool, default=False
        Resume from the newest checkpoint of the run, or start from the beginning if there is none.
    callbacks : sequence of Callback, or callable, default=()
        Lightning callbacks, or a function from the name of a stage to its callbacks.
    on_epoch : callable, default=None
        Called with the metrics of each epoch. None shows Lightning's progress bar instead.
    """

    resume: bool = False
    callbacks: Callbacks = ()
    on_epoch: OnEpoch | None = None

    def callbacks_of(self, stage: str) -> Sequence[Callback]:
        """Return the callbacks of a stage."""
        return self.callbacks(stage) if callable(self.callbacks) else self.callbacks


class TrainingConfig(Protocol):
    """Fields that every config has."""

    @property
    def seed(self) -> int:
        """Seed of everything that is random."""
        ...

    @property
    def epochs(self) -> int:
        """Maximum number of epochs."""
        ...

    @property
    def learning_rate(self) -> float:
        """Initial or highest learning rate."""
        ...


ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


class Task(Protocol[ConfigT]):
    """A kind of training that `neuralode.tasks.runner.train` can run.

    An instance is one training that is ready to start. The runner calls the members in the order below.
    """

    run_tasks: ClassVar[Sequence[str]]
    """Values of the entry ``task`` in the ``config.json`` of runs of this kind. No other task may use them."""

    command: ClassVar[str]
    """Command that makes such runs, such as ``"neuralode train spirals"``; for messages."""

    @classmethod
    def load_config(cls, run: Run) -> ConfigT:
        """Return the config of a run.

        The inverse of `describe`, also for runs of earlier versions. Called by commands before `prepare`, to resume.

        Raises
        ------
        ValueError
            If the run is of another task, or its ``config.json`` is invalid.
        """
        ...

    @classmethod
    def is_done(cls, run: Run, config: ConfigT) -> bool:
        """Return whether ``run`` is finished, so that resuming it would do nothing; warn if so.

        Called only to resume. If True, nothing else is called and the run is left unchanged.
        """
        ...

    @classmethod
    def prepare(cls, config: ConfigT) -> Self:
        """Check the config, load the data and build the model.

        Must refuse everything that is invalid, since nothing has been written yet, and must seed the global random
        generators before it uses them, so that the same config gives the same training. Must not write files.

        Raises
        ------
        ValueError, TypeError, OSError
            With one sentence that says what is wrong, what is expected and what to do.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return the content of ``config.json``: a JSON object with ``task``, ``model``, options and versions."""
        ...

    def check_run(self, run: Run) -> None:
        """Raise `ValueError` if ``run`` cannot be resumed with this task, for example since its data have changed.

        Called only to resume, before anything is trained.
        """
        ...

    def fit(self, run: Run, session: FitSession) -> FitResult:
        """Train, and leave the task with the weights to keep.

        Must write checkpoints to ``run.checkpoints``, from which ``session.resume`` continues to the same weights, and
        one row per epoch to ``run.metrics``. Ctrl-C must end the training, not the process.
        """
        ...

    def save(self, run: Run) -> None:
        """Write the trained model to the run. Called in one process only, if several train together."""
        ...

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:
        """Evaluate on test data and return the content of ``summary.json``.

        The result must be a JSON object with at least ``interrupted`` (bool) and ``parameters``, ``epochs`` (int) and
        ``seconds`` (float). May write tables to the run. Called in all processes, if several train together.
        """
        ...

    def plot(self, run: Run) -> None:
        """Write the figures to ``run.plots``. Called in one process only."""
        ...

    def finish(self, run: Run, result: FitResult) -> None:
        """Clean up once ``summary.json`` is written. Called in one process only."""
        ...


@dataclass(frozen=True, eq=False)
class LightningTask(ABC, Generic[ConfigT]):
    """Base class of tasks that train one Lightning module.

    A subclass provides ``run_tasks``, ``command``, ``history_plots``, `load_config`, `prepare`, `describe` and
    `evaluate`; see `Task` for their contracts.

    Parameters
    ----------
    config : dataclass
        Options of the training.
    module : LightningModule
        Module to train; it logs ``val_loss``, see `neuralode.training.module.TrainingModule`.
    data : LightningDataModule
        Training and validation batches. Use `neuralode.training.resumable_loader.ResumableLoader` for the former.
    options : FitOptions
        Number of epochs, device and the like.
    """

    config: ConfigT
    module: L.LightningModule
    data: L.LightningDataModule
    options: FitOptions

    run_tasks: ClassVar[Sequence[str]]
    command: ClassVar[str]
    history_plots: ClassVar[Sequence[HistoryPlot]]
    """Metrics to plot over epochs."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """Network whose weights are saved: the module itself or a part of it."""

    @classmethod
    @abstractmethod
    def load_config(cls, run: Run) -> ConfigT:  # noqa: D102
        ...

    @classmethod
    def is_done(cls, run: Run, config: ConfigT) -> bool:  # noqa: D102
        return is_done(run, config, cls.load_config)

    @classmethod
    @abstractmethod
    def prepare(cls, config: ConfigT) -> Self:  # noqa: D102
        ...

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        ...

    def check_run(self, run: Run) -> None:  # noqa: D102
        pass

    def fit(self, run: Run, session: FitSession) -> FitResult:  # noqa: D102
        result = fit(
            self.module,
            self.data,
            self.options,
            folder=run.checkpoints,
            resume=session.resume,
            callbacks=[History(run, session.on_epoch), *session.callbacks_of("fit")],
            progress_bar=session.on_epoch is None,
            belongs_to=run.digest,
        )
        prepare_for_inference(self.module, self.config.learning_rate)
        return result

    def save(self, run: Run) -> None:  # noqa: D102
        run.write_weights(self.model)

    @abstractmethod
    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        ...

    def plot(self, run: Run) -> None:  # noqa: D102
        plot_history(run.metrics, run.plots, self.history_plots)

    def finish(self, run: Run, result: FitResult) -> None:  # noqa: D102
        pass

    def training_summary(self, run: Run, result: FitResult) -> dict[str, Any]:
        """Return the entries that every summary has; the seconds are those of all epochs, including resumed ones."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "epochs": len(run.metrics),
            "seconds": round(sum(row["seconds"] for row in run.metrics), 2),
            "interrupted": result.interrupted,
        }
