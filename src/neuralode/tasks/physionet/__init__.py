"""Predict in-hospital mortality, or impute missing measurements (PhysioNet 2012)."""
