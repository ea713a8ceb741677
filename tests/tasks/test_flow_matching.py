"""`neuralode train matching`: the files and results of a run, couplings and metrics."""

from dataclasses import replace
from itertools import permutations

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from neuralode.cli import app
from neuralode.nn.flows import ConcatSquashField, flow_matching_loss, sample
from neuralode.nn.flows.coupling import COUPLINGS, optimal_transport
from neuralode.tasks.flow_matching import run as task
from neuralode.tasks.flow_matching.config import IMAGES, POINTS
from neuralode.tasks.flow_matching.data import FlowMatchingData, RandomBatches, load_examples
from neuralode.tasks.flow_matching.metrics import image_metrics, two_sample_test
from neuralode.tasks.runner import train
from neuralode.training import Run
from neuralode.training.fit import FitOptions, fit

SMALL = {"epochs": 2, "batches": 3, "batch_size": 16, "width": 8, "layers": 1, "steps": 3}
KINDS = {"moons": replace(POINTS, **SMALL), "digits": replace(IMAGES, **SMALL)}
FIGURES = {
    "moons": {"energy_distance", "energy_by_chance", "p_value", "test_nats", "divergence"},
    "digits": {"class_accuracy", "class_accuracy_of_test", "taught_accuracy", "nearest", "nearest_of_test"},
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory) -> Run:
    return train(
        task.FlowMatchingTask,
        KINDS[request.param],
        tmp_path_factory.mktemp("runs") / request.param,
        on_epoch=lambda row: None,
    )


# --- runs


def test_the_folder_has_all_files(trained):
    names = {path.relative_to(trained.folder).as_posix() for path in trained.folder.rglob("*") if path.is_file()}
    assert names >= {"config.json", "metrics.csv", "weights.safetensors", "summary.json"}
    assert names >= {"plots/samples.png", "plots/loss.png"}


def test_the_summary_has_the_results_for_its_kind_of_data(trained):
    assert trained.summary.keys() >= FIGURES[trained.config["data"]] | {"val_loss", "parameters", "seconds"}
    assert trained.summary["epochs"] == len(trained.metrics) == 2
    assert trained.summary["val_loss"] == pytest.approx(min(row["val_loss"] for row in trained.metrics), abs=1e-5)


def test_a_loaded_model_reproduces_the_results(trained):
    assert task.FlowMatchingTask.load_config(trained) == KINDS[trained.config["data"]]
    sampler = task.load(trained)
    figures = (task.image_figures if sampler.examples.classes else task.point_figures)(sampler)
    assert figures == pytest.approx({name: trained.summary[name] for name in figures}, rel=1e-4)


def test_more_epochs_continue_a_finished_run(trained, tmp_path):
    kind = KINDS[trained.config["data"]]
    run = train(task.FlowMatchingTask, replace(kind, epochs=1), tmp_path / "run", on_epoch=lambda row: None)
    train(task.FlowMatchingTask, replace(kind, epochs=2), run.folder, resume=True, on_epoch=lambda row: None)
    assert [row["epoch"] for row in run.metrics] == [0, 1]
    assert not run.summary["interrupted"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"data": "moon"}, "did you mean 'moons'"),
        ({"path": "liner"}, "did you mean 'linear'"),
        ({"coupling": "optimal"}, "optimal-transport"),
        ({"grid": "edn"}, "did you mean 'edm'"),
        ({"method": "eulr"}, "did you mean 'euler'"),
        ({"guidance": float("nan")}, "guidance=nan; wanted a finite number"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; wanted a number above 0"),
    ],
)
def test_invalid_options_are_rejected_before_a_folder_is_created(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        train(task.FlowMatchingTask, replace(KINDS["moons"], **wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_of_other_tasks_are_rejected(tmp_path):
    Run.create(tmp_path / "density", {"task": "density"})
    result = CliRunner().invoke(app, ["train", "matching", "--resume", str(tmp_path / "density")])
    assert result.exit_code == 2
    assert "is a run of 'density'; wanted one of `neuralode train matching`." in result.output


def test_sample_writes_new_rows(trained, tmp_path):
    out = tmp_path / "rows.csv"
    result = CliRunner().invoke(app, ["sample", str(trained.folder), "--rows", "20", "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(out)
    if trained.config["data"] == "moons":
        assert list(rows.columns) == ["x", "y"]
    else:
        assert rows["class"].tolist() == [n % 10 for n in range(20)]
        assert rows.shape == (20, 65)
        assert rows.drop(columns="class").stack().between(0, 1).all()
    pd.testing.assert_frame_equal(task.sample(trained, 20, seed=0), rows, check_exact=False, check_dtype=False)


def test_the_command_trains_and_prints_results(tmp_path):
    folder = tmp_path / "run"
    options = ["--epochs", "1", "--batches", "2", "--batch-size", "8", "--width", "8", "--steps", "2"]
    result = CliRunner().invoke(app, ["train", "matching", "--data", "8gaussians", "--out", str(folder), *options])
    assert result.exit_code == 0, result.output
    assert "energy distance" in result.output
    assert Run.open(folder).config["data"] == "8gaussians"


# --- training


def test_a_few_steps_reduce_energy_distance_and_divergence():
    config = replace(POINTS, data="8gaussians", epochs=3, batches=100, width=64, averaged=0.98, learning_rate=5e-3)
    examples = load_examples(config.data, config.seed)
    examples = replace(examples, test=(examples.test[0][:400],))
    torch.manual_seed(0)
    built = task.build(config, examples)
    before = task.point_figures(task.Sampler(built.mean, examples, config))
    data = FlowMatchingData(
        examples.standardize(examples.train),
        examples.standardize(examples.validation),
        batches=config.batches,
        size=256,
        seed=0,
    )
    fit(built, data, FitOptions(config.epochs, config.epochs))
    after = task.point_figures(task.Sampler(built.mean.eval(), examples, config))
    assert after["energy_distance"] < 0.25 * before["energy_distance"]
    assert 0 < after["divergence"] < 0.5 * before["divergence"]


@pytest.mark.parametrize("coupling", ["independent", "optimal-transport"])
def test_the_average_of_the_weights_is_validated(coupling):
    config, examples = replace(KINDS["moons"], averaged=0.5, coupling=coupling), load_examples("moons", 0)
    built = task.build(config, examples)
    first = [parameter.detach().clone() for parameter in built.mean.parameters()]
    data = FlowMatchingData(
        examples.standardize(examples.train), examples.standardize(examples.validation), batches=3, size=500, seed=0
    )
    fitted = fit(built, data, FitOptions(1, 1))

    def farthest(examples, others) -> float:
        return max(float((one - other).detach().abs().max()) for one, other in zip(examples, others, strict=True))

    assert farthest(first, built.mean.parameters()) > farthest(built.field.parameters(), built.mean.parameters()) > 0
    losses = [
        flow_matching_loss(built.mean, x, coupling=COUPLINGS[coupling], generator=torch.Generator().manual_seed(index))
        for index, x in enumerate(data.validation[0].split(500))
    ]
    assert fitted.best == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


# --- data


@pytest.mark.parametrize("name", ["pinwheel", "digits"])
def test_standardization_is_inverted(name):
    examples = load_examples(name, 0)
    [x, *labels] = examples.standardize(examples.train)
    assert 0.5 < float(x.std()) < 1.1
    torch.testing.assert_close(examples.unstandardize(x), examples.train[0])
    assert len(labels) == (1 if examples.classes else 0)


def test_batches_are_determined_by_the_epoch():
    rows = (torch.arange(20),)

    def epoch(number: int) -> list[list[int]]:
        return [batch.tolist() for (batch,) in RandomBatches(rows, batches=4, size=8, seed=0, epoch=lambda: number)]

    assert epoch(3) == epoch(3) != epoch(4)
    assert [len(batch) for batch in epoch(0)] == [8] * 4


def test_labels_match_rows_and_large_batches_repeat_rows_evenly():
    rows = (torch.arange(5), torch.arange(5) * 10)
    for examples, labels in RandomBatches(rows, batches=3, size=12, seed=0, epoch=lambda: 0):
        assert torch.equal(labels, examples * 10)
        counts = torch.bincount(examples, minlength=5)
        assert counts.sum() == 12
        assert counts.max() <= 3


# --- couplings


def test_the_optimal_coupling_is_the_best_of_all_permutations():
    x0, x1 = normal(6, 2, 1), normal(6, 2, 1, seed=1)
    actual = optimal_transport(x0, x1)

    def cost(order) -> float:
        return float((x0[torch.as_tensor(order)] - x1).square().sum())

    assert sorted(actual.tolist()) == list(range(6))
    assert cost(actual) == pytest.approx(min(cost(order) for order in permutations(range(6))))
    with pytest.raises(ValueError, match=r"x0 has shape \[5, 2, 1\]; wanted that of x1, \[6, 2, 1\]"):
        optimal_transport(x0[:5], x1)


def test_the_optimal_coupling_gives_straighter_trajectories():
    def bend(coupling) -> float:
        torch.manual_seed(0)
        drawing = torch.Generator().manual_seed(0)
        field = ConcatSquashField(2, width=32, activation="silu")
        optimizer = torch.optim.Adam(field.parameters(), 1e-2)
        for _ in range(200):
            side = torch.randint(2, (128, 1), generator=drawing) * 2 - 1
            data = torch.cat((2.0 * side, torch.zeros(128, 1)), 1) + 0.2 * torch.randn(128, 2, generator=drawing)
            optimizer.zero_grad()
            flow_matching_loss(field, data, coupling=coupling, generator=drawing).backward()
            optimizer.step()
        x0 = normal(500, 2)
        few, many = (sample(field, x0, steps=steps).x for steps in (2, 100))
        return float((few - many).square().mean().sqrt())

    assert bend(optimal_transport) < 0.6 * bend(None)


# --- metrics


def test_the_energy_distance_equals_its_definition():
    a, b = normal(30, 2).double(), normal(30, 2, seed=1).double() + 0.3
    apart = 2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()
    assert two_sample_test(a, b)["energy_distance"] == pytest.approx(float(apart), abs=1e-6)
    with pytest.raises(ValueError, match=r"b has shape \[29, 2\]; wanted that of a, \[30, 2\]"):
        two_sample_test(a, b[:29])


def test_p_values_of_equal_distributions_are_uniform():
    actual = [two_sample_test(normal(40, 2, seed=2 * n), normal(40, 2, seed=2 * n + 1))["p_value"] for n in range(60)]
    assert 0.35 < sum(actual) / len(actual) < 0.65
    assert sum(p < 0.1 for p in actual) < 15


def test_copies_and_wrong_classes_are_detected():
    examples = load_examples("digits", 0)
    images, labels = examples.train
    copies = image_metrics(images[:300], labels[:300], train=examples.train, test=examples.test)
    assert copies["nearest"] == 0.0 < copies["nearest_of_test"]
    assert copies["class_accuracy"] > 0.99
    held_out = image_metrics(*examples.test, train=examples.train, test=examples.test)
    assert held_out["nearest"] == held_out["nearest_of_test"]
    assert held_out["class_accuracy"] == held_out["class_accuracy_of_test"] > 0.97
    assert (
        image_metrics(images[:300], (labels[:300] + 1) % 10, train=examples.train, test=examples.test)["class_accuracy"]
        < 0.05
    )
