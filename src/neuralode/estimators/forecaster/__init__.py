"""Forecasting and imputation of irregular series with a latent ODE."""
