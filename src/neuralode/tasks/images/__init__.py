"""Classify images by ODE-Nets and their rivals."""
