"""`neuralode train physionet` on a few synthetic patients, and ODE-RNNs on irregular series."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from interruptions import assert_interruptions_change_nothing

from neuralode.nn import ODERNN, Likelihood, Observations
from neuralode.training import Run

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from neuralode.data.physionet import physionet  # noqa: E402
from neuralode.tasks.physionet import interpolation, mortality  # noqa: E402
from neuralode.tasks.physionet import run as task  # noqa: E402
from neuralode.tasks.physionet.config import PhysioNetConfig  # noqa: E402
from neuralode.tasks.physionet.data import split_patients  # noqa: E402
from neuralode.tasks.runner import train  # noqa: E402

PATIENTS = 60
SMALL = PhysioNetConfig(sets="a", epochs=1, batch_size=16, hidden=4, width=4, latent=3)
FILL = PhysioNetConfig(task="interpolation", model="latent-ode", sets="a", epochs=1, batch_size=16, hidden=4, width=4)


@pytest.fixture(autouse=True, scope="module")
def _made_up_patients(tmp_path_factory):
    home = tmp_path_factory.mktemp("data") / "physionet2012"
    home.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for record in range(PATIENTS):
        rows += [(record, 0, "Age", 50.0), (record, 0, "Gender", 1.0), (record, 0, "Height", 170.0)]
        rows += [(record, 0, "ICUType", 1.0 + record % 4)]
        for minute in sorted(rng.choice(2880, size=rng.integers(2, 9), replace=False)):
            rows.append((record, minute, rng.choice(["HR", "Temp", "Lactate"]), rng.uniform(1, 9) + record % 3))
    table = pd.DataFrame(rows, columns=["record_id", "minute", "parameter", "value"]).assign(set="a")
    table.astype({"value": "float32"}).to_parquet(home / "measurements.parquet")
    died = [int(record % 3 == 0) for record in range(PATIENTS)]
    pd.DataFrame({"set": "a", "record_id": range(PATIENTS), "in_hospital_death": died}).to_parquet(
        home / "outcomes.parquet"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURALODE_DATA", str(home.parent))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    return train(task.PhysioNetTask, SMALL, tmp_path_factory.mktemp("runs") / "odernn", on_epoch=lambda row: None)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Run:
    return train(task.PhysioNetTask, FILL, tmp_path_factory.mktemp("runs") / "latent-ode", on_epoch=lambda row: None)


def files(run: Run) -> set[str]:
    there = {path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in there if path.parts[0] != "checkpoints"}


ALWAYS = {"config.json", "metrics.csv", "weights.safetensors", "summary.json"}


@pytest.mark.parametrize("config", [SMALL, FILL], ids=["mortality", "interpolation"])
def test_a_training_interrupted_at_any_step_gives_bit_identical_weights(config, tmp_path, monkeypatch):
    monkeypatch.setattr("neuralode.training.resume.SECONDS", 0.0)  # a checkpoint each step
    assert_interruptions_change_nothing(
        task.PhysioNetTask, replace(config, epochs=2), tmp_path, steps=(2, 4)
    )  # of three an epoch


def test_the_folder_of_a_mortality_run_has_all_files(trained):
    assert files(trained) == ALWAYS | {"plots/loss.png", "plots/auroc.png", "plots/roc.png"}


def test_the_folder_of_an_interpolation_run_has_all_files(filled):
    assert files(filled) == ALWAYS | {"plots/bound.png", "plots/error.png"}


def test_the_summary_has_the_results(trained, filled):
    summary = trained.summary
    assert 0 <= summary["test_auroc"] <= 1
    assert 0 <= summary["test_average_precision"] <= 1
    assert summary["patients"] == {"train": 42, "validation": 6, "test": 12}
    assert summary["seconds_per_epoch"] > 0
    assert summary["interrupted"] is False
    assert {"train_loss", "val_auroc", "val_cross_entropy"} <= trained.metrics[0].keys()
    assert filled.summary["test_error"] <= filled.summary["test_error_seen"]


def test_the_config_is_read_back(trained, filled):
    assert task.PhysioNetTask.load_config(trained) == SMALL
    assert task.PhysioNetTask.load_config(filled) == FILL
    assert trained.config["solver"] == {"method": "euler", "steps": 1, "carry": True}


def test_missing_values_are_carried_forward():
    nan = float("nan")
    observed = Observations.gather([([0.0, 1.0, 2.0], [[5.0, nan], [nan, 7.0], [6.0, nan]])])
    shown = mortality.CarryingODERNN(2, 3).inputs(observed)[0].tolist()
    assert shown == [[5, 0, 1, 0], [5, 7, 0, 1], [6, 7, 1, 0]]


def test_a_loaded_model_reproduces_the_results(trained, filled):
    model, patients = task.load(trained)
    again = mortality.binary_auroc(mortality.death_probabilities(model, patients.observed), patients.died.long())
    assert float(again) == pytest.approx(trained.summary["test_auroc"], abs=1e-5)
    model, patients = task.load(filled)
    assert interpolation.interpolation_metrics(model, patients.observed)["test_error"] == filled.summary["test_error"]


@pytest.mark.parametrize("model", ["gru-decay", "rnn"])
def test_baselines_have_no_solver_in_their_config(tmp_path, model):
    config = PhysioNetConfig(model=model, sets="a", epochs=1, batch_size=16, hidden=4, batches=1)
    run = train(task.PhysioNetTask, config, tmp_path / "run", on_epoch=lambda row: None)
    assert run.config["solver"] is None
    assert run.summary["patients"]["train"] == 16


def test_training_resumes_where_it_stopped(tmp_path):
    one = PhysioNetConfig(sets="a", epochs=1, batch_size=16, hidden=4, batches=1)
    run = train(task.PhysioNetTask, one, tmp_path / "run", on_epoch=lambda row: None)
    two = PhysioNetConfig(sets="a", epochs=2, batch_size=16, hidden=4, batches=1)
    again = train(task.PhysioNetTask, two, run.folder, resume=True, on_epoch=lambda row: None)
    assert [row["epoch"] for row in again.metrics] == [0, 1]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (PhysioNetConfig(model="odern"), "did you mean 'odernn'"),
        (PhysioNetConfig(task="mortal"), "did you mean 'mortality'"),
        (PhysioNetConfig(task="interpolation"), "Known: 'latent-ode'"),
        (PhysioNetConfig(method="eulr", sets="a"), "did you mean 'euler'"),
        (PhysioNetConfig(steps=0, sets="a"), "steps=0"),
    ],
)
def test_invalid_configs_are_rejected_before_a_folder_is_created(tmp_path, config, says):
    with pytest.raises(ValueError, match=says):
        train(task.PhysioNetTask, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_split_is_disjoint_and_stratified_by_mortality():
    died = torch.arange(1000) % 7 == 0
    rows = split_patients(died, seed=3)
    assert sorted(torch.cat(rows).tolist()) == list(range(1000))
    assert [len(part) for part in rows] == [700, 100, 200]
    for part in rows:
        assert float(died[part].float().mean()) == pytest.approx(1 / 7, abs=0.01)
    assert not torch.equal(rows.test, split_patients(died, seed=4).test)


def test_half_of_the_times_are_encoded_and_no_padding():
    observed = physionet("a").observed
    chosen = interpolation.random_half(observed, torch.Generator().manual_seed(0))
    assert torch.equal(chosen.sum(1), (observed.lengths // 2).clamp(min=1))
    assert not (chosen & ~observed.inside).any()
    assert not torch.equal(chosen, interpolation.random_half(observed, torch.Generator().manual_seed(1)))


def test_values_are_scaled_to_the_unit_interval_as_measured():
    patients = physionet("a")
    unit = interpolation.scale_to_unit(patients)
    lactate = patients.channels.index("Lactate")
    raw = patients.observed.values[..., lactate][patients.observed.seen[..., lactate]].expm1()
    config = (raw - raw.min()) / (raw.max() - raw.min())
    torch.testing.assert_close(unit.values[..., lactate][unit.seen[..., lactate]], config)
    assert unit.static is None


def test_errors_are_averaged_by_channel_and_unseen_channels_count_as_0():
    values = torch.tensor([[[1.0, 9.0], [3.0, 9.0]]])
    seen = torch.tensor([[[True, False], [True, False]]])
    assert interpolation.channel_means(values, seen).tolist() == [[2.0, 0.0]]


def test_the_elbo_is_the_log_likelihood_minus_the_divergence():
    batch = Observations.gather([([0.0, 1.0], [[0.2], [0.4]])])
    model = interpolation.latent_ode(1, 3, encoder=ODERNN(1, 4), width=4)
    model.likelihood = Likelihood(1, scale=1e3)  # so wide that z0 has no effect
    flat = -0.5 * np.log(2 * np.pi) - np.log(1e3)
    with torch.no_grad():
        actual = interpolation.elbo(model, batch, batch, kl_weight=0.0)
        less = interpolation.elbo(model, batch, batch, kl_weight=1.0)
    assert actual.item() == pytest.approx(flat, abs=1e-4)
    assert less.item() < actual.item()


def union_walk(reader: ODERNN, observed: Observations) -> torch.Tensor:
    """Evolve all series between the union of the times, and update those that are observed, as is usual."""
    shown, moments = reader.inputs(observed), torch.unique(observed.times[observed.inside])
    states = torch.zeros(*observed.times.shape, reader.hidden, dtype=shown.dtype)
    h = torch.zeros(len(observed), reader.hidden, dtype=shown.dtype)
    begun = torch.zeros(len(observed), dtype=torch.bool)
    for place, moment in enumerate(moments):
        if place:
            moved = reader.between(h, moments[place - 1].expand(len(h)), moment.expand(len(h)))
            h = torch.where(begun[:, None], moved, h)  # the state is 0 before the first observation
        for row, step in ((observed.times == moment) & observed.inside).nonzero().tolist():
            states[row, step] = reader.cell(shown[row, step][None], h[row][None])[0]
            h = h.index_copy(0, torch.tensor([row]), states[row, step][None])
            begun[row] = True
    return states


@pytest.mark.parametrize(
    "solver",
    [{"method": "rk4", "steps": 16}, {"method": "tsit5", "steps": None, "rtol": 1e-9, "atol": 1e-9}],
    ids=["fixed", "adaptive"],
)
def test_separate_times_and_the_union_of_times_give_the_same_states(solver):
    observed = physionet("a").observed[torch.arange(6)].to(torch.float64)
    reader = ODERNN(observed.channels, 5, width=8, **solver).double()
    with torch.no_grad():
        for p in reader.evolve.parameters():
            p.mul_(2)  # visible evolution between observations
        torch.testing.assert_close(reader.states(observed), union_walk(reader, observed), rtol=1e-6, atol=1e-7)
