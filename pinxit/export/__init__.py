"""Writes a trained model in the formats of other programs: a diffusers folder, or one file."""
