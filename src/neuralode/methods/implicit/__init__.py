"""Implicit Runge–Kutta methods and the systems that their stages solve."""
