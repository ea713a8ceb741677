"""Estimators in scikit-learn's manner: `fit`, `predict`, `score`, and folders to keep them in."""

from neuralode.core.extras import require

require("train", "lightning", "torchmetrics", "safetensors", "sklearn")
require("series", "pandas", "pyarrow")

from neuralode.estimators.density import CNFDensity  # noqa: E402
from neuralode.estimators.forecaster.estimator import LatentODEForecaster  # noqa: E402
from neuralode.estimators.series_classifier.estimator import SeriesClassifier  # noqa: E402  (after the sentences above)
from neuralode.estimators.tabular import ODENetClassifier, ODENetRegressor  # noqa: E402

__all__ = ["CNFDensity", "LatentODEForecaster", "ODENetClassifier", "ODENetRegressor", "SeriesClassifier"]
