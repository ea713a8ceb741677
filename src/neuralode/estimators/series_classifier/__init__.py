"""Classify irregular series."""
