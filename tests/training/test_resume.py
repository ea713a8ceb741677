"""A training that is interrupted anywhere and resumed gives bit-identical weights."""

from __future__ import annotations

import random

import lightning as L
import numpy as np
import pytest
import torch
from interruptions import InterruptAt, Interruption, assert_interruptions_change_nothing
from torch import nn
from torch.utils.data import DataLoader

from neuralode.tasks.density import run as density
from neuralode.tasks.density.config import DensityConfig
from neuralode.tasks.flow_matching import run as matching
from neuralode.tasks.flow_matching.config import FlowMatchingConfig
from neuralode.tasks.images import run as images
from neuralode.tasks.images.config import ImagesConfig
from neuralode.tasks.spirals import run as spirals
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.training.checkpoints import Checkpoints, CheckpointWarning
from neuralode.training.fit import FitOptions, fit
from neuralode.training.module import TrainingModule
from neuralode.training.resumable_loader import ResumableLoader

EPOCHS, BATCHES = 3, 5


class Noisy(TrainingModule):
    """Draw from all random generators, in training and validation."""

    def __init__(self):
        super().__init__(1e-2)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def training_step(self, batch, index):
        [x] = batch
        loss = (self.net(x + 0.1 * torch.randn_like(x)) - np.random.rand() - random.random()).square().mean()
        self.log_mean("train_loss", loss, len(x))
        return loss

    def validation_step(self, batch, index):
        [x] = batch
        self.log("val_loss", (self.net(x) - torch.rand(())).square().mean())


class Rows(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.rows = torch.utils.data.TensorDataset(torch.randn(4 * BATCHES - 1, 3, generator=torch.Generator()))

    def train_dataloader(self):
        return ResumableLoader(DataLoader(self.rows, 4, shuffle=True))

    def val_dataloader(self):
        return DataLoader(self.rows, 8)


class Figures(L.Callback):
    """Record the mean loss of each epoch."""

    def __init__(self):
        self.losses = {}

    def on_train_epoch_end(self, trainer, module):
        self.losses[trainer.current_epoch] = trainer.callback_metrics["train_loss"].item()


def trained(folder, *callbacks, resume=False, every=2, patience=10):
    """Run a training from a fixed initial state; return its final weights and its result."""
    L.seed_everything(3, verbose=False)
    task = Noisy()
    effort = FitOptions(EPOCHS, patience, checkpoint_every=every)
    result = fit(task, Rows(), effort, folder=folder, resume=resume, callbacks=callbacks)
    return {name: part.clone() for name, part in task.state_dict().items()}, result


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def interrupted(folder, step, at="batch", **options):
    with pytest.raises(Interruption):
        trained(folder, InterruptAt(step, at), **options)


@pytest.fixture(scope="module")
def uninterrupted():
    return trained(None)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 9, 14, 15])
def test_a_training_interrupted_after_any_step_gives_the_same_weights(tmp_path, uninterrupted, step, every):
    interrupted(tmp_path, step, every=every)
    weights, result = trained(tmp_path, resume=True, every=every)
    assert same(weights, uninterrupted[0])
    assert result == uninterrupted[1]


@pytest.mark.parametrize("at", ["validation", "epoch"])
@pytest.mark.parametrize("step", [5, 15])
def test_a_training_interrupted_at_the_end_of_an_epoch_gives_the_same_weights(tmp_path, uninterrupted, step, at):
    interrupted(tmp_path, step, at)
    weights, result = trained(tmp_path, resume=True)
    assert same(weights, uninterrupted[0])
    assert result == uninterrupted[1]


def test_a_training_interrupted_many_times_gives_the_same_weights(tmp_path, uninterrupted):
    interrupted(tmp_path, 1)
    for step in range(2, EPOCHS * BATCHES + 1):
        interrupted(tmp_path, step, resume=True, every=1)
    weights, result = trained(tmp_path, resume=True)
    assert same(weights, uninterrupted[0])
    assert result == uninterrupted[1]


def test_metrics_of_an_interrupted_epoch_cover_all_of_it(tmp_path):
    through, first, second = Figures(), Figures(), Figures()
    trained(None, through)
    with pytest.raises(Interruption):
        trained(tmp_path, first, InterruptAt(8))
    trained(tmp_path, second, resume=True)
    assert first.losses | second.losses == through.losses


def test_a_training_killed_after_early_stopping_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(Noisy, "validation_step", lambda self, batch, index: self.log("val_loss", self.global_step))
    until, result = trained(None, patience=1)
    assert result.epochs == 2
    trained(tmp_path, patience=1)
    weights, again = trained(tmp_path, resume=True, patience=1)
    assert same(weights, until)
    assert again == result


def test_a_new_training_ignores_existing_checkpoints(tmp_path, uninterrupted):
    interrupted(tmp_path, 12)
    interrupted(tmp_path, 3)
    assert [path.name[:13] for path in Checkpoints(tmp_path).files()] == ["step-00000002"]
    assert same(trained(tmp_path, resume=True)[0], uninterrupted[0])


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, uninterrupted):
    interrupted(tmp_path, 9)
    last, before = Checkpoints(tmp_path).files()
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(CheckpointWarning, match=f"{last.name} is damaged.*; resuming from {before.name}"):
        weights, result = trained(tmp_path, resume=True)
    assert same(weights, uninterrupted[0])
    assert result == uninterrupted[1]
    assert last.with_name(last.name + ".damaged").exists()


def test_checkpoints_of_another_network_are_rejected(tmp_path):
    interrupted(tmp_path, 4)
    task = Noisy()
    task.net[0] = nn.Linear(3, 9)
    with pytest.raises(ValueError, match="is of another training: its network differs"):
        fit(task, Rows(), FitOptions(EPOCHS, 10), folder=tmp_path, resume=True)


def test_checkpoints_of_another_run_are_rejected(tmp_path):
    interrupted(tmp_path, 4)
    with pytest.raises(ValueError, match=r"is of another training: its task differs.*start again"):
        fit(Noisy(), Rows(), FitOptions(EPOCHS, 10), folder=tmp_path, resume=True, belongs_to="another")


def test_another_number_of_threads_gives_a_warning(tmp_path):
    interrupted(tmp_path, 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(CheckpointWarning, match=f"threads '{threads}', now '{threads + 1}'"):
            trained(tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)


SHORT = {"epochs": 2, "batches": 4, "batch_size": 32, "width": 8, "layers": 1, "steps": 2}
STEPS = (3, 5, 6)  # the second interruption comes right after an epoch
TASKS = {
    "digits": (images.ImagesTask, ImagesConfig(model="resnet1", epochs=2, batches=4, accelerator="cpu", devices="1")),
    "density": (density.DensityTask, DensityConfig("moons", rows=60, width=4, epochs=1, batch_size=20)),
    "matching": (
        matching.FlowMatchingTask,
        FlowMatchingConfig(epochs=2, batches=4, batch_size=32, width=8, layers=1, steps=2),
    ),
    "matching digits": (
        matching.FlowMatchingTask,
        FlowMatchingConfig("digits", epochs=2, batches=4, batch_size=32, width=8, layers=1, steps=2),
    ),
    "spirals": (
        spirals.SpiralsTask,
        SpiralsConfig(observed=30, series=20, epochs=2, batches=4, batch_size=8, hidden=4, width=4),
    ),
}


@pytest.fixture
def _no_pictures(monkeypatch):
    monkeypatch.setattr("neuralode.training.resume.SECONDS", 0.0)  # a checkpoint at every step
    for module, names in {
        density: ("plot_rows", "plot_flow"),
        matching: ("point_figures", "image_figures", "plot_samples"),
        spirals: ("plot_forecasts",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *args, **options: {})


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("name", TASKS)
def test_every_interrupted_task_gives_the_same_weights_and_metrics(name, tmp_path):
    task_type, config = TASKS[name]
    assert_interruptions_change_nothing(
        task_type, config, tmp_path, steps=(3, 5, 6)
    )  # the second starts at the end of an epoch


def test_an_interruption_repeats_only_the_steps_since_the_last_checkpoint(tmp_path, monkeypatch):
    interrupted(tmp_path, 9, every=4)
    taken = []
    monkeypatch.setattr(Noisy, "optimizer_step", lambda self, *args, **options: (
        taken.append(self.global_step), super(Noisy, self).optimizer_step(*args, **options)
    ))  # fmt: skip
    trained(tmp_path, resume=True)
    assert taken == list(range(8, EPOCHS * BATCHES))


def test_the_layout_of_a_checkpoint_does_not_change_between_versions(tmp_path):
    interrupted(tmp_path, 4, every=2)
    content = Checkpoints(tmp_path).read(Checkpoints(tmp_path).files()[0])
    patience = "Patience{'monitor': 'val_loss', 'mode': 'min'}"
    assert content["callbacks"].keys() == {"Best", patience, "Safekeeping"}
    assert content["callbacks"]["Best"].keys() == {"score", "epochs", "weights"}
    assert content["callbacks"]["Safekeeping"].keys() == {"random", "place"}
    assert content["callbacks"]["Safekeeping"]["place"].keys() == {"begun", "given"}
    assert content["identity"].keys() == {"network", "task", "torch", "threads", "processor"}
    assert content.keys() >= {"metrics", "state_dict", "loops", "optimizer_states", "lr_schedulers"}
