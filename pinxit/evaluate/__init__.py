"""Measures a model: prompt accuracy, validation loss by time, and the effect of captions."""
