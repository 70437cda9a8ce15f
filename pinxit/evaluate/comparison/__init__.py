"""Comparisons: several models measured with the same prompts and seeds."""
