"""Image classifiers with a neural ODE inside."""
