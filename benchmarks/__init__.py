"""Workloads, ours beside our peers in one run: ``python -m benchmarks``."""
