"""`neuralode train density`: the files and results of a run, and the density itself."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from scipy.stats import multivariate_normal

from neuralode.data.densities import find_density
from neuralode.data.tables.rows import Rows
from neuralode.data.tables.standardization import Standardization
from neuralode.tasks.density import data, metrics
from neuralode.tasks.density import run as task
from neuralode.tasks.density.config import DensityConfig
from neuralode.tasks.runner import train
from neuralode.training.fit import FitOptions, fit
from neuralode.training.modules.density_module import Batches, DensityModule, RowsData, with_solver
from neuralode.training.modules.row_density import Architecture, RowDensity, train_density
from neuralode.training.run import Run

TINY = {"width": 8, "layers": 1, "epochs": 2, "batch_size": 32, "learning_rate": 1e-2}
MEAN, FACTOR = np.array([10.0, -5.0]), np.array([[2.0, 0.0], [1.5, 0.5]])


FEW = {
    "training.modules.density_module.STEPS": 2,
    "tasks.density.plots.GRID": 8,
    "tasks.density.plots.FRAMES": 3,
    "tasks.density.plots.LAST_FRAMES": 1,
}


@pytest.fixture(autouse=True, scope="module")
def _few_steps():
    with pytest.MonkeyPatch.context() as patch:
        for name, few in FEW.items():
            patch.setattr(f"neuralode.{name}", few)
        yield


def normal_rows(count: int, seed: int = 0) -> np.ndarray:
    return MEAN + np.random.default_rng(seed).normal(size=(count, 2)) @ FACTOR.T


def written(folder, columns: int = 2, count: int = 60):
    frame = pd.DataFrame(normal_rows(count), columns=["a", "b"])
    for extra in range(columns - 2):
        frame[f"c{extra}"] = np.random.default_rng(extra + 1).normal(size=count)
    frame.assign(rate=7.0).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("density")
    return train(task.DensityTask, DensityConfig(str(written(folder)), **TINY), folder / "run")


def test_a_run_writes_scores_results_and_figures(run):
    summary, scores = run.summary, scores_of(run)
    assert scores["row"].tolist() == list(range(1, 61))
    assert scores["part"].value_counts().to_dict() == summary["rows"] == {"train": 42, "validation": 6, "test": 12}
    test = -scores["log_density"][scores["part"] == "test"]
    assert summary["test_nats"] == pytest.approx(test.mean(), abs=1e-6)
    assert summary["test_nats_error"] == pytest.approx(test.std() / math.sqrt(12), abs=1e-6)
    assert summary["test_bits_per_dimension"] == pytest.approx(test.mean() / 2 / math.log(2), abs=1e-6)
    assert summary["columns"] == ["a", "b", "rate"]
    assert summary["modelled"] == ["a", "b"]
    assert summary["remarks"] == [
        "column 'rate' is constant in the training rows and left out: the density is that of the "
        "other columns, and rows with another value have density 0."
    ]
    assert "entropy" not in summary
    assert len(run.metrics) == summary["epochs"] == 2
    assert {"train_nats", "val_loss", "train_evaluations", "seconds"} <= set(run.metrics[0])
    assert {path.name for path in run.plots.iterdir()} == {"density.png", "evaluations.png", "flow.gif", "nats.png"}
    assert Image.open(run.plots / "flow.gif").n_frames >= 3


def scores_of(run: Run) -> pd.DataFrame:
    # Without pandas, which may round the last digit when parsing.
    with (run.folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return pd.DataFrame([[int(r["row"]), float(r["log_density"]), r["part"]] for r in rows], columns=list(rows[0]))


def test_validation_loss_is_in_the_units_of_the_table(run):
    best = min(row["val_loss"] for row in run.metrics)
    assert best == pytest.approx(run.summary["validation_nats"], abs=2e-3)  # tolerances of 1e-4 and 1e-7


def test_a_loaded_density_gives_bit_identical_scores(run):
    density = task.load(run)
    values = data.read(task.DensityTask.load_config(run)).values
    assert density.log_density(values).tolist() == scores_of(run)["log_density"].tolist()


def test_samples_have_the_columns_and_constants_of_the_table(run):
    drawn = task.sample(run, 50, seed=1)
    assert list(drawn) == ["a", "b", "rate"]
    assert (drawn["rate"] == 7).all()
    assert np.allclose(task.sample(run, 7, seed=1), drawn[:7], rtol=0, atol=1e-5)
    assert not np.allclose(task.sample(run, 7, seed=2), drawn[:7])


def test_the_seed_determines_all_results(run, tmp_path):
    again = train(task.DensityTask, task.DensityTask.load_config(run), tmp_path / "again")
    assert scores_of(again).equals(scores_of(run))
    other = train(task.DensityTask, replace(task.DensityTask.load_config(run), seed=1), tmp_path / "other")
    assert other.summary["test_nats"] != run.summary["test_nats"]


@pytest.mark.parametrize("columns", [1, 4])
def test_one_column_and_many_columns_are_plotted(columns, tmp_path):
    table = written(tmp_path, columns=max(2, columns))
    names = ("a",) if columns == 1 else None
    run = train(task.DensityTask, DensityConfig(str(table), columns=names, **TINY), tmp_path / "run")
    assert len(run.summary["columns"]) == (1 if columns == 1 else 5)
    for name in ("density.png", "flow.gif"):
        assert Image.open(run.plots / name).size[0] > 100


@pytest.mark.parametrize("spread", [True, False])
def test_nats_are_of_dequantized_rows_and_scores_of_the_rows_themselves(spread, tmp_path):
    frame = pd.DataFrame({"sold": np.random.default_rng(0).integers(0, 2, 100)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    config = DensityConfig(str(tmp_path / "table.csv"), spread=spread, **TINY)
    run = train(task.DensityTask, config, tmp_path / "run")
    density, values, summary = task.load(run), data.read(config).values, run.summary
    smoothed = density.standard.dequantize(values) if spread else values
    parts = data.split_rows(100, seed=0)
    assert scores_of(run)["log_density"].tolist() == density.log_density(values).tolist()
    for name, part in parts._asdict().items():
        assert summary[f"{name}_nats"] == pytest.approx(-density.log_density(smoothed[part]).mean(), abs=1e-6)
    assert min(row["val_loss"] for row in run.metrics) == pytest.approx(summary["validation_nats"], abs=2e-3)
    known = np.concatenate(parts[:2])
    gaussian = multivariate_normal(smoothed[known].mean(), smoothed[known].var(ddof=1))
    assert summary["gaussian_nats"] == pytest.approx(-gaussian.logpdf(smoothed[parts.test]).mean(), abs=1e-4)
    # Two values with noise of width 1 each: the expected nats of any model are at least log 2.
    assert (summary["gaussian_nats"] > math.log(2) + 0.1) == spread
    assert ("nats refer to the rows with noise" in summary["remarks"][0]) == spread


def with_constant_but_in(folder, rows) -> DensityConfig:
    frame = pd.read_csv(written(folder))
    frame.loc[rows, "rate"] = 8.0
    frame.to_csv(folder / "table.csv", index=False)
    return DensityConfig(str(folder / "table.csv"), **TINY)


def test_test_rows_that_differ_in_a_constant_column_have_density_0_and_are_excluded_from_nats(tmp_path):
    parts = data.split_rows(60, seed=0)
    run = train(task.DensityTask, with_constant_but_in(tmp_path, parts.test[:2]), tmp_path / "run")
    scores, summary = scores_of(run)["log_density"].to_numpy(), run.summary
    assert (scores[parts.test[:2]] == -math.inf).all()
    assert np.isfinite(scores).sum() == 58
    assert summary["test_nats"] == pytest.approx(-scores[parts.test[2:]].mean(), abs=1e-6)
    assert summary["remarks"][1].startswith("2 of the 12 test rows differ in a column that is left out")
    assert summary["remarks"][1].endswith("test_nats and gaussian_nats are of the other 10.")
    json.dumps(summary, allow_nan=False)


def test_too_few_test_rows_are_rejected_before_anything_is_written(tmp_path):
    config = with_constant_but_in(tmp_path, data.split_rows(60, seed=0).test[1:])
    with pytest.raises(ValueError, match=r"\('rate'\), 11 of the 12 test rows have another value; wanted another seed"):
        train(task.DensityTask, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_more_samples_are_drawn_than_are_plotted(tmp_path, monkeypatch):
    drawn, sample = [], RowDensity.sample
    monkeypatch.setattr(
        RowDensity, "sample", lambda self, count, seed: drawn.append(count) or sample(self, count, seed)
    )
    monkeypatch.setattr("neuralode.tasks.density.run.POINTS", 7)
    train(task.DensityTask, DensityConfig("moons", rows=50, **TINY), tmp_path / "run")
    assert drawn == [7]


def test_the_summary_of_drawn_rows_has_the_entropy_of_their_density(tmp_path):
    run = train(task.DensityTask, DensityConfig("moons", rows=50, **TINY), tmp_path / "run")
    moons = find_density("moons")
    assert run.summary["entropy"] == moons.entropy
    expected = moons.sample(50, torch.Generator().manual_seed(0)).double().numpy()
    assert np.array_equal(data.read(task.DensityTask.load_config(run)).values, expected)


def test_unknown_densities_and_missing_files_have_different_messages():
    with pytest.raises(ValueError, match="density='mons' is unknown; did you mean 'moons'"):
        data.read(DensityConfig("mons"))
    with pytest.raises(FileNotFoundError, match=r"there is no file 'mons\.csv'"):
        data.read(DensityConfig("mons.csv"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "tsit"}, "did you mean 'tsit5'"),
        ({"gradient": "replya"}, "did you mean 'replay'"),
        ({"divergence": "exat"}, "did you mean 'exact'"),
        ({"method": "rk4"}, "step_size"),
        ({"jitter": 1.5}, "jitter=1.5; wanted at least 0 and less than the span"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; wanted a number above 0"),
        ({"kinetic": math.nan}, "kinetic=nan; wanted a number not below 0"),
        ({"columns": ("a", "bb")}, "the table has no column 'bb'"),
    ],
)
def test_invalid_options_are_rejected_before_anything_is_written(options, sentence, tmp_path):
    config = DensityConfig(str(written(tmp_path)), **{**TINY, **options})
    with pytest.raises(ValueError, match=sentence):
        train(task.DensityTask, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_resumes_only_with_the_same_table(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    table = written(tmp_path)
    run = train(task.DensityTask, DensityConfig(str(table), **TINY), tmp_path / "run", callbacks=[Stop()])
    assert run.summary["interrupted"]
    assert len(run.metrics) == 1
    text = table.read_text()
    table.write_text(text + "1,2,7\n")
    with pytest.raises(ValueError, match="is not the table that"):
        train(task.DensityTask, task.DensityTask.load_config(run), run.folder, resume=True)
    table.write_text(text)
    result = train(task.DensityTask, task.DensityTask.load_config(run), run.folder, resume=True)
    assert not result.summary["interrupted"]
    assert [row["epoch"] for row in result.metrics] == [0, 1]


def test_runs_of_other_tasks_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="is a run of 'digits'; wanted one of `neuralode train density`"):
        task.load(Run.create(tmp_path / "digits", {"task": "digits"}))


def fitted(standard, rows, architecture, fit_options, **options):
    settings = {"spread": True, "batch_size": 128, "learning_rate": 1e-2, "weight_decay": 0.0}
    costs = {"kinetic": 0.01, "frobenius": 0.01}
    parts = {"train": rows[:-100], "validation": rows[-100:], "options": fit_options}
    return train_density(architecture, standard, **parts, **{**settings, **costs, **options})


def test_a_change_of_units_shifts_nats_by_the_logarithm_of_the_units():
    units, origin = np.array([1e3, 1e-4]), np.array([5.0, -1e3])
    answers = []
    for rows in (normal_rows(200), normal_rows(200) * units + origin):
        torch.manual_seed(0)
        density, result = fitted(
            Standardization.fit(Rows(("a", "b"), rows)), rows, Architecture(width=8), FitOptions(1, 1)
        )
        answers.append((density.log_density(rows), result.best))
    (here, best_here), (there, best_there) = answers
    assert np.allclose(here - there, np.log(units).sum(), rtol=0, atol=1e-4)
    assert best_there - best_here == pytest.approx(np.log(units).sum(), abs=1e-4)


@pytest.fixture(scope="module")
def bent() -> RowDensity:
    """A nonlinear density of a stretched column, a constant one and a plain one."""
    torch.manual_seed(0)
    flow = Architecture(width=16).build(2)
    for parameter in flow.parameters():
        parameter.data.mul_(2.0)
    rows = np.column_stack((10 * normal_rows(200)[:, 0], np.ones(200), normal_rows(200)[:, 1]))
    return RowDensity(Standardization.fit(Rows(("a", "one", "b"), rows)), flow)


def test_the_density_integrates_to_1_in_the_units_of_the_table(bent):
    a, b = (np.linspace(-7, 7, 141) * bent.standard.deviation[k] + bent.standard.mean[k] for k in (0, 2))
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    points = np.column_stack((grid[:, 0], np.ones(len(grid)), grid[:, 1]))
    inside = np.exp(bent.log_density(points, 1e-4)).sum() * (a[1] - a[0]) * (b[1] - b[0])
    assert inside == pytest.approx(1, abs=1e-3)


def test_samples_have_the_mean_of_the_density(bent):
    drawn = bent.sample(4000, seed=0)
    assert (drawn[:, 1] == 1).all()
    a = np.linspace(-7, 7, 71) * bent.standard.deviation[0] + bent.standard.mean[0]
    b = np.linspace(-7, 7, 71) * bent.standard.deviation[2] + bent.standard.mean[2]
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    weights = np.exp(bent.log_density(np.column_stack((grid[:, 0], np.ones(len(grid)), grid[:, 1])), 1e-4))
    mean = (weights[:, None] * grid).sum(0) / weights.sum()
    error = drawn[:, [0, 2]].std(0) / math.sqrt(4000)
    assert (np.abs(drawn[:, [0, 2]].mean(0) - mean) < 4 * error).all()


def test_a_row_that_differs_in_a_constant_column_has_density_0(bent):
    rows = bent.sample(4, seed=0)
    rows[2, 1] = 1.5
    assert np.isneginf(bent.log_density(rows)).tolist() == [False, False, True, False]


def test_the_score_of_a_row_does_not_depend_on_the_other_rows(bent):
    rows = bent.sample(40, seed=0)
    rows[7] = [1e4, 1.0, 300.0]  # an outlier, which needs small steps
    together = bent.log_density(rows)
    alone = np.concatenate([bent.log_density(row[None]) for row in rows])
    assert np.allclose(alone, together, rtol=1e-12, atol=1e-9)
    assert np.allclose(bent.log_density(rows[::-1]), together[::-1], rtol=1e-12, atol=1e-9)


def test_scores_are_as_exact_as_their_tolerance(bent):
    rows = bent.sample(40, seed=0)
    assert np.allclose(bent.log_density(rows), bent.log_density(rows, 1e-11), rtol=0, atol=1e-5)


def test_only_repeated_values_get_noise_in_training():
    torch.manual_seed(0)
    rows = torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]).repeat(100, 1)
    [batch, _] = Batches(rows, 150, torch.tensor([0.5, 0.0]))
    assert set(batch[:, 1].tolist()) == {1.0, 2.0, 3.0}
    assert (batch[:, 0] - batch[:, 1] + 1).abs().max() <= 0.5
    assert len(set(batch[:, 0].tolist())) > 140


@pytest.mark.parametrize(("rows", "size", "config"), [(10, 4, 3), (3, 4, 2), (8, 4, 2), (40, 4, 10)])
def test_an_epoch_covers_all_rows_equally_and_has_a_minimum_number_of_steps(rows, size, config):
    batches = list(made := Batches(torch.arange(rows)[:, None].float(), size, torch.zeros(1)))
    assert len(batches) == len(made) == config
    counts = torch.cat(batches).flatten().long().bincount().tolist()
    assert counts == [made.passes] * rows


def test_the_loss_includes_the_weighted_regularisation():
    torch.manual_seed(0)
    flow, rows = Architecture(width=8).build(2), torch.randn(20, 2)
    plain, weighted = DensityModule(flow), DensityModule(flow, kinetic=2.0, frobenius=3.0)
    for part in (plain, weighted):
        part.log = lambda *args, **options: None  # there is no trainer
    costs = flow.costs(rows)
    loss = weighted.training_step(rows, 0) - plain.training_step(rows, 0)
    assert loss.item() == pytest.approx(2 * costs.kinetic.mean().item() + 3 * costs.frobenius.mean().item(), rel=1e-3)


@pytest.mark.parametrize("divergence", ["hutchinson", "hutch++"])
def test_validation_uses_the_same_probes_in_every_epoch(divergence):
    torch.manual_seed(0)
    part, rows, logged = DensityModule(Architecture(width=8, divergence=divergence).build(4)), torch.randn(20, 4), []
    part.log = lambda name, value, **options: logged.append(value.item())
    with torch.no_grad():
        for index in (0, 1, 0):
            part.validation_step(rows, index)
    assert logged[0] == logged[2] != logged[1]


@pytest.mark.parametrize("method", [{"method": "euler", "step_size": 0.5}, {"method": "tsit5"}])
def test_gradients_reach_every_parameter(method):
    torch.manual_seed(0)
    flow = Architecture(width=8, **method).build(2)
    flow.log_prob(torch.randn(20, 2)).mean().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_the_divergence_is_estimated_only_in_training_and_for_many_columns():
    assert Architecture().build(20).divergence.name == "exact"
    assert Architecture().build(21).divergence.name == "hutchinson"
    flow = Architecture(width=4, divergence="hutch++").build(3)
    density = RowDensity(Standardization.fit(Rows(tuple("abc"), np.random.default_rng(0).normal(size=(20, 3)))), flow)
    assert density.exact().divergence.name == "exact"
    assert flow.divergence.name == "hutch++"
    assert flow.field.state_dict().keys() == density.exact().field.state_dict().keys()
    assert next(flow.parameters()).dtype == torch.float32


def test_with_solver_shares_the_weights():
    flow = Architecture(width=4).build(2)
    other = with_solver(flow, rtol=1e-9)
    with torch.no_grad():
        next(flow.parameters()).add_(1)
    assert torch.equal(next(flow.parameters()), next(other.parameters()))


def test_a_wide_table_is_scored_in_batches_with_the_same_result(monkeypatch, bent):
    rows = bent.sample(30, seed=0)
    in_one_batch = bent.log_density(rows)
    monkeypatch.setattr("neuralode.training.modules.density_module.MOST_NUMBERS", 7 * 2 * 256)
    assert np.allclose(bent.log_density(rows), in_one_batch, rtol=1e-12, atol=1e-9)


def test_gaussian_nats_are_those_of_the_fitted_normal_distribution():
    rows = normal_rows(20_000)
    standard = Standardization.fit(Rows(("a", "b"), rows))
    truth = -multivariate_normal(MEAN, FACTOR @ FACTOR.T).logpdf(rows[10_000:]).mean()
    assert metrics.gaussian_nats(standard, rows[:10_000], rows[10_000:]) == pytest.approx(truth, abs=1e-3)


def test_linearly_dependent_columns_are_noted_and_do_not_fail(tmp_path):
    frame = pd.DataFrame(normal_rows(50), columns=["a", "b"])
    frame.assign(total=frame["a"] + frame["b"]).to_csv(tmp_path / "table.csv", index=False)
    run = train(task.DensityTask, DensityConfig(str(tmp_path / "table.csv"), **TINY), tmp_path / "run")
    assert "is a linear combination of the others" in run.summary["remarks"][0]
    assert math.isfinite(run.summary["gaussian_nats"])
    json.dumps(run.summary, allow_nan=False)


def test_held_out_rows_are_validated_in_one_batch(tmp_path):
    """A solve per row would be slow."""
    rows, batch_sizes = torch.randn(40, 2), []

    class Noting(DensityModule):
        def validation_step(self, batch, index):
            batch_sizes.append(len(batch))
            super().validation_step(batch, index)

    task = Noting(Architecture(width=4).build(2))
    fit(task, RowsData(rows, rows[:30], size=40, spread=torch.zeros(2)), FitOptions(1, 1), folder=tmp_path)
    assert batch_sizes == [30]
