"""`fit`: the weights that are kept, early stopping and resuming."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from neuralode.training.fit import FitOptions, fit
from neuralode.training.module import TrainingModule


class Line(TrainingModule):
    """Log the given validation losses, one per epoch."""

    def __init__(self, losses):
        super().__init__(1e-2)
        self.layer, self.losses = nn.Linear(1, 1), losses

    def training_step(self, batch, index):
        return (self.layer(batch) - 1).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.losses[self.trainer.current_epoch])


class Points(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.ones(4, 1), 2)

    def val_dataloader(self):
        return DataLoader(torch.ones(1, 1), 1)


class Weights(L.Callback):
    """Record the weights after each epoch; raise Ctrl-C at the start of epoch ``stop``."""

    def __init__(self, stop=None):
        self.after, self.stop = {}, stop

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.stop:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer, module):
        self.after[trainer.current_epoch] = module.layer.weight.item()


def test_the_weights_of_the_best_epoch_are_kept():
    task, recorder = Line([3.0, 1.0, 2.0]), Weights()
    result = fit(task, Points(), FitOptions(3, patience=10), callbacks=[recorder])
    assert (result.epochs, result.best_epoch, result.best) == (3, 2, 1.0)
    assert task.layer.weight.item() == recorder.after[1]


def test_training_stops_when_patience_is_exceeded():
    assert fit(Line([1.0, 2.0, 2.0, 2.0, 2.0]), Points(), FitOptions(5, patience=2)).epochs == 3


def test_without_patience_all_epochs_are_trained_and_the_last_is_kept():
    task, recorder = Line([]), Weights()
    result = fit(task, Points(), FitOptions(2, patience=None), callbacks=[recorder])
    assert (result.epochs, result.best_epoch) == (2, 2)
    assert task.layer.weight.item() == recorder.after[1]


@pytest.mark.parametrize("patience", [10, None])
def test_training_resumes_after_the_last_epoch_even_if_an_earlier_one_was_best(tmp_path, patience):
    effort, losses = FitOptions(4, patience), [1.0, 2.0, 2.0, 2.0]
    torch.manual_seed(0)
    uninterrupted = Weights()
    fit(Line(losses), Points(), effort, callbacks=[uninterrupted])
    torch.manual_seed(0)
    task, first, second = Line(losses), Weights(stop=2), Weights()
    assert fit(task, Points(), effort, folder=tmp_path, callbacks=[first]).interrupted
    result = fit(Line(losses), Points(), effort, folder=tmp_path, resume=True, callbacks=[second])
    assert (sorted(second.after), result.epochs) == ([2, 3], 4)
    assert second.after[3] == pytest.approx(uninterrupted.after[3])
