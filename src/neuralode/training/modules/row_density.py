"""The density of the rows of a table: a continuous normalizing flow on standardised rows, and its training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from lightning.pytorch.callbacks import Callback

from neuralode.data.tables.rows import Table
from neuralode.data.tables.standardization import Standardization
from neuralode.nn import CNF
from neuralode.nn.flows import ConcatSquashField, Exact
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.modules.density_module import DensityModule, RowsData, max_batch_size, with_solver

EXACT_FEATURES = 20  # largest number of columns with the exact divergence in training by default
TOLERANCE = 1e-7  # of log-densities and samples, in double precision


@dataclass(frozen=True)
class Architecture:
    """Architecture and solver options of the flow, as in `neuralode.CNFDensity`.

    Examples
    --------
    >>> flow = Architecture(width=8).build(features=30)
    >>> flow.event_shape, flow.divergence.name
    (torch.Size([30]), 'hutchinson')
    """

    width: int = 64
    layers: int = 2
    divergence: str | None = None
    jitter: float = 0.0
    method: Any = "tsit5"
    rtol: float = 1e-3
    step_size: float | None = None
    gradient: Any = "replay"

    def build(self, features: int) -> CNF:
        """Return the flow, initialised from torch's global generator."""
        return CNF(
            ConcatSquashField(features, self.width, self.layers),
            base=features,
            divergence=self.divergence or ("exact" if features <= EXACT_FEATURES else "hutchinson"),
            jitter=self.jitter,
            method=self.method,
            rtol=self.rtol,
            atol=self.rtol,
            step_size=self.step_size,
            gradient=self.gradient,
        )


@dataclass(frozen=True, eq=False)
class RowDensity:
    """A density of table rows, in the units of the table.

    Results for a row do not depend on the other rows of the call: computations are in double precision, with separate
    steps for each row and the exact divergence.

    Parameters
    ----------
    standard : Standardization
        Standardisation of the table.
    flow : CNF
        Flow of the standardised rows.

    Examples
    --------
    >>> from neuralode.data.tables.rows import Rows
    >>> rows = np.random.default_rng(0).normal(5.0, 3.0, (50, 2))
    >>> density = RowDensity(Standardization.fit(Rows(("a", "b"), rows)), Architecture(width=4).build(2))
    >>> density.log_density(rows).shape, density.sample(7, seed=0).shape
    ((50,), (7, 2))
    """

    standard: Standardization
    flow: CNF

    def log_density(self, values: Table, tolerance: float = TOLERANCE) -> Float64[np.ndarray, " rows"]:
        """Return the log-density of each row, in nats.

        It is that of the columns that vary; −inf where a constant column has another value than in the training data.

        Parameters
        ----------
        values : array[rows, columns]
            Rows in the units of the table.
        tolerance : float, default=1e-7
            Tolerance of the solver.
        """
        rows = torch.as_tensor(self.standard.apply(values))
        flow = self.exact(tolerance)
        with torch.no_grad():
            parts = [flow.log_prob(part) for part in rows.split(max_batch_size(rows.shape[1]))]
        return np.where(
            self.standard.matches_constants(values), torch.cat(parts).numpy() - self.standard.log_volume, -np.inf
        )

    def sample(self, count: int, seed: int) -> Table:
        """Return ``count`` new rows. With the same seed, the first rows are the same for every count."""
        # Numpy's stream, unlike torch's, does not depend on the number of values per call.
        noise = torch.as_tensor(np.random.default_rng(seed).standard_normal((count, self.standard.features)))
        flow = self.exact()
        with torch.no_grad():
            parts = [flow(part) for part in noise.split(max_batch_size(noise.shape[1]))]
        return self.standard.invert(torch.cat(parts).numpy())

    def exact(self, tolerance: float = TOLERANCE) -> CNF:
        """Return a copy of the flow in double precision, with separate steps per row and the exact divergence."""
        flow = copy.deepcopy(self.flow).double().eval()
        solver = {"method": "tsit5", "controller": None, "step_size": None, "rtol": tolerance, "atol": tolerance}
        return with_solver(flow, **solver, divergence=Exact(), per_sample=True)


def density_training(
    flow: CNF,
    standard: Standardization,
    *,
    train: Table,
    validation: Table,
    spread: bool,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    kinetic: float | None,
    frobenius: float | None,
) -> tuple[DensityModule, RowsData]:
    """Return the Lightning module and the data of a training on table rows; parameters as in `train_density`."""
    default = default_cost(len(train))
    module = DensityModule(
        flow,
        log_volume=standard.log_volume,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        kinetic=default if kinetic is None else kinetic,
        frobenius=default if frobenius is None else frobenius,
    )
    rows, held_out = (torch.as_tensor(standard.apply(part), dtype=torch.float32) for part in (train, validation))
    noise = torch.as_tensor(standard.scaled_reach, dtype=torch.float32) * float(spread)
    return module, RowsData(rows, held_out, size=batch_size, spread=noise)


def train_density(
    architecture: Architecture,
    standard: Standardization,
    *,
    train: Table,
    validation: Table,
    options: FitOptions,
    spread: bool,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    kinetic: float | None,
    frobenius: float | None,
    folder: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
    belongs_to: str = "",
) -> tuple[RowDensity, FitResult]:
    """Build a flow, train it and prepare it for inference.

    Parameters
    ----------
    architecture : Architecture
        Architecture of the flow.
    standard : Standardization
        Standardisation of the table.
    train : array[rows, columns]
        Training rows in the units of the table. With ``spread``, noise is added to each batch.
    validation : array[rows, columns]
        Validation rows in the units of the table, used unchanged. With ``spread`` they should come from
        `Standardization.dequantize`.
    options : FitOptions
        Number of epochs, device and the like.
    spread, batch_size, learning_rate, weight_decay, kinetic, frobenius
        As in `neuralode.CNFDensity`.
    folder, resume, callbacks, progress_bar, belongs_to
        As in `neuralode.training.fit.fit`.

    Returns
    -------
    RowDensity
        The density.
    FitResult
        Its ``best`` is in nats per row of ``validation``, in the units of the table.

    Raises
    ------
    ValueError
        If the weights are not finite.
    """
    flow = architecture.build(standard.features)
    module, data = density_training(
        flow,
        standard,
        train=train,
        validation=validation,
        spread=spread,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        kinetic=kinetic,
        frobenius=frobenius,
    )
    result = fit(
        module,
        data,
        options,
        folder=folder,
        resume=resume,
        callbacks=callbacks,
        progress_bar=progress_bar,
        belongs_to=belongs_to,
    )
    prepare_for_inference(flow, learning_rate)
    return RowDensity(standard, flow), result


def default_cost(rows: int) -> float:
    """Return the default weight of each regularisation of the trajectories, which falls with the number of rows.

    Examples
    --------
    >>> default_cost(100), default_cost(5000)
    (0.05, 0.005)
    """
    return 25 / max(500, rows)
