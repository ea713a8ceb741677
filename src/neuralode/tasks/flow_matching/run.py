"""The task `neuralode train matching`: teach a flow the velocities of paths from noise to data, and draw from it.

Nothing is solved while it learns. Points of the plane are drawn from densities that are known, so that what the model
loses to the truth can be told; digits are drawn class by class, with guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.data.densities import find_density
from neuralode.nn import CNF, flows
from neuralode.nn.flows.coupling import COUPLINGS
from neuralode.tasks.config import Matching
from neuralode.tasks.flow_matching.data import Examples, MatchingData, examples
from neuralode.tasks.flow_matching.metrics import judged, two_samples
from neuralode.tasks.flow_matching.module import Taught
from neuralode.tasks.flow_matching.plots import PICTURES, plot_images, plot_points
from neuralode.training.config_io import is_done
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.fit import FitOptions, fit, prepare_for_inference
from neuralode.training.plots import plot_history
from neuralode.training.record_run import check_rate, course, into
from neuralode.training.run import Run, versions

TASK = "matching"
SAMPLING = ("grid", "steps", "method", "guidance")  # fields of Matching that say how samples are drawn
FIGURES = (  # of a summary: what came out, of points and of images
    "energy_distance", "energy_by_chance", "p_value", "test_nats", "divergence",
    "class_accuracy", "class_accuracy_of_test", "taught_accuracy", "nearest", "nearest_of_test",
)  # fmt: skip
SHOWN = 12  # images of each class in the picture
SCORED = 1e-5  # tolerance of log-densities that are told


@dataclass(frozen=True, eq=False)
class Sampler:
    """A field that was taught, and how samples are drawn from it.

    Attributes
    ----------
    field : Module
        On the scale of the examples.
    examples : Examples
        What it was taught from.
    wanted : Matching
        How samples are drawn, if not told otherwise.
    """

    field: nn.Module
    examples: Examples
    wanted: Matching

    def draw(
        self, count: int, label: Int64[Tensor, " count"] | None = None, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "count *event"]:
        """Draw samples in their own units; of the classes in ``label``, or of each alike, where there are any."""
        wanted, classes = self.wanted, self.examples.classes
        x0 = torch.randn(count, *self.examples.event, generator=generator)
        field, args = self.field, ()
        if classes:
            label = torch.arange(count) % classes if label is None else label
            field, args = flows.Guided(field, wanted.guidance, null=classes), (label,)
        drawn = flows.sample(field, x0, args=args, grid=wanted.grid, steps=wanted.steps, method=wanted.method)
        return self.examples.unseen(drawn.x)

    @torch.no_grad()
    def log_prob(self, x: Float[Tensor, "count *event"], *label: Tensor) -> Float[Tensor, " count"]:
        """The log-density, in nats, of states in their own units; of their class, where there are any.

        It is that of the field as it was taught, without guidance, and solved to `SCORED`. What `draw` draws has
        another one, as it goes on a grid of few steps and past the class: the nearer the more steps there are and the
        nearer guidance is to 1.
        """
        seen = self.examples.seen((x,))[0]
        flow = CNF(self.field, base=self.examples.event, rtol=SCORED, atol=SCORED)
        return flow.log_prob(seen, *label) - self.examples.scale.expand(self.examples.event).log().sum()


def train(
    wanted: Matching,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Teach a field, keep the weights of the epoch that validates best, and hold what it draws against held-out data.

    Parameters
    ----------
    wanted : Matching
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
        Its ``summary.json`` holds what `point_figures` or `image_figures` says: distances between samples and data are
        of samples as ``wanted`` draws them, nats of the flow without guidance, solved exactly. Ctrl-C ends the
        training, not this function: the summary then says ``"interrupted": true``.
    """
    run = Run(folder)
    if resume and is_done(run, wanted, asked):
        return run
    _check(wanted)
    L.seed_everything(wanted.seed, workers=True, verbose=False)
    some = examples(wanted.data, wanted.seed)
    task = build(wanted, some)
    # what sampling refuses, it refuses here, before a folder is made
    Sampler(task.mean, some, wanted).draw(1, generator=torch.Generator())
    if not resume:
        Run.create(folder, describe(wanted))
    data = MatchingData(
        some.seen(some.train), some.seen(some.validation), wanted.batches, wanted.batch_size, wanted.seed
    )
    fitted = fit(
        task,
        data,
        FitOptions(wanted.epochs, wanted.epochs, wanted.accelerator, wanted.devices, wanted.precision),
        **into(run, resume, callbacks, tell),
    )

    prepare_for_inference(task, wanted.learning_rate)
    run.write_weights(task.mean)
    sampler = Sampler(task.mean, some, wanted)
    plot_history(run.metrics, run.plots, PICTURES)
    draw_picture(sampler, run.plots)
    run.write_summary(  # the last of all: a run that has it is finished
        {
            **(image_figures if some.classes else point_figures)(sampler),
            "val_loss": round(fitted.best, 6),
            "best_epoch": fitted.best_epoch,
            **course(run, task.mean, fitted),
        }
    )
    return run


def load(run: Run) -> Sampler:
    """Return what the field of ``run`` draws."""
    wanted = asked(run)
    some = examples(wanted.data, wanted.seed)
    field = build(wanted, some).mean
    run.read_weights(field)
    return Sampler(field.eval(), some, wanted)


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """Draw from the field of ``run``: points, or digits of each class in turn, a column for each pixel from 0 to 1."""
    sampler = load(run)
    drawn = sampler.draw(count, generator=torch.Generator().manual_seed(seed))
    if not sampler.examples.classes:
        return pd.DataFrame(drawn.numpy(), columns=pd.Index(["x", "y"]))
    pixels = [f"pixel_{row}_{column}" for row in range(drawn.shape[-2]) for column in range(drawn.shape[-1])]
    table = pd.DataFrame(drawn.clamp(0, 1).flatten(1).numpy(), columns=pd.Index(pixels))
    table.insert(0, "class", np.arange(count) % sampler.examples.classes)
    return table


def asked(run: Run) -> Matching:
    """Return what ``run`` was asked to do; `ValueError` where its config was damaged."""
    return read_asked(
        run,
        Matching,
        tasks=(TASK,),
        command="neuralode train matching",
        names={"data": "data"},
        sections=("sampling", "training"),
    )


def describe(wanted: Matching) -> dict[str, Any]:
    """What a run's ``config.json`` says of it."""
    training = asdict(wanted)
    return {
        "task": TASK,
        "model": "flow",
        "data": training.pop("data"),
        "sampling": {name: training.pop(name) for name in SAMPLING},
        "training": training,
        "versions": versions("neuralode", "torch", "lightning"),
    }


def build(wanted: Matching, some: Examples) -> Taught:
    """Return the untrained task; `ValueError` where a name is unknown.

    Examples
    --------
    >>> wanted = Matching(width=16, layers=1)
    >>> sum(p.numel() for p in build(wanted, examples("moons", 0)).mean.parameters())
    1986
    """
    return Taught(
        flows.ResidualField(some.event, wanted.width, wanted.layers, classes=some.classes),
        path=flows.find_path(wanted.path),
        coupling=pick("coupling", wanted.coupling, COUPLINGS, ()),
        classes=some.classes,
        dropped=wanted.dropped,
        averaged=wanted.averaged,
        learning_rate=wanted.learning_rate,
    )


def point_figures(sampler: Sampler) -> dict[str, float]:
    """How samples lie beside as many points that were held out, and what the density loses to the true one.

    ``test_nats`` is the mean −log p of the points that were held out; less the entropy of the truth it is
    ``divergence``, of Kullback and Leibler. Both are of the flow solved exactly (`Sampler.log_prob`); the samples are
    drawn on the grid that was wanted, and what that costs shows in their distances alone.
    """
    [test] = sampler.examples.test
    drawn = sampler.draw(len(test), generator=_drawing(sampler))
    nats = float(-sampler.log_prob(test).double().mean())
    divergence = nats - find_density(sampler.wanted.data).entropy
    return {**two_samples(drawn, test), "test_nats": round(nats, 6), "divergence": round(divergence, 6)}


def image_figures(sampler: Sampler) -> dict[str, float]:
    """What classifiers say of as many samples as images were learned from, class by class: see `judged`."""
    some = sampler.examples
    label = some.train[1]
    drawn = sampler.draw(len(label), label, generator=_drawing(sampler))
    return judged(drawn.clamp(0, 1), label, some.train, some.test)


def draw_picture(sampler: Sampler, folder: Path) -> Path:
    """Draw samples into ``folder``; return the file written."""
    some, drawing = sampler.examples, _drawing(sampler)
    if not some.classes:
        return plot_points(sampler.draw(len(some.test[0]), generator=drawing), some.test[0], folder)
    label = torch.arange(some.classes).repeat_interleave(SHOWN)
    images = sampler.draw(len(label), label, generator=drawing).clamp(0, 1)
    return plot_images(images.reshape(some.classes, SHOWN, *some.event[-2:]), folder)


def _check(wanted: Matching) -> None:
    check_rate(wanted.learning_rate)
    if not math.isfinite(wanted.guidance):
        raise ValueError(f"guidance={wanted.guidance!r}; wanted a finite number.")


def _drawing(sampler: Sampler) -> torch.Generator:
    return torch.Generator().manual_seed(sampler.wanted.seed)
