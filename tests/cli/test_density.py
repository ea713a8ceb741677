"""The commands `train density` and `sample`."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from neuralode.cli import app
from neuralode.terminal.console import show_frame, show_rows
from neuralode.training.run import Run

SMALL = ["--epochs", "1", "--width", "4", "--layers", "1"]


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "NO_COLOR": "1"})


@pytest.fixture(autouse=True, scope="module")
def _few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.training.modules.density_module.STEPS", 2)
        patch.setattr("neuralode.tasks.density.plots.GRID", 4)
        patch.setattr("neuralode.tasks.density.plots.FRAMES", 2)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    table.assign(kind="x", rate=0.5).to_csv(folder / "table.csv", index=False)
    words = ("train", "density", "--data", folder / "table.csv", "--columns", "a, b,rate", "--out", folder / "run")
    return folder / "run", run(*words, *SMALL)


def test_training_prints_results_and_the_next_command(trained):
    folder, result = trained
    assert result.exit_code == 0, result.output
    summary = Run.open(folder).summary
    assert f"{summary['test_nats']:.4f} ± {summary['test_nats_error']:.4f}" in result.output
    assert f"{summary['gaussian_nats']:.4f}" in result.output
    assert "Note: column 'rate' is constant in the training rows and left out" in result.output
    modelled = next(line for line in result.output.splitlines() if "rows, columns modelled" in line)
    assert "40, 2" in modelled
    assert f"Scores of all rows: {folder / 'scores.csv'}. Next: neuralode sample {folder}" in result.output
    assert len(pd.read_csv(folder / "scores.csv")) == 40


def test_samples_are_printed_and_written(trained, tmp_path):
    folder, _ = trained
    result = run("sample", folder, "--rows", 12, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "samples: first 10 rows" in result.output
    saved = pd.read_csv(folder / "samples.csv")
    assert list(saved) == ["a", "b", "rate"]
    assert len(saved) == 12
    again = run("sample", folder, "--rows", 12, "--seed", 3, "--out", tmp_path / "new" / "rows.csv")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "new" / "rows.csv").read_text() == (folder / "samples.csv").read_text()
    other = run("sample", folder, "--rows", 12, "--seed", 4, "--out", tmp_path / "rows.csv")
    assert other.exit_code == 0
    assert (tmp_path / "rows.csv").read_text() != (folder / "samples.csv").read_text()


@pytest.mark.parametrize(
    ("ending", "read"), [("tsv", lambda path: pd.read_csv(path, sep="\t")), ("parquet", pd.read_parquet)]
)
def test_samples_are_written_in_the_format_of_the_suffix(ending, read, trained, tmp_path):
    folder, _ = trained
    result = run("sample", folder, "--rows", 5, "--out", tmp_path / f"rows.{ending}")
    assert result.exit_code == 0, result.output
    run("sample", folder, "--rows", 5, "--out", tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(read(tmp_path / f"rows.{ending}"), pd.read_csv(tmp_path / "rows.csv"))


@pytest.mark.parametrize(
    ("out", "sentence"),
    [("rows.xlsx", "ends in '.xlsx'; wanted .csv, .tsv or .parquet."), ("folder", "is a folder; wanted a file, as")],
)
def test_invalid_output_paths_are_rejected(out, sentence, trained, tmp_path):
    (tmp_path / "folder").mkdir()
    result = run("sample", trained[0], "--out", tmp_path / out)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "no/such/run", "--seed", 2**63),
        ("train", "density", "--data", "moons", "--seed", -1),
        ("train", "matching", "--seed", -1),
        ("train", "matching", "--seed", 2**32),
    ],
)
def test_seeds_out_of_range_are_rejected(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_column_names_are_printed_without_markup(tmp_path):
    names = ["[/red]", "[bold]x", ":smile:"]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=names[:2]).assign(**{names[2]: 1.0})
    table.to_csv(tmp_path / "table.csv", index=False)
    folder = tmp_path / "[bold]run"
    result = run("train", "density", "--data", tmp_path / "table.csv", "--out", folder, *SMALL)
    assert result.exit_code == 0, result.output
    assert "Note: column ':smile:' is constant" in result.output
    assert f"Next: neuralode sample {folder}" in result.output
    assert "[bold]" not in result.output.replace(str(folder), "")
    result = run("sample", folder, "--rows", 3)
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in names)
    assert f"The table: {folder / 'samples.csv'}." in result.output


def test_cells_are_printed_without_markup(capsys):
    show_rows([{"[a]": "[/b]", "c": 0.5}], "rows")
    show_frame(pd.DataFrame({"c": ["[/d]"]}), "frame")
    out = capsys.readouterr().out
    assert all(text in out for text in ("[a]", "[/b]", "0.5", "[/d]"))


def test_runs_are_named_after_their_data_and_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = run("train", "density", "--data", "moons", "--rows", 20, *SMALL)
        assert result.exit_code == 0, result.output
        assert "entropy of the truth" in result.output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["density-moons", "density-moons-2"]


HEAD = "a,b\n"
LINES = "1,2\n2,1\n3,5\n4,2\n5,1\n6,0\n7,9\n8,1\n9,4\n"
BAD = {
    "text": (HEAD + LINES + "10,rose\n", "column 'b' has 'rose' at row 10"),
    "gap": (HEAD + LINES + "10,\n", "column 'b' has nothing at row 10"),
    "infinity": (HEAD + LINES + "10,inf\n", "column 'b' has an infinite value at row 10"),
    "yes and no": ("a,b\n" + "1,True\n2,False\n" * 5, "column 'b' has True at row 1"),
    "few rows": (HEAD + LINES, "the table has 9 rows of 2 columns; wanted at least 10 rows"),
    "constants": (HEAD + "1,2\n" * 20, "no column changes among 'a', 'b'"),
    "twice": ("a,a\n" + LINES + "10,3\n", "column 'a' comes twice"),
    "no rows": (HEAD, "the table has no rows"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD.values(), ids=BAD)
def test_an_invalid_table_is_rejected_in_one_line_and_nothing_is_written(content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(content)
    result = run("train", "density", "--data", "table.csv", *SMALL)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "density"), "wanted either a table by --data, or a run to resume by --resume"),
        (("train", "density", "--data", "mons"), "did you mean 'moons'"),
        (("train", "density", "--data", "gone.csv"), "there is no file 'gone.csv'"),
        (("train", "density", "--data", "moons", "--columns", "x"), "the table has no column 'x'"),
        (("train", "density", "--data", "moons", "--learning-rate", "0"), "learning_rate=0.0; wanted a number above 0"),
        (("train", "matching", "--learning-rate", "0"), "learning_rate=0.0; wanted a number above 0"),
        (("train", "matching", "--guidance", "nan"), "guidance=nan; wanted a finite number"),
        (("train", "density", "--data", "moons", "--method", "tsit"), "did you mean 'tsit5'"),
        (("train", "density", "--resume", "no/such/run"), "no/such/run is not a run"),
        (("sample", "no/such/run"), "no/such/run is not a run: it has no config.json."),
    ],
)
def test_invalid_arguments_are_reported_in_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_runs_that_cannot_be_sampled_are_rejected(tmp_path):
    Run.create(tmp_path / "digits", {"task": "digits"})
    result = run("sample", tmp_path / "digits")
    assert result.exit_code == 2
    assert "is a run of 'digits', which has nothing to draw; wanted one of density" in result.output


def test_runs_without_weights_are_rejected(trained, tmp_path):
    Run.create(tmp_path / "run", Run.open(trained[0]).config)
    result = run("sample", tmp_path / "run")
    assert result.exit_code == 2
    assert "has no weights.safetensors: was its training interrupted?" in result.output


def test_truncated_weights_are_rejected(trained, tmp_path):
    half = Run.create(tmp_path / "run", Run.open(trained[0]).config).folder / "weights.safetensors"
    content = (trained[0] / "weights.safetensors").read_bytes()
    for size in (0, 4, len(content) // 2):
        half.write_bytes(content[:size])
        result = run("sample", tmp_path / "run")
        assert result.exit_code == 2
        assert f"{half} cannot be read" in result.output
        assert len(result.output.strip().splitlines()) == 1
