"""Fit a latent ODE to the series of a table."""
