"""PhysioNet 2012: 12,000 patients of intensive care units over 48 hours, irregular and mostly missing.

References
----------
.. [1] I. Silva, G. Moody, D. J. Scott, L. A. Celi, R. G. Mark, "Predicting in-hospital mortality of ICU patients: The
   PhysioNet/Computing in Cardiology Challenge 2012", Computing in Cardiology 39, 2012. ODC-By.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from neuralode.core.extras import require
from neuralode.data.download import data_home
from neuralode.data.tables.scaling import Scaling
from neuralode.nn import Observations

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (after the sentence above)

MINUTES = 48 * 60.0  # one unit of time is the whole record

# Given once, at minute 0; -1 stands for unknown.
STATIC = ("Age", "Gender", "Height")
UNITS = 4  # ICUType: coronary, cardiac surgery recovery, medical, surgical

# Amounts that range over orders of magnitude are looked at as log(1 + x).
SKEWED = (
    "ALP", "ALT", "AST", "BUN", "Bilirubin", "Creatinine", "FiO2", "Glucose", "Lactate", "PaO2", "Platelets",
    "TroponinI", "TroponinT", "Urine", "WBC",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Patients:
    """Observed series and the outcome of some patients.

    Attributes
    ----------
    observed : Observations
        One time unit is 48 hours; values as measured, those skewed by log(1 + x); static covariates: age, gender,
        height, which of these are known, and the kind of unit.
    died : BoolTensor[patients]
        In hospital.
    channels : tuple of str
        What is measured.
    """

    observed: Observations
    died: Bool[Tensor, " patients"]
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.died)

    def __getitem__(self, rows: Tensor) -> Patients:
        """Some of the patients."""
        return Patients(self.observed[rows], self.died[rows], self.channels)

    def scaled_as(self, others: Patients) -> Patients:
        """On the scale on which ``others`` have mean 0 and deviation 1, held within 5 deviations."""
        seen, static = others.observed.seen, others.observed.static
        assert static is not None
        assert self.observed.static is not None
        values = torch.where(seen, others.observed.values, torch.nan).flatten(0, 1)
        scaling = Scaling.of(_within(values.double().numpy()), logs=False)
        mean, deviation = (torch.tensor(x, dtype=torch.float32) for x in (scaling.mean, scaling.deviation))
        own = ((self.observed.values - mean) / deviation).clamp(-5, 5)
        covariates = _standardised(self.observed.static, static)
        return replace(
            self,
            observed=replace(self.observed, values=torch.where(self.observed.seen, own, 0), static=covariates),
        )


def physionet(sets: str = "abc", every: int = 1) -> Patients:
    """Load the patients.

    Parameters
    ----------
    sets : str
        Which of the challenge's sets, 4,000 patients each. The published comparisons use 8,000: "ab".
    every : int
        Minutes to which times are rounded down; what falls together is averaged. 1 leaves them as they are, the
        published comparisons use 6.

    Raises
    ------
    FileNotFoundError
        Unless the environment variable NEURALODE_DATA names a folder with ``physionet2012/measurements.parquet`` and
        ``physionet2012/outcomes.parquet``.
    """
    home = data_home("physionet2012", "measurements.parquet", "outcomes.parquet")
    wanted = list(sets)
    outcomes = pd.read_parquet(home / "outcomes.parquet", filters=[("set", "in", wanted)]).sort_values("record_id")
    table = pd.read_parquet(home / "measurements.parquet", filters=[("set", "in", wanted)])
    table["parameter"] = table["parameter"].astype(str)
    table = table.loc[table["parameter"] != "RecordID"]
    patient = np.searchsorted(outcomes["record_id"].to_numpy(), table["record_id"].to_numpy())

    once = table["parameter"].isin((*STATIC, "ICUType")).to_numpy()
    static = _static(table.loc[once], patient[once], len(outcomes))
    measured = ~once & ~((table["parameter"] == "Weight") & (table["value"] < 0)).to_numpy()
    table, patient = table.loc[measured], patient[measured]
    channels = tuple(sorted(table["parameter"].unique()))
    skewed = table["parameter"].isin(SKEWED).to_numpy()
    value = np.array(table["value"], np.float64)
    value[skewed] = np.log1p(value[skewed])
    channel = np.searchsorted(np.array(channels), table["parameter"].to_numpy(str))
    minute = table["minute"].to_numpy() // every * every
    observed = _observations(patient, minute, channel, value, len(outcomes), len(channels), static)
    died = torch.tensor(outcomes["in_hospital_death"].to_numpy() == 1)
    some = observed.lengths > 0  # a few records hold no measurement at all
    return Patients(observed[some], died[some], channels)


def _static(table: pd.DataFrame, patient: np.ndarray, patients: int) -> Tensor:
    """Age, gender and height (0 where unknown), which are known, and the kind of unit as indicators."""
    told, known = np.zeros((patients, len(STATIC))), np.zeros((patients, len(STATIC)))
    unit = np.zeros((patients, UNITS))
    parameter, value = table["parameter"].to_numpy(str), table["value"].to_numpy(np.float64)
    for place, name in enumerate(STATIC):
        here = (parameter == name) & (value >= 0)
        told[patient[here], place], known[patient[here], place] = value[here], 1
    here = parameter == "ICUType"
    unit[patient[here], value[here].astype(int) - 1] = 1
    return torch.tensor(np.concatenate((told, known, unit), 1), dtype=torch.float32)


def _standardised(own: Tensor, others: Tensor) -> Tensor:
    """Covariates on the scale on which those known of the others have mean 0 and deviation 1; 0 where unknown."""
    few = len(STATIC)
    known = torch.cat((others[:, few : 2 * few] > 0, torch.ones_like(others[:, few:], dtype=torch.bool)), 1)
    count = known.sum(0).clamp(min=1)
    centre = torch.where(known, others, 0).sum(0) / count
    spread = (torch.where(known, others - centre, 0).square().sum(0) / count).sqrt().clamp(min=1e-6)
    scaled = (own - centre) / spread
    return torch.cat((scaled[:, :few] * (own[:, few : 2 * few] > 0), scaled[:, few:]), 1)


def _observations(
    patient: np.ndarray,
    minute: np.ndarray,
    channel: np.ndarray,
    value: np.ndarray,
    patients: int,
    channels: int,
    static: Tensor,
) -> Observations:
    """Pad all series at once: of millions of measurements none is touched by Python."""
    moments, moment = np.unique(patient * 10_000 + minute, return_inverse=True)  # times of all patients, in order
    owner = moments // 10_000
    lengths = np.bincount(owner, minlength=patients)
    step = np.arange(len(moments)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = (owner[moment], step[moment], channel)
    shape = (patients, int(lengths.max()), channels)
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    np.add.at(total, place, value)
    np.add.at(count, place, 1)
    times = np.zeros(shape[:2])
    times[owner, step] = moments % 10_000 / MINUTES
    times = np.maximum.accumulate(times, 1)  # behind the end: the last time again
    return Observations(
        torch.tensor(times),
        torch.tensor(total / np.maximum(count, 1)),
        torch.tensor(count > 0),
        torch.tensor(lengths),
        torch.zeros(patients, dtype=torch.float64),
        static,
    )


def _within(values: np.ndarray) -> np.ndarray:
    """Values without the outermost thousandth at each end: slips of the pen (a pH of 735) would set the scale."""
    low, high = np.nanquantile(values, (0.001, 0.999), axis=0)
    return np.where((values >= low) & (values <= high), values, np.nan)
