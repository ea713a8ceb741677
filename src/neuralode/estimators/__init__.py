"""Estimators with scikit-learn's interface: `fit`, `predict`, `score`, and `save` and `load`."""

from neuralode.core.extras import require

require("train", *("lightning", "torchmetrics", "safetensors", "sklearn"))
require("series", "pandas", "pyarrow")

# These imports need the extras above.
from neuralode.estimators.density import CNFDensity  # noqa: E402
from neuralode.estimators.forecaster.estimator import LatentODEForecaster  # noqa: E402
from neuralode.estimators.series_classifier.estimator import SeriesClassifier  # noqa: E402
from neuralode.estimators.tabular import ODENetClassifier, ODENetRegressor  # noqa: E402

__all__ = ["CNFDensity", "LatentODEForecaster", "ODENetClassifier", "ODENetRegressor", "SeriesClassifier"]
