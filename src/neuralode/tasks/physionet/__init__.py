"""Predict mortality of intensive care patients, or impute their measurements (PhysioNet 2012)."""
