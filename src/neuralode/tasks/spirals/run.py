"""The task `neuralode train spirals`: see a window of a spiral, noisy and irregular, and forecast as much again.

The comparison is Table 2 of Chen et al. [1]_, the error of forecasts beyond the window; where windows lie, how many are
held out and what the error is measured against it does not say, so `neuralode.data.spirals` does. Of the 1,000 series
to learn from every tenth one is set aside to choose the epoch by; the 500 that are tested are looked at once.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.data.spirals import BEYOND, NOISE, WINDOW, curves, spirals
from neuralode.data.spirals import Spirals as Series
from neuralode.nn import LatentODE, Likelihood, Observations
from neuralode.tasks.config import Spirals
from neuralode.tasks.spirals.modules import Autoregressive, Explaining, Forecaster, SpiralsData, Stepping, Turning
from neuralode.tasks.spirals.plots import PICTURES, plot_forecasts
from neuralode.training.config_io import is_done
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.fit import FitOptions, fit
from neuralode.training.plots import plot_history
from neuralode.training.record_run import check_rate, course, into
from neuralode.training.run import Run, versions

SOLVER = ("method", "rtol", "atol", "gradient")  # fields of Spirals that only a model with an ODE uses
SCALE = 5.0  # models see points in units of this: of the order of the curves' radii
TESTED, TEST_SEED = 500, 10_000  # series; added to the seed, so that they are not those that are learned from
LAST = 300  # where windows that are tested begin at the latest: all they need of a curve is there
VALIDATION = 10  # every so many-th series; an odd and an even one, hence one of each curve, in turn


def train(
    wanted: Spirals,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train, keep the weights of the epoch that validates best, and measure them on the test series once.

    Parameters
    ----------
    wanted : Spirals
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
        Its ``summary.json`` holds ``test_rmse``, of the forecasts beyond the window, and the rest: see `errors`. Ctrl-C
        ends the training, not this function: the summary then says ``"interrupted": true``.
    """
    run = Run(folder)
    if resume and is_done(run, wanted, asked):
        return run
    check_rate(wanted.learning_rate)
    L.seed_everything(wanted.seed, workers=True, verbose=False)
    task = build(wanted)
    observed = on_scale(spirals(wanted.series, wanted.observed, last=wanted.last, seed=wanted.seed).observed)
    held = held_out(len(observed))
    if not resume:
        Run.create(folder, describe(wanted))
    data = SpiralsData(
        observed[~held], observed[held], wanted.batches, wanted.batch_size, _shorter(wanted, task), wanted.seed
    )
    fitted = fit(
        task,
        data,
        FitOptions(wanted.epochs, wanted.epochs, wanted.accelerator, wanted.devices, wanted.precision),
        **into(run, resume, callbacks, tell),
    )

    task = task.cpu().eval()
    test = for_test(wanted)
    run.write_weights(task)
    plot_history(run.metrics, run.plots, PICTURES)
    plot_forecasts(test, forecasts(task, test.observed), sampled(task, test.observed), run.plots)
    run.write_summary(  # the last of all: a run that has it is finished
        {
            **errors(forecasts(task, test.observed), test),
            "floor_rmse": errors(best_forecasts(test), test)["test_rmse"],
            **course(run, task, fitted),
        }
    )
    return run


def load(run: Run) -> tuple[Forecaster, Series]:
    """Return the trained model of ``run``, and the series it was tested on."""
    wanted = asked(run)
    task = build(wanted)
    run.read_weights(task)
    return task.eval(), for_test(wanted)


def asked(run: Run) -> Spirals:
    """Return what ``run`` was asked to do; `ValueError` where its config was damaged."""
    names, sections = {"model": "model"}, ("solver", "training")
    return read_asked(
        run, Spirals, tasks=("spirals",), command="neuralode train spirals", names=names, sections=sections
    )


def describe(wanted: Spirals) -> dict[str, Any]:
    """What a run's ``config.json`` says of it."""
    asked = asdict(wanted)
    solver = {name: asked.pop(name) for name in SOLVER}
    return {
        "task": "spirals",
        "model": asked.pop("model"),
        "solver": solver if wanted.model == "latent-ode" else None,
        "training": asked,
        "versions": versions("neuralode", "torch", "lightning"),
    }


def build(wanted: Spirals) -> Forecaster:
    """Return the untrained model; `ValueError` where its name is unknown.

    Examples
    --------
    >>> sum(p.numel() for p in build(Spirals()).parameters())
    13598
    """
    return pick("model", wanted.model, MODELS, type)(wanted)


def for_test(wanted: Spirals) -> Series:
    """Return the series that a model is tested on."""
    return spirals(TESTED, wanted.observed, last=LAST, seed=TEST_SEED + wanted.seed)


def held_out(series: int) -> Tensor:
    """Which series validate: as many of one curve as of the other.

    Examples
    --------
    >>> held_out(40).nonzero()[:, 0].tolist()
    [0, 11, 20, 31]
    """
    place = torch.arange(series)
    return place % VALIDATION == place // VALIDATION % 2


def on_scale(observed: Observations) -> Observations:
    """Points as models see them."""
    return replace(observed, values=observed.values / SCALE)


@torch.no_grad()
def forecasts(task: Forecaster, observed: Observations) -> Float[Tensor, "series 200 2"]:
    """The expected points of window and beyond."""
    return SCALE * task.forecast(on_scale(observed), _grid())


@torch.no_grad()
def sampled(
    task: Forecaster, observed: Observations, samples: int = 20
) -> Float[Tensor, "samples series 200 2"] | None:
    """Curves from states that are drawn from the posterior; None for a model that has none."""
    if not isinstance(task, Explaining):
        return None
    z0 = task.model.encode(on_scale(observed)).sample(torch.Size((samples,)))
    z = task.model.follow(z0, observed.start, _grid().expand(len(observed), -1)).z
    return SCALE * task.model.likelihood.mean(task.model.decode(z))


def best_forecasts(test: Series) -> Float[Tensor, "series 200 2"]:
    """What one would forecast who knows the curves, and where windows may begin: the most likely of all of these.

    Its error is what the noise leaves, and the floor under that of any model.

    Examples
    --------
    >>> test = spirals(20, 100, last=300, seed=0)
    >>> errors(best_forecasts(test), test)["test_rmse"] < 0.1
    True
    """
    begins = np.arange(LAST + 1)[:, None] + np.arange(WINDOW + BEYOND)
    candidates = torch.tensor(np.concatenate(curves()[:, begins]), dtype=torch.float32)
    points = (test.observed.times * WINDOW).round().long()
    best = [
        int((candidates[:, at] - values).square().sum((1, 2)).argmin())
        for at, values in zip(points, test.observed.values, strict=True)
    ]
    return candidates[best]


def errors(forecast: Float[Tensor, "series 200 2"], test: Series) -> dict[str, float]:
    """Root mean squared distance a coordinate from the curve without noise: beyond the window, and within.

    Examples
    --------
    >>> test = spirals(4, 30, last=300, seed=0)
    >>> errors(test.truth + 0.5, test)["test_rmse"]
    0.5
    """
    square = (forecast - test.truth).square()

    def root(some: Tensor) -> float:
        return round(float(some.mean().sqrt()), 6)

    return {
        "test_rmse": root(square[:, WINDOW:]),
        "test_rmse_clockwise": root(square[test.clockwise, WINDOW:]),
        "test_rmse_counterclockwise": root(square[~test.clockwise, WINDOW:]),
        "window_rmse": root(square[:, :WINDOW]),
    }


def _grid() -> Tensor:
    return torch.arange(WINDOW + BEYOND, dtype=torch.float64) / WINDOW


def _latent_ode(wanted: Spirals) -> Forecaster:
    model = LatentODE(
        2,
        wanted.latent,
        hidden=wanted.hidden,
        width=wanted.width,
        field=Turning(wanted.latent, wanted.width),
        # Linear: what differs in the data differs in the state, and the flow need not bend a decoder straight again.
        decoder=nn.Linear(wanted.latent, 2),
        likelihood=Likelihood(2, scale=NOISE / SCALE),  # as in the authors' script, which is told the noise
        per_sample=False,  # all points lie on one grid
        method=wanted.method,
        rtol=wanted.rtol,
        atol=wanted.atol,
        gradient=wanted.gradient,
    )
    return Explaining(model, wanted.learning_rate, wanted.consistency)


def _rnn(wanted: Spirals) -> Forecaster:
    return Stepping(Autoregressive(2, wanted.hidden, wanted.width), wanted.learning_rate)


MODELS: Mapping[str, Callable[[Spirals], Forecaster]] = {"latent-ode": _latent_ode, "rnn": _rnn}


def _shorter(wanted: Spirals, task: Forecaster) -> float:
    """A recurrent network says the next point after every other as it is; shorter windows would only tell it less."""
    return wanted.shorter if isinstance(task, Explaining) else 0.0
