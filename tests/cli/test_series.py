"""The commands `fit`, `forecast`, `impute` and `evaluate` for tables of series."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from typer.testing import CliRunner

from neuralode.cli import app
from neuralode.training.run import Run

SMALL = ["--epochs", "1", "--batch-size", "4", "--latent", "2", "--window", "8"]
LONG = ["--series", "who", "--time", "day"]


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "NO_COLOR": "1"})


@pytest.fixture(autouse=True, scope="module")
def _few_points():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.tasks.fit.run.GRID_POINTS", 5)
        yield


def written(path: Path, series: int = 2) -> Path:
    """Write series of 12 days, with gaps and a day without values."""
    day = np.arange(12)
    frames = [
        pd.DataFrame({"who": f"s{k}", "day": day, "a": np.sin(day + k), "b": day + k, "c": "x"}) for k in range(series)
    ]
    for frame in frames:
        frame.loc[3, "a"] = np.nan
        frame.loc[6, ["a", "b"]] = np.nan
    pd.concat(frames).assign(note="x").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    data = written(folder / "table.csv")
    return folder / "run", run("fit", data, *LONG, "--values", "a, b", "--out", folder / "run", *SMALL)


def test_fit_prints_results_and_the_next_command(fitted):
    folder, result = fitted
    assert result.exit_code == 0, result.output
    assert "42 observations of 2 series, 2 channels" in result.output
    assert "Training, with the ends of series held out" in result.output
    assert "Training on all data" in result.output
    assert "root mean square error" in result.output
    assert f"Next: neuralode forecast {folder} --horizon 10" in result.output
    assert Run.open(folder).summary["channels"] == ["a", "b"]


def test_forecasts_are_printed_and_written(fitted):
    folder, _ = fitted
    result = run("forecast", folder, "--horizon", 3)
    assert result.exit_code == 0, result.output
    saved = pd.read_csv(folder / "forecast.csv")
    assert list(saved) == ["who", "day", "channel", "mean", "q05", "q50", "q95"]
    assert saved["day"].tolist() == [12, 12, 13, 13, 14, 14] * 2
    assert saved["who"].tolist() == ["s0"] * 6 + ["s1"] * 6
    assert (saved["q05"] <= saved["q95"]).all()
    assert (folder / "plots" / "forecast.png").exists()
    assert "forecast.csv" in result.output


def test_imputed_values_are_printed_and_written_including_empty_rows(fitted):
    folder, _ = fitted
    result = run("impute", folder)
    assert result.exit_code == 0, result.output
    saved, table = pd.read_csv(folder / "imputed.csv"), pd.read_csv(folder.parent / "table.csv")
    assert saved[["who", "day"]].equals(table[["who", "day"]].astype({"day": float}))
    assert saved.notna().all(axis=None)
    for name in ("a", "b"):
        seen = table[name].notna()
        assert np.array_equal(saved[name][seen], table[name][seen])


def test_evaluate_prints_the_errors_on_held_out_data(fitted):
    folder, _ = fitted
    result = run("evaluate", folder)
    assert result.exit_code == 0, result.output
    assert "root mean square error" in result.output
    assert "forecast" in result.output


def test_commands_accept_another_table(fitted, tmp_path):
    folder, _ = fitted
    other = written(tmp_path / "other.csv", series=1)
    for words in (("evaluate", folder), ("forecast", folder, "--horizon", 1), ("impute", folder)):
        result = run(*words, "--data", other)
        assert result.exit_code == 0, result.output
    assert pd.read_csv(folder / "forecast.csv")["who"].unique().tolist() == ["s0"]
    result = run("evaluate", folder, "--data", folder.parent / "gone.csv")
    assert (result.exit_code, len(result.output.strip().splitlines())) == (2, 1)
    assert "there is no file" in result.output


def test_fit_does_not_overwrite_a_run(fitted):
    folder, _ = fitted
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = run("fit", folder.parent / "table.csv", *LONG, "--values", "a,b", "--out", folder, *SMALL)
    assert result.exit_code == 2
    assert "holds a run already" in result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_runs_without_a_folder_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "table.csv", series=1)
    for _ in range(2):
        result = run("fit", "table.csv", *LONG, "--values", "b", "--no-refit", "--holdout", "0", *SMALL)
        assert result.exit_code == 0, result.output
        assert "Nothing was held out" in result.output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["table", "table-2"]


def test_ctrl_c_interrupts_a_training_that_resumes_only_with_an_unchanged_table(tmp_path, monkeypatch):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    data, folder = written(tmp_path / "table.csv", series=1), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.terminal.progress.progress", lambda epochs, every: [Stop()])
        result = run("fit", data, *LONG, "--values", "a,b", "--out", folder, *SMALL, "--epochs", 2)
    assert result.exit_code == 130, result.output
    assert f"Stopped by Ctrl-C; resume with: neuralode fit --resume {folder}" in result.output.replace("\n", "")
    assert run("forecast", folder).exit_code == 0
    content = data.read_text()
    data.write_text(content.replace("11,", "11.5,"))
    result = run("fit", "--resume", folder)
    assert result.exit_code == 2
    assert "is not the table that" in result.output
    data.write_text(content)
    result = run("fit", "--resume", folder)
    assert result.exit_code == 0, result.output
    assert not (folder / "checkpoints").exists()
    result = run("fit", "--resume", folder)
    assert result.exit_code == 2
    assert "is finished: there is nothing to resume" in result.output


HEAD = "who,day,a,b\n"
BAD = {
    "text": (HEAD + "s0,0,1,2\ns0,1,n/a?,2\n", "column 'a' has 'n/a?' at row 2 (series 's0')"),
    "infinity": (HEAD + "s0,0,1,2\ns0,1,1,inf\n", "column 'b' has an infinite value at row 2 (series 's0')"),
    "no time": (HEAD + "s0,0,1,2\ns0,,1,2\n", "column 'day' has no time at row 2 (series 's0')"),
    "odd time": (HEAD + "s0,0,1,2\ns0,noon,1,2\n", "column 'day' has 'noon' at row 2 (series 's0')"),
    "mixed times": (HEAD + "s0,0,1,2\ns0,2026-01-01,1,2\n", "column 'day' has '2026-01-01' at row 2 (series 's0')"),
    "no id": (HEAD + "s0,0,1,2\n,1,1,2\n", "column 'who' has no series id at row 2"),
    "twice": (HEAD + "s0,0,1,2\ns1,0,1,2\ns0,0,3,4\n", "column 'day' has 0 at row 1 and again at row 3 (series 's0')"),
    "date as value": (HEAD + "s0,0,1,2026-01-01\ns0,1,1,2\n", "column 'b' has '2026-01-01' at row 1 (series 's0')"),
    "yes as value": (HEAD + "s0,0,1,2\ns0,1,yes,2\n", "column 'a' has 'yes' at row 2 (series 's0')"),
    "decimal comma": (HEAD + 's0,0,1,2\ns0,1,"1,5",2\n', "column 'a' has '1,5' at row 2 (series 's0')"),
    "empty column": (HEAD + "s0,0,1,\ns0,1,1,\n", "column 'b' has no values"),
    "no such column": ("id,day,a\ns0,0,1\ns0,1,1\n", "the table has no column 'who' for series"),
    "no rows": (HEAD, "the table has no rows"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD.values(), ids=BAD)
def test_an_invalid_table_is_rejected_in_one_line_and_nothing_is_written(content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(content)
    result = run("fit", "table.csv", *LONG, *SMALL)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("fit",), "wanted either a table, or a run to resume by --resume"),
        (("fit", "table.csv", "--values", "a,zz"), "the table has no column 'zz' for values"),
        (("fit", "table.csv", "--values", "a", "--recognition", "lstm"), "recognition='lstm'; wanted one of"),
        (("fit", "table.csv", "--values", "a", "--learning-rate", "0"), "learning_rate=0.0; wanted a number above 0"),
        (("fit", "--resume", "no/such/run"), "no/such/run is not a run: it has no config.json."),
        (("forecast", "no/such/run"), "no/such/run is not a run"),
        (("impute", "no/such/run"), "no/such/run is not a run"),
        (("evaluate", "no/such/run", "--data", "table.csv"), "no/such/run is not a run"),
    ],
)
def test_invalid_arguments_are_reported_in_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n2,3\n")
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_runs_of_other_tasks_are_rejected(tmp_path):
    Run.create(tmp_path / "digits", {"task": "digits"})
    for words in (("forecast",), ("impute",), ("fit", "--resume")):
        result = run(*words, tmp_path / "digits")
        assert result.exit_code == 2
        assert "is a run of 'digits'; wanted one of `neuralode fit`." in result.output
