"""Density estimation for the rows of a table with a continuous normalizing flow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuralode.data.tables.rows import Rows, check_enough, read_rows
from neuralode.data.tables.source import read_table
from neuralode.data.tables.standardization import Standardization
from neuralode.estimators.base import ValidatedEstimator, estimator, split_for_validation
from neuralode.estimators.constraints import COUNT, NON_NEGATIVE, POSITIVE, Constraint, check_parameters
from neuralode.estimators.isolation import forked_rng, isolated, seed_from
from neuralode.estimators.serialization import Tensors
from neuralode.training.modules.row_density import Architecture, RowDensity, train_density


@estimator
class CNFDensity(DensityMixin, ValidatedEstimator):
    """Density estimation with a continuous normalizing flow, for outlier scores and new samples.

    The flow transports a normal distribution to the distribution of the rows along the solutions of a differential
    equation. It is trained by maximum likelihood on standardized columns; log-densities and samples are in the units
    of the table. The epoch with the highest likelihood of held-out rows is kept.

    Parameters
    ----------
    width : int, default=64
        Number of units in each hidden layer of the vector field.
    layers : int, default=2
        Number of hidden layers of the vector field.
    divergence : {'exact', 'hutchinson', 'hutch++'} or None, default=None
        How the divergence of the field is computed in training. None selects 'exact' for up to 20 columns, and
        'hutchinson' for more. Scores always use the exact divergence.
    kinetic : float or None, default=None
        Weight of the kinetic energy ∫ ‖f‖² dt in the training loss, beside the negative log-likelihood. It keeps the
        equation easy to solve and reduces overfitting on small tables. None selects 0.05, and 25 / rows from 500 rows
        on.
    frobenius : float or None, default=None
        Weight of the squared Frobenius norm of the Jacobian, ∫ ‖∂f/∂x‖² dt, in the training loss. None selects the
        same value as for ``kinetic``.
    jitter : float, default=0.0
        Relative jitter of the integration time in training, as in `neuralode.nn.CNF`.
    method : str, default='tsit5'
        Solver in training, as in `neuralode.solve`.
    rtol : float, default=0.001
        Relative and absolute tolerance of the solver in training.
    step_size : float or None, default=None
        Step size of a fixed-step solver in training. With fixed steps, training may exploit the discretization error:
        the exact density is then worse than the training loss suggests.
    gradient : str, default='replay'
        How gradients of the solve are computed, as in `neuralode.solve`.
    spread : bool, default=True
        Whether to dequantize columns in which most rows repeat a value, by uniform noise of up to half of the typical
        gap between neighbouring values, in training and in validation. Without it, the likelihood of such columns is
        unbounded.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array of str
        Names of the columns; only for files, and for frames whose columns are named by strings.
    n_iter_ : int
        Number of epochs trained.
    best_loss_ : float
        Negative log-likelihood in nats per held-out row, dequantized if ``spread``, of the epoch that was kept, in the
        units of X.
    remarks_ : list of str
        Findings about the table: columns that are constant, repeat values, or depend linearly on others. `fit` issues
        each as a warning.
    density_ : RowDensity
        The trained flow with the standardization of the columns.

    Notes
    -----
    X is an array, a frame, or the path of a .csv, .tsv or .parquet file, of finite numbers. Columns that are constant
    in the training rows are left out: the density is that of the other columns, samples repeat the constant, and rows
    with another value score −inf.

    Scores of dequantized columns are densities at the values themselves, not averages over the added noise. Scores are
    computed in double precision to a tolerance of 1e-7, and each row with its own steps, so the score of a row does
    not depend on the other rows.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> model = CNFDensity(width=8, max_epochs=1, random_state=0).fit(X)
    >>> model.score_samples(X).shape, model.sample(5, random_state=0).shape
    ((60,), (5, 2))
    >>> bool(model.score_samples([[9.0, 9.0]]) < model.score_samples(X).min())
    True
    """

    width: int = 64
    layers: int = 2
    divergence: str | None = None
    kinetic: float | None = None
    frobenius: float | None = None
    jitter: float = 0.0
    method: str = "tsit5"
    rtol: float = 1e-3
    step_size: float | None = None
    gradient: str = "replay"
    spread: bool = True
    batch_size: int = 256
    max_epochs: int = 50

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        **ValidatedEstimator._constraints,
        "width": COUNT,
        "layers": COUNT,
        "rtol": POSITIVE,
        "kinetic": NON_NEGATIVE.or_none(),
        "frobenius": NON_NEGATIVE.or_none(),
    }

    @isolated
    def fit(self, X: Any, y: Any = None) -> CNFDensity:
        """Fit the density to the rows of a table.

        Parameters
        ----------
        X : array or DataFrame [rows, columns], or path
            The rows to learn from, as the notes of the class describe them.
        y : None
            Ignored.

        Returns
        -------
        CNFDensity
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid parameters or rows. For a frame or a file, the message names column and row.
        """
        check_parameters(self)
        values = self._read(X, reset=True)
        names = tuple(getattr(self, "feature_names_in_", [f"x{column}" for column in range(values.shape[1])]))
        rows = Rows(names, values)
        check_enough(rows)
        standard = Standardization.fit(rows)
        self.framed_ = not isinstance(X, np.ndarray) and hasattr(self, "feature_names_in_")
        self.remarks_ = standard.remarks(rows, bool(self.spread))
        for remark in self.remarks_:
            warnings.warn(remark, stacklevel=3)
        self.architecture_ = self._architecture()
        seed = seed_from(self.random_state)
        training, validation = split_for_validation(np.zeros(len(rows), np.int64), self.validation_fraction, seed)
        with forked_rng(seed):
            self.density_, result = train_density(
                self.architecture_,
                standard,
                train=values[training],
                validation=(standard.dequantize(values) if self.spread else values)[validation],
                options=self._fit_options(),
                spread=bool(self.spread),
                kinetic=self.kinetic,
                frobenius=self.frobenius,
                **self._training_arguments(),
            )
        self._set_training_result(result)
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return the log-density of each row in nats; outliers have the lowest.

        Parameters
        ----------
        X : array or DataFrame [rows, columns], or path
            Rows with the columns that `fit` was given.

        Returns
        -------
        array [rows]
            Log-densities in the units of X.
        """
        check_is_fitted(self)
        return self.density_.log_density(self._read(X, reset=False))

    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the total log-likelihood of the rows, as `sklearn.neighbors.KernelDensity` does."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray | pd.DataFrame:
        """Draw new rows from the density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            The same seed gives the same rows; a larger sample begins with the rows of a smaller one.

        Returns
        -------
        DataFrame or array [n_samples, columns]
            A frame if `fit` was given a file, or a frame whose columns are named by strings.
        """
        check_is_fitted(self)
        COUNT.check("n_samples", n_samples)
        rows = self.density_.sample(int(n_samples), seed_from(random_state))
        return pd.DataFrame(rows, columns=pd.Index(self.density_.standard.names)) if self.framed_ else rows

    def _architecture(self) -> Architecture:
        """Return the present parameters of the flow: they may be changed between `fit` and `save`."""
        return Architecture(
            width=int(self.width),
            layers=int(self.layers),
            divergence=self.divergence,
            jitter=float(self.jitter),
            method=self.method,
            rtol=float(self.rtol),
            step_size=self.step_size,
            gradient=self.gradient,
        )

    def _fitted_state(self) -> tuple[dict[str, Any], Tensors]:
        config = {
            "features": len(self.density_.standard.names),
            "framed": self.framed_,
            "remarks": self.remarks_,
            "standard": self.density_.standard.to_json(),
            "architecture": asdict(self.architecture_),
            **self._training_state(),
        }
        return config, self.density_.flow.state_dict()

    def _restore(self, config: dict[str, Any], tensors: Tensors) -> None:
        vars(self)["n_features_in_"] = config["features"]
        self.framed_, self.remarks_ = config["framed"], config["remarks"]
        self._restore_training_state(config)
        self.architecture_ = Architecture(**config["architecture"])
        standard = Standardization.from_json(config["standard"])
        flow = self.architecture_.build(standard.features).eval()
        flow.load_state_dict(tensors)
        self.density_ = RowDensity(standard, flow)

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        """Return the rows as float64, after checking the names of the columns, or recording them with ``reset``."""
        table: Any = read_table(X) if isinstance(X, str | PathLike) else X
        if not isinstance(table, pd.DataFrame):
            checks: dict[str, Any] = {"dtype": np.float64, "order": "C", "ensure_min_samples": 2 if reset else 1}
            return np.asarray(validate_data(self, table, reset=reset, **checks))
        validate_data(self, cast(Any, table), reset=reset, skip_check_array=True)
        return read_rows(table).values  # its error messages name column and row
