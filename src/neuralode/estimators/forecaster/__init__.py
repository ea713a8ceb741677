"""Forecast and impute irregular series of a table by a latent ODE."""
