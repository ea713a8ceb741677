"""Explicit Runge–Kutta methods and the tableaus of all Runge–Kutta methods."""
