"""Errors of forecasts and imputations on held-out observations, compared with baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuralode.estimators.forecaster.baselines import last_value, linear, seasonal
from neuralode.estimators.forecaster.holdout import HeldOut, HeldOutPart
from neuralode.estimators.forecaster.prediction import Draws
from neuralode.training.modules.forecasting import Pair

# (series, target times of each) -> draws for each series
Predict = Callable[[Sequence[Pair], Sequence[np.ndarray]], list[Draws]]
Baseline = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

COLUMNS = ["what", "channel", "values", "model", "last_value", "baseline"]


def compare_with_baselines(predict: Predict, held: HeldOut, channels: Sequence[str]) -> pd.DataFrame:
    """Return the root mean square errors of the model and of baselines, channel by channel.

    Parameters
    ----------
    predict : callable
        The model: from series and target times to draws.
    held : HeldOut
        The series, and the observations to predict.
    channels : sequence of str
        Names of the channels.

    Returns
    -------
    DataFrame
        A row for the forecast of each channel, with the seasonal or linear trend as ``baseline``, and a row for its
        imputation, with linear interpolation as ``baseline``. The column ``values`` counts the held-out values.
    """
    rows: list[dict[str, Any]] = []
    for what, parts, baseline in (("forecast", held.ends, seasonal), ("filling", held.gaps, linear)):
        if parts:
            errors = _errors(predict, baseline, held.train, parts=parts, channels=channels)
            rows += [{"what": what, **row} for row in errors]
    return pd.DataFrame(rows, columns=COLUMNS)


def r_squared(predict: Predict, held: HeldOut) -> float:
    """Return R² of the forecasts of the held-out ends, averaged over the channels that were observed there.

    For values that are all equal, R² is 1 if they were predicted exactly and 0 otherwise, as in scikit-learn.
    """
    predicted, truth = _predict_means(predict, held.train, held.ends), _truth(held.ends)
    scores = []
    for x, y in zip(truth.T, predicted.T, strict=True):
        observed = np.isfinite(x)
        if observed.any():
            residual, total = ((x - y)[observed] ** 2).sum(), ((x[observed] - x[observed].mean()) ** 2).sum()
            scores.append(1 - residual / total if total else float(not residual))
    return float(np.mean(scores))


def rmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the root mean square error over the finite predictions: baselines have none for unobserved channels."""
    error = (predicted - truth)[np.isfinite(predicted)]
    return float(np.sqrt(np.mean(error**2))) if len(error) else float("nan")


def _errors(
    predict: Predict, baseline: Baseline, series: Sequence[Pair], *, parts: list[HeldOutPart], channels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row of errors for each channel with held-out values."""
    truth = _truth(parts)
    predicted = {"model": _predict_means(predict, series, parts)}
    for name, method in (("last_value", last_value), ("baseline", baseline)):
        predicted[name] = np.concatenate([method(*series[part.series], part.times) for part in parts])
    rows = []
    for index, channel in enumerate(channels):
        observed = np.isfinite(truth[:, index])
        if observed.any():
            errors = {name: rmse(x[observed, index], truth[observed, index]) for name, x in predicted.items()}
            rows.append({"channel": channel, "values": int(observed.sum()), **errors})
    return rows


def _predict_means(predict: Predict, series: Sequence[Pair], parts: list[HeldOutPart]) -> np.ndarray:
    """Return the mean predictions for all parts, one after the other: [times, channels]."""
    draws = predict([series[part.series] for part in parts], [part.times for part in parts])
    return np.concatenate([means.mean(0) for means, _ in draws])


def _truth(parts: list[HeldOutPart]) -> np.ndarray:
    return np.concatenate([part.values for part in parts])
