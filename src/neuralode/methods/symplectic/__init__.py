"""Symplectic compositions for pairs (q, p)."""
