"""Forecast irregular series, in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from neuralode.data.scaling import Scaling
from neuralode.data.tables import SeriesTable, read_series
from neuralode.estimators.comparison import COLUMNS, compare, r_squared
from neuralode.estimators.frames import QUANTILES, answers_frame, table_from_parts, table_parts, wanted_times
from neuralode.estimators.keeping import load_estimator, save_estimator
from neuralode.estimators.reading import answer
from neuralode.estimators.setup import Setup, hold_out, set_up
from neuralode.nn import LatentODE, Likelihood
from neuralode.train.fitting import Effort, Fitted, fit
from neuralode.train.forecasting import Cut, ForecastData, Forecasting, Pair, Windows, batches_an_epoch, together

# What accompanies a stage of the training: callbacks of Lightning for "first", with something held out, and "refit".
Company = Callable[[str], Sequence[Callback]]


class LatentODEForecaster(BaseEstimator):
    """Learn how series move on, and say what was in their gaps and what comes next, with the uncertainty of both.

    A latent ODE is trained on windows of the series: it reads the first part of a window and has to explain all of it.
    The end of every series, and a tenth of the values within, are held out meanwhile: they say when to stop, and how
    the model compares with baselines. Then it is trained anew on everything, for as long.

    Parameters
    ----------
    window : int, optional
        Observations of a window: two thirds of them are read, the others forecast. At most 60 unless given.
    latent, hidden, width : int, optional
        Sizes of z, of the recognition network, and of the field's hidden layer; from the data unless given.
    recognition : {"odernn", "rnn"}
        What reads the observations.
    learning_rate, batch_size, max_epochs, patience
        Of the training; an epoch draws each observation about twice.
    kl_weight : float
        Weight of the divergence of q(z0 | x) from its prior.
    holdout : float
        Part of each series that is held out at its end; 0 holds out nothing, and trains for ``max_epochs``.
    refit : bool
        Train anew on everything once it is known for how long.
    samples : int
        Trajectories drawn to answer.
    logs : bool
        Look at channels that are positive and skewed by their logarithm.
    rtol, atol : float
        Of the solver.
    random_state : int, RandomState or None
        Same number, same bits. The global random states are neither read nor moved.
    accelerator : str
        Lightning's, for training; answers are computed on the CPU in double precision.
    verbose : bool
        Show a progress bar.

    Attributes
    ----------
    channels_ : tuple of str
        What is forecast.
    n_features_in_ : int
        How many.
    evaluation_ : DataFrame
        Root mean square errors on what was held out, beside those of the baselines; empty if nothing was.
    n_iter_ : int
        Epochs of the training.
    interrupted_ : bool
        Whether Ctrl-C cut it short.
    network_ : LatentODE
        What was learned.
    setup_ : Setup
        Sizes chosen.

    Notes
    -----
    A table is a frame, or the path of a .csv, .tsv or .parquet file: in long form, with a column that tells series
    apart and one of times (numbers or timestamps), or a single series. An array [times, channels] is a single series at
    0, 1, 2, …. NaN is a gap. See `neuralode.data.tables.read_series`.

    Examples
    --------
    >>> t = np.arange(30.0)
    >>> table = pd.DataFrame({"t": t, "height": np.sin(t / 2)})
    >>> model = LatentODEForecaster(max_epochs=1, samples=20, random_state=0).fit(table, time="t")
    >>> model.forecast(horizon=2)
          t channel  mean   q05   q50   q95
    0  30.0  height   ...
    1  31.0  height   ...
    """

    def __init__(
        self,
        *,
        window: int | None = None,
        latent: int | None = None,
        hidden: int | None = None,
        width: int | None = None,
        recognition: str = "odernn",
        learning_rate: float = 1e-2,
        batch_size: int = 16,
        max_epochs: int = 100,
        patience: int = 25,
        kl_weight: float = 1.0,
        holdout: float = 0.2,
        refit: bool = True,
        samples: int = 200,
        logs: bool = True,
        rtol: float = 1e-3,
        atol: float = 1e-4,
        random_state: Any = None,
        accelerator: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.window = window
        self.latent = latent
        self.hidden = hidden
        self.width = width
        self.recognition = recognition
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.kl_weight = kl_weight
        self.holdout = holdout
        self.refit = refit
        self.samples = samples
        self.logs = logs
        self.rtol = rtol
        self.atol = atol
        self.random_state = random_state
        self.accelerator = accelerator
        self.verbose = verbose

    # -- learning ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: object = None,
        *,
        series: str | None = None,
        time: str | None = None,
        values: Iterable[str] | None = None,
        checkpoints: Path | None = None,
        company: Company | None = None,
    ) -> LatentODEForecaster:
        """Learn from a table.

        Parameters
        ----------
        X : table
            See the notes of the class.
        y : ignored
            For scikit-learn's sake.
        series, time : str, optional
            Columns that tell series apart and times; a single series, and times 0, 1, 2, … unless given.
        values : iterable of str, optional
            Columns of measurements; all others unless given.
        checkpoints : Path, optional
            A folder; a training that was cut off goes on from what it finds there.
        company : callable, optional
            From the name of a stage, "first" or "refit", to callbacks of Lightning.

        Raises
        ------
        ValueError
            For a table that cannot be used, naming column and row.
        """
        table = self._read_first(X, series, time, values)
        check_random_state(self.random_state)  # before anything is done
        self._remember(table)
        seed = int(check_random_state(self.random_state).randint(2**31))
        with torch.random.fork_rng(devices=[]):
            self._train(table, seed, checkpoints, company or (lambda stage: ()))
        return self

    def _train(self, table: SeriesTable, seed: int, folder: Path | None, company: Company) -> None:
        pairs = table.pairs()
        self.setup_ = set_up(pairs, window=self.window, latent=self.latent, hidden=self.hidden, width=self.width)
        cut = self.setup_.cut
        held = hold_out(pairs, self.holdout, cut, np.random.default_rng(seed))
        self.scaling_ = Scaling.of(np.concatenate([values for _, values in held.train]), table.binary, self.logs)
        self.binary_ = table.binary
        scaled = [self._scaled(pair) for pair in held.train]
        ends = [(scaled[number], self._scaled((times, values))) for number, times, values in held.ends]
        done = self._fitted(scaled, ends, self.max_epochs, seed, folder and folder / "first", company("first"))
        self._note(done)
        self.evaluation_ = compare(self._answers, held, self.channels_) if ends else pd.DataFrame(columns=COLUMNS)
        if self.refit and ends and not done.interrupted:
            everything = [self._scaled(pair) for pair in pairs]
            again = self._fitted(everything, [], done.best_epoch, seed, folder and folder / "refit", company("refit"))
            self._note(again)

    def _fitted(
        self,
        series: Sequence[Pair],
        ends: Sequence[tuple[Pair, Pair]],
        epochs: int,
        seed: int,
        folder: Path | None,
        callbacks: Sequence[Callback],
    ) -> Fitted:
        """Train a new model; with ``ends`` to decide by, else for so many epochs."""
        torch.manual_seed(seed)
        cut = self.setup_.cut
        task = Forecasting(self._network(), learning_rate=self.learning_rate, kl_weight=self.kl_weight)
        windows = Windows(series, cut, batches_an_epoch(series, cut, self.batch_size), self.batch_size, seed)
        read = [((t[-cut.context :], x[-cut.context :]), end) for (t, x), end in ends]
        asked = [together(read[n : n + 64]) for n in range(0, len(read), 64)]
        effort = Effort(epochs, self.patience if ends else None, accelerator=self.accelerator)
        done = fit(
            task, ForecastData(windows, asked), effort, folder=folder,
            resume=folder is not None and (folder / "last.ckpt").exists(),
            callbacks=callbacks, progress_bar=self.verbose,
        )  # fmt: skip
        self.network_ = task.model.cpu().double().eval()
        return done

    def _network(self) -> LatentODE:
        sizes, channels = self.setup_, len(self.channels_)
        likelihood = Likelihood(channels, binary=self.binary_)
        return LatentODE(
            channels,
            sizes.latent,
            hidden=sizes.hidden,
            width=sizes.width,
            recognition=self.recognition,
            # what is seen is a view of the state, so that a state far from those seen in training looks like more of
            # the same: on the spirals of the paper this halves the error of forecasts
            decoder=nn.Linear(sizes.latent, likelihood.outputs),
            likelihood=likelihood,
            rtol=self.rtol,
            atol=self.atol,
        )

    def _note(self, done: Fitted) -> None:
        self.n_iter_, self.interrupted_ = done.epochs, done.interrupted

    # -- answering -----------------------------------------------------------------------------------------------------

    def predict(self, X: Any = None, times: Any = None, *, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Say what was, or will be, at some times.

        Parameters
        ----------
        X : table, optional
            Series to start from, with the columns of the table that was learned from; that table unless given.
        times : collection, or mapping from series to collections, optional
            Numbers or timestamps, as the table has them, from each series' first observation on. The times of the
            observations themselves unless given.
        quantiles : sequence of float
            Of what would be observed.

        Returns
        -------
        DataFrame
            A row for each series, time and channel, with the mean and a column for each quantile.
        """
        table = self.read(X)
        wanted = list(table.times) if times is None else wanted_times(table, times)
        return answers_frame(table, wanted, self._answers(table.pairs(), wanted), quantiles)

    def forecast(self, X: Any = None, horizon: int = 1, *, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Forecast ``horizon`` steps beyond each series' end, a step being the typical time between observations."""
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
            raise ValueError(f"horizon={horizon!r}; wanted a whole number of steps, at least 1.")
        table = self.read(X)
        steps = np.arange(1, horizon + 1) * self.setup_.spacing
        wanted = [times[-1] + steps for times in table.times]
        return answers_frame(table, wanted, self._answers(table.pairs(), wanted), quantiles)

    def impute(self, X: Any = None) -> pd.DataFrame:
        """The table in long form, its gaps filled with the mean of what may have been there."""
        table = self.read(X)
        drawn = self._answers(table.pairs(), table.times)
        values = tuple(
            np.where(np.isnan(seen), mean.mean(0), seen) for seen, (mean, _) in zip(table.values, drawn, strict=True)
        )
        return SeriesTable(
            table.names, table.times, values, table.channels, table.clock, table.series_column, table.time_column
        ).frame()

    def sample(self, n: int = 1, times: Any = None) -> pd.DataFrame:
        """Draw ``n`` new series from the model: z0 from its prior, observations around its trajectory.

        Parameters
        ----------
        n : int
            How many.
        times : collection of numbers, optional
            Since the start of a series, on the clock of the table (seconds for timestamps); a window at the typical
            spacing unless given.

        Returns
        -------
        DataFrame
            Columns ``series``, ``time``, and one for each channel.
        """
        check_is_fitted(self)
        if times is None:
            times = np.arange(self.setup_.cut.window) * self.setup_.spacing
        at = np.sort(np.asarray(times, np.float64))
        if not len(at) or at[0] < 0 or not np.isfinite(at).all():
            raise ValueError(f"times={times!r}; wanted at least one, finite and since the start: not below 0.")
        generator = torch.Generator().manual_seed(self._seed())
        z0 = torch.randn(1, n, self.network_.latent, generator=generator, dtype=torch.float64)
        clock = torch.tensor(at / self.setup_.unit).expand(n, -1)
        with torch.no_grad():
            z = self.network_.follow(z0, torch.zeros(n, dtype=torch.float64), clock).z
            drawn = self.network_.likelihood.sample(self.network_.decode(z), generator)[0]
        values = self.scaling_.undo(drawn.flatten(0, 1).numpy())
        frame = pd.DataFrame(values, columns=list(self.channels_))
        frame.insert(0, "time", np.tile(at, n))
        frame.insert(0, "series", np.repeat(np.arange(n), len(at)))
        return frame

    def score(self, X: Any = None, y: object = None) -> float:
        """Coefficient of determination R² of forecasts of the last part of each series from what comes before.

        The part is that of ``holdout`` (a fifth where that is 0); averaged over channels; 1 is perfect, 0 as good as
        the mean of what was to be forecast. On the table that was learned from it is too good: see ``evaluation_``.
        """
        table = self.read(X)
        held = self._held_ends(table)
        return r_squared(self._answers, held)

    def evaluate(self, X: Any = None) -> pd.DataFrame:
        """Compare forecasts of the last part of each series, and fillings of gaps made in it, with the baselines."""
        table = self.read(X)
        return compare(self._answers, self._held_ends(table), self.channels_)

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Keep the estimator, with the table it learned from, in a folder of JSON and safetensors."""
        check_is_fitted(self)
        told, tensors = table_parts(self.table_)
        config = {
            "binary": self.binary_,
            "scaling": self.scaling_.to_json(),
            "setup": asdict(self.setup_),
            "table": told,
            "evaluation": self.evaluation_.to_dict("list"),
            "n_iter": self.n_iter_,
            "interrupted": self.interrupted_,
            "feature_names": getattr(self, "feature_names_in_", None),
        }
        tensors |= {f"network.{name}": x for name, x in self.network_.state_dict().items()}
        save_estimator(folder, self, config, tensors)

    @classmethod
    def load(cls, folder: str | Path) -> LatentODEForecaster:
        """Read back what `save` kept; nothing in the folder is executed."""
        config, tensors = load_estimator(folder, cls)
        self = cls(**config["params"])
        self._remember(table_from_parts(config["table"], tensors))
        if config["feature_names"] is not None:
            # a property of the base class as type checkers see it
            vars(self)["feature_names_in_"] = np.array(config["feature_names"], dtype=object)
        sizes = config["setup"]
        self.setup_ = Setup(**{**sizes, "cut": Cut(**sizes["cut"])})
        self.scaling_, self.binary_ = Scaling.from_json(config["scaling"]), tuple(config["binary"])
        self.evaluation_ = pd.DataFrame(config["evaluation"])
        self.n_iter_, self.interrupted_ = config["n_iter"], config["interrupted"]
        self.network_ = self._network().double().eval()
        weights = {name.removeprefix("network."): x for name, x in tensors.items() if name.startswith("network.")}
        self.network_.load_state_dict(weights)
        return self

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that NaN is a gap."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags

    # -- below ---------------------------------------------------------------------------------------------------------

    def _read_first(self, X: Any, series: str | None, time: str | None, values: Any) -> SeriesTable:
        if isinstance(X, str | Path) or (isinstance(X, pd.DataFrame) and (series or time or values)):
            return read_series(X, series=series, time=time, values=values)
        checked = self._checked(X, reset=True)
        return read_series(checked, channels=self._names(checked))

    def read(self, X: Any) -> SeriesTable:
        """Read another table as the first one was; that one itself for None."""
        check_is_fitted(self)
        if X is None:
            return self.table_
        first = self.table_
        if not isinstance(X, str | Path | pd.DataFrame) or hasattr(self, "feature_names_in_"):
            checked = self._checked(X, reset=False)
            return read_series(checked, channels=self.channels_, new=True)
        return read_series(
            X, series=first.series_column, time=first.time_column, values=self.channels_, clock=first.clock, new=True
        )

    def _checked(self, X: Any, reset: bool) -> np.ndarray:
        """A single series as a plain table, as scikit-learn would have it checked."""
        X = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2)
        if np.isinf(X).any():
            raise ValueError("X contains infinity; wanted finite values, or NaN for a gap.")
        return X

    def _names(self, X: np.ndarray) -> list[str]:
        named = getattr(self, "feature_names_in_", None)
        return [f"x{place}" for place in range(X.shape[1])] if named is None else [str(name) for name in named]

    def _remember(self, table: SeriesTable) -> None:
        self.table_, self.channels_ = table, table.channels
        self.n_features_in_ = len(table.channels)

    def _seed(self) -> int:
        """Of answers: the same each time, unless no random state was given."""
        return int(check_random_state(self.random_state).randint(2**30))

    def _scaled(self, pair: Pair) -> Pair:
        times, values = pair
        return times / self.setup_.unit, self.scaling_.apply(values)

    def _answers(self, series: Sequence[Pair], wanted: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Means and observations drawn, in the units of the data: for each series [samples, times, channels]."""
        scaled = [self._scaled(pair) for pair in series]
        clocks = [at / self.setup_.unit for at in wanted]
        drawn = answer(self.network_, scaled, clocks, self.setup_.cut.context, self.samples, self._seed())
        return [(self.scaling_.undo(means), self.scaling_.undo(values)) for means, values in drawn]

    def _held_ends(self, table: SeriesTable) -> Any:
        held = hold_out(table.pairs(), self.holdout or 0.2, self.setup_.cut, np.random.default_rng(0))
        if not held.ends:
            raise ValueError("every series is too short to hold out its end; wanted at least 5 observations of one.")
        return held
