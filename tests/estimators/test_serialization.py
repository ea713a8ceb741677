"""Estimators are loaded from the folder that they were saved to, and damaged folders are rejected with a reason."""

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
    saved = json.loads((folder / FILE).read_text())
    change(saved)
    (folder / FILE).write_text(json.dumps(saved))


def test_loading_restores_the_estimator_and_keeps_the_random_state(tmp_path):
    fitted = Scaler().fit([1, 2, 3])
    fitted.save(tmp_path)
    torch.manual_seed(0)
    loaded = Scaler.load(tmp_path)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert loaded.seen_ == 3
    assert torch.equal(loaded.layer_.weight, fitted.layer_.weight)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda saved: saved["config"].pop("seen"), "'seen'"),
        (lambda saved: saved["config"].pop("feature_names"), "'feature_names'"),
        (lambda saved: saved["config"].update(seen=[]), "int"),
        (lambda saved: saved["params"].update(size=3), "size mismatch"),
        (lambda saved: saved["params"].update(hat=1), "hat"),
    ],
)
def test_a_changed_file_is_rejected_with_a_reason(folder, damage, says):
    change(folder, damage)
    with pytest.raises(ValueError, match=rf"(?s)does not hold what Scaler.save\(\) wrote: .*{says}"):
        Scaler.load(folder)
