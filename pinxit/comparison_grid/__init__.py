"""Comparison grids: pictures over one, two or three settings, drawn as one labelled sheet."""
