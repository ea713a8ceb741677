"""PhysioNet/CinC Challenge 2012 [1]_: irregular measurements of 12,000 ICU patients over 48 hours.

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

import pandas as pd  # noqa: E402  (needs the extra above)

MINUTES = 48 * 60.0  # of a record, which is one unit of time

STATIC = ("Age", "Gender", "Height")  # given once, at minute 0; -1 means unknown
ICU_TYPES = 4  # coronary care, cardiac surgery recovery, medical, surgical
BOUND = 5.0  # of standardized values
MINUTES_BOUND = 10_000  # more than any minute of a record

# Channels that range over orders of magnitude are transformed to log(1 + x).
SKEWED = (
    "ALP", "ALT", "AST", "BUN", "Bilirubin", "Creatinine", "FiO2", "Glucose", "Lactate", "PaO2", "Platelets",
    "TroponinI", "TroponinT", "Urine", "WBC",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Patients:
    """Series and outcomes of patients.

    Attributes
    ----------
    observed : Observations
        Times in units of 48 hours, values as measured, or log(1 + x) for skewed channels. The covariates are age,
        gender and height (0 where unknown), indicators of which of them are known, and indicators of the ICU type.
    died : BoolTensor[patients]
        Whether the patient died in hospital.
    channels : tuple of str
        Names of the channels.
    """

    observed: Observations
    died: Bool[Tensor, " patients"]
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.died)

    def __getitem__(self, rows: Tensor) -> Patients:
        """Return the patients with these indices."""
        return Patients(self.observed[rows], self.died[rows], self.channels)

    def standardized(self, reference: Patients) -> Patients:
        """Return the patients standardized by mean and deviation of ``reference``, clipped to 5 deviations.

        Parameters
        ----------
        reference : Patients
            The patients whose values and covariates get mean 0 and deviation 1, usually the training set.
        """
        observed, static = reference.observed, reference.observed.static
        assert static is not None
        assert self.observed.static is not None
        values = torch.where(observed.seen, observed.values, torch.nan).flatten(0, 1)
        scaling = Scaling.fit(_without_outliers(values.double().numpy()), logs=False)
        mean, deviation = (torch.tensor(x, dtype=torch.float32) for x in (scaling.mean, scaling.deviation))
        values = ((self.observed.values - mean) / deviation).clamp(-BOUND, BOUND)
        covariates = _standardize_covariates(self.observed.static, static)
        return replace(
            self,
            observed=replace(self.observed, values=torch.where(self.observed.seen, values, 0), static=covariates),
        )


def physionet(sets: str = "abc", every: int = 1) -> Patients:
    """Load the patients from the folder that the environment variable NEURALODE_DATA names.

    Parameters
    ----------
    sets : str, default='abc'
        Sets of the challenge, of 4,000 patients each. Published comparisons use 8,000 patients, 'ab'.
    every : int, default=1
        Minutes to which times are rounded down; measurements at the same time are averaged. Published comparisons use
        6 minutes.

    Returns
    -------
    Patients
        The patients with at least one measurement, ordered by record.

    Raises
    ------
    FileNotFoundError
        If ``physionet2012/measurements.parquet`` or ``physionet2012/outcomes.parquet`` does not exist in that folder.
    """
    home = data_home("physionet2012", "measurements.parquet", "outcomes.parquet")
    in_sets = [("set", "in", list(sets))]
    outcomes = pd.read_parquet(home / "outcomes.parquet", filters=in_sets).sort_values("record_id")
    table = pd.read_parquet(home / "measurements.parquet", filters=in_sets)
    table["parameter"] = table["parameter"].astype(str)
    table = table.loc[table["parameter"] != "RecordID"]
    table["patient"] = np.searchsorted(outcomes["record_id"].to_numpy(), table["record_id"].to_numpy())

    once = table["parameter"].isin((*STATIC, "ICUType"))
    static = _covariates(table.loc[once], len(outcomes))
    unknown_weight = (table["parameter"] == "Weight") & (table["value"] < 0)
    table = table.loc[~once & ~unknown_weight]
    table["minute"] = table["minute"] // every * every
    channels = tuple(sorted(table["parameter"].unique()))
    observed = replace(_observations(table, channels, len(outcomes)), static=static)
    died = torch.tensor(outcomes["in_hospital_death"].to_numpy() == 1)
    measured = observed.lengths > 0  # a few records have no measurement
    return Patients(observed[measured], died[measured], channels)


def _covariates(table: pd.DataFrame, patients: int) -> Tensor:
    """Return age, gender and height (0 where unknown), which of them are known, and indicators of the ICU type."""
    given, known = np.zeros((patients, len(STATIC))), np.zeros((patients, len(STATIC)))
    icu_type = np.zeros((patients, ICU_TYPES))
    patient, parameter = table["patient"].to_numpy(), table["parameter"].to_numpy(str)
    value = table["value"].to_numpy(np.float64)
    for column, name in enumerate(STATIC):
        rows = (parameter == name) & (value >= 0)
        given[patient[rows], column], known[patient[rows], column] = value[rows], 1
    rows = parameter == "ICUType"
    icu_type[patient[rows], value[rows].astype(int) - 1] = 1
    return torch.tensor(np.concatenate((given, known, icu_type), 1), dtype=torch.float32)


def _standardize_covariates(static: Tensor, reference: Tensor) -> Tensor:
    """Return covariates standardized by the known covariates of ``reference``; 0 where unknown."""
    count = len(STATIC)
    known = torch.cat((reference[:, count : 2 * count] > 0, torch.ones_like(reference[:, count:], dtype=torch.bool)), 1)
    number = known.sum(0).clamp(min=1)
    mean = torch.where(known, reference, 0).sum(0) / number
    deviation = (torch.where(known, reference - mean, 0).square().sum(0) / number).sqrt().clamp(min=1e-6)
    scaled = (static - mean) / deviation
    return torch.cat((scaled[:, :count] * (static[:, count : 2 * count] > 0), scaled[:, count:]), 1)


def _observations(table: pd.DataFrame, channels: tuple[str, ...], patients: int) -> Observations:
    """Return the padded series of all patients, without a Python loop over millions of measurements."""
    patient, parameter = table["patient"].to_numpy(), table["parameter"].to_numpy(str)
    channel = np.searchsorted(np.array(channels), parameter)
    value = np.array(table["value"], np.float64)
    skewed = np.isin(parameter, SKEWED)
    value[skewed] = np.log1p(value[skewed])

    # The distinct times of all patients, in order.
    times, time_index = np.unique(patient * MINUTES_BOUND + table["minute"].to_numpy(), return_inverse=True)
    owner = times // MINUTES_BOUND
    lengths = np.bincount(owner, minlength=patients)
    step = np.arange(len(times)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = (owner[time_index], step[time_index], channel)
    shape = (patients, int(lengths.max()), len(channels))
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    np.add.at(total, index, value)
    np.add.at(count, index, 1)
    padded = np.zeros(shape[:2])
    padded[owner, step] = times % MINUTES_BOUND / MINUTES
    return Observations(
        times=torch.tensor(np.maximum.accumulate(padded, 1)),  # the last time is repeated as padding
        values=torch.tensor(total / np.maximum(count, 1)),
        seen=torch.tensor(count > 0),
        lengths=torch.tensor(lengths),
        start=torch.zeros(patients, dtype=torch.float64),
    )


def _without_outliers(values: np.ndarray) -> np.ndarray:
    """Return the values with the extreme 0.1 % at each end set to NaN: typing errors, such as a pH of 735."""
    low, high = np.nanquantile(values, (0.001, 0.999), axis=0)
    return np.where((values >= low) & (values <= high), values, np.nan)
