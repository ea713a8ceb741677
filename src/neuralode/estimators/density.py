"""How likely rows are, in scikit-learn's manner: a continuous normalizing flow beside its `KernelDensity`."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from os import PathLike
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from neuralode.data.tables.rows import Rows, Standard, check_enough, read_rows
from neuralode.data.tables.series import read_table
from neuralode.estimators.parameters import check_above_zero, check_not_below_zero, check_share, check_whole, given
from neuralode.estimators.persistence import Keepable
from neuralode.estimators.series_classifier.training import held_out, own_random_state, seed_of, undisturbed
from neuralode.training.fit import FitOptions
from neuralode.training.modules.row_density import Architecture, RowDensity, train_density


class CNFDensity(DensityMixin, Keepable):
    """Learn the density of rows of numbers: score them, tell odd ones out, draw new ones.

    A continuous normalizing flow carries a normal distribution to the rows along a differential equation. Columns enter
    with mean 0 and deviation 1; log-densities and samples are in the units of the table. The epoch with the highest
    likelihood of held-out rows is kept.

    Parameters
    ----------
    width, layers : int
        Numbers in a hidden layer of the field, and how many of these.
    divergence : {"exact", "hutchinson", "hutch++"} or None
        How training takes the divergence of the field. None is "exact" up to 20 columns and "hutchinson" above. Scores
        are always exact.
    kinetic, frobenius : float or None
        Weights of the speed along the paths and of how fast they part, ∫ |f|² dt and ∫ ‖∂f/∂x‖² dt, beside the negative
        log-likelihood. They keep the equation easy to solve and small tables from being learned by heart. None is 0.05,
        and from 500 rows on 25 / rows.
    jitter : float
        As in `neuralode.nn.CNF`.
    method, rtol, step_size, gradient
        Of the solver in training, as in `neuralode.solve`. A fixed step can be learned to be exploited: what the flow
        is thought to have learned is then not so.
    spread : bool
        To learn from, and to decide which epoch is kept, spread the values of columns in which most rows repeat one
        evenly to both sides, half of the way to the next. Without, the likelihood of such columns has no bound.
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size, max_epochs, patience : int
        Rows a step; passes over them at most (an epoch is 20 steps at least); and without a higher likelihood.
    validation_fraction : float
        Of the rows, held out; with 0 the training rows themselves decide which epoch is kept.
    random_state : int, RandomState or None
        Same number, same bits. None is a new one each time. The global random states are neither read nor moved.
    accelerator, verbose : str, bool
        Lightning's, for training (answers are computed on the CPU); and whether it shows a progress bar.

    Attributes
    ----------
    n_features_in_, feature_names_in_ : int, array of str
        Columns of X, and their names where it is a file, or a frame whose columns are named by text.
    n_iter_, best_loss_ : int, float
        Epochs trained; the nats a held-out row, spread if any is, in the one that was kept, in the units of X.
    remarks_ : list of str
        What one should know of these rows: columns that are constant, repeat their values, or follow from others.
        `fit` warns of each.
    density_ : RowDensity
        What was learned.

    Notes
    -----
    X is an array, a frame, or the path of a .csv, .tsv or .parquet file, of finite numbers. A column that is the same
    in every row that was learned from is left out: the density is of the others, and samples have that constant. Rows
    with another value there score −inf.

    Where values are spread, scores are densities at the values themselves, not means over where they are spread to.
    Scores are computed in double precision to a tolerance of 1e-7, each row at its own steps: they do not depend on the
    company.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> model = CNFDensity(width=8, max_epochs=1, random_state=0).fit(X)
    >>> model.score_samples(X).shape, model.sample(5, random_state=0).shape
    ((60,), (5, 2))
    >>> bool(model.score_samples([[9.0, 9.0]]) < model.score_samples(X).min())
    True
    """

    def __init__(
        self,
        *,
        width: int = 64,
        layers: int = 2,
        divergence: str | None = None,
        kinetic: float | None = None,
        frobenius: float | None = None,
        jitter: float = 0.0,
        method: str = "tsit5",
        rtol: float = 1e-3,
        step_size: float | None = None,
        gradient: str = "replay",
        spread: bool = True,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-2,
        batch_size: int = 256,
        max_epochs: int = 50,
        patience: int = 20,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        accelerator: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.width = width
        self.layers = layers
        self.divergence = divergence
        self.kinetic = kinetic
        self.frobenius = frobenius
        self.jitter = jitter
        self.method = method
        self.rtol = rtol
        self.step_size = step_size
        self.gradient = gradient
        self.spread = spread
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.accelerator = accelerator
        self.verbose = verbose

    @undisturbed
    def fit(self, X: Any, y: Any = None) -> CNFDensity:
        """Learn from rows; y is there for scikit-learn's sake.

        Raises
        ------
        ValueError
            For parameters or rows that do not fit; the sentence says which, and names column and row of a frame.
        """
        self._check_parameters()
        values = self._values(X, reset=True)
        names = tuple(getattr(self, "feature_names_in_", [f"x{column}" for column in range(values.shape[1])]))
        rows = Rows(names, values)
        check_enough(rows)
        standard = Standard.of(rows)
        self.framed_ = not isinstance(X, np.ndarray) and hasattr(self, "feature_names_in_")
        self.remarks_ = standard.remarks(rows, bool(self.spread))
        for remark in self.remarks_:
            warnings.warn(remark, stacklevel=2)
        seed = seed_of(self.random_state)
        learned, held = held_out(np.zeros(len(rows), np.int64), self.validation_fraction, seed)
        # as it is now: parameters may be set to something else between fitting and saving
        self.architecture_ = Architecture(
            int(self.width), int(self.layers), self.divergence, float(self.jitter), self.method, float(self.rtol),
            self.step_size, self.gradient,
        )  # fmt: skip
        with own_random_state(seed):
            self.density_, done = train_density(
                self.architecture_,
                standard,
                train=values[learned],
                validation=(standard.spread_out(values) if self.spread else values)[held],
                options=FitOptions(int(self.max_epochs), int(self.patience), self.accelerator),
                spread=bool(self.spread),
                batch_size=int(self.batch_size),
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                kinetic=self.kinetic,
                frobenius=self.frobenius,
                progress_bar=bool(self.verbose),
            )
        if done.interrupted:
            warnings.warn(f"training was interrupted after {done.epochs} epochs; the best is kept.", stacklevel=2)
        self.n_iter_, self.best_loss_ = done.epochs, done.best
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """The log-density of each row, in nats; the lowest are the odd ones out."""
        check_is_fitted(self)
        return self.density_.log_density(self._values(X, reset=False))

    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The log-likelihood of all rows together, as `sklearn.neighbors.KernelDensity` has it."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray | pd.DataFrame:
        """New rows: a frame if it was fitted on a file, or on a frame whose columns are named by text; else an array.

        Parameters
        ----------
        n_samples : int
            How many.
        random_state : int, RandomState or None
            Same number, same rows: of them the first, if more are drawn.
        """
        check_is_fitted(self)
        check_whole({"n_samples": n_samples}, "n_samples")
        drawn = self.density_.sample(int(n_samples), seed_of(random_state))
        return pd.DataFrame(drawn, columns=pd.Index(self.density_.standard.names)) if self.framed_ else drawn

    def _learned(self) -> tuple[dict[str, Any], nn.Module]:
        config = {
            "features": len(self.density_.standard.names),
            "framed": self.framed_,
            "remarks": self.remarks_,
            "standard": self.density_.standard.to_json(),
            "architecture": asdict(self.architecture_),
            "epochs": self.n_iter_,
            "best_loss": self.best_loss_,
        }
        return config, self.density_.flow

    def _take(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        vars(self)["n_features_in_"] = config["features"]
        self.framed_, self.remarks_ = config["framed"], config["remarks"]
        self.n_iter_, self.best_loss_ = config["epochs"], config["best_loss"]
        self.architecture_ = Architecture(**config["architecture"])
        standard = Standard.from_json(config["standard"])
        flow = self.architecture_.build(standard.features).eval()
        flow.load_state_dict(tensors)
        self.density_ = RowDensity(standard, flow)

    def _check_parameters(self) -> None:
        asked = self.get_params(deep=False)
        check_whole(asked, "width", "layers", "batch_size", "max_epochs", "patience")
        check_above_zero(asked, "learning_rate", "rtol")
        check_not_below_zero(asked, "weight_decay", *given(asked, "kinetic", "frobenius"))
        check_share(asked, "validation_fraction")

    def _values(self, X: Any, reset: bool) -> np.ndarray:
        """Rows as float64, under the names that they were learned by."""
        table: Any = read_table(X) if isinstance(X, str | PathLike) else X
        if not isinstance(table, pd.DataFrame):
            least = 2 if reset else 1
            checks: dict[str, Any] = {"dtype": np.float64, "order": "C", "ensure_min_samples": least}
            return np.asarray(validate_data(self, table, reset=reset, **checks))
        validate_data(self, cast(Any, table), reset=reset, skip_check_array=True)
        return read_rows(table).values  # whose sentences name column and row
