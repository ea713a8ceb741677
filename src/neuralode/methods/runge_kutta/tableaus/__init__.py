"""Coefficients, one file a method, each with its source."""
