"""Steady states and their derivatives."""
