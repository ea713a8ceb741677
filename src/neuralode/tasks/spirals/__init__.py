"""Forecast noisy spirals with a latent ODE or a recurrent network."""
