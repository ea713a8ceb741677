"""Damaged, foreign and invalid files are rejected with a sentence, and no code in them is executed."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from neuralode.cli import app
from neuralode.tasks.density import run as density
from neuralode.tasks.density.config import DensityConfig
from neuralode.tasks.fit.run import SeriesTask
from neuralode.tasks.flow_matching import run as matching
from neuralode.tasks.flow_matching.config import FlowMatchingConfig
from neuralode.tasks.images import run as images
from neuralode.tasks.images.config import ImagesConfig
from neuralode.tasks.images.run import ImagesTask
from neuralode.tasks.physionet.run import PhysioNetTask
from neuralode.tasks.runner import train
from neuralode.tasks.spirals import run as spirals
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.training import preflight
from neuralode.training.atomic_write import replace_file
from neuralode.training.checkpoints import Checkpoints, CheckpointWarning
from neuralode.training.config_io import RunWarning
from neuralode.training.fit import FitOptions, fit
from neuralode.training.module import TrainingModule
from neuralode.training.preflight import check_folder, check_room
from neuralode.training.resumable_loader import ResumableLoader
from neuralode.training.run import Run, write_json

SMALL = ImagesConfig(
    model="noblock", epochs=1, batches=2, batch_size=16, accelerator="cpu", devices="1", checkpoint_every=1
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Line(TrainingModule):
    def __init__(self):
        super().__init__(1e-2)
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, index):
        return (self.layer(batch) - 1).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", (self.layer(batch) - 1).square().mean())


class Points(L.LightningDataModule):
    def train_dataloader(self):
        return ResumableLoader(torch.utils.data.DataLoader(torch.ones(6, 1), 2))

    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(2, 1), 2)


class Payload:
    """Create a file when unpickled."""

    def __init__(self, marker):
        self.nest = marker

    def __reduce__(self):
        return open, (str(self.nest), "w")


def go_on(folder, **options):
    return fit(Line(), Points(), FitOptions(2, 3), folder=folder, resume=True, **options)


def put(folder: Path, content: bytes, step: int = 99) -> Path:
    """Write content to a file with the name of a checkpoint and a valid digest."""
    path = folder / f"step-{step:08d}-{hashlib.sha256(content).hexdigest()[:16]}.ckpt"
    path.write_bytes(content)
    return path


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a folder with the checkpoints of the last two steps of a training."""
    folder = tmp_path_factory.mktemp("finished")
    fit(Line(), Points(), FitOptions(2, 3, checkpoint_every=1), folder=folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "checkpoints"))


# --- checkpoints


@FUZZ
@given(data=st.data())
def test_a_checkpoint_with_changed_or_missing_bytes_is_rejected_unparsed(finished, data):
    path = Checkpoints(finished).files()[0]
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    other = data.draw(st.integers(1, 255))
    content = {
        "cut": original[:place],
        "flip": original[:place] + bytes([original[place] ^ other]) + original[place + 1 :],
        "insert": original[:place] + bytes([other]) + original[place:],
    }[changed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: content)
        patch.setattr("torch.load", None)
        with pytest.raises(ValueError, match="is damaged: its content is not what was written"):
            Checkpoints(finished).read(path)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def nested(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )


junk = nested(plain | st.binary(max_size=8))


@FUZZ
@given(content=st.one_of(st.binary(max_size=200), junk.map(pickle.dumps), junk.map(saved)))
def test_arbitrary_content_with_a_valid_digest_is_rejected_in_a_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("made-up")
    put(folder, content)
    with pytest.raises(ValueError, match="is not a checkpoint of a training.*delete .* to start again"):
        go_on(folder)


@settings(FUZZ, max_examples=30)
@given(data=st.data())
def test_a_checkpoint_with_a_replaced_part_is_rejected_in_a_sentence_or_resumed(finished, tmp_path_factory, data):
    original = torch.load(Checkpoints(finished).files()[1], weights_only=True)
    content = copy.deepcopy(original)
    place = content
    for _ in range(data.draw(st.integers(0, 3))):
        deeper = [name for name, part in place.items() if isinstance(part, dict) and part]
        if not deeper:
            break
        place = place[data.draw(st.sampled_from(sorted(deeper, key=str)))]
    name = data.draw(st.sampled_from(sorted(place, key=str)))
    if data.draw(st.booleans()):
        del place[name]
    else:
        place[name] = data.draw(junk)
    folder = tmp_path_factory.mktemp("replaced")
    put(folder, saved(content))
    with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
        fit(Line(), Points(), FitOptions(2, 3), folder=folder, resume=True)


def places(part, above=()):
    """Yield the path of every part of a checkpoint, from the top down."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, below in inner:
        yield (*above, name)
        yield from places(below, (*above, name))


def replaced(original, path, value):
    """Return a checkpoint with another value at a path, or without it if the value is ``...``."""
    content = copy.deepcopy(original)
    place = content
    for name in path[:-1]:
        place = place[name]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


PROGRESS = ("loops", "fit_loop", "epoch_loop.batch_progress")
OTHERS = [..., None, {}, [], {"a": {}}, [{}], {"a": 1}, True, -1, 0, 1, 2, 3, 5, 100, 2**40, 1.5, float("nan"), "a",
          torch.ones(1), torch.ones(6, 1)]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("loops", "fit_loop"), {}, "loop counters are missing or invalid"),
        (PROGRESS, ..., "loop counters are missing or invalid"),
        ((*PROGRESS, "total", "completed"), {"a": 1}, "loop counters are missing or invalid"),
        ((*PROGRESS, "total", "ready"), 100, "no val_loss was logged in epoch 2"),
        (("loops", "fit_loop", "epoch_progress", "current", "completed"), 100, "cannot be resumed from"),
        (("callbacks", "Best", "weights", "layer.bias"), torch.ones(2), "its best weights are not those of this"),
        (("callbacks", "Patience{'monitor': 'val_loss', 'mode': 'min'}", "best_score"), torch.ones(1), "best_score is"),
        (("optimizer_states", 0, "param_groups", 0, "capturable"), True, "cannot be resumed from"),
    ],
)
def test_inconsistent_parts_are_named(finished, tmp_path, path, value, says):
    original = torch.load(Checkpoints(finished).files()[1], weights_only=True)
    put(tmp_path, saved(replaced(original, path, value)))
    with pytest.raises(ValueError, match=says):
        go_on(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_every_part_replaced_by_every_value_is_rejected_in_a_sentence_or_resumed(finished, tmp_path, which):
    original = torch.load(Checkpoints(finished).files()[which], weights_only=True)
    for path in places(original):
        for value in OTHERS:
            folder = tmp_path / "replaced"
            folder.mkdir()
            put(folder, saved(replaced(original, path, value)))
            with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
                go_on(folder)
            shutil.rmtree(folder)


@pytest.mark.parametrize("wrapped", [pickle.dumps, saved, lambda payload: saved({"state_dict": payload})])
@pytest.mark.parametrize("named", [True, False])
def test_pickled_code_is_never_executed(folder, tmp_path, wrapped, named):
    marker = tmp_path / "hatched"
    content = wrapped(Payload(marker))
    if named:
        put(folder, content)
    else:
        Checkpoints(folder).files()[0].write_bytes(content)
    with pytest.warns(CheckpointWarning, match="resuming from"):
        go_on(folder)
    assert not marker.exists()


def test_a_file_deleted_during_listing_is_skipped(folder, monkeypatch):
    first, second = Checkpoints(folder).files()
    plain = Path.stat

    def gone(self, **options):
        if self == second:
            self.unlink()
        return plain(self, **options)

    monkeypatch.setattr(Path, "stat", gone)
    assert Checkpoints(folder).files() == [first]


def test_files_with_other_names_are_ignored(folder):
    (folder / "best.ckpt").write_bytes(b"")
    (folder / "step-00000001.ckpt").write_bytes(b"")
    assert go_on(folder).epochs == 2


def test_checkpoints_of_an_older_version_are_named(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"last.ckpt was written by an older version of neuralode"):
        go_on(tmp_path)


def test_partial_files_of_a_killed_training_are_deleted(folder):
    (folder / "step-00000009-0123456789abcdef.ckpt.partial").write_bytes(b"half")
    go_on(folder)
    assert not list(folder.glob("*.partial"))


# --- configs


CONFIGS = {
    "digits": (ImagesTask.load_config, lambda: images.describe(SMALL, images.build(SMALL))),
    "density": (density.DensityTask.load_config, lambda: {
        "task": "density",
        "data": {"data": "moons", "columns": ["a"], "rows": 100},
        "flow": {name: getattr(DensityConfig("moons"), name) for name in density.ARCHITECTURE},
        "training": {"seed": 0, "epochs": 2},
    }),
    "matching": (matching.FlowMatchingTask.load_config, lambda: matching.describe(FlowMatchingConfig())),
    "spirals": (spirals.SpiralsTask.load_config, lambda: spirals.describe(SpiralsConfig())),
    "physionet": (PhysioNetTask.load_config, lambda: {
        "task": "physionet", "model": "rnn", "solver": None, "training": {"task": "mortality", "epochs": 2}
    }),
    "series": (SeriesTask.load_config, lambda: {
        "task": "series", "asked": {"data": "table.csv", "values": ["a", "b"]}, "digest": ""
    }),
}  # fmt: skip
values = nested(plain) | st.sampled_from([10**400, -1, 2**63, float("nan"), float("inf"), "\ud800", [[[[]]]], {"": {}}])


@pytest.mark.parametrize("name", CONFIGS)
@FUZZ
@given(data=st.data())
def test_a_modified_config_is_read_or_rejected_in_a_sentence(tmp_path_factory, name, data):
    load_config, make = CONFIGS[name]
    config = json.loads(json.dumps(make()))
    place = config
    if data.draw(st.booleans()):
        sections = sorted(name for name, part in config.items() if isinstance(part, dict) and part)
        place = place[data.draw(st.sampled_from(sections))]
    entry = data.draw(st.sampled_from(sorted(place)))
    if data.draw(st.booleans()):
        del place[entry]
    else:
        place[entry] = data.draw(values)
    folder = tmp_path_factory.mktemp("changed")
    (folder / "config.json").write_text(json.dumps(config))
    message = ""
    try:
        load_config(Run(folder))
    except ValueError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(message) < 600


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unmodified_config_is_read(tmp_path, name):
    load_config, make = CONFIGS[name]
    write_json(tmp_path / "config.json", make())
    load_config(Run(tmp_path))


NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", NESTED, b'{"a": 1' + b"0" * 5000 + b"}"]
)
@pytest.mark.parametrize(
    "words", [("train", "digits", "--resume"), ("train", "density", "--resume"), ("evaluate",), ("fit", "--resume")]
)
def test_an_invalid_config_file_ends_every_command_with_a_sentence(tmp_path, words, content):
    (tmp_path / "config.json").write_bytes(content)
    result = CliRunner().invoke(app, [*words, str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("neuralode: ")
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epochs": "2"}, "epochs is '2'; wanted int."),
        ({"epochs": 0}, "epochs is 0; wanted int from 1 to 2,147,483,647."),
        ({"seed": -1}, "seed is -1; wanted int from 0 to 4,294,967,295."),
        ({"seed": True}, "seed is True; wanted int."),
        ({"learning_rate": float("nan")}, "learning_rate is nan; wanted float."),
        ({"hat": 1}, "'hat', which this version of neuralode does not support."),
    ],
)
def test_the_message_names_the_entry(tmp_path, changed, says):
    config = images.describe(SMALL, images.build(SMALL))
    write_json(tmp_path / "config.json", {**config, "training": {**config["training"], **changed}})
    with pytest.raises(ValueError, match="config.json") as raised:
        ImagesTask.load_config(Run(tmp_path))
    assert says in str(raised.value)


def test_a_run_is_resumed_only_by_the_command_of_its_task(tmp_path):
    write_json(tmp_path / "config.json", images.describe(SMALL, images.build(SMALL)))
    for task in ("mnist", "density", "matching", "spirals", "physionet"):
        result = CliRunner().invoke(app, ["train", task, "--resume", str(tmp_path)])
        assert result.exit_code == 2
        assert "is a run of 'digits'" in result.output


# --- before training, and errors during it


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_beginning(tmp_path):
    through = train(ImagesTask, SMALL, tmp_path / "through", on_epoch=lambda row: None)
    Run.create(tmp_path / "killed", through.config)
    run = train(ImagesTask, SMALL, tmp_path / "killed", resume=True, on_epoch=lambda row: None)
    names = ("weights.safetensors", "config.json")
    assert all((run.folder / name).read_bytes() == (through.folder / name).read_bytes() for name in names)


def test_a_finished_run_is_left_unchanged_with_a_warning(tmp_path):
    run = train(ImagesTask, SMALL, tmp_path / "run", on_epoch=lambda row: None)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with pytest.warns(RunWarning, match="is finished: there is nothing to resume"):
        train(ImagesTask, ImagesTask.load_config(run), run.folder, resume=True)
    result = CliRunner().invoke(app, ["train", "digits", "--resume", str(run.folder)])
    assert result.exit_code == 0
    assert "is finished: there is nothing to resume." in result.output
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


SPOILED = {
    "digits": (ImagesTask, replace(SMALL, model="resnet1", epochs=1)),
    "spirals": (
        spirals.SpiralsTask,
        SpiralsConfig(observed=30, series=20, epochs=1, batches=2, batch_size=8, hidden=4, width=4),
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_training_with_nonfinite_weights_fails(tmp_path, monkeypatch, name):
    task_type, config = SPOILED[name]

    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            torch.nn.init.constant_(next(module.parameters()), torch.nan)

    with pytest.raises(ValueError, match=rf"learning_rate={config.learning_rate} led to weights that are not finite"):
        train(task_type, config, tmp_path / "run", callbacks=[Spoil()], on_epoch=lambda row: None)
    assert not Run(tmp_path / "run").finished
    assert not (tmp_path / "run" / "weights.safetensors").exists()


@pytest.mark.parametrize("rate", ["-1", "0", "nan", "inf"])
@pytest.mark.parametrize("task", ["digits", "spirals", "physionet", "density", "matching"])
def test_invalid_learning_rates_are_rejected_before_a_folder_is_created(tmp_path, task, rate):
    data = ["--data", "moons"] if task == "density" else []
    result = CliRunner().invoke(app, ["train", task, *data, "--learning-rate", rate, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert f"learning_rate={float(rate)}; wanted a number above 0." in result.output
    assert not (tmp_path / "run").exists()


def test_nan_is_null_in_a_summary(tmp_path):
    Run(tmp_path).write_summary({"loss": float("nan"), "epochs": 2})
    assert json.loads((tmp_path / "summary.json").read_text(), parse_constant=None) == {"loss": None, "epochs": 2}


def test_a_file_in_place_of_the_folder_is_rejected_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["train", "digits", "--model", "noblock", "--out", str(tmp_path / "file" / "run")])
    assert result.exit_code == 2
    assert "file is a file; wanted a folder for the results." in result.output


def test_an_unwritable_folder_is_rejected_before_training(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"run cannot be written \(Read-only file system\); wanted a writable folder."):
        train(ImagesTask, SMALL, tmp_path / "run", on_epoch=lambda row: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_rejected(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written"):
        check_folder(tmp_path / "run")


def test_a_full_disk_is_rejected_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(OSError, match=r"has 1 MiB left, and checkpoints of this training need 16 MiB; free some space"):
        fit(Line(), Points(), FitOptions(1, None), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_required_room_grows_with_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**8))
    check_room(tmp_path, 10**6)
    with pytest.raises(OSError, match="need"):
        check_room(tmp_path, 10**7)


def test_a_disk_that_fills_up_keeps_earlier_checkpoints_and_training_resumes(tmp_path, monkeypatch):
    torch.manual_seed(0)
    original = Line()
    fit(original, Points(), FitOptions(2, None, checkpoint_every=1))
    written = []

    def fill(descriptor):
        written.append(descriptor)
        if len(written) > 6:  # two calls per checkpoint: the file and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fill)
        with pytest.raises(OSError, match=r"the disk of .* is full.*use --resume"):
            fit(Line(), Points(), FitOptions(2, None, checkpoint_every=1), folder=tmp_path)
    remaining = Checkpoints(tmp_path).files()
    assert [path.name[:13] for path in remaining] == ["step-00000003", "step-00000002"]
    assert all(Checkpoints(tmp_path).read(path) for path in remaining)
    assert len(list(tmp_path.iterdir())) == 2
    torch.manual_seed(0)
    task = Line()
    fit(task, Points(), FitOptions(2, None, checkpoint_every=1), folder=tmp_path, resume=True)
    assert torch.equal(task.layer.weight, original.layer.weight)


def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch):
    replace_file(tmp_path / "file", b"before")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match=r"file cannot be written \(Input/output error\)"):
        replace_file(tmp_path / "file", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]
