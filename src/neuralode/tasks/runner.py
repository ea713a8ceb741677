"""Run a training of any task, from its config to its run folder."""

from __future__ import annotations

from pathlib import Path

from neuralode.tasks.base import Callbacks, ConfigT, FitSession, Task
from neuralode.training.fit import is_global_zero
from neuralode.training.history import OnEpoch
from neuralode.training.run import Run


def train(
    task_type: type[Task[ConfigT]],
    config: ConfigT,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Callbacks = (),
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train, keep the weights of the best epoch, evaluate them once on the test data, and write all to a run folder.

    Parameters
    ----------
    task_type : type
        The task, such as `neuralode.tasks.spirals.run.SpiralsTask`.
    config : dataclass
        Options of the training. Nothing is written if they, or the data, are invalid.
    folder : Path
        Folder of the run. It must not hold a run, unless ``resume``.
    resume : bool, default=False
        Resume from the last checkpoint in ``folder``, or start from the beginning if there is none. On the CPU this
        gives the same weights as a training without interruption. A finished run is returned unchanged.
    callbacks : sequence of Callback, or callable, default=()
        Lightning callbacks, such as a progress bar; or a function from the name of a stage to its callbacks.
    on_epoch : callable, default=None
        Called with the metrics of each epoch. None shows Lightning's progress bar instead.

    Returns
    -------
    Run
        Its ``summary.json`` holds the results. Ctrl-C ends the training, not this function: the summary then has
        ``"interrupted": true``.

    Raises
    ------
    ValueError, TypeError
        If the config or the data are invalid; if ``folder`` holds another training; if the weights are not finite.
    OSError
        If ``folder`` holds a run already, cannot be written or lacks room.
    """
    run = Run(folder)
    if resume and task_type.is_done(run, config):
        return run
    task = task_type.prepare(config)
    if resume:
        task.check_run(run)
    elif is_global_zero():
        Run.create(folder, task.describe())

    result = task.fit(run, FitSession(resume, callbacks, on_epoch))
    if is_global_zero():
        task.save(run)
    summary = task.evaluate(run, result)
    if is_global_zero():
        task.plot(run)
        run.write_summary(summary)  # last: a run with a summary counts as finished
        task.finish(run, result)
    return run
