"""Turns image bytes into arrays of the training size, in processes that can be killed."""
