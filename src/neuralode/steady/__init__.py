"""Steady states: solve f(y) = 0, with derivatives by the implicit function theorem."""
