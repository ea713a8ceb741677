"""Tasks are discovered by their folders, and found by the config of their runs."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

import neuralode.tasks
from neuralode.tasks.registry import task_commands, task_of
from neuralode.training.run import Run

FOLDERS = {"density", "fit", "flow_matching", "images", "physionet", "spirals"}
MEMBERS = ("load_config", "is_done", "prepare", "describe", "check_run", "fit", "save", "evaluate", "plot", "finish")


def task_types(folder: str) -> list[type]:
    module = import_module(f"neuralode.tasks.{folder}.run")
    return [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__name__.endswith("Task")]


def test_every_task_is_discovered():
    assert set(task_commands()) == FOLDERS


def test_commands_and_run_names_are_unique():
    words = [words for task in task_commands().values() for words in task.commands]
    names = [name for task in task_commands().values() for name in task.run_tasks]
    assert len(set(words)) == len(words)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_task_has_all_members_that_the_runner_calls(folder):
    [kind] = [kind for kind in task_types(folder) if kind.__module__ == f"neuralode.tasks.{folder}.run"]
    assert all(callable(getattr(kind, member)) for member in MEMBERS)
    assert not getattr(kind, "__abstractmethods__", None)
    assert kind.run_tasks == task_commands()[folder].run_tasks
    assert kind.command.startswith("neuralode ")


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_task_of_finds_the_task_of_a_run(folder, tmp_path):
    task = task_commands()[folder]
    for number, name in enumerate(task.run_tasks):
        assert task_of(Run.create(tmp_path / str(number), {"task": name})) is task


@pytest.mark.parametrize("name", ["reproduce", None, ["digits"]])
def test_task_of_returns_none_for_other_runs(name, tmp_path):
    assert task_of(Run.create(tmp_path / "run", {"task": name})) is None


def test_density_and_flow_matching_can_sample_and_images_and_series_can_be_evaluated():
    tasks = task_commands()
    assert {folder for folder, task in tasks.items() if task.sample} == {"density", "flow_matching"}
    assert {folder for folder, task in tasks.items() if task.evaluate} == {"fit", "images"}
    for folder in ("density", "flow_matching"):
        assert callable(import_module(f"neuralode.tasks.{folder}.run").sample)


def test_every_data_set_of_images_has_a_command():
    images = import_module("neuralode.tasks.images.data")
    assert set(task_commands()["images"].run_tasks) == set(images.IMAGE_SETS)


DEMO = {
    "__init__": "",
    "config": """
from dataclasses import dataclass

@dataclass(frozen=True)
class LineConfig:
    slope: float = 2.0
    seed: int = 0
    epochs: int = 2
    learning_rate: float = 0.1
""",
    "run": """
from dataclasses import asdict, dataclass

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuralode.tasks.base import LightningTask
from neuralode.tasks.line.config import LineConfig
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitOptions
from neuralode.training.module import TrainingModule
from neuralode.training.plots import HistoryPlot
from neuralode.training.preflight import check_learning_rate

class LineModule(TrainingModule):
    def __init__(self, learning_rate):
        super().__init__(learning_rate)
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, index):
        x, y = batch
        return (self.layer(x) - y).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.training_step(batch, index))

class LineData(L.LightningDataModule):
    def __init__(self, slope):
        super().__init__()
        x = torch.linspace(0, 1, 8)[:, None]
        self.rows = TensorDataset(x, slope * x)

    def train_dataloader(self):
        return DataLoader(self.rows, 4)

    def val_dataloader(self):
        return DataLoader(self.rows, 8)

@dataclass(frozen=True, eq=False)
class LineTask(LightningTask[LineConfig]):
    run_tasks = ("line",)
    command = "neuralode train line"
    history_plots = (HistoryPlot("error", "squared error", {"val_loss": "validation"}),)

    @property
    def model(self):
        return self.module.layer

    @classmethod
    def load_config(cls, run):
        return load_config(run, LineConfig, tasks=cls.run_tasks, command=cls.command)

    @classmethod
    def prepare(cls, config):
        check_learning_rate(config.learning_rate)
        L.seed_everything(config.seed, verbose=False)
        return cls(config, LineModule(config.learning_rate), LineData(config.slope), FitOptions(config.epochs, 5))

    def describe(self):
        return {"task": "line", "model": "line", "training": asdict(self.config)}

    def evaluate(self, run, result):
        return {"slope": self.model.weight.item(), **self.training_summary(run, result)}
""",
    "command": """
from neuralode.tasks.command import Resume, TaskCommands, show_result, train_or_resume
from neuralode.tasks.line.config import LineConfig

def line(slope: float = LineConfig.slope, resume: Resume = None) -> None:
    "Fit a line."
    from neuralode.tasks.line.run import LineTask

    run = train_or_resume(LineTask, LineConfig(slope), out=None, resume=resume, name=lambda config: "line")
    show_result(run, "line", {"slope": f"{run.summary['slope']:.1f}"})

COMMANDS = TaskCommands(run_tasks=("line",), commands={"train line": line})
""",
}


def test_a_task_is_added_by_one_folder(tmp_path, monkeypatch):
    (tmp_path / "line").mkdir()
    for name, text in DEMO.items():
        (tmp_path / "line" / f"{name}.py").write_text(text)
    monkeypatch.setattr(neuralode.tasks, "__path__", [*neuralode.tasks.__path__, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    try:
        assert set(task_commands()) == FOLDERS | {"line"}
        app = typer.Typer()
        app.command()(task_commands()["line"].commands["train line"])
        result = CliRunner().invoke(app, ["--slope", "3"])
        assert result.exit_code == 0, result.output
        run = Run.open(tmp_path / "runs" / "line")
        assert run.config["training"]["slope"] == 3.0
        assert run.summary.keys() == {"slope", "parameters", "epochs", "seconds", "interrupted"}
        assert run.finished
        assert (run.plots / "error.png").is_file()
        assert len(run.metrics) == 2
        assert CliRunner().invoke(app, ["--resume", str(run.folder)]).exit_code == 0
    finally:
        for name in [name for name in sys.modules if name.startswith("neuralode.tasks.line")]:
            del sys.modules[name]
