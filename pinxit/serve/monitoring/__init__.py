"""Tells whether the server lives, whether it can draw, and how it fares."""
