"""`neuralode fit`: the files of a run, and forecasts and imputed values from it."""

import hashlib
import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from matplotlib.ticker import MaxNLocator

from neuralode.data.tables.series import read_series
from neuralode.estimators.forecaster import plots
from neuralode.estimators.forecaster.estimator import LatentODEForecaster
from neuralode.tasks.base import FitSession
from neuralode.tasks.fit import run as runs
from neuralode.tasks.fit.config import SeriesConfig
from neuralode.tasks.runner import train
from neuralode.training.run import Run

NAN = float("nan")
TINY = {"latent": 2, "epochs": 2, "batch_size": 4, "window": 8}


@pytest.fixture(autouse=True)
def _few_points(monkeypatch):
    monkeypatch.setattr("neuralode.tasks.fit.run.GRID_POINTS", 5)


def written(folder: Path, name: str = "table.csv", count: int = 5) -> Path:
    """Write series of 12 days each, with gaps and a day without values."""
    t = np.arange(12.0)
    frames = [pd.DataFrame({"who": f"s{k}", "day": t, "x": np.sin(t + k), "y": t + k}) for k in range(count)]
    for frame in frames:
        frame.loc[3, "x"] = NAN
        frame.loc[6, ["x", "y"]] = NAN
    table = pd.concat(frames, ignore_index=True)
    path = folder / name
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


def make_config(path: Path, **options) -> SeriesConfig:
    return SeriesConfig(str(path), series="who", time="day", **{**TINY, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.tasks.fit.run.GRID_POINTS", 5)
        return train(runs.SeriesTask, make_config(written(folder)), folder / "run")


def test_a_run_consists_of_plain_files(run):
    names = {path.name for path in run.folder.iterdir()}
    [weights] = [name for name in names if name.startswith("weights-")]
    assert {"config.json", "metrics.csv", "estimator.json", "evaluation.csv", "summary.json", "plots", weights} <= names
    assert not run.checkpoints.exists()
    assert (run.plots / "fit.png").stat().st_size > 0
    assert [row["epoch"] for row in run.metrics] == [0, 1]
    summary = run.summary
    assert (summary["series"], summary["observations"], summary["channels"]) == (5, 105, ["x", "y"])
    assert summary["interrupted"] is False
    assert summary["setup"]["cut"] == {"window": 8, "context": 6}
    assert Path(run.config["asked"]["data"]).is_absolute()


def test_a_forecaster_is_loaded_without_unpickling(run, monkeypatch):
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("torch.load", None)
    assert len(runs.load(run).forecast()) == 10
    assert runs.evaluate(run).equals(pd.read_csv(run.folder / "evaluation.csv"))


def test_forecasts_and_imputed_values_are_written_to_the_run(run):
    predictions = runs.forecast(run, 3)
    saved = pd.read_csv(run.folder / "forecast.csv")
    pd.testing.assert_frame_equal(saved, predictions)
    assert len(saved) == 5 * 3 * 2
    filled = runs.impute(run)
    saved = pd.read_csv(run.folder / "imputed.csv")
    assert list(saved) == ["who", "day", "x", "y"]
    assert saved.notna().all(axis=None)
    assert len(saved) == len(filled) == 60  # including days without values
    assert all((run.plots / name).stat().st_size for name in ("forecast.png", "imputed.png"))


def test_another_table_is_forecast_imputed_and_evaluated(run, tmp_path):
    other = written(tmp_path, "other.csv", count=1)
    assert set(runs.forecast(run, 2, other)["who"]) == {"s0"}
    assert len(runs.impute(run, other)) == 12
    reported = runs.evaluate(run, other)
    assert reported[reported["what"] == "forecast"]["values"].sum() == 4


def test_times_from_the_index_are_written_as_a_column(tmp_path):
    days = pd.date_range("2026-01-01", periods=10, tz="UTC")
    x = np.sin(np.arange(10.0))
    x[4] = NAN
    pd.DataFrame({"x": x}, index=days).to_parquet(tmp_path / "dated.parquet")
    pd.DataFrame({"x": x}).to_csv(tmp_path / "plain.csv", index=False)
    for name, column, times in (("dated.parquet", "time", days.tolist()), ("plain.csv", "row", list(range(10)))):
        run = train(runs.SeriesTask, SeriesConfig(str(tmp_path / name), **TINY), tmp_path / f"of {name}")
        runs.impute(run)
        saved = pd.read_csv(run.folder / "imputed.csv", parse_dates=["time"] if column == "time" else None)
        assert list(saved) == [column, "x"]
        assert saved[column].tolist() == times
        assert saved["x"].notna().all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"values": ("z",)}, "the table has no column 'z' for values"),
        ({"recognition": "lstm"}, "recognition='lstm'; wanted one of"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0; wanted a number above 0"),
        ({"accelerator": "abacus"}, "accelerator='abacus' cannot be used here"),
        ({"data": "gone.csv"}, "there is no file 'gone.csv'"),
    ],
)
def test_invalid_configs_are_rejected_before_a_folder_is_created(tmp_path, options, sentence):
    config = make_config(written(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        train(runs.SeriesTask, SeriesConfig(**{**vars(config), **options}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ids_that_cannot_be_saved_are_rejected_before_training(tmp_path):
    days = [date(2026, 1, 1), date(2026, 1, 2)] * 6
    pd.DataFrame({"who": days, "day": np.arange(12), "x": np.arange(12.0)}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(TypeError, match="series ids have type date, which cannot be saved; wanted text or numbers"):
        train(runs.SeriesTask, make_config(tmp_path / "x.parquet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_training_is_resumed(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    config = make_config(written(tmp_path, count=1), epochs=3)
    first = train(runs.SeriesTask, config, tmp_path / "run", callbacks=lambda stage: [Stop()])
    assert first.summary["interrupted"] is True
    assert first.checkpoints.exists()
    assert len(runs.load(first).forecast()) == 2
    assert runs.SeriesTask.load_config(first) == SeriesConfig(**{**vars(config), "data": str(tmp_path / "table.csv")})
    again = train(runs.SeriesTask, runs.SeriesTask.load_config(first), first.folder, resume=True)
    assert again.summary["interrupted"] is False
    assert [row["epoch"] for row in again.metrics] == [0, 1, 2]
    assert not again.checkpoints.exists()
    with pytest.raises(ValueError, match="is finished: there is nothing to resume"):
        train(runs.SeriesTask, runs.SeriesTask.load_config(first), first.folder, resume=True)


def test_a_run_resumes_only_with_the_same_table(run):
    path = Path(run.config["asked"]["data"])
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"s9,1,2,3\n")
        with pytest.raises(ValueError, match="is not the table that .* was started with; wanted it unchanged"):
            train(runs.SeriesTask, runs.SeriesTask.load_config(run), run.folder, resume=True)
    finally:
        path.write_bytes(before)


def test_runs_of_other_tasks_and_runs_without_a_forecaster_are_rejected(run, tmp_path):
    other = Run.create(tmp_path / "other", {"task": "digits"})
    for function in (runs.load, runs.SeriesTask.load_config):
        with pytest.raises(ValueError, match="is a run of 'digits'; wanted one of `neuralode fit`"):
            function(other)
    begun = Run.create(tmp_path / "begun", json.loads((run.folder / "config.json").read_text()))
    with pytest.raises(FileNotFoundError, match="has no forecaster yet: resume its training by --resume"):
        runs.load(begun)


# --- pictures


def drawn(monkeypatch, tmp_path, frame: pd.DataFrame, **columns):
    """Return the figure of a table and of predictions for it."""
    figures, savefig = [], plots.Figure.savefig
    monkeypatch.setattr(plots.Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k)))
    table = read_series(frame, **columns)
    predictions = [
        pd.DataFrame({**({} if name is None else {"who": name}), table.time_column or "time": table.clock.labels(at),
                      "channel": channel, "mean": 0.0, "q05": -1.0, "q95": 1.0})
        for name, at in zip(table.names, table.times, strict=True) for channel in table.channels
    ]  # fmt: skip
    plots.plot_predictions(table, pd.concat(predictions), tmp_path / "x.png", title="answers")
    return figures[0]


def test_integer_times_have_integer_ticks(monkeypatch, tmp_path):
    figure = drawn(monkeypatch, tmp_path, pd.DataFrame({"t": range(4), "x": range(4)}), time="t")
    ticks = figure.axes[0].get_xticks()
    assert isinstance(figure.axes[0].xaxis.get_major_locator(), MaxNLocator)
    assert np.array_equal(ticks, np.round(ticks))


def test_timestamps_are_plotted_in_local_time(monkeypatch, tmp_path):
    at = pd.date_range("2026-01-01 00:00", periods=4, freq="h", tz="Asia/Tokyo")
    figure = drawn(monkeypatch, tmp_path, pd.DataFrame({"t": at, "x": range(4)}), time="t")
    observed = figure.axes[0].get_lines()[1].get_xdata()
    assert pd.Timestamp(observed[0]) == pd.Timestamp("2026-01-01 00:00")


def test_only_the_first_series_are_plotted(monkeypatch, tmp_path):
    frame = pd.DataFrame({"who": [k // 2 for k in range(12)], "t": [k % 2 for k in range(12)], "x": range(12)})
    figure = drawn(monkeypatch, tmp_path, frame, series="who", time="t")
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == "answers (4 of 6 series)"


def test_only_plotted_series_are_predicted_on_a_fine_grid(run, monkeypatch):
    asked_for = []
    monkeypatch.setattr(
        LatentODEForecaster, "predict", lambda self, X, times: asked_for.append((X.names, [*times])) or pd.DataFrame()
    )
    model = runs.load(run)
    runs._predict_on_grid(model, model.table_, 2)
    assert asked_for == [(("s0", "s1", "s2", "s3"), ["s0", "s1", "s2", "s3"])]


def test_a_channel_named_as_the_row_numbers_can_be_imputed(tmp_path):
    path = tmp_path / "rows.csv"
    pd.DataFrame({"row": np.arange(12.0), "v": np.arange(12.0)}).to_csv(path, index=False)
    run = train(runs.SeriesTask, SeriesConfig(str(path), epochs=1, refit=False), tmp_path / "run")
    assert runs.impute(run).columns.tolist() == ["_row", "row", "v"]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.parquet"])
def test_the_file_is_read_once_and_the_digest_is_of_that_content(tmp_path, monkeypatch, name):
    path, reads, read_bytes = written(tmp_path, count=1), [], Path.read_bytes
    frame = pd.read_csv(path)
    path = tmp_path / name
    {".csv": lambda: None, ".tsv": lambda: frame.to_csv(path, sep="\t", index=False),
     ".parquet": lambda: frame.to_parquet(path)}[path.suffix]()  # fmt: skip
    content = path.read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read_bytes(self))
    task = runs.SeriesTask.prepare(make_config(path))
    assert reads == [path]
    path.unlink()  # must not be read again
    assert task.describe()["digest"] == hashlib.sha256(content).hexdigest()
    run = Run.create(tmp_path / "run", task.describe())
    result = task.fit(run, FitSession())
    assert result.epochs == len(run.metrics) == 2
    assert task.evaluate(run, result)["observations"] == 21


def test_a_run_without_column_names_equals_an_estimator_fitted_to_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    pd.DataFrame({"a": np.arange(12.0), "b": np.sin(np.arange(12.0))}).to_csv(path, index=False)
    run = train(runs.SeriesTask, SeriesConfig(str(path), latent=2, window=8, epochs=2, batch_size=4), tmp_path / "run")
    options = {"latent": 2, "window": 8, "max_epochs": 2, "batch_size": 4, "random_state": 0}
    alone = LatentODEForecaster(**options).fit(path)
    again = runs.load(run)
    assert (alone.n_features_in_, alone.channels_) == (again.n_features_in_, again.channels_)
    pd.testing.assert_frame_equal(alone.forecast(path, horizon=2), again.forecast(path, horizon=2))
