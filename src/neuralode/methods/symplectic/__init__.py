"""Symplectic methods for pairs (q, p)."""
