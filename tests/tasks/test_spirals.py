"""`neuralode train spirals` and the table of the paper: files and results of runs, data and models."""

import json
from dataclasses import replace

import pytest
import torch

from neuralode.data.spirals import spirals
from neuralode.nn import LatentODE, Observations
from neuralode.reproduce import table2
from neuralode.tasks.runner import train
from neuralode.tasks.spirals import data
from neuralode.tasks.spirals import run as task
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.tasks.spirals.data import CroppedWindows, crop
from neuralode.tasks.spirals.metrics import errors
from neuralode.tasks.spirals.models import AutoregressiveRNN
from neuralode.tasks.spirals.module import LatentODEModule
from neuralode.training import Run

SMALL = SpiralsConfig(observed=30, series=40, epochs=2, batches=2, batch_size=8, hidden=6, width=6, latent=3, rtol=1e-1)
ERRORS = {"test_rmse", "test_rmse_clockwise", "test_rmse_counterclockwise", "window_rmse"}


@pytest.fixture(autouse=True, scope="module")
def _few_test_series():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "TEST_SERIES", 12)
        yield


@pytest.fixture(scope="module", params=["latent-ode", "rnn"])
def trained(request, tmp_path_factory) -> Run:
    config = replace(SMALL, model=request.param)
    return train(task.SpiralsTask, config, tmp_path_factory.mktemp("runs") / request.param, on_epoch=lambda row: None)


def test_the_folder_has_all_files(trained):
    names = {path.relative_to(trained.folder).as_posix() for path in trained.folder.rglob("*") if path.is_file()}
    config = {"config.json", "metrics.csv", "weights.safetensors", "summary.json"}
    config |= {"plots/forecasts.png", "plots/bound.png", "plots/error.png"}
    assert names >= config


def test_the_summary_has_the_errors_and_their_lower_bound(trained):
    summary = trained.summary
    assert summary.keys() >= ERRORS | {"floor_rmse", "parameters", "seconds"}
    assert 0 < summary["floor_rmse"] < 0.2 < summary["test_rmse"]
    assert summary["epochs"] == len(trained.metrics) == 2


def test_a_loaded_model_reproduces_the_results(trained):
    model, test = task.load(trained)
    reproduced = errors(task.forecasts(model, test.observed), test)
    assert reproduced == pytest.approx({name: trained.summary[name] for name in ERRORS}, rel=1e-4)


def test_only_a_model_with_an_ode_has_a_solver_in_its_config(trained):
    assert (trained.config["solver"] is None) == (trained.config["model"] == "rnn")


def test_an_unknown_model_is_rejected_before_a_folder_is_created(tmp_path):
    with pytest.raises(ValueError, match="latent-ode"):
        train(task.SpiralsTask, SpiralsConfig(model="latent-od"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- data


def test_crop_shifts_times_and_keeps_targets_to_the_end_of_the_window():
    observed = spirals(6, 100, last=300, seed=0).observed
    read, targets = crop(observed, 20, 60)
    assert read.lengths.tolist() == [40] * 6
    assert targets.lengths.tolist() == [80] * 6
    assert torch.equal(read.values, observed.values[:, 20:60])
    torch.testing.assert_close(targets.times, observed.times[:, 20:] - 0.2)


def test_crop_drops_series_without_observations_to_encode():
    observed = Observations.gather([([0.1], [[1.0]]), ([0.5], [[2.0]])], start=0.0)
    read, targets = crop(observed, 30, 60)
    assert read.values.flatten().tolist() == targets.values.flatten().tolist() == [2.0]


def test_batches_are_determined_by_the_epoch():
    observed = spirals(20, 30, last=300, seed=0).observed

    def epoch(number: int) -> list[int]:
        parts = CroppedWindows(observed, batches=5, size=4, shorter=0.5, seed=0, epoch=lambda: number)
        return [int(1000 * targets.values.sum()) for _, targets in parts]

    assert epoch(3) == epoch(3) != epoch(4)


def test_validation_series_are_of_both_curves_equally():
    held = data.validation_mask(1000)
    assert int(held.sum()) == 100
    assert int(held[::2].sum()) == 50


# --- models


def test_the_recurrent_network_reads_its_own_forecasts():
    torch.manual_seed(0)
    model, times = AutoregressiveRNN(2, 5, 5), torch.arange(200, dtype=torch.float64) / 100
    observed = spirals(4, 100, last=300, seed=0).observed
    forecast = model.forecast(observed, times).detach()
    values = torch.cat((observed.values, forecast[:, 100:150]), 1)
    extended = Observations.gather([(times[:150], row) for row in values], start=0.0)
    torch.testing.assert_close(model.forecast(extended, times), forecast, rtol=1e-4, atol=1e-5)


def test_forecasts_are_read_at_the_spacing_of_the_observations():
    torch.manual_seed(0)
    model, times = AutoregressiveRNN(2, 5, 5), torch.arange(200, dtype=torch.float64) / 100
    observed = spirals(4, 100, last=300, seed=0).observed
    third = observed.keeping(torch.arange(100).expand(4, -1) % 3 == 0)  # including the last point, 99
    forecast = model.forecast(third, times).detach()
    steps = torch.arange(102, 150, 3)
    values = torch.cat((third.values, forecast[:, steps]), 1)
    extended = Observations.gather([(torch.cat((third.times[0], times[steps])), row) for row in values], start=0.0)
    torch.testing.assert_close(model.forecast(extended, times), forecast, rtol=1e-4, atol=1e-5)


def test_a_prediction_does_not_depend_on_its_observation_or_later_ones():
    model = AutoregressiveRNN(2, 5, 5)
    observed = spirals(2, 30, last=300, seed=0).observed
    before = model(observed)
    observed.values[:, 10] += 1
    assert torch.equal(model(observed)[:, :11], before[:, :11])
    assert not torch.equal(model(observed)[:, 11], before[:, 11])


def test_encode_later_equals_encoding_the_remaining_series():
    torch.manual_seed(0)
    model = LatentODE(2, 3)
    observed = spirals(4, 30, last=300, seed=0).observed[:2]
    all_at_once = model.encode_later(observed)
    for step in (0, 7, 29):
        keep = torch.arange(30).expand(2, -1) >= step
        later = observed.keeping(keep)
        alone = model.encode(Observations(later.times, later.values, later.seen, later.lengths, later.times[:, 0]))
        torch.testing.assert_close(alone.mean, all_at_once.mean[:, step])
        torch.testing.assert_close(alone.scale, all_at_once.scale[:, step])


def test_encode_later_includes_static_covariates():
    model = LatentODE(2, 3, static=1)
    observed = replace(spirals(4, 30, last=300, seed=0).observed, static=torch.arange(4.0)[:, None])
    observed = replace(observed, start=observed.times[:, 0])
    torch.testing.assert_close(model.encode_later(observed).mean[:, 0], model.encode(observed).mean)
    other = replace(observed, static=observed.static + 1)
    assert bool((model.encode_later(other).mean != model.encode_later(observed).mean).any(-1).all())


@pytest.mark.parametrize("per_sample", [False, True])
def test_consistency_adds_to_the_loss_and_changes_no_other_term(per_sample):
    model = LatentODE(2, 3, per_sample=per_sample, rtol=1e-5, atol=1e-5)
    read, targets = crop(spirals(4, 30, last=300, seed=0).observed, 0, 60)
    bounds = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        bounds.append(model.elbo(read, targets, consistency=weight))
    plain, consistent = bounds
    torch.testing.assert_close(consistent.log_likelihood, plain.log_likelihood, rtol=1e-4, atol=1e-2)
    assert not plain.inconsistency.any()
    assert (consistent.inconsistency > 0).all()
    torch.testing.assert_close(consistent.loss, plain.loss + 2 * consistent.inconsistency.mean(), rtol=1e-4, atol=1e-2)


def test_consistency_ignores_observations_outside_the_mask():
    model = LatentODE(2, 3, per_sample=False)
    read = spirals(4, 30, last=300, seed=0).observed
    nowhere = torch.zeros(4, 30, dtype=torch.bool)
    assert not model.elbo(read, consistency=1.0, within=nowhere).inconsistency.any()


# --- the table

RECIPES = tuple(replace(SMALL, model=name, epochs=1) for name in ("latent-ode", "rnn"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train the runs of the table in this process."""
    folder = tmp_path_factory.mktemp("table")
    for recipe in RECIPES:
        for seed in (0, 1):
            config = replace(recipe, seed=seed)
            train(
                task.SpiralsTask, config, folder / "observed-30" / f"{recipe.model}-{seed}", on_epoch=lambda row: None
            )
    return folder


def test_the_table_compares_errors_and_repeats_no_finished_training(finished):
    messages: list[str] = []
    rows = table2(30, (0, 1), finished, log=messages.append, configs=RECIPES)
    assert messages == []
    assert [(row["model"], row["published"]) for row in rows] == [("latent-ode", 0.1642), ("rnn", 0.3937)]
    for row in rows:
        assert row["test_rmse"] == pytest.approx((row["seed_0"] + row["seed_1"]) / 2, abs=1e-3)
    assert (
        (finished / "table2-30.csv").read_text().startswith("observed,model,published,test_rmse,spread,seed_0,seed_1")
    )
    assert (finished / "table2-30.png").is_file()


def test_a_run_with_another_config_is_rejected(finished):
    with pytest.raises(ValueError, match="holds a run with another config"):
        table2(30, (0,), finished, configs=[replace(RECIPES[0], epochs=7)])


@pytest.mark.slow
def test_an_interrupted_training_is_resumed(finished):
    place = finished / "observed-30" / "rnn-0"
    summary = place / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "interrupted": True}))
    messages: list[str] = []
    table2(30, (0, 1), finished, log=messages.append, configs=RECIPES)
    assert len(messages) == 1
    assert not Run(place).summary["interrupted"]


def test_a_latent_ode_can_be_sampled_and_a_recurrent_network_cannot():
    test = spirals(3, 30, last=300, seed=0)
    ode, rnn = (task.build(recipe) for recipe in RECIPES)
    assert isinstance(ode, LatentODEModule)
    curves = task.sample_forecasts(ode, test.observed, samples=5)
    assert curves is not None
    assert curves.shape == (5, 3, 200, 2)
    assert task.sample_forecasts(rnn, test.observed) is None
