"""`neuralode train digits` and the like: the files and results of a run."""

import json
import re
from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import TensorDataset

from neuralode.data import Split
from neuralode.tasks.images import data
from neuralode.tasks.images import run as task
from neuralode.tasks.images.config import ImagesConfig
from neuralode.tasks.runner import train
from neuralode.training import Run

SMALL = ImagesConfig(epochs=1, batches=2, batch_size=16, rtol=1e-1, accelerator="cpu", devices="1")


@pytest.fixture(autouse=True, scope="module")
def _a_light_reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.tasks.images.tolerance_sweep.ERROR_IMAGES", 4)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    return train(task.ImagesTask, SMALL, tmp_path_factory.mktemp("runs") / "odenet", on_epoch=lambda row: None)


def test_the_folder_has_all_files(trained):
    names = {path.relative_to(trained.folder).as_posix() for path in trained.folder.rglob("*") if path.is_file()}
    checkpoints = {name for name in names if re.fullmatch(r"checkpoints/step-\d{8}-[0-9a-f]{16}\.ckpt", name)}
    assert 1 <= len(checkpoints) <= 2
    assert names - checkpoints == {
        "config.json",
        "metrics.csv",
        "weights.safetensors",
        "summary.json",
        "plots/loss.png",
        "plots/accuracy.png",
        "plots/evaluations.png",
    }


def test_the_config_has_solver_and_versions(trained):
    config = trained.config
    assert config["solver"] == {
        "gradient": "replay",
        "method": "tsit5",
        "rtol": 0.1,
        "atol": 0.1,
        "step_size": None,
        "engine": "eager",
    }
    assert config["versions"].keys() >= {"python", "neuralode", "torch", "lightning"}


def test_summary_and_metrics_have_the_results(trained):
    summary = trained.summary
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["test_evaluations"] >= 7
    assert summary["interrupted"] is False
    [epoch] = trained.metrics
    assert {"epoch", "seconds", "train_loss", "val_loss", "val_accuracy", "train_evaluations"} <= epoch.keys()


def test_a_loaded_model_reproduces_the_results(trained):
    model, split = task.load(trained)
    images, labels = split.test.tensors
    with torch.no_grad():
        accuracy = (model(images).argmax(dim=1) == labels).float().mean()
    assert float(accuracy) == pytest.approx(trained.summary["test_accuracy"], abs=1e-3)


def test_loading_a_run_never_unpickles(trained, monkeypatch):
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("torch.load", None)
    task.load(trained)


def test_a_tolerance_sweep_writes_a_table_and_a_figure(trained):
    points = task.evaluate(trained, [1e-1, 1e-3])
    assert [point.rtol for point in points] == [1e-1, 1e-3]
    assert points[1].evaluations > points[0].evaluations
    assert points[1].error < points[0].error
    assert (trained.plots / "tolerance.png").stat().st_size > 0
    assert len((trained.folder / "tolerances.csv").read_text().splitlines()) == 3


def test_test_images_are_not_used_in_training(tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(
        task.ImageClassifierModule, "test_step", lambda self, batch, index: stages.append(self.trainer.state.fn)
    )
    monkeypatch.setattr(L.Trainer, "test", lambda trainer, *args, **kwargs: [{"test_accuracy": 0.0}])
    train(
        task.ImagesTask,
        ImagesConfig(model="noblock", epochs=1, batches=1, accelerator="cpu"),
        tmp_path / "run",
        on_epoch=print,
    )
    assert stages == []


def test_training_resumes_where_it_stopped(tmp_path):
    two = ImagesConfig(model="noblock", epochs=2, batches=2, accelerator="cpu")
    stopped = {}

    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1 and not stopped:
                stopped["yes"] = True
                raise KeyboardInterrupt

    first = train(task.ImagesTask, two, tmp_path / "run", callbacks=[Stop()], on_epoch=lambda row: None)
    assert first.summary["interrupted"] is True
    assert (first.summary["epochs"], len(first.metrics)) == (1, 1)
    again = train(
        task.ImagesTask, task.ImagesTask.load_config(first), first.folder, resume=True, on_epoch=lambda row: None
    )
    assert again.summary["interrupted"] is False
    assert [row["epoch"] for row in again.metrics] == [0, 1]


def test_a_model_without_an_ode_has_no_solver_in_its_config(tmp_path):
    config = ImagesConfig(model="noblock", epochs=1, batches=1, accelerator="cpu")
    run = train(task.ImagesTask, config, tmp_path / "run", on_epoch=lambda row: None)
    assert run.config["solver"] is None
    assert not task.has_tolerances(run)
    assert not (run.plots / "evaluations.png").exists()
    with pytest.raises(ValueError, match="this one has 0"):
        task.evaluate(run)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ImagesConfig(model="odnet"), "did you mean 'odenet'"),
        (ImagesConfig(method="tsit"), "did you mean 'tsit5'"),
        (ImagesConfig(gradient="repaly"), "did you mean 'replay'"),
        (ImagesConfig(engine="eagre"), "did you mean 'eager'"),
        (ImagesConfig(method="rk4"), "step_size"),
        (ImagesConfig(precision="31-true"), "[Pp]recision"),
    ],
)
def test_invalid_configs_are_rejected_before_a_folder_is_created(tmp_path, config, says):
    with pytest.raises(ValueError, match=says):
        train(task.ImagesTask, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_is_plain_json(trained):
    assert json.loads((trained.folder / "config.json").read_text()) == trained.config


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_sized_images_are_trained_and_evaluated(name, tmp_path, monkeypatch):
    def split(seed):
        drawing = torch.Generator().manual_seed(seed)
        images, labels = torch.rand(24, 1, 28, 28, generator=drawing), torch.arange(24) % 10
        return Split(*[TensorDataset(images[part::3], labels[part::3]) for part in range(3)])

    monkeypatch.setitem(data.IMAGE_SETS, name, replace(data.IMAGE_SETS[name], split=split))
    options = {"epochs": 2, "batch_size": 4, "rtol": 0.1, "channels_last": True, "precision": "bf16-mixed"}
    config = ImagesConfig(data=name, accelerator="cpu", devices="1", **options)
    run = train(task.ImagesTask, config, tmp_path / "run", on_epoch=lambda row: None)
    assert run.config["task"] == name
    assert (run.summary["parameters"], run.summary["epochs"]) == (208_266, 2)
    assert task.ImagesTask.load_config(run) == replace(config, gradient="replay", atol=0.1)
    assert [point.rtol for point in task.evaluate(run, [0.1])] == [0.1]


def test_an_unknown_data_set_is_rejected_with_the_closest_name(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mnist'"):
        train(task.ImagesTask, ImagesConfig(data="mnits"), tmp_path / "run")
