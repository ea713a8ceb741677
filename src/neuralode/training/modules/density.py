"""The density of a table: a flow on the common scale, and how it is come by."""

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

from neuralode.data.tables.rows import Standard, Table
from neuralode.nn import CNF
from neuralode.nn.flows import ConcatSquashField, Exact
from neuralode.training.fit import Effort, Fitted, fit, settle
from neuralode.training.modules.density_module import Likely, RowsData, rows_at_once, solved_by

EXACT = 20  # columns up to which training takes the divergence itself unless told; above, an estimate
SCORED = 1e-7  # tolerance of log-densities and samples that are told, in double precision


@dataclass(frozen=True)
class Architecture:
    """What a flow of rows is made of, as `neuralode.CNFDensity` has it.

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
        """The flow, its weights by torch's random state."""
        return CNF(
            ConcatSquashField(features, self.width, self.layers),
            base=features,
            divergence=self.divergence or ("exact" if features <= EXACT else "hutchinson"),
            jitter=self.jitter,
            method=self.method,
            rtol=self.rtol,
            atol=self.rtol,
            step_size=self.step_size,
            gradient=self.gradient,
        )


@dataclass(frozen=True, eq=False)
class RowDensity:
    """The density of the rows of a table, in its own units.

    What it says of a row does not depend on the rows it is asked for together with: it computes in double precision,
    each row at its own steps, with the divergence itself.

    Attributes
    ----------
    standard : Standard
        From the table to the common scale.
    flow : CNF
        Of rows there.

    Examples
    --------
    >>> from neuralode.data.tables.rows import Rows
    >>> rows = np.random.default_rng(0).normal(5.0, 3.0, (50, 2))
    >>> density = RowDensity(Standard.of(Rows(("a", "b"), rows)), Architecture(width=4).build(2))
    >>> density.log_density(rows).shape, density.sample(7, seed=0).shape
    ((50,), (7, 2))
    """

    standard: Standard
    flow: CNF

    def log_density(self, values: Table, tolerance: float = SCORED) -> Float64[np.ndarray, " rows"]:
        """Of each row, in nats: of the columns that change. As exact as ``tolerance``, about.

        −inf where a column that is left out has another value than its constant: no such row was learned from.
        """
        rows = torch.as_tensor(self.standard.apply(values))
        flow = self.exact(tolerance)
        with torch.no_grad():
            found = [flow.log_prob(some) for some in rows.split(rows_at_once(rows.shape[1]))]
        return np.where(self.standard.alike(values), torch.cat(found).numpy() - self.standard.log_volume, -np.inf)

    def sample(self, count: int, seed: int) -> Table:
        """New rows, of which the first are the same however many are drawn."""
        # by numpy, whose stream does not depend on how many are drawn at once
        drawn = torch.as_tensor(np.random.default_rng(seed).standard_normal((count, self.standard.features)))
        flow = self.exact()
        with torch.no_grad():
            found = [flow(some) for some in drawn.split(rows_at_once(drawn.shape[1]))]
        return self.standard.undo(torch.cat(found).numpy())

    def exact(self, tolerance: float = SCORED) -> CNF:
        """A copy of the flow in double precision, each row at its own steps, with the divergence itself."""
        flow = copy.deepcopy(self.flow).double().eval()
        precise = {"method": "tsit5", "controller": None, "step_size": None, "rtol": tolerance, "atol": tolerance}
        return solved_by(flow, **precise, divergence=Exact(), per_sample=True)


def learn(
    architecture: Architecture,
    standard: Standard,
    train: Table,
    validation: Table,
    effort: Effort,
    *,
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
) -> tuple[RowDensity, Fitted]:
    """Make a flow and train it; returned on the CPU, to be evaluated, without gradients.

    Parameters
    ----------
    architecture : Architecture
        What the flow is made of.
    standard : Standard
        Of the table.
    train, validation : array[rows, columns]
        What to learn from, and what to decide by which epoch is kept, in their own units. The former is spread anew
        for each batch; the latter is taken as it comes: where nats are of spread rows, it is `Standard.spread_out`.
    effort : Effort
        How long, and on what.
    spread, batch_size, learning_rate, weight_decay, kinetic, frobenius
        As `neuralode.CNFDensity` has them.
    folder, resume, callbacks, progress_bar, belongs_to
        As in `neuralode.training.fit.fit`.

    Returns
    -------
    RowDensity
        The density.
    Fitted
        How it went; ``best`` is in nats a row of ``validation``, in the units of the table.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite.
    """
    flow = architecture.build(standard.features)
    usual = usual_cost(len(train))
    task = Likely(
        flow,
        log_volume=standard.log_volume,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        kinetic=usual if kinetic is None else kinetic,
        frobenius=usual if frobenius is None else frobenius,
    )
    learned, held = (torch.as_tensor(standard.apply(part), dtype=torch.float32) for part in (train, validation))
    reach = torch.as_tensor(standard.spread, dtype=torch.float32) * float(spread)
    data = RowsData(learned, held, batch_size, reach)
    done = fit(
        task,
        data,
        effort,
        folder=folder,
        resume=resume,
        callbacks=callbacks,
        progress_bar=progress_bar,
        belongs_to=belongs_to,
    )
    settle(flow, learning_rate)
    return RowDensity(standard, flow), done


def usual_cost(rows: int) -> float:
    """The weight of each cost of the paths: that of a prior, which counts for less as there are more rows.

    Examples
    --------
    >>> usual_cost(100), usual_cost(5000)
    (0.05, 0.005)
    """
    return 25 / max(500, rows)
