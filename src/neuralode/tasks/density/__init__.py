"""Estimate the density of a table's rows or of two-dimensional points."""
