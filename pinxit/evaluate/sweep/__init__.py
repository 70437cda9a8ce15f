"""Sweeps: one model measured with every combination of some settings."""
