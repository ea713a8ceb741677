"""Run folders and their plain files."""

import pickle

import pytest
import torch
from torch import nn

from neuralode.training import Run
from neuralode.training.run import free_folder, write_json


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"task": "test"})


class Explosive:
    """Fail the test when unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a file of the run was unpickled",)


def test_weights_are_read_back_unchanged(run):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    run.write_weights(model)
    run.read_weights(other)
    assert torch.equal(model.weight, other.weight)


def test_pickled_weights_are_rejected_and_not_executed(run):
    (run.folder / "weights.safetensors").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(Exception, match="header|[Ss]afetensor"):
        run.read_weights(nn.Linear(3, 2))


def test_a_folder_without_a_run_is_rejected_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config.json"):
        Run.open(tmp_path)


def test_a_run_without_weights_is_rejected_in_one_sentence(run):
    with pytest.raises(FileNotFoundError, match="has no weights"):
        run.read_weights(nn.Linear(1, 1))


def test_a_run_is_not_overwritten(run):
    with pytest.raises(FileExistsError, match="holds a run already"):
        Run.create(run.folder, {})


def test_the_next_free_folder_is_numbered(tmp_path):
    for expected in ("a", "a-2", "a-3"):
        folder = free_folder(tmp_path / "a")
        assert folder.name == expected
        folder.mkdir()


def test_metrics_are_read_as_numbers_without_absent_ones(run):
    assert run.metrics == []
    run.write_metrics([{"epoch": 0, "loss": 1.5, "extra": ""}, {"epoch": 1, "loss": 0.5, "extra": 2}])
    assert run.metrics == [{"epoch": 0.0, "loss": 1.5}, {"epoch": 1.0, "loss": 0.5, "extra": 2.0}]


def test_a_failing_write_leaves_the_old_file(run):
    with pytest.raises(TypeError):
        write_json(run.folder / "config.json", {"what": object()})
    assert Run.open(run.folder).config == {"task": "test"}
