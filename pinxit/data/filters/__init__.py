"""Decides which rows are worth fetching, and counts why the others are not."""
