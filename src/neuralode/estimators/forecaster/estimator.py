"""Forecasting of irregular series, in scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from neuralode.data.tables.scaling import Scaling
from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.base import TrainedEstimator, estimator
from neuralode.estimators.constraints import (
    COUNT,
    FRACTION,
    NON_NEGATIVE,
    POSITIVE,
    Constraint,
    check_parameters,
    integer,
    one_of,
)
from neuralode.estimators.forecaster.evaluation import COLUMNS, compare_with_baselines, r_squared
from neuralode.estimators.forecaster.holdout import GAP_FRACTION, HeldOut, hold_out
from neuralode.estimators.forecaster.hyperparameters import Setup, choose_setup
from neuralode.estimators.forecaster.input_tables import (
    InputTable,
    read_new_table,
    read_training_table,
    table_from_state,
    table_to_state,
)
from neuralode.estimators.forecaster.output_tables import (
    QUANTILES,
    check_quantiles,
    imputed_frame,
    parse_target_times,
    predictions_frame,
    unused_name,
)
from neuralode.estimators.forecaster.prediction import Draws
from neuralode.estimators.forecaster.scaled_model import ScaledModel
from neuralode.estimators.forecaster.training import StageCallbacks, StagedTraining, training_digest
from neuralode.estimators.isolation import isolated, seed_from
from neuralode.estimators.serialization import Tensors
from neuralode.nn.series.latent_ode import RECOGNITION
from neuralode.training.modules.forecasting import Pair, WindowSpec

STEPS = Constraint("a whole number of steps, at least 1", COUNT.accepts)
SERIES = Constraint("a whole number of series, at least 1", COUNT.accepts)
SCORED_FRACTION = 0.2  # of each series, for scores of an estimator that holds out nothing
SCORING_SEED = 0


@estimator
class LatentODEForecaster(TrainedEstimator):
    """Probabilistic forecasting and imputation of irregular series with a latent ODE.

    The model is trained on windows of the series: it reads the first part of a window and has to explain the whole.
    Meanwhile, the end of each series and a tenth of the values within are held out. They decide when training stops,
    and they are used to compare the model with baselines. Finally, the model is trained again on all observations, for
    the same number of epochs.

    Parameters
    ----------
    window : int or None, default=None
        Number of observations of a window: two thirds of them are read, the others are forecast. None selects the
        length of the longest series, up to 60.
    latent : int or None, default=None
        Dimension of the latent state. None selects twice the number of channels plus 2, up to 16.
    hidden : int or None, default=None
        Number of units of the recognition network. None selects 32, or 16 for fewer than 100 observations.
    width : int or None, default=None
        Number of units in the hidden layer of the vector field. None selects as many as for ``hidden``.
    recognition : {'odernn', 'rnn'}, default='odernn'
        Network that encodes the observations.
    kl_weight : float, default=1.0
        Weight of the Kullback–Leibler divergence of q(z0 | x) from the prior in the training loss.
    holdout : float, default=0.2
        Fraction of each series that is held out at its end. With 0, nothing is held out, and training takes
        ``max_epochs``.
    refit : bool, default=True
        Whether to train again on all observations once the number of epochs is known.
    samples : int, default=200
        Number of trajectories drawn for predictions.
    logs : bool, default=True
        Whether to model the logarithm of channels that are positive and skewed.
    rtol : float, default=0.001
        Relative tolerance of the solver.
    atol : float, default=0.0001
        Absolute tolerance of the solver.
    batch_size : int, default=16
        Number of windows per optimizer step. An epoch draws each observation about twice.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is random in `fit`: the same seed gives the same bits. None draws a new seed on each
        call. Global random states are neither used nor changed. Predictions of a fitted forecaster are the same on
        each call.

    Attributes
    ----------
    channels_ : tuple of str
        Names of the channels.
    n_features_in_ : int
        Number of channels.
    evaluation_ : DataFrame
        Root mean square errors on the held-out observations, beside those of baselines; empty if there are none.
    n_iter_ : int
        Number of epochs of the last training.
    interrupted_ : bool
        Whether Ctrl-C interrupted the training; the best epoch so far is kept then.
    network_ : LatentODE
        The trained network, on the scales of the model.
    setup_ : Setup
        The hyperparameters, including those that were chosen from the data.

    Notes
    -----
    A table is a frame, or the path of a .csv, .tsv or .parquet file, in long form: one column identifies the series and
    one has the times (numbers or timestamps). Without them, the table is a single series. An array [times, channels] is
    a single series at 0, 1, 2, …. NaN is a missing value. See `neuralode.data.tables.series.read_series`, whose tables
    are accepted for predictions, too.

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

    window: int | None = None
    latent: int | None = None
    hidden: int | None = None
    width: int | None = None
    recognition: str = "odernn"
    kl_weight: float = 1.0
    holdout: float = 0.2
    refit: bool = True
    samples: int = 200
    logs: bool = True
    rtol: float = 1e-3
    atol: float = 1e-4
    batch_size: int = 16
    patience: int = 25

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        **TrainedEstimator._constraints,
        "window": integer(at_least=2).or_none(),
        "latent": COUNT.or_none(),
        "hidden": COUNT.or_none(),
        "width": COUNT.or_none(),
        "recognition": one_of(RECOGNITION),
        "kl_weight": NON_NEGATIVE,
        "holdout": FRACTION,
        "samples": COUNT,
        "rtol": POSITIVE,
        "atol": POSITIVE,
    }

    @isolated
    def fit(
        self,
        X: Any,
        y: object = None,
        *,
        series: str | None = None,
        time: str | None = None,
        values: Iterable[str] | None = None,
        checkpoints: str | Path | None = None,
        callbacks: StageCallbacks | None = None,
    ) -> LatentODEForecaster:
        """Fit the forecaster to a table.

        Parameters
        ----------
        X : DataFrame, array [times, channels] or path
            The table, as the notes of the class describe it.
        y : None
            Ignored.
        series : str, optional
            Column that identifies the series; the table is a single series unless given.
        time : str, optional
            Column of times; 0, 1, 2, … unless given.
        values : iterable of str, optional
            Columns of measurements; all remaining columns unless given.
        checkpoints : path, optional
            Folder of checkpoints. A training that was cut off continues from the checkpoints it finds there. The table
            and the parameters must be the same, including ``random_state``, which must not be None.
        callbacks : callable, optional
            From the name of a stage of the training, "first" or "refit", to Lightning callbacks.

        Returns
        -------
        LatentODEForecaster
            The fitted estimator.

        Raises
        ------
        ValueError
            For a table that cannot be used, with column and row; for invalid parameters; if ``checkpoints`` belong to
            another table or other parameters.
        """
        check_parameters(self)
        columns: dict[str, Any] = {"series": series, "time": time, "values": values}
        source, self.by_name_ = read_training_table(self, X, **columns)
        self._set_table(source)
        self.seed_ = seed_from(self.random_state)
        self._train(Path(checkpoints) if checkpoints else None, callbacks or (lambda stage: ()))
        return self

    def predict(self, X: Any = None, times: Any = None, *, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Predict the distribution of the observations at given times.

        Parameters
        ----------
        X : table, optional
            Series to predict from, with the columns that `fit` was given; the table of `fit` unless given.
        times : collection, or mapping from series to collections, optional
            Numbers or timestamps like those of the table, not before the first observation of a series. The times of
            the observations unless given.
        quantiles : sequence of float, default=(0.05, 0.5, 0.95)
            Quantiles of the distribution of the observations.

        Returns
        -------
        DataFrame
            A row for each series, time and channel, with the mean and a column for each quantile.
        """
        table = self.read(X)
        targets = list(table.times) if times is None else parse_target_times(table, times)
        return self._predictions_frame(table, targets, quantiles)

    def forecast(self, X: Any = None, horizon: int = 1, *, quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Forecast beyond the end of each series.

        Parameters
        ----------
        X : table, optional
            Series to forecast, with the columns that `fit` was given; the table of `fit` unless given.
        horizon : int, default=1
            Number of steps. A step is the typical time between successive observations of the table of `fit`.
        quantiles : sequence of float, default=(0.05, 0.5, 0.95)
            Quantiles of the distribution of the observations.

        Returns
        -------
        DataFrame
            As `predict` returns it.
        """
        STEPS.check("horizon", horizon)
        table = self.read(X)
        steps = np.arange(1, int(horizon) + 1) * self.setup_.spacing
        return self._predictions_frame(table, [times[-1] + steps for times in table.times], quantiles)

    def impute(self, X: Any = None) -> pd.DataFrame:
        """Fill in the missing values of a table with their predicted means.

        Parameters
        ----------
        X : table, optional
            The table, with the columns that `fit` was given; the table of `fit` unless given.

        Returns
        -------
        DataFrame
            The table in long form. Rows without any value are filled in as well, except those before the first
            observation of their series. For channels of 0 and 1, means are the probability of 1.
        """
        table, row_times = self._read(X)
        targets = [at[at >= times[0]] for at, times in zip(row_times, table.times, strict=True)]
        means = [draws.means.mean(0) for draws in self._predict(table.pairs(), targets)]
        return imputed_frame(table, row_times, targets=targets, means=means)

    def sample(self, n: int = 1, times: Any = None) -> pd.DataFrame:
        """Draw new series from the model, with z0 from its prior.

        Parameters
        ----------
        n : int, default=1
            Number of series.
        times : collection of numbers, optional
            Times since the start of a series, on the clock of the table (in seconds for timestamps); a window at the
            typical spacing unless given.

        Returns
        -------
        DataFrame
            Columns ``series``, ``time``, and one for each channel.
        """
        check_is_fitted(self)
        SERIES.check("n", n)
        if times is None:
            times = np.arange(self.setup_.cut.window) * self.setup_.spacing
        at = np.sort(np.atleast_1d(np.asarray(times, np.float64)))
        if at.ndim != 1 or not len(at) or at[0] < 0 or not np.isfinite(at).all():
            raise ValueError(f"times={times!r}; wanted at least one, finite and since the start: not below 0.")
        samples = self._model().sample_prior(int(n), at, seed=seed_from(self.random_state))
        values = samples.reshape(-1, len(self.channels_))
        ids, clock = (unused_name(name, self.channels_) for name in ("series", "time"))
        index = pd.DataFrame({ids: np.repeat(np.arange(n), len(at)), clock: np.tile(at, int(n))})
        return pd.concat([index, pd.DataFrame(values, columns=pd.Index(self.channels_))], axis=1)

    def score(self, X: Any = None, y: object = None) -> float:
        """Return R² of forecasts of the end of each series, averaged over channels.

        Parameters
        ----------
        X : table, optional
            The table, with the columns that `fit` was given; the table of `fit` unless given. For the latter the score
            is optimistic: see ``evaluation_``.
        y : None
            Ignored.

        Returns
        -------
        float
            1 is perfect; 0 is as good as the mean of the values to forecast. The end is the fraction ``holdout`` of a
            series, or a fifth where that is 0.
        """
        return r_squared(self._predict, self._hold_out(self.read(X), gap_fraction=0.0))

    def evaluate(self, X: Any = None) -> pd.DataFrame:
        """Compare forecasts of the end of each series, and imputations of values held out within, with baselines.

        Parameters
        ----------
        X : table, optional
            The table, with the columns that `fit` was given; the table of `fit` unless given.

        Returns
        -------
        DataFrame
            Root mean square errors by channel.
        """
        held = self._hold_out(self.read(X), gap_fraction=GAP_FRACTION)
        return compare_with_baselines(self._predict, held, self.channels_)

    def read(self, X: Any) -> SeriesTable:
        """Read a table in the same way as that of `fit`; return the latter for None."""
        return self._read(X).table

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags

    def _train(self, checkpoints: Path | None, callbacks: StageCallbacks) -> None:
        """Train with held-out observations, evaluate, and train again on all of them."""
        series = self.table_.pairs()
        self.binary_ = self.table_.binary
        self.setup_ = choose_setup(
            series,
            window=self.window,
            latent=self.latent,
            hidden=self.hidden,
            width=self.width,
            recognition=self.recognition,
            rtol=self.rtol,
            atol=self.atol,
        )
        training = StagedTraining(
            setup=self.setup_,
            binary=self.binary_,
            logs=self.logs,
            options=self._fit_options(),
            seed=self.seed_,
            arguments=self._training_arguments(),
            checkpoints=checkpoints,
            callbacks=callbacks,
        )
        held = hold_out(series, self.holdout, self.setup_.cut, rng=np.random.default_rng(self.seed_))
        model, first = training.run("first", held.train, held.ends, epochs=int(self.max_epochs))
        self._set_model(model)
        self.evaluation_ = pd.DataFrame(columns=COLUMNS)
        if held.ends:
            self.evaluation_ = compare_with_baselines(self._predict, held, self.channels_)
        self.n_iter_, self.interrupted_ = first.epochs, first.interrupted
        if not self.refit or not held.ends or first.interrupted:
            return
        model, refit = training.run("refit", series, epochs=first.best_epoch)
        self.interrupted_ = refit.interrupted
        if not refit.interrupted:  # a complete first training is better than a part of a second one
            self._set_model(model)
            self.n_iter_ = refit.epochs

    def _training_arguments(self) -> dict[str, Any]:
        return {
            "batch_size": int(self.batch_size),
            "learning_rate": self.learning_rate,
            "kl_weight": self.kl_weight,
            "progress_bar": bool(self.verbose),
            "belongs_to": training_digest(self.get_params(), self.seed_, self.table_),
        }

    def _set_model(self, model: ScaledModel) -> None:
        self.network_, self.scaling_ = model.network, model.scaling

    def _model(self) -> ScaledModel:
        return ScaledModel(self.network_, self.setup_, self.scaling_)

    def _read(self, X: Any) -> InputTable:
        check_is_fitted(self)
        if X is None:
            return InputTable(self.table_, self.rows_)
        if isinstance(X, SeriesTable):
            return InputTable(X, X.times)
        return read_new_table(self, X, like=self.table_, by_name=self.by_name_)

    def _set_table(self, source: InputTable) -> None:
        self.table_, self.rows_ = source
        self.channels_ = self.table_.channels
        self.n_features_in_ = len(self.channels_)

    def _predictions_frame(
        self, table: SeriesTable, targets: Sequence[np.ndarray], quantiles: Sequence[float]
    ) -> pd.DataFrame:
        check_quantiles(quantiles)
        return predictions_frame(table, targets, self._predict(table.pairs(), targets), quantiles=quantiles)

    def _predict(self, series: Sequence[Pair], targets: Sequence[np.ndarray]) -> list[Draws]:
        return self._model().predict(series, targets, samples=int(self.samples), seed=self.seed_)

    def _hold_out(self, table: SeriesTable, gap_fraction: float) -> HeldOut:
        held = hold_out(
            table.pairs(),
            self.holdout or SCORED_FRACTION,
            self.setup_.cut,
            rng=np.random.default_rng(SCORING_SEED),
            gap_fraction=gap_fraction,
        )
        if not held.ends:
            raise ValueError("every series is too short to hold out its end; wanted at least 5 observations of one.")
        return held

    def _fitted_state(self) -> tuple[dict[str, Any], Tensors]:
        # The table is saved, too: predictions without X are for its series.
        table, tensors = table_to_state(self.table_, self.rows_)
        config = {
            "binary": self.binary_,
            "scaling": self.scaling_.to_json(),
            "setup": asdict(self.setup_),
            "table": table,
            "named": self.by_name_,
            "evaluation": self.evaluation_.to_dict("list"),
            "n_iter": self.n_iter_,
            "interrupted": self.interrupted_,
            "seed": self.seed_,
        }
        return config, tensors | {f"network.{name}": x for name, x in self.network_.state_dict().items()}

    def _restore(self, config: dict[str, Any], tensors: Tensors) -> None:
        self._set_table(table_from_state(config["table"], tensors))
        setup = config["setup"]
        self.setup_ = Setup(**{**setup, "cut": WindowSpec(**setup["cut"])})
        self.scaling_, self.binary_ = Scaling.from_json(config["scaling"]), tuple(config["binary"])
        self.evaluation_ = pd.DataFrame(config["evaluation"])
        self.n_iter_, self.interrupted_ = config["n_iter"], config["interrupted"]
        self.by_name_, self.seed_ = config["named"], config["seed"]
        self.network_ = self.setup_.network(len(self.channels_), self.binary_).double().eval()
        weights = {name.removeprefix("network."): x for name, x in tensors.items() if name.startswith("network.")}
        self.network_.load_state_dict(weights)
