"""Forecast irregular series, in scikit-learn's manner."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Callback
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from neuralode.data.tables.scaling import Scaling
from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.forecaster import frames
from neuralode.estimators.forecaster.comparison import COLUMNS, compare, r_squared
from neuralode.estimators.forecaster.frames import QUANTILES
from neuralode.estimators.forecaster.questions import answer, draw
from neuralode.estimators.forecaster.sizes import HIDDEN, HeldOut, Setup, check_parameters, hold_out, set_up
from neuralode.estimators.persistence import Keepable, plain
from neuralode.estimators.series_classifier.training import own_random_state, seed_of, undisturbed
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.modules.forecasting import Pair, WindowSpec, train_latent_ode

# What accompanies a stage of the training: callbacks of Lightning for "first", with something held out, and "refit".
Callbacks = Callable[[str], Sequence[Callback]]


class LatentODEForecaster(Keepable):
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
        Of the training; same number, same bits. None is a new one each time. The global random states are neither read
        nor moved, and what was learned gives the same answer to the same question.
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
        Epochs of the last training.
    interrupted_ : bool
        Whether Ctrl-C cut it short: then the best so far is kept.
    network_ : LatentODE
        What was learned.
    setup_ : Setup
        Sizes chosen.

    Notes
    -----
    A table is a frame, or the path of a .csv, .tsv or .parquet file: in long form, with a column that tells series
    apart and one of times (numbers or timestamps), or a single series. An array [times, channels] is a single series at
    0, 1, 2, …. NaN is a gap. See `neuralode.data.tables.series.read_series`, whose tables will do, too, to answer for.

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

    @undisturbed
    def fit(
        self,
        X: Any,
        y: object = None,
        *,
        series: str | None = None,
        time: str | None = None,
        values: Iterable[str] | None = None,
        checkpoints: str | Path | None = None,
        callbacks: Callbacks | None = None,
    ) -> LatentODEForecaster:
        """Learn from a table.

        Parameters
        ----------
        X : table
            See the notes of the class.
        y : ignored
        series, time : str, optional
            Columns that tell series apart and times; a single series, and times 0, 1, 2, … unless given.
        values : iterable of str, optional
            Columns of measurements; all others unless given.
        checkpoints : path, optional
            A folder; a training that was cut off goes on from what it finds there. Table and parameters must be the
            same as then, the random state among them (None is another one each time).
        callbacks : callable, optional
            From the name of a stage, "first" or "refit", to callbacks of Lightning.

        Raises
        ------
        ValueError
            For a table that cannot be used, naming column and row; for parameters that cannot be; where
            ``checkpoints`` holds the training of another table or of other parameters.
        """
        check_parameters(self)
        table, source, self.named_ = frames.first_table(self, X, series, time, values)
        self._remember(table, frames.row_times(source, table))
        self.seed_ = seed_of(self.random_state)
        return self._train(table, Path(checkpoints) if checkpoints else None, callbacks or (lambda stage: ()))

    def _train(self, table: SeriesTable, folder: Path | None, callbacks: Callbacks) -> LatentODEForecaster:
        pairs = table.pairs()
        self.binary_ = table.binary
        self.setup_ = set_up(
            pairs, window=self.window, latent=self.latent, hidden=self.hidden, width=self.width,
            recognition=self.recognition, rtol=self.rtol, atol=self.atol,
        )  # fmt: skip
        held = hold_out(pairs, self.holdout, self.setup_.cut, np.random.default_rng(self.seed_))
        done = self._learn(held.train, held.ends, int(self.max_epochs), folder and folder / "first", callbacks("first"))
        self.evaluation_ = compare(self._answers, held, self.channels_) if held.ends else pd.DataFrame(columns=COLUMNS)
        self.n_iter_, self.interrupted_ = done.epochs, done.interrupted
        if self.refit and held.ends and not done.interrupted:
            first = self.network_, self.scaling_
            again = self._learn(pairs, [], done.best_epoch, folder and folder / "refit", callbacks("refit"))
            self.interrupted_ = again.interrupted
            if again.interrupted:  # half of a second training is worth less than the whole first one
                self.network_, self.scaling_ = first
            else:
                self.n_iter_ = again.epochs
        return self

    def _learn(
        self,
        series: Sequence[Pair],
        ends: Sequence[tuple[int, np.ndarray, np.ndarray]],
        epochs: int,
        folder: Path | None,
        callbacks: Sequence[Callback],
    ) -> FitResult:
        """Train a new network; with ``ends`` to decide by, else for so many epochs."""
        self.scaling_ = Scaling.of(np.concatenate([values for _, values in series]), self.binary_, self.logs)
        scaled = [self._scaled(pair) for pair in series]
        held = [(scaled[number], self._scaled((times, values))) for number, times, values in ends]
        with own_random_state(self.seed_):
            self.network_ = self.setup_.network(len(self.channels_), self.binary_)
            return train_latent_ode(
                self.network_, scaled, held, windows=self.setup_.cut,
                options=FitOptions(epochs, int(self.patience) if held else None, accelerator=self.accelerator),
                seed=self.seed_, batch_size=int(self.batch_size), learning_rate=self.learning_rate,
                kl_weight=self.kl_weight, folder=folder, callbacks=callbacks, progress_bar=bool(self.verbose),
                belongs_to=self._digest(),
            )  # fmt: skip

    def _digest(self) -> str:
        """Tells a training from those of other tables and parameters."""
        parameters = {name: part for name, part in self.get_params().items() if name not in ("accelerator", "verbose")}
        told = repr((sorted(plain(parameters).items()), self.seed_, self.table_.channels, self.table_.names))
        digest = hashlib.sha256(told.encode())
        for part in (*self.table_.times, *self.table_.values):
            digest.update(part.tobytes())
        return digest.hexdigest()[:16]

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
        return self._told(table, list(table.times) if times is None else frames.wanted_times(table, times), quantiles)

    def forecast(self, X: Any = None, horizon: int = 1, *, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Forecast ``horizon`` steps beyond each series' end, a step being the typical time between observations."""
        if isinstance(horizon, bool) or not isinstance(horizon, Integral) or horizon < 1:
            raise ValueError(f"horizon={horizon!r}; wanted a whole number of steps, at least 1.")
        table = self.read(X)
        steps = np.arange(1, int(horizon) + 1) * self.setup_.spacing
        return self._told(table, [times[-1] + steps for times in table.times], quantiles)

    def impute(self, X: Any = None) -> pd.DataFrame:
        """The table in long form, its gaps filled with the mean of what may have been there.

        Rows without any value are filled, too, from the first observation of their series on; before it, of which the
        model knows nothing, they stay empty. Of a channel of 0 and 1 the mean is the probability of 1.
        """
        table, rows = self._read(X)
        asked = [at[at >= times[0]] for at, times in zip(rows, table.times, strict=True)]
        means = [mean.mean(0) for mean, _ in self._answers(table.pairs(), asked)]
        return frames.filled_frame(table, rows, asked, means)

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
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r}; wanted a whole number of series, at least 1.")
        if times is None:
            times = np.arange(self.setup_.cut.window) * self.setup_.spacing
        at = np.sort(np.atleast_1d(np.asarray(times, np.float64)))
        if at.ndim != 1 or not len(at) or at[0] < 0 or not np.isfinite(at).all():
            raise ValueError(f"times={times!r}; wanted at least one, finite and since the start: not below 0.")
        drawn = draw(self.network_, int(n), at / self.setup_.unit, seed_of(self.random_state))
        values = self.scaling_.undo(drawn).reshape(-1, len(self.channels_))
        ids, clock = (frames.free_name(name, self.channels_) for name in ("series", "time"))
        where = pd.DataFrame({ids: np.repeat(np.arange(n), len(at)), clock: np.tile(at, int(n))})
        return pd.concat([where, pd.DataFrame(values, columns=pd.Index(self.channels_))], axis=1)

    def score(self, X: Any = None, y: object = None) -> float:
        """Coefficient of determination R² of forecasts of the last part of each series from what comes before.

        The part is that of ``holdout`` (a fifth where that is 0); averaged over channels; 1 is perfect, 0 as good as
        the mean of what was to be forecast. On the table that was learned from it is too good: see ``evaluation_``.
        """
        return r_squared(self._answers, self._held(self.read(X), hidden=0.0))

    def evaluate(self, X: Any = None) -> pd.DataFrame:
        """Compare forecasts of the last part of each series, and fillings of gaps made in it, with the baselines."""
        return compare(self._answers, self._held(self.read(X), hidden=HIDDEN), self.channels_)

    def read(self, X: Any) -> SeriesTable:
        """Read another table as the first one was; that one itself for None."""
        return self._read(X)[0]

    def _learned(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        # with the table it learned from: answers are asked for its series
        told, tensors = frames.table_parts(self.table_, self.rows_)
        config = {
            "binary": self.binary_,
            "scaling": self.scaling_.to_json(),
            "setup": asdict(self.setup_),
            "table": told,
            "named": self.named_,
            "evaluation": self.evaluation_.to_dict("list"),
            "n_iter": self.n_iter_,
            "interrupted": self.interrupted_,
            "seed": self.seed_,
        }
        return config, tensors | {f"network.{name}": x for name, x in self.network_.state_dict().items()}

    def _take(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._remember(*frames.table_from_parts(config["table"], tensors))
        sizes = config["setup"]
        self.setup_ = Setup(**{**sizes, "cut": WindowSpec(**sizes["cut"])})
        self.scaling_, self.binary_ = Scaling.from_json(config["scaling"]), tuple(config["binary"])
        self.evaluation_ = pd.DataFrame(config["evaluation"])
        self.n_iter_, self.interrupted_ = config["n_iter"], config["interrupted"]
        self.named_, self.seed_ = config["named"], config["seed"]
        self.network_ = self.setup_.network(len(self.channels_), self.binary_).double().eval()
        weights = {name: x for name, x in tensors.items() if name.startswith("network.")}
        self.network_.load_state_dict({name.removeprefix("network."): x for name, x in weights.items()})

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags

    def _read(self, X: Any) -> tuple[SeriesTable, Sequence[np.ndarray]]:
        """A table, and the times of all its rows, also of those without any value."""
        check_is_fitted(self)
        if X is None:
            return self.table_, self.rows_
        if isinstance(X, SeriesTable):  # read already
            return X, X.times
        table, source = frames.next_table(self, X, self.table_, self.named_)
        return table, frames.row_times(source, table)

    def _remember(self, table: SeriesTable, rows: Sequence[np.ndarray]) -> None:
        self.table_, self.rows_, self.channels_ = table, rows, table.channels
        self.n_features_in_ = len(table.channels)

    def _scaled(self, pair: Pair) -> Pair:
        times, values = pair
        return times / self.setup_.unit, self.scaling_.apply(values)

    def _told(self, table: SeriesTable, wanted: Sequence[np.ndarray], quantiles: Sequence[float]) -> pd.DataFrame:
        frames.check_quantiles(quantiles)
        return frames.answers_frame(table, wanted, self._answers(table.pairs(), wanted), quantiles)

    def _answers(self, series: Sequence[Pair], wanted: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Means and observations drawn, in the units of the data: for each series [samples, times, channels]."""
        scaled = [self._scaled(pair) for pair in series]
        clocks = [at / self.setup_.unit for at in wanted]
        growth = np.where(self.scaling_.logged, self.scaling_.deviation, 0.0)
        drawn = answer(self.network_, scaled, clocks, self.setup_.cut.context, int(self.samples), self.seed_, growth)
        return [(self.scaling_.undo(means), self.scaling_.undo(values)) for means, values in drawn]

    def _held(self, table: SeriesTable, hidden: float) -> HeldOut:
        held = hold_out(table.pairs(), self.holdout or 0.2, self.setup_.cut, np.random.default_rng(0), hidden)
        if not held.ends:
            raise ValueError("every series is too short to hold out its end; wanted at least 5 observations of one.")
        return held
