"""Forecast noisy spirals: the latent ODE against recurrent networks."""
