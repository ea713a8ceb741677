"""Random windows of series, and the training of a latent ODE on them."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from neuralode.nn import LatentODE
from neuralode.training.fit import FitOptions
from neuralode.training.modules.forecasting import (
    LEAST,
    ForecastData,
    ForecastingModule,
    Windows,
    WindowSpec,
    batches_per_epoch,
    collate,
    train_latent_ode,
)

OPTIONS = {"windows": WindowSpec(6, 4), "seed": 0, "batch_size": 4, "learning_rate": 1e-2, "kl_weight": 1.0}


def series(count: int = 2, length: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 6, length)) for _ in range(count)]
    return [(t, np.sin(t + k)[:, None]) for k, t in enumerate(times)]


def model() -> LatentODE:
    torch.manual_seed(0)
    return LatentODE(1, 2, hidden=4, width=4)


def weights(one: LatentODE) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in one.parameters()])


def test_windows_are_encoded_from_their_beginning():
    rng, cut = np.random.default_rng(0), WindowSpec(12, 8)
    for _ in range(200):
        (read, values), (full, explained) = cut.draw(series(), rng)
        assert 2 <= len(read) <= 8
        assert len(read) <= len(full) <= 12
        assert np.array_equal(read, full[: len(read)])
        assert np.array_equal(values, explained[: len(values)])


def test_a_short_series_is_one_window():
    t = np.array([3.0])
    (read, _), (full, _) = WindowSpec(12, 8).draw([(t, t[:, None])], np.random.default_rng(0))
    assert read.tolist() == full.tolist() == [3.0]


def test_longer_series_are_drawn_more_often():
    rng = np.random.default_rng(0)
    pair = [(np.arange(n) + 100.0 * k, np.zeros((n, 1))) for k, n in enumerate((90, 10))]
    drawn = [WindowSpec(4, 2).draw(pair, rng)[0][0][0] >= 100 for _ in range(500)]
    assert 0.05 < np.mean(drawn) < 0.16


def test_windows_of_a_batch_start_at_time_0():
    rng = np.random.default_rng(0)
    observed, targets = collate([WindowSpec(6, 4).draw(series(), rng) for _ in range(5)])
    assert observed.times[:, 0].tolist() == targets.times[:, 0].tolist() == [0.0] * 5
    assert observed.start.tolist() == [0.0] * 5


def test_windows_are_determined_by_the_epoch():
    windows = Windows(series(), WindowSpec(6, 4), batches=2, size=3, seed=0)
    first = [batch[1].values for batch in windows]
    assert len(windows) == len(first) == 2
    assert all(torch.equal(one, again[1].values) for one, again in zip(first, windows, strict=True))
    windows.epoch = lambda: 1
    assert not torch.equal(first[0], next(iter(windows))[1].values)


class Watch(Callback):
    """Record the first batch of each epoch and the weight of the divergence at each step."""

    def __init__(self) -> None:
        self.drawn, self.weights = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights.append(pl_module._kl_weight())
        if not batch_idx:
            self.drawn.append(batch[1].values)


def trained(watch: Watch, epochs: int = 4, **options) -> None:
    train_latent_ode(
        model(),
        series(),
        [],
        options=FitOptions(epochs, None),
        callbacks=[watch],
        **{**OPTIONS, **options},
    )


def test_every_epoch_of_a_training_draws_new_windows():
    watch = Watch()
    trained(watch)
    windows = Windows(series(), WindowSpec(6, 4), batches=8, size=4, seed=0)
    assert len(watch.drawn) == 4
    for epoch, values in enumerate(watch.drawn):
        windows.epoch = lambda epoch=epoch: epoch
        assert torch.equal(values, next(iter(windows))[1].values)


def test_the_weight_of_the_divergence_is_annealed():
    watch = Watch()
    trained(watch, kl_weight=0.5)
    assert len(watch.weights) == 4 * LEAST
    rising = 0.3 * 4 * LEAST
    assert watch.weights[:3] == pytest.approx([0.5 / rising, 1 / rising, 1.5 / rising])
    assert watch.weights == sorted(watch.weights)
    assert watch.weights[24:] == [0.5] * (4 * LEAST - 24)


def test_the_epoch_with_the_best_forecasts_is_kept():
    class Spoil(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                torch.nn.init.constant_(pl_module.model.decoder[-1].bias, 50.0)

    learned = model()
    pairs = series()
    ends = [((t[:15], x[:15]), (t[15:], x[15:])) for t, x in pairs]
    result = train_latent_ode(learned, pairs, ends, options=FitOptions(3, 5), callbacks=[Spoil()], **OPTIONS)
    assert result.best_epoch <= 2
    assert result.best < 10
    assert float(learned.decoder[-1].bias.detach()) < 10
    assert next(learned.parameters()).dtype == torch.float64
    assert not learned.training


def test_held_out_ends_are_forecast_from_one_context():
    pairs, batches = series(1), []
    times, values = pairs[0]

    class Look(Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            batches.append(batch)

    ends = [((times[:15], values[:15]), (times[15:], values[15:]))]
    train_latent_ode(model(), pairs, ends, options=FitOptions(1, 5), callbacks=[Look()], **OPTIONS)
    [(observed, targets)] = batches
    assert torch.allclose(observed.times[0], torch.tensor(times[11:15] - times[11]))
    assert torch.allclose(targets.times[0], torch.tensor(times[15:] - times[11]))


def test_a_finished_training_is_loaded(tmp_path):
    once, again = model(), LatentODE(1, 2, hidden=4, width=4)
    result = train_latent_ode(once, series(), [], options=FitOptions(2, None), folder=tmp_path, **OPTIONS)
    assert json.loads((tmp_path / "done.json").read_text())["epochs"] == 2
    watch = Watch()
    same = train_latent_ode(
        again,
        series(),
        [],
        options=FitOptions(2, None),
        folder=tmp_path,
        callbacks=[watch],
        **OPTIONS,
    )
    assert watch.drawn == []
    assert torch.equal(weights(once), weights(again))
    assert (same.epochs, same.best_epoch, same.interrupted) == (result.epochs, result.best_epoch, False)


def test_an_interrupted_training_continues_its_windows(tmp_path):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    full, rest = Watch(), Watch()
    trained(full)
    cut = train_latent_ode(
        model(),
        series(),
        [],
        options=FitOptions(4, None),
        folder=tmp_path,
        callbacks=[Stop()],
        **OPTIONS,
    )
    assert (cut.interrupted, cut.epochs) == (True, 2)
    trained(rest, folder=tmp_path)
    assert len(rest.drawn) == 2
    assert all(torch.equal(one, other) for one, other in zip(rest.drawn, full.drawn[2:], strict=True))
    assert rest.weights == full.weights[2 * LEAST :]


def test_the_validation_loss_is_the_squared_error_of_observed_values():
    pairs = [(t, np.where(np.arange(20)[:, None] % 3 == 0, np.nan, x)) for t, x in series()]
    batch = collate([((t[1:10], x[1:10]), (t[10:], x[10:])) for t, x in pairs])
    task, logged = ForecastingModule(model()), {}
    task.log = lambda name, value, **rest: logged.update({name: float(value), **rest})  # type: ignore[method-assign]
    with torch.no_grad():
        task.validation_step(batch, 0)
        observed, targets = batch
        z = task.model.follow(task.model.encode(observed).mean[None], observed.start, targets.times).z
        error = (task.model.decode(z)[0] - targets.values)[targets.seen]
    assert logged["batch_size"] == len(error) == 14
    assert logged["val_loss"] == pytest.approx(float(error.square().mean()))


def test_batches_per_epoch_draw_each_observation_about_twice_within_bounds():
    assert batches_per_epoch(series(1), WindowSpec(6, 4), 4) == LEAST
    assert batches_per_epoch(series(60, 20), WindowSpec(6, 4), 4) == 100
    assert batches_per_epoch(series(18, 20), WindowSpec(6, 4), 4) == 30


def test_without_held_out_ends_validation_is_empty():
    windows = Windows(series(), WindowSpec(6, 4), batches=2, size=3, seed=0)
    assert len(ForecastData(windows, []).val_dataloader()) == 0
