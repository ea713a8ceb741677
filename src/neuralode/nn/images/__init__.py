"""ODE-Nets for images."""
