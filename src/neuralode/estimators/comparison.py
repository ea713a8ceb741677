"""Forecasts and fillings of a model beside those of the baselines, on what was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from neuralode.estimators.baselines import last_value, linear, seasonal
from neuralode.estimators.setup import HeldOut
from neuralode.train.forecasting import Pair

# (series, times wanted of each) -> for each series the means drawn and the observations drawn
Answers = Callable[[Sequence[Pair], Sequence[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


COLUMNS = ["what", "channel", "values", "model", "last_value", "baseline"]


def compare(answers: Answers, held: HeldOut, channels: Sequence[str]) -> pd.DataFrame:
    """Root mean square errors, channel by channel.

    Returns
    -------
    DataFrame
        A row for the forecast of each channel (``baseline``: the season before, or the trend) and one for the filling
        of its gaps (``baseline``: straight lines), with how many values were asked.
    """
    rows = []
    for what, asked, other in (("forecast", held.ends, seasonal), ("filling", held.gaps, linear)):
        if not asked:
            continue
        series = [held.train[number] for number, _, _ in asked]
        wanted = [times for _, times, _ in asked]
        truth = np.concatenate([values for *_, values in asked])
        model = np.concatenate([means.mean(0) for means, _ in answers(series, wanted)])
        ways = {"model": model}
        for name, way in (("last_value", last_value), ("baseline", other)):
            ways[name] = np.concatenate([way(*pair, at) for pair, at in zip(series, wanted, strict=True)])
        for place, channel in enumerate(channels):
            seen = np.isfinite(truth[:, place])
            if seen.any():
                errors = {name: rmse(found[seen, place], truth[seen, place]) for name, found in ways.items()}
                rows.append({"what": what, "channel": channel, "values": int(seen.sum()), **errors})
    return pd.DataFrame(rows, columns=COLUMNS)


def rmse(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error, of those that there are (a baseline has none for a channel it has not seen)."""
    error = (found - truth)[np.isfinite(found)]
    return float(np.sqrt(np.mean(error**2))) if len(error) else float("nan")


def r_squared(answers: Answers, held: HeldOut) -> float:
    """R² of forecasts of the held-out ends, averaged over channels."""
    series = [held.train[number] for number, _, _ in held.ends]
    found = np.concatenate([m.mean(0) for m, _ in answers(series, [times for _, times, _ in held.ends])])
    truth = np.concatenate([values for *_, values in held.ends])
    seen = np.isfinite(truth)
    total = np.where(seen, truth - np.nanmean(np.where(seen.any(0), truth, 0), 0), 0)
    missed = np.where(seen, found - truth, 0)
    return float(np.mean(1 - (missed**2).sum(0) / np.maximum((total**2).sum(0), 1e-300)))
