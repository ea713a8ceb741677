"""The command line: images, messages and help."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from neuralode import __version__
from neuralode.cli import app

SMALL = ["--epochs", "1", "--batches", "2", "--batch-size", "16", "--rtol", "0.1", "--accelerator", "cpu"]


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "NO_COLOR": "1"})


@pytest.fixture(autouse=True, scope="module")
def _a_light_reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralode.tasks.images.tolerance_sweep.ERROR_IMAGES", 4)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    return folder, run("train", "digits", *SMALL, "--out", folder)


def test_training_prints_a_table_and_sweeps_tolerances(trained):
    folder, result = trained
    assert result.exit_code == 0, result.output
    assert re.search(r"test accuracy\s*│\s*\d+\.\d+%", result.output)
    assert "tsit5, rtol 0.1, gradient replay, engine eager" in result.output
    assert "accuracy against work" in result.output
    assert (folder / "plots" / "tolerance.png").exists()


@pytest.mark.parametrize("rtols", [["1e-1"], ["1e-1", "1e-2"]])
def test_evaluate_accepts_one_tolerance_or_several(trained, rtols):
    folder, _ = trained
    result = run("evaluate", folder, *(word for rtol in rtols for word in ("--rtol", rtol)))
    assert result.exit_code == 0, result.output
    assert len((folder / "tolerances.csv").read_text().splitlines()) == 1 + len(rtols)


def test_train_does_not_overwrite_a_run(trained):
    folder, _ = trained
    result = run("train", "digits", *SMALL, "--out", folder)
    assert result.exit_code == 2
    assert "holds a run already" in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "digits", "--model", "odnet"), "did you mean 'odenet'"),
        (("train", "digits", "--method", "tsit"), "did you mean 'tsit5'"),
        (("train", "digits", "--gradient", "replya"), "did you mean 'replay'"),
        (("evaluate", "no/such/run"), "no/such/run is not a run: it has no config.json."),
        (("train", "digits", "--resume", "no/such/run"), "is not a run"),
    ],
)
def test_invalid_arguments_are_reported_in_one_sentence(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_version_prints_the_version_of_the_package():
    assert run("--version").output == f"neuralode {__version__}\n"


@pytest.mark.parametrize(("data", "epochs"), [("digits", 20), ("mnist", 10), ("fashion-mnist", 10)])
def test_help_names_the_models_and_the_defaults(data, epochs):
    result = run("train", data, "--help")
    assert result.exit_code == 0
    assert "odenet, rknet, resnet" in result.output
    assert f"[default: {epochs}]" in result.output


def test_long_epochs_print_lines_without_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr("neuralode.terminal.progress.QUIET", 0.0)
    options = ["--model", "noblock", "--epochs", "1", "--batches", "2", "--batch-size", "16", "--accelerator", "cpu"]
    result = run("train", "digits", *options, "--out", tmp_path / "run")
    assert re.search(r"epoch 1/1, batch 2/2, loss \d", result.output)


def test_without_typer_one_sentence_names_the_extra():
    hide_typer = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'typer' else find(name, *rest);"
        "from neuralode.cli import app; app()"
    )
    result = subprocess.run([sys.executable, "-c", hide_typer], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "The neuralode command cannot start: typer is not installed; pip install 'neuralode[cli]' brings it.\n"
    )


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "spirals", "--help"], ["fit", "--help"]])
def test_help_does_not_load_lightning(words):
    code = f"""
import sys
from neuralode.cli import app
try:
    app({words})
finally:
    sys.stderr.write(str("lightning" in sys.modules or "sklearn" in sys.modules))
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0
    assert completed.stderr == "False"
