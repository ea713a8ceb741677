"""Forecasts and fillings of a model beside those of the baselines, on what was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from neuralode.estimators.forecaster.baselines import last_value, linear, seasonal
from neuralode.estimators.forecaster.sizes import HeldOut
from neuralode.training.modules.forecasting import Pair

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
    """R² of forecasts of the held-out ends, averaged over the channels that were seen there.

    Of values that are all the same it is 1 if they were met and 0 if not, as in scikit-learn.
    """
    series = [held.train[number] for number, _, _ in held.ends]
    found = np.concatenate([means.mean(0) for means, _ in answers(series, [times for _, times, _ in held.ends])])
    truth = np.concatenate([values for *_, values in held.ends])
    scores = []
    for x, y in zip(truth.T, found.T, strict=True):
        seen = np.isfinite(x)
        if seen.any():
            missed, total = ((x - y)[seen] ** 2).sum(), ((x[seen] - x[seen].mean()) ** 2).sum()
            scores.append(1 - missed / total if total else float(not missed))
    return float(np.mean(scores))
