"""Estimators are loaded from the folder that they were saved to, and damaged folders are refused with a reason."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from neuralode.estimators.serialization import FILE, SavedEstimator


class Scaler(SavedEstimator):
    """Multiply by fitted numbers."""

    def __init__(self, size: int = 2) -> None:
        self.size = size

    def fit(self, X, y=None):
        self.layer_ = nn.Linear(self.size, 1)
        self.seen_ = len(X)
        return self

    def _fitted_state(self):
        return {"seen": self.seen_}, self.layer_.state_dict()

    def _restore(self, config, tensors):
        self.seen_ = int(config["seen"])
        self.layer_ = nn.Linear(self.size, 1)
        self.layer_.load_state_dict(tensors)


@pytest.fixture
def folder(tmp_path):
    Scaler().fit([1, 2, 3]).save(tmp_path)
    return tmp_path


def change(folder, change):
    kept = json.loads((folder / FILE).read_text())
    change(kept)
    (folder / FILE).write_text(json.dumps(kept))


def test_it_is_taken_back_and_leaves_the_random_numbers_of_others_alone(tmp_path):
    own = Scaler().fit([1, 2, 3])
    own.save(tmp_path)
    torch.manual_seed(0)
    loaded = Scaler.load(tmp_path)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert loaded.seen_ == 3
    assert torch.equal(loaded.layer_.weight, own.layer_.weight)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda kept: kept["config"].pop("seen"), "'seen'"),
        (lambda kept: kept["config"].pop("feature_names"), "'feature_names'"),
        (lambda kept: kept["config"].update(seen=[]), "int"),
        (lambda kept: kept["params"].update(size=3), "size mismatch"),
        (lambda kept: kept["params"].update(hat=1), "hat"),
    ],
)
def test_what_was_changed_is_refused_in_a_sentence(folder, damage, says):
    change(folder, damage)
    with pytest.raises(ValueError, match=rf"(?s)does not hold what Scaler.save\(\) wrote: .*{says}"):
        Scaler.load(folder)
