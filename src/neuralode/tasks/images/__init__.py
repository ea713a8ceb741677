"""Classify images with ODE-Nets and comparable networks."""
