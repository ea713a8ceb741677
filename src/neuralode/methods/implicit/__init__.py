"""Implicit Runge–Kutta methods."""
